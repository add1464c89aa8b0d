"""Folder, ZIP, OpenRaster and SVG, and the choice by extension."""

import base64
import json
import re
import zipfile
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from torture import names, noise, torture_stack

from mrt_core.documents import budget as budgets
from mrt_core.documents import load, save
from mrt_core.documents.png_zip import encode_png
from mrt_core.errors import MRTError
from mrt_core.geometry import Size
from mrt_core.stacks.layers import BLEND_MODES, PASS_THROUGH, Group, Layer, LayerStack, composite


def one(**fields) -> LayerStack:
    return LayerStack(Size(4, 4), (Layer(noise(4, 4, 0), 0, 0, "a", **fields),))


def same(a, b) -> bool:
    """Whether two nodes, or two stacks, are equal in everything."""
    if isinstance(a, LayerStack):
        return (
            (a.frame, a.metadata) == (b.frame, b.metadata)
            and len(a.layers) == len(b.layers)
            and all(map(same, a.layers, b.layers))
        )
    if isinstance(a, Group):
        return (
            isinstance(b, Group)
            and replace(a, layers=()).__dict__ == replace(b, layers=()).__dict__
            and len(a.layers) == len(b.layers)
            and all(map(same, a.layers, b.layers))
        )
    fields = {name: value for name, value in a.__dict__.items() if name != "pixels"}
    return np.array_equal(a.pixels, b.pixels) and fields == {n: v for n, v in b.__dict__.items() if n != "pixels"}


@pytest.mark.parametrize("name", ["folder", "a.zip", "a.ora"])
def test_lossless_formats(name, tmp_path: Path):
    stack = torture_stack()
    save(stack, tmp_path / name)
    assert same(load(tmp_path / name), stack)
    assert np.array_equal(composite(load(tmp_path / name)), composite(stack))


@pytest.mark.parametrize("name", ["folder", "a.zip", "a.ora"])
def test_colour_under_transparency_and_odd_numbers_survive(name, tmp_path: Path):
    pixels = noise(5, 3, 7)
    pixels[2, 1] = (9, 8, 7, 0)
    stack = LayerStack(Size(1, 9), (Layer(pixels, -(10**6), 10**6, "a\u2028b", "c", 1 / 3, "divide", False),))
    save(stack, tmp_path / name)
    back = load(tmp_path / name)
    assert np.array_equal(back.layers[0].pixels, pixels)
    assert (back.layers[0].opacity, back.layers[0].x) == (1 / 3, -(10**6))


@pytest.mark.parametrize("name", ["folder", "a.zip"])
def test_layers_without_area_survive(name, tmp_path: Path):
    stack = LayerStack(
        Size(4, 4),
        (Layer(np.zeros((0, 5, 4), np.uint8), 1, 2, "flat"), Layer(np.zeros((3, 0, 4), np.uint8), 1, 2, "thin")),
    )
    save(stack, tmp_path / name)
    assert [layer.pixels.shape for layer in load(tmp_path / name).layers] == [(0, 5, 4), (3, 0, 4)]


@pytest.mark.parametrize("name", ["a.zip", "a.ora"])
def test_save_load_save_is_byte_identical(name, tmp_path: Path):
    save(torture_stack(), tmp_path / name)
    save(load(tmp_path / name), tmp_path / f"b{name}")
    assert (tmp_path / name).read_bytes() == (tmp_path / f"b{name}").read_bytes()


@pytest.mark.parametrize("name", ["a.zip", "a.ora"])
@pytest.mark.parametrize("mode", BLEND_MODES)
def test_every_blend_mode_comes_back(name, mode, tmp_path: Path):
    layer = Layer(noise(2, 2, 0), 0, 0, "a", blend_mode=mode)
    groups = (Group((layer,), "g", blend_mode=mode), Group((layer,), "p", blend_mode=PASS_THROUGH))
    save(LayerStack(Size(2, 2), (layer, *groups)), tmp_path / name)
    assert [node.blend_mode for node in load(tmp_path / name).layers] == [mode, mode, PASS_THROUGH]


def test_folder_is_what_it_says(tmp_path: Path):
    save(torture_stack(), tmp_path / "folder")
    manifest = json.loads((tmp_path / "folder" / "manifest.json").read_text())
    assert (manifest["format"], manifest["version"], manifest["frame"]) == (
        "mrt-layers", 1, {"width": 320, "height": 240},
    )  # fmt: skip
    first = manifest["layers"][0]
    with Image.open(tmp_path / "folder" / first["file"]) as image:
        assert image.size == (first["width"], first["height"]) == (320, 240)
    listed = [item for node in manifest["layers"] for item in node.get("layers", [node])]
    files = sorted(item["file"] for item in listed if "file" in item)
    assert all(re.fullmatch(r"\d{3}-[a-z0-9-]+-[0-9a-f]{8}\.png", file) for file in files)
    assert len(list((tmp_path / "folder").iterdir())) == 12  # 11 images and the manifest


