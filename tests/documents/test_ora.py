"""OpenRaster of other programs and people: read as leniently as it is written, and what is not exact is named."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torture import noise

from mrt_core.documents import load, save
from mrt_core.documents.png_zip import encode_png
from mrt_core.errors import MRTError
from mrt_core.geometry import Box, Size
from mrt_core.stacks.layers import BLEND_MODES, Group, Layer, LayerStack, composite

CASES = Path(__file__).parents[1] / "data" / "ora"
IMAGE = '<?xml version="1.0" encoding="UTF-8"?><image w="9" h="8"><stack>{}</stack></image>'
A, B = noise(4, 4, 0, (255, 256)), noise(3, 4, 1)


def written(tmp_path: Path, xml: str | bytes, mimetype: str | None = "image/openraster", **members: bytes) -> Path:
    """A file with the opaque layer data/a.png (4 x 4) and the translucent data/b.png (4 x 3)."""
    path = tmp_path / "a.ora"
    with zipfile.ZipFile(path, "w") as archive:
        if mimetype is not None:
            archive.writestr("mimetype", mimetype)
        archive.writestr("stack.xml", xml)
        archive.writestr("data/a.png", encode_png(A))
        archive.writestr("data/b.png", encode_png(B))
        for name, data in members.items():
            archive.writestr(f"data/{name}.png", data)
    return path


def read(tmp_path: Path, layers: str, **members: bytes) -> LayerStack:
    return load(written(tmp_path, IMAGE.format(layers), **members))


def case(name: str) -> LayerStack:
    return load(CASES / name)


def stored(name: str, member: str) -> np.ndarray:
    with zipfile.ZipFile(CASES / name) as archive, Image.open(io.BytesIO(archive.read(member))) as image:
        return np.asarray(image)


def test_case_offset_of_a_stack_moves_what_is_in_it():
    (group,) = case("01_group_offset.ora").layers
    assert (group.layers[0].x, group.layers[0].y) == (12, 14)


@pytest.mark.parametrize("name", ["02_comment.ora", "10_no_mimetype.ora"])
def test_case_read_without_complaint(name):
    stack = case(name)
    assert [layer.name for layer in stack.layers] == ["a"] and stack.warnings == ()
    assert np.array_equal(stack.layers[0].pixels, stored(name, "data/a.png"))


@pytest.mark.parametrize(("name", "lost"), [("04_svg_layer.ora", "vector"), ("05_empty_png.ora", "lost")])
def test_case_unreadable_layer_costs_that_layer(name, lost):
    stack = case(name)
    assert [layer.name for layer in stack.layers] == ["a"]
    (warning,) = stack.warnings
    assert warning.startswith(f'Layer "{lost}": it was left out.') and " object at " not in warning


@pytest.mark.parametrize("name", ["18_src_atop.ora", "45_alpha_preserve.ora"])
def test_case_clipped_to_what_lies_below(name):
    stack = case(name)
    base, clip = stack.layers
    assert (clip.name, clip.x, clip.y, clip.blend_mode) == ("clip", 4, 4, "normal")
    below = composite(LayerStack(stack.frame, (base,)), clip.box)[..., 3].astype(np.float64) / 255
    assert (below == 0).any() and (below > 0).any()
    assert np.array_equal(clip.pixels[..., 3], np.rint(stored(name, "data/a.png")[..., 3] * below))
    assert stack.warnings == ('Layer "clip": it is clipped to what lies below it, which was worked into its alpha.',)


def test_case_16_bit_gray_layer_is_scaled():
    (layer,) = case("22_gray16.ora").layers
    expected = np.rint(stored("22_gray16.ora", "data/g.png").astype(np.float64) / 257)
    assert np.array_equal(layer.pixels[..., 1], expected)


@pytest.mark.parametrize("mode", ["linear_dodge", "soft_light"])
def test_case_krita_mode(mode):
    stack = case(f"50_krita_{mode}.ora")
    assert stack.layers[1].blend_mode == mode.replace("_", "-") and stack.warnings == ()


@pytest.mark.parametrize(
    ("operator", "mode"),
    [
        ("krita:burn", "color-burn"), ("krita:dodge", "color-dodge"), ("krita:diff", "difference"),
        ("krita:multiply", "multiply"), ("krita:luminize", "luminosity"), ("krita:add", "linear-dodge"),
        ("krita:hard_light", "hard-light"), ("krita:soft_light_svg", "soft-light"), ("krita:hard mix", "hard-mix"),
        ("krita:linear light", "linear-light"), ("svg:exclusion", "exclusion"), ("SVG:Multiply", "multiply"),
        ("multiply", "multiply"), ("krita:darker color", "darker-color"), ("svg:add", "linear-dodge"),
    ],
)  # fmt: skip
def test_modes_in_every_spelling(operator, mode, tmp_path: Path):
    stack = read(tmp_path, f'<layer name="a" src="data/a.png" composite-op="{operator}"/>')
    assert stack.layers[0].blend_mode == mode and stack.warnings == ()


def test_krita_pass_through_group(tmp_path: Path):
    stack = read(tmp_path, '<stack name="g" composite-op="krita:pass through"><layer src="data/a.png"/></stack>')
    assert stack.layers[0].blend_mode == "pass-through" and stack.warnings == ()
    stack = read(tmp_path, '<layer name="a" composite-op="krita:pass through" src="data/a.png"/>')
    assert stack.layers[0].blend_mode == "normal" and "is not known" in stack.warnings[0]


def test_erasing_layer_leaves_the_others_with_less_alpha(tmp_path: Path):
    stack = read(
        tmp_path,
        '<layer name="rubber" composite-op="svg:dst-out" opacity="0.5" src="data/b.png" x="1" y="2"/>'
        '<stack name="g"><layer name="low" src="data/a.png"/></stack>',
    )
    (group,) = stack.layers
    (low,) = group.layers
    left = np.ones((4, 4))
    left[2:, 1:] -= B[:2, :3, 3] / 255 * 0.5
    assert np.abs(low.pixels[..., 3] - A[..., 3] * left).max() <= 0.5001
    assert np.array_equal(low.pixels[..., :3], A[..., :3])
    assert stack.warnings == (
        'Layer "rubber": it erases what lies below it, which was worked into the alpha of those layers.',
    )


def test_masking_layer_leaves_only_what_it_covers(tmp_path: Path):
    stack = read(
        tmp_path,
        '<layer name="m" composite-op="svg:dst-in" src="data/a.png" x="2"/><layer name="low" src="data/a.png"/>',
    )
    (low,) = stack.layers
    assert (low.pixels[:, :2, 3] == 0).all() and (low.pixels[:, 2:, 3] == 255).all()


def test_hidden_erasing_layer_erases_nothing(tmp_path: Path):
    stack = read(
        tmp_path,
        '<layer name="r" composite-op="svg:dst-out" visibility="hidden" src="data/b.png"/><layer src="data/a.png"/>',
    )
    assert np.array_equal(stack.layers[0].pixels, A) and not stack.layers[1].visible and len(stack.warnings) == 1


def test_clipped_group_and_clipping_ends_with_the_stack(tmp_path: Path):
    stack = read(
        tmp_path,
        '<stack name="g"><layer name="clip" alpha-preserve="true" src="data/a.png"/></stack>'
        '<stack name="h" alpha-preserve="true"><layer src="data/a.png" x="1"/></stack><layer src="data/a.png"/>',
    )
    _, clipped, lonely = stack.layers
    assert (clipped.layers[0].pixels[:, :3, 3] == 255).all() and (clipped.layers[0].pixels[:, 3, 3] == 0).all()
    assert (lonely.layers[0].pixels[..., 3] == 0).all()  # nothing lies below it in its own stack


def test_numbers_as_people_write_them(tmp_path: Path):
    path = written(
        tmp_path,
        '\n<image w="9.0" h=" 8 "><stack x="1">'
        '<layer name="a" src="./data/a.png" x="3.0" y="-2,5" opacity="0,5"/></stack></image>',
    )
    stack = load(path)
    assert stack.frame == (9, 8) and stack.layers[0].box == Box(4, -2, 4, 4) and stack.layers[0].opacity == 0.5
    assert stack.warnings == ("Layer \"a\": its y '-2,5' was rounded to -2.",)


@pytest.mark.parametrize("source", ["./data/a.png", "/data/a.png", "data\\a.png", "data/%61.png", "x/../data/a.png"])
def test_paths_as_people_write_them(source, tmp_path: Path):
    assert np.array_equal(read(tmp_path, f'<layer src="{source}"/>').layers[0].pixels, A)


@pytest.mark.parametrize(
    ("attribute", "warning"),
    [
        ('x="abc"', "its x 'abc' cannot be read and was taken for 0."),
        ('x="1e999"', "its x '1e999' cannot be read and was taken for 0."),
        ('y="1e30"', "its y '1e30' cannot be read and was taken for 0."),
        ('opacity="nan"', "its opacity 'nan' is none from 0 to 1 and was taken for 1."),
        ('opacity="7"', "its opacity '7' is none from 0 to 1 and was taken for 1."),
        ('visibility="maybe"', "its visibility 'maybe' is not known and was taken for \"visible\"."),
        ('rotation="90"', "what is not known was left out: 'rotation'."),
        ('xmlns:q="urn:q" q:glow="3"', "what is not known was left out: 'glow'."),
    ],
)
def test_what_cannot_be_read_or_is_not_known_is_named(attribute, warning, tmp_path: Path):
    stack = read(tmp_path, f'<layer name="a" src="data/a.png" {attribute}/>')
    assert stack.layers[0].box == Box(0, 0, 4, 4) and stack.warnings == (f'Layer "a": {warning}',)


def test_unknown_elements_are_named(tmp_path: Path):
    stack = read(tmp_path, '<text name="t">hello</text><layer name="a" src="data/a.png"><effect/></layer>')
    assert len(stack.layers) == 1
    assert stack.warnings == (
        "Layer \"a\": it holds elements that are not known and were left out: 'effect'.",
        'The element "text" in the layer stack is not known and was left out.',
    )


def test_attributes_without_a_meaning_for_the_picture_are_no_news(tmp_path: Path):
    assert read(tmp_path, '<layer src="data/a.png" selected="true" edit-locked="false" uuid="{1}"/>').warnings == ()


def test_other_mimetype_and_namespace_and_missing_size(tmp_path: Path):
    xml = '<image xmlns="urn:x"><stack><layer name="a" src="data/a.png" x="2"/></stack></image>'
    stack = load(written(tmp_path, xml, "application/ora"))
    assert stack.frame == (6, 4) and len(stack.warnings) == 2
    assert "calls itself 'application/ora'" in stack.warnings[0] and "6 x 4 px were taken" in stack.warnings[1]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le", "utf-16-be"])
def test_entities_are_refused_in_every_encoding(encoding, tmp_path: Path):
    xml = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "c">]><image w="9" h="8"><stack name="&b;"/></image>'
    with pytest.raises(MRTError, match="declarations, which are not read"):
        load(written(tmp_path, ("\ufeff" + xml if "-" in encoding[4:] else xml).encode(encoding)))


def test_utf_16_with_a_comment_is_read(tmp_path: Path):
    xml = IMAGE.replace("UTF-8", "UTF-16").format('<!-- <!DOCTYPE --><layer name="猫" src="data/a.png"/>')
    assert load(written(tmp_path, xml.encode("utf-16"))).layers[0].name == "猫"


def test_document_without_a_readable_layer_is_refused(tmp_path: Path):
    with pytest.raises(MRTError, match="The image of layer 'a' cannot be decoded") as refused:
        read(tmp_path, '<layer name="a" src="data/e.png"/>', e=b"")
    assert " object at " not in str(refused.value)


def test_caption_stays_with_its_layer_when_another_is_lost(tmp_path: Path):
    layers = tuple(Layer(A, 0, 0, name, caption) for name, caption in (("a", "one"), ("b", "two")))
    save(LayerStack(Size(4, 4), layers), tmp_path / "b.ora")
    with zipfile.ZipFile(tmp_path / "b.ora") as old, zipfile.ZipFile(tmp_path / "c.ora", "w") as new:
        for name in old.namelist():
            new.writestr(name, b"" if name == "data/000.png" else old.read(name))
    (left,) = load(tmp_path / "c.ora").layers
    assert (left.name, left.caption) == ("b", "two")


@pytest.mark.parametrize("notes", [b"{", b"[]", b'{"metadata": {"seed": Infinity}}'])
def test_notes_that_cannot_be_read_are_said(notes, tmp_path: Path):
    path = written(tmp_path, IMAGE.format('<layer src="data/a.png"/>'))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("mrt.json", notes)
    stack = load(path)
    assert stack.metadata == {} and len(stack.layers) == 1
    assert stack.warnings == ("The document: mrt.json cannot be read, so captions and metadata were left out.",)


@pytest.mark.parametrize("size", ['w="0" h="9"', 'w="9" h="1e9"', 'w="-3" h="2"'])
def test_frames_that_no_picture_has(size, tmp_path: Path):
    with pytest.raises(MRTError, match=r"a document has 1 to|it has no width and height"):
        load(written(tmp_path, f"<image {size}><stack/></image>"))


@pytest.mark.parametrize("mode", BLEND_MODES)
def test_own_modes_come_back(mode, tmp_path: Path):
    layer = Layer(A, 0, 0, "a", blend_mode=mode)
    save(LayerStack(Size(4, 4), (layer, Group((layer,), "g", blend_mode=mode))), tmp_path / "b.ora")
    back = load(tmp_path / "b.ora")
    assert [node.blend_mode for node in back.layers] == [mode, mode] and back.warnings == ()
