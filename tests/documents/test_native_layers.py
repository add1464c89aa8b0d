"""Layer stacks to and from ComfyUI's LAYERS documents."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torture import noise, torture_stack

from mrt_core.documents.native_layers import MODES, from_native, to_native
from mrt_core.documents.stack_layout import stack_layout
from mrt_core.errors import MRTError
from mrt_core.geometry import Box, Size
from mrt_core.stacks.layers import Group, Layer, LayerStack


def item(pixels: np.ndarray, **fields) -> dict:
    return {"image": torch.from_numpy(pixels.astype(np.float32) / 255)[None], **fields}


def test_stack_to_native_and_back_is_lossless():
    stack = torture_stack()
    document = to_native(stack)
    assert (document["version"], document["canvas"], len(document["layers"])) == (1, (320, 240), 11)
    assert [entry["z_index"] for entry in document["layers"]] == list(range(11))
    assert all(entry["image"].dtype == torch.float32 and entry["type"] == "raster" for entry in document["layers"])
    back = from_native(document)
    assert back.frame == stack.frame
    for a, b in zip(back.layers, stack.flat(), strict=True):
        assert np.array_equal(a.pixels, b.pixels)
        assert {n: v for n, v in a.__dict__.items() if n != "pixels"} == {
            n: v for n, v in b.__dict__.items() if n != "pixels"
        }


def test_native_to_stack_and_back_is_lossless():
    entries = to_native(torture_stack())["layers"]
    document = {"version": 1, "canvas": (77, 55), "layers": entries}
    again = to_native(from_native(document))
    for a, b in zip(again["layers"], entries, strict=True):
        assert torch.equal(a["image"], b["image"])
        assert {k: v for k, v in a.items() if k != "image"} == {k: v for k, v in b.items() if k != "image"}


def test_there_are_the_26_native_modes():
    assert len(MODES) == 26 and {"grain-extract", "grain-merge", "luminosity"} < set(MODES)


@pytest.mark.parametrize(
    ("mode", "nearest"), [("dissolve", "normal"), ("darker-color", "darken"), ("lighter-color", "lighten")]
)
def test_mode_that_layers_lack_warns_by_layer_name(mode, nearest, caplog):
    document = to_native(LayerStack(Size(2, 2), (Layer(noise(2, 2, 0), 0, 0, "odd", blend_mode=mode),)))
    assert document["layers"][0]["blend_mode"] == nearest
    assert "odd" in caplog.text and mode in caplog.text


def test_groups_are_dissolved():
    inside = Layer(noise(2, 2, 0), 0, 0, "inside", opacity=0.5)
    (entry,) = to_native(LayerStack(Size(2, 2), (Group((inside,), "g", opacity=0.5, visible=False),)))["layers"]
    assert (entry["opacity"], entry["visible"]) == (0.25, False)


@pytest.mark.parametrize(
    ("group", "warned"),
    [
        (Group((), "g"), False),
        (Group((Layer(noise(2, 2, 0), 0, 0, "a"),) * 2, "g", blend_mode="normal"), False),
        (Group((Layer(noise(2, 2, 0), 0, 0, "a"),), "g", opacity=0.5), False),
        (Group((Layer(noise(2, 2, 0), 0, 0, "a"),) * 2, "g", opacity=0.5), True),
        (Group((Layer(noise(2, 2, 0), 0, 0, "a", blend_mode="screen"),), "g", blend_mode="normal"), True),
        (Group((Group((), "g", blend_mode="multiply"),), "outer"), True),
    ],
    ids=range(6),
)
def test_groups_that_matter_are_named(group, warned, caplog):
    to_native(LayerStack(Size(2, 2), (group,)))
    assert ('Group "g": LAYERS has no groups' in caplog.text) == warned


def test_order_batches_masks_and_opaque_images():
    batch = torch.rand(2, 3, 4, 3)
    mask = torch.zeros(2, 3, 4)
    mask[1] = 0.4
    document = {
        "layers": [
            item(noise(2, 2, 0), z_index=5, name="top"),
            {"image": batch, "mask": mask, "z_index": -1, "name": "frames", "x": 6, "y": -2},
            item(noise(2, 2, 1), z_index=5, name="later, as high"),
        ]
    }
    stack = from_native(document)
    assert [layer.name for layer in stack.layers] == ["frames 1", "frames 2", "top", "later, as high"]
    assert stack.frame == (10, 2)
    assert stack.layers[0].pixels[..., 3].min() == 255 and set(stack.layers[1].pixels[..., 3].ravel()) == {153}


def test_flips_scaling_and_rotation():
    pixels = noise(4, 6, 2, (255, 256))
    flipped = from_native({"layers": [item(pixels, flip_h=True, flip_v=True)]}).layers[0]
    assert np.array_equal(flipped.pixels, pixels[::-1, ::-1])
    scaled = from_native({"layers": [item(np.full((4, 6, 4), 200, np.uint8), w=12, h=3, x=1, y=2)]}).layers[0]
    assert scaled.box == (1, 2, 12, 3) and set(scaled.pixels.ravel()) == {200}
    turned = from_native({"layers": [item(pixels, x=10, y=20, rotation=math.pi / 2)]}).layers[0]
    assert turned.box == (11, 19, 4, 6)  # about the same centre, (13, 22)
    assert np.array_equal(turned.pixels, np.rot90(pixels, -1))


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (None, "version NoneType"),
        ({"version": 2}, "version 2; only version 1"),
        ({"layers": [{"name": "a"}]}, "Item 0 of the layers document has no image of shape"),
        ({"layers": [{"image": torch.zeros(2, 2, 4)}]}, "Item 0 of the layers document has no image of shape"),
        ({"layers": [item(noise(2, 2, 0), blend_mode="glow")]}, "Item 0 has the blend mode 'glow'"),
    ],
)
def test_bad_documents(document, message):
    with pytest.raises(MRTError, match=message):
        from_native(document)


def test_no_comfy_import():
    source = Path(__file__).parents[2] / "mrt_core" / "documents"
    assert not [file for file in source.rglob("*.py") if "import comfy" in file.read_text(encoding="utf-8")]


def test_layout_of_a_stack():
    stack = torture_stack()
    layout = stack_layout(stack)
    assert layout.frame == stack.frame and layout.caption == stack.metadata["prompt"]
    assert layout.background.name == "Background" and len(layout.regions) == 10
    assert (layout.regions[1].name, layout.regions[1].box, layout.regions[1].caption) == (
        "🐈‍⬛ emoji", Box(60, 40, 120, 120), "a red cat",
    )  # fmt: skip
    uncovered = stack_layout(LayerStack(Size(9, 9), (Layer(noise(8, 9, 0), 0, 0, "a"),)))
    assert uncovered.background is None and len(uncovered.regions) == 1