def test_overwritten_folder_loses_old_images_but_not_other_files(tmp_path: Path):
    path = tmp_path / "folder"
    save(torture_stack(), path)
    (path / "notes.txt").write_text("mine")
    save(one(), path, overwrite=True)
    assert sorted(file.suffix for file in path.iterdir()) == [".json", ".png", ".txt"]
    assert same(load(path), one())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m | {"format": "other"}, "is 'other' version 1"),
        (lambda m: m | {"version": 2}, "this reads"),
        (lambda m: {k: v for k, v in m.items() if k != "frame"}, "damaged"),
        (lambda m: m | {"layers": [{"name": "a"}]}, "damaged"),
        (lambda m: m | {"layers": 3}, "damaged"),
        (lambda m: m | {"layers": [m["layers"][0] | {"file": "../../secret.png"}]}, "only a plain file name"),
        (lambda m: m | {"layers": [m["layers"][0] | {"file": "missing.png"}]}, "Cannot read"),
        (lambda m: m | {"layers": [m["layers"][0] | {"file": "manifest.json"}]}, "cannot be decoded"),
        (lambda m: m | {"layers": [m["layers"][0] | {"x": float("inf")}]}, "Infinity is no number that JSON has"),
        (lambda m: m | {"layers": [m["layers"][0] | {"opacity": float("nan")}]}, "NaN is no number that JSON has"),
        (lambda m: m | {"metadata": {"a": float("-inf")}}, "-Infinity is no number that JSON has"),
        (lambda m: m | {"frame": {"width": 10**400, "height": 3}}, "a document has 1 to 300000 px a side"),
        (lambda m: m | {"frame": {"width": 0, "height": 3}}, "a document has 1 to 300000 px a side"),
    ],
    ids=range(13),
)
def test_damaged_manifest_is_one_clear_error(change, message, tmp_path: Path):
    save(one(), tmp_path / "folder")
    path = tmp_path / "folder" / "manifest.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(MRTError, match=message) as caught:
        load(tmp_path / "folder")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a.zip", "a.ora"])
def test_damaged_archive_is_one_clear_error(name, tmp_path: Path):
    save(torture_stack(), tmp_path / name)
    data = (tmp_path / name).read_bytes()
    for length in (0, 10, len(data) // 2, len(data) - 30):
        (tmp_path / name).write_bytes(data[:length])
        with pytest.raises(MRTError, match="ZIP"):
            load(tmp_path / name)


def test_number_beyond_a_float_in_a_manifest_is_damage(tmp_path: Path):
    save(one(), tmp_path / "folder")
    path = tmp_path / "folder" / "manifest.json"
    path.write_text(path.read_text().replace('"opacity": 1.0', '"opacity": 1e999'))
    with pytest.raises(MRTError, match="1e999 is no number that JSON has"):
        load(tmp_path / "folder")


@pytest.mark.parametrize("name", ["a.zip", "a.ora", "folder"])
def test_bomb_is_refused_before_it_is_unpacked(name, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(budgets, "MAX_PIXELS", 15)
    save(one(), tmp_path / name)
    with pytest.raises(
        MRTError, match="With the 4 x 4 px of 'a' the document unpacks to 16 pixels, and 15 are allowed"
    ):
        load(tmp_path / name)


@pytest.mark.parametrize(("name", "member"), [("a.zip", "manifest.json"), ("a.ora", "stack.xml")])
def test_description_that_unpacks_to_far_too_much_is_refused(name, member, tmp_path: Path):
    with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mimetype", "image/openraster")
        archive.writestr(member, b" " * 2**25)
    with pytest.raises(MRTError, match=rf"'{member}' in .* unpacks to more than the \d+ bytes that are allowed"):
        load(tmp_path / name)


def test_openraster_is_laid_out_as_specified(tmp_path: Path):
    stack = torture_stack()
    save(stack, tmp_path / "a.ora")
    with zipfile.ZipFile(tmp_path / "a.ora") as archive:
        first = archive.infolist()[0]
        assert (first.filename, first.compress_type) == ("mimetype", zipfile.ZIP_STORED)
        assert archive.read("mimetype") == b"image/openraster"
        image = ElementTree.fromstring(archive.read("stack.xml"))
        with archive.open("mergedimage.png") as file, Image.open(file) as merged:
            assert np.array_equal(np.asarray(merged), composite(stack))
        with archive.open("Thumbnails/thumbnail.png") as file, Image.open(file) as thumbnail:
            assert thumbnail.size == (256, 192)
    assert image.attrib == {"version": "0.0.6", "w": "320", "h": "240"}
    topmost, *_, lowest = image.find("stack")
    assert topmost.attrib["name"] == "opacity 254" and lowest.attrib["name"] == "Background"
    group = next(element for element in image.find("stack") if element.tag == "stack")
    assert (group.attrib["name"], group.attrib["isolation"], float(group.attrib["opacity"])) == (
        "组 一",
        "isolate",
        0.6,
    )


def test_openraster_of_another_program(tmp_path: Path):
    xml = """<?xml version='1.0'?><image w="9" h="8"><stack>
        <layer src="data/b.png" name="glow" composite-op="other:glow" x="-3"/>
        <stack name="g"><layer src="data/a.png" visibility="hidden" opacity="0.5" composite-op="svg:multiply"/></stack>
        </stack></image>"""
    with zipfile.ZipFile(tmp_path / "a.ora", "w") as archive:
        archive.writestr("mimetype", "image/openraster")
        archive.writestr("stack.xml", xml)
        archive.writestr("data/a.png", encode_png(noise(2, 3, 0)))
        archive.writestr("data/b.png", encode_png(noise(4, 4, 1)))
    stack = load(tmp_path / "a.ora")
    group, glow = stack.layers
    (inside,) = group.layers
    assert stack.frame == (9, 8) and (group.name, group.blend_mode) == ("g", "normal")
    assert (inside.visible, inside.opacity, inside.blend_mode) == (False, 0.5, "multiply")
    assert (glow.x, glow.y, glow.blend_mode) == (-3, 0, "normal")
    assert stack.warnings == ('Layer "glow": its blend mode "other:glow" is not known and was read as "normal".',)


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        (b"<image", "damaged"),
        (b"<image w='1' h='1'/>", "no layer stack"),
        (b"<!DOCTYPE a [<!ENTITY b 'c'>]><image w='1' h='1'><stack/></image>", "declarations"),
        (b"<image w='x' h='1'><stack/></image>", "damaged"),
        (b"<image w='1' h='1'><stack><layer src='../../etc/passwd'/></stack></image>", "Cannot read"),
        (b"<image w='1' h='1'>" + b"<stack>" * 5000 + b"</stack>" * 5000 + b"</image>", "damaged"),
    ],
    ids=range(6),
)
def test_damaged_openraster_is_one_clear_error(xml, message, tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "a.ora", "w") as archive:
        archive.writestr("mimetype", "image/openraster")
        archive.writestr("stack.xml", xml)
    with pytest.raises(MRTError, match=message):
        load(tmp_path / "a.ora")


