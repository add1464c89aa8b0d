"""The torture document in other people's readers: names, geometry, pixels and composite, with counts."""

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torture import names, over_white, reference, stored, torture_stack

from mrt_core.documents import save
from mrt_core.documents.psd.writer import save_psd
from mrt_core.geometry import Size
from mrt_core.stacks.layers import Group, Layer, LayerStack

log = logging.getLogger(__name__)

KINDS = {"rle": (".psd", "rle"), "zip": (".psd", "zip"), "psb": (".psb", "rle")}


@pytest.fixture(scope="module", params=KINDS)
def kind(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def document(kind, tmp_path_factory) -> Path:
    suffix, compression = KINDS[kind]
    path = tmp_path_factory.mktemp("documents") / f"torture{suffix}"
    save_psd(torture_stack(), path, compression=compression)
    return path


def expected_layers() -> list[Layer]:
    return [stored(layer) for layer in torture_stack().flat()]


def leaves(nodes: list[dict]) -> list[dict]:
    return [leaf for node in nodes for leaf in (leaves(node["children"]) if "children" in node else [node])]


def names_in(nodes: list[dict]) -> list[str]:
    return [name for node in nodes for name in (*names_in(node.get("children", [])), node["name"])]


def on_white(image: np.ndarray) -> np.ndarray:
    """Straight RGBA in 0..255 (h, w, 4) over white, as floats (h, w, 3)."""
    alpha = image[..., 3:] / 255
    return image[..., :3] * alpha + 255 * (1 - alpha)


def read_image(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGBA")).astype(np.float64)


def error_over_white(program: str, image: np.ndarray, stack: LayerStack) -> np.ndarray:
    """How far a program's picture (h, w, 4) is from the float composite, both over white, in levels (h, w, 3)."""
    error = np.abs(on_white(image) - over_white(reference(stack)))
    log.info("%s: error over white at most %.2f, on average %.3f levels", program, error.max(), error.mean())
    return error


def test_ag_psd(document, ag_psd):
    tree, folder = ag_psd(document)
    assert (tree["width"], tree["height"], tree["channels"]) == (320, 240, 4)
    wanted = names(torture_stack().layers)
    assert sum(a == b for a, b in zip(names_in(tree["children"]), wanted, strict=True)) == 13
    found, layers = leaves(tree["children"]), expected_layers()
    boxes = [(leaf["left"], leaf["top"], leaf["right"], leaf["bottom"]) for leaf in found]
    assert sum(a == (b.x, b.y, b.box.right, b.box.bottom) for a, b in zip(boxes, layers, strict=True)) == 11
    pixels = [np.fromfile(folder / leaf["pixels"], np.uint8) for leaf in found]
    assert sum(np.array_equal(a, b.pixels.ravel()) for a, b in zip(pixels, layers, strict=True)) == 11
    merged = np.fromfile(folder / "merged.rgba", np.uint8).reshape(240, 320, 4)
    assert np.abs(merged[..., 3] - reference(torture_stack())[..., 3] * 255).max() <= 1


def test_ag_psd_reads_attributes_and_resources(document, ag_psd):
    tree, _ = ag_psd(document)
    group = tree["children"][2]
    inner = group["children"][2]
    assert (group["opacity"], group["blendMode"], group["opened"]) == (153 / 255, "normal", True)
    assert (inner["blendMode"], inner["opened"]) == ("pass through", False)
    assert [leaf["name"] for leaf in leaves(tree["children"]) if leaf["hidden"]] == ["hidden"]
    assert inner["children"][1]["blendMode"] == "multiply"
    ids = [leaf["id"] for leaf in leaves(tree["children"])] + [group["id"], inner["id"]]
    assert len(set(ids)) == 13
    assert (tree["resolution"], tree["thumbnail"]) == (72, [160, 120])
    assert (tree["alphaNames"], tree["alphaIdentifiers"]) == (["Transparency"], [0])
    assert "mrt:job" in tree["xmp"]


def test_gimp(document, kind, gimp):
    if kind == "psb":
        pytest.skip("GIMP 2.10 does not open PSB")
    rows, folder = gimp(document)
    assert sum(row[-1] == name for row, name in zip(rows, names(torture_stack().layers), strict=True)) == 13
    found, layers = [row for row in rows if row[1] == "layer"], expected_layers()
    boxes = [tuple(map(int, row[2:6])) for row in found]
    assert sum(a == tuple(b.box) for a, b in zip(boxes, layers, strict=True)) == 11
    pixels = [read_image(folder / row[9]) for row in found]
    assert sum(np.array_equal(a, b.pixels) for a, b in zip(pixels, layers, strict=True)) == 11
    assert [row[-1] for row in found if row[6] == "0"] == ["hidden"]
    wanted = [100 * layer.opacity for layer in torture_stack().flat()]
    wanted[2], wanted[3], wanted[5] = 100, 128 / 2.55, 80  # their group's 60 % is the group's own here
    assert [float(row[7]) for row in found if row[-1] != "hidden"] == pytest.approx(wanted[:4] + wanted[5:], abs=1e-3)


def test_gimp_shows_the_same_composite(document, kind, gimp):
    if kind == "psb":
        pytest.skip("GIMP 2.10 does not open PSB")
    _, folder = gimp(document)
    assert error_over_white("GIMP", read_image(folder / "merged.png"), torture_stack()).max() <= 2


def test_imagemagick_shows_the_stored_composite(document, imagemagick, run_program, tmp_path: Path):
    run_program([imagemagick, f"{document}[0]", str(tmp_path / "merged.png")])
    merged = read_image(tmp_path / "merged.png")
    assert np.abs(merged[..., 3] - reference(torture_stack())[..., 3] * 255).max() <= 1
    assert error_over_white("ImageMagick", merged, torture_stack()).max() <= 2


def test_imagemagick_shows_an_opaque_document(imagemagick, run_program, tmp_path: Path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (20, 30, 4), dtype=np.uint8)
    pixels[..., 3] = 255
    save(LayerStack(Size(30, 20), (Layer(pixels, 0, 0, "a"),)), tmp_path / "a.psd")
    run_program([imagemagick, f"{tmp_path / 'a.psd'}[0]", str(tmp_path / "a.png")])
    assert np.array_equal(read_image(tmp_path / "a.png"), pixels)


def simple_stack() -> LayerStack:
    """The torture document without what Krita is known to do differently: a faded group."""
    stack = torture_stack()
    layers = tuple(
        Group(node.layers, node.name, 1.0, node.blend_mode) if isinstance(node, Group) else node
        for node in stack.layers
    )
    return LayerStack(stack.frame, layers)


@pytest.mark.parametrize("suffix", [".psd", ".psb", ".ora"])
def test_krita_shows_the_same_composite(suffix, krita, run_program, tmp_path: Path):
    stack = torture_stack() if suffix == ".ora" else simple_stack()
    save(stack, tmp_path / f"a{suffix}")
    run_program([*krita, "--export", "--export-filename", str(tmp_path / "a.png"), str(tmp_path / f"a{suffix}")])
    error = error_over_white(f"Krita {suffix}", read_image(tmp_path / "a.png"), stack)
    assert error.max() <= 3 and error.mean() < 0.5  # Krita rounds to 8 bits after every layer
