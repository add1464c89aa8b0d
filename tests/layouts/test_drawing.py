import numpy as np
import pytest

from mrt_core.errors import MRTError
from mrt_core.geometry import Box, Size
from mrt_core.layouts.drawing import _layer_color, draw_layout
from mrt_core.layouts.layout import Layout, Region


def near(pixel, color) -> bool:
    return bool(np.abs(np.asarray(pixel, int) - color).max() <= 1)


@pytest.mark.parametrize(
    ("frame", "box", "size"),
    [
        (Size(800, 600), Box(0, 0, 10, 10), (1024, 786)),  # canvas 800 x 608 at 992 / 800, margins of 16
        (Size(320, 320), Box(-320, 0, 10, 10), (1024, 528)),
        (Size(16, 16384), Box(0, 0, 10, 10), (128, 1024)),
        (Size(16, 16), Box(0, 0, 1, 1), (1024, 1024)),
    ],
)
def test_the_longer_side_is_max_side(frame, box, size):
    picture = draw_layout(Layout(frame, (Region("a", box),)))
    assert (picture.size, picture.mode) == (size, "RGB")


def test_frame_overflow_and_boxes_are_told_apart():
    layout = Layout(Size(256, 256), (Region("Sun", Box(-128, 64, 256, 128)),))
    pixels = np.asarray(draw_layout(layout, max_side=384 + 2 * 10))  # 1 px per canvas px, margins of 10
    assert pixels.shape == (276, 404, 3)

    def at(x: int, y: int) -> np.ndarray:
        return pixels[y + 10, x + 128 + 10]

    color = np.array(_layer_color(0))
    assert near(at(-128, 128), color) and near(at(127, 180), color)  # the box's outline, outside and inside the frame
    assert near(at(100, 191), color)
    inside, outside, overflow = at(200, 220), at(-100, 220), at(-60, 180)
    assert inside.min() >= 226 and inside.max() - inside.min() == 0
    assert outside.min() >= 180 and outside.max() <= 196
    checker = np.array([[196], [180]])
    assert any(near(overflow, np.rint(0.78 * grey + 0.22 * color)) for grey in checker)
    edge = pixels[10, 238:394].tolist()  # the frame's dashes over the background's outline
    assert sorted({tuple(pixel) for pixel in edge}) == [(20, 20, 20), (90, 90, 90)]


def test_each_layer_has_its_own_color():
    assert len({_layer_color(index) for index in range(50)}) == 50


@pytest.mark.parametrize("name", ["太陽", "شمس", "☀️👩‍👩‍👧", "\ud800", "a\nb\0c", "n" * 500, " ", ""])
def test_any_name_is_drawn(name):
    region = Region(name, Box(10, 10, 40, 12))
    blank = draw_layout(Layout(Size(256, 256), (Region("?", region.box),)), max_side=256)
    picture = draw_layout(Layout(Size(256, 256), (region,)), max_side=256)
    assert picture.size == (256, 256)
    assert picture.tobytes() != blank.tobytes()


def test_labels_of_equal_boxes_stand_apart():
    """The label of each of 20 equal boxes shows its own colour as one filled run, none covered by another."""
    regions = tuple(Region("Same", Box(0, 0, 256, 256)) for _ in range(20))
    pixels = np.asarray(draw_layout(Layout(Size(256, 256), regions), max_side=1024))
    strip = pixels[:, 17:20].reshape(-1, 3)  # px of the labels' left padding
    for index in range(20):
        assert (strip == _layer_color(index)).all(axis=1).sum() >= 3 * 15


def test_no_layers_and_fifty_layers():
    draw_layout(Layout(Size(64, 64), ()), max_side=128)
    regions = tuple(Region(f"Layer {i}", Box(i * 5, i * 5, 60, 40)) for i in range(50))
    assert draw_layout(Layout(Size(300, 300), regions), max_side=500).size == (500, 476)  # canvas 320 x 304


def test_a_picture_too_small():
    with pytest.raises(MRTError) as caught:
        draw_layout(Layout(Size(64, 64), ()), max_side=127)
    assert str(caught.value) == "max_side is 127, but a picture needs at least 128 px; make it larger."