def test_svg_holds_every_layer(tmp_path: Path):
    stack = torture_stack()
    save(stack, tmp_path / "a.svg")
    root = ElementTree.parse(tmp_path / "a.svg").getroot()
    svg, xlink = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"
    label = "{http://www.inkscape.org/namespaces/inkscape}label"
    groups = list(root.iter(f"{svg}g"))
    assert sorted(group.get(label) for group in groups) == sorted(names(stack.layers))
    images = list(root.iter(f"{svg}image"))
    assert len(images) == 11
    for image, layer in zip(images, stack.flat(), strict=True):
        assert (int(image.get("x")), int(image.get("y"))) == (layer.x, layer.y)
        data = base64.b64decode(image.get(f"{xlink}href").partition("base64,")[2])
        (tmp_path / "one.png").write_bytes(data)
        with Image.open(tmp_path / "one.png") as decoded:
            assert np.array_equal(np.asarray(decoded), layer.pixels)
    styles = {group.get(label): group.get("style") for group in groups}
    assert styles["组 一"] == "opacity:0.6;isolation:isolate"
    assert styles["slash / back\\slash"] == "opacity:0.8;mix-blend-mode:multiply"
    assert [group.get(label) for group in groups if group.get("display") == "none"] == ["hidden"]
    assert json.loads(root.find(f"{svg}metadata").text) == stack.metadata


def test_svg_warns_of_modes_that_it_lacks(tmp_path: Path, caplog):
    save(one(blend_mode="vivid-light"), tmp_path / "a.svg")
    assert 'Layer "a": SVG has no blend mode "vivid-light"' in caplog.text


@pytest.mark.parametrize("function", [save, load], ids=["save", "load"])
@pytest.mark.parametrize("name", ["a.tiff", "a.PNG", "a.psd.bak"])
def test_unknown_extension(function, name, tmp_path: Path):
    arguments = (one(), tmp_path / name) if function is save else (tmp_path / name,)
    with pytest.raises(MRTError, match=r"use one of \.psd, \.psb, \.ora, \.zip.* or no extension for a folder"):
        function(*arguments)


def test_svg_is_not_read(tmp_path: Path):
    save(one(), tmp_path / "a.svg")
    with pytest.raises(MRTError, match='the extension ".svg", which cannot be read'):
        load(tmp_path / "a.svg")


def test_extension_in_capitals_and_path_as_text(tmp_path: Path):
    save(one(), str(tmp_path / "A.PSD"))
    assert load(str(tmp_path / "A.PSD")).frame == (4, 4)


@pytest.mark.parametrize("name", ["a.psd", "a.ora", "a.svg"])
def test_unknown_mode_is_refused(name, tmp_path: Path):
    with pytest.raises(MRTError, match='has the blend mode "glow"'):
        save(one(blend_mode="glow"), tmp_path / name)
    assert list(tmp_path.iterdir()) == []
