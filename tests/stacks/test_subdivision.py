"""Taking one layer of a document apart: a group stands in its place, and nothing else changes."""

import numpy as np
import pytest

from mrt_core.cli import main
from mrt_core.documents import load, save
from mrt_core.errors import MRTError
from mrt_core.geometry import Box, Size
from mrt_core.stacks.layers import Group, Layer, LayerStack, composite
from mrt_core.stacks.subdivision import find_layer, replace_layer

FRAME = Size(48, 40)


def plain(width: int, height: int, color: tuple[int, int, int, int]) -> np.ndarray:
    return np.full((height, width, 4), color, np.uint8)


@pytest.fixture
def document() -> LayerStack:
    sign = Layer(plain(20, 16, (200, 30, 30, 255)), 30, -4, "Sign", opacity=0.5)
    base = Layer(plain(48, 40, (20, 60, 90, 255)), 0, 0, "Background")
    return LayerStack(FRAME, (base, Group((Layer(plain(8, 8, (9, 9, 9, 255)), 2, 2, "Dot"), sign), "Things")))


@pytest.fixture
def parts() -> LayerStack:
    """What the sign is made of: a plate and a stripe that together look like it."""
    plate, stripe = plain(20, 16, (200, 30, 30, 255)), plain(20, 4, (200, 30, 30, 255))
    return LayerStack(Size(20, 16), (Layer(plate, 0, 0, "Layer 1"), Layer(stripe, 0, 6, "Layer 2")), {"seed": 3})


def test_a_group_stands_in_the_place_of_the_layer(document, parts):
    result = replace_layer(document, "Sign", parts)
    things = result.layers[1]
    dot, sign = things.layers
    assert (things.name, dot, sign.name, sign.opacity) == ("Things", document.layers[1].layers[0], "Sign", 0.5)
    assert [(layer.name, layer.box) for layer in sign.layers] == [
        ("Layer 1", Box(30, -4, 20, 16)),
        ("Layer 2", Box(30, 2, 20, 4)),
    ]
    assert result.layers[0] is document.layers[0] and result.metadata == {"seed": 3}
    assert np.abs(composite(result).astype(int) - composite(document)).max() <= 1


def test_a_missing_layer_is_named(document):
    with pytest.raises(MRTError) as caught:
        find_layer(document, "Sing")
    assert str(caught.value) == (
        'there is no layer named "Sing" in the document; its layers are "Background", "Dot", "Sign"'
    )


def test_the_command_takes_a_layer_of_a_document_apart(document, tmp_path):
    path, output = tmp_path / "in.psd", tmp_path / "out.psd"
    save(document, path)
    assert main(["image", str(path), "--layer", "Sign", "--layers", "2", "--steps", "1", "-o", str(output)]) in (
        0,
        None,
    )
    result = load(output)
    sign = result.layers[1].layers[1]
    assert isinstance(sign, Group) and [layer.name for layer in sign.layers] == ["Layer 1", "Layer 2"]
    assert all(layer.box == Box(30, -4, 20, 16) for layer in sign.layers)
    assert np.array_equal(result.layers[0].pixels, document.layers[0].pixels)
