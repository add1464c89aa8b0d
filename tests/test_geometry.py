import pytest
from hypothesis import given
from hypothesis import strategies as st

from mrt_core.geometry import (
    Box,
    Size,
    TokenBox,
    canvas_box,
    covers,
    frame_box,
    intersection,
    snap_outward,
    token_box,
    token_box_pixels,
    union,
)

quarters = st.integers(-4000, 4000).map(lambda n: n / 4)  # exact in binary, so the tests need no tolerance
lengths = st.integers(1, 4000).map(lambda n: n / 4)
boxes = st.builds(Box, quarters, quarters, lengths, lengths)
frames = st.builds(Size, st.integers(16, 700), st.integers(16, 700))


def contains(outer: Box, inner: Box) -> bool:
    return outer.x <= inner.x and outer.y <= inner.y and inner.right <= outer.right and inner.bottom <= outer.bottom


def test_box_edges_and_area():
    box = Box(-3, 4, 10, 2.5)
    assert (box.right, box.bottom, box.area) == (7, 6.5, 25)


def test_token_count():
    assert TokenBox(row=2, col=3, rows=4, cols=5).count == 20


def test_union_of_two_and_of_one():
    assert union([Box(0, 0, 10, 10), Box(-5, 8, 6, 20)]) == Box(-5, 0, 15, 28)
    assert union(iter([Box(1, 2, 3, 4)])) == Box(1, 2, 3, 4)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (Box(0, 0, 10, 10), Box(5, -5, 10, 10), Box(5, 0, 5, 5)),
        (Box(0, 0, 10, 10), Box(2, 3, 4, 5), Box(2, 3, 4, 5)),
        (Box(0, 0, 10, 10), Box(10, 0, 5, 5), None),  # they only touch
        (Box(0, 0, 10, 10), Box(20, 20, 5, 5), None),
    ],
)
def test_intersection(a, b, expected):
    assert intersection(a, b) == expected
    assert intersection(b, a) == expected


@pytest.mark.parametrize(
    ("box", "snapped"),
    [
        (Box(0, 0, 16, 32), Box(0, 0, 16, 32)),
        (Box(1, 1, 16, 14), Box(0, 0, 32, 16)),
        (Box(-1, -17, 1, 1), Box(-16, -32, 16, 16)),
        (Box(15.75, 0, 0.5, 16.25), Box(0, 0, 32, 32)),
        (Box(32, 32, 0, 0), Box(32, 32, 16, 16)),  # never smaller than a cell
    ],
)
def test_snap_outward(box, snapped):
    assert snap_outward(box) == snapped


def test_snap_outward_on_another_grid():
    assert snap_outward(Box(3, -3, 10, 2), grid=8) == Box(0, -8, 16, 8)


def test_frame_box():
    assert frame_box(Size(640, 480)) == Box(0, 0, 640, 480)


@pytest.mark.parametrize(
    ("frame", "layers", "canvas"),
    [
        (Size(256, 256), [], Box(0, 0, 256, 256)),
        (Size(250, 100), [], Box(0, 0, 256, 112)),  # the frame is rounded up, its origin stays
        (Size(256, 256), [Box(-1, 10, 20, 20)], Box(-16, 0, 272, 256)),
        (Size(256, 256), [Box(-100, 200, 400, 100)], Box(-112, 0, 416, 304)),
    ],
)
def test_canvas_box(frame, layers, canvas):
    assert canvas_box(frame, layers) == canvas


def test_token_box_counts_from_the_canvas():
    canvas = Box(-112, -16, 416, 304)
    assert token_box(Box(-100, 200, 400, 88), canvas) == TokenBox(row=13, col=0, rows=6, cols=26)
    assert token_box(Box(0, 0, 256, 256), canvas) == TokenBox(row=1, col=7, rows=16, cols=16)
    assert token_box_pixels(TokenBox(row=1, col=7, rows=16, cols=16), canvas) == Box(0, 0, 256, 256)


@given(boxes)
def test_snapping_contains_the_box_and_is_idempotent(box):
    snapped = snap_outward(box)
    assert contains(snapped, box)
    assert snap_outward(snapped) == snapped
    assert all(side % 16 == 0 for side in snapped)
    assert snapped.width - box.width < 32 and snapped.height - box.height < 32


@given(boxes, boxes)
def test_intersection_lies_inside_and_union_around_both(a, b):
    around = union([a, b])
    assert contains(around, a) and contains(around, b)
    shared = intersection(a, b)
    if shared is not None:
        assert contains(a, shared) and contains(b, shared) and shared.area > 0


@given(frames, st.lists(boxes, max_size=6))
def test_every_box_has_its_tokens_on_the_canvas(frame, layers):
    canvas = canvas_box(frame, layers)
    for box in [frame_box(frame), *layers]:
        tokens = token_box(box, canvas)
        assert tokens.row >= 0 and tokens.col >= 0
        assert (tokens.row + tokens.rows) * 16 <= canvas.height and (tokens.col + tokens.cols) * 16 <= canvas.width
        assert token_box_pixels(tokens, canvas) == snap_outward(box)


def test_float_noise_adds_no_token():
    overflow = Box(-216, 0, 20, 16)
    box = Box(-141.2, 0, 557.2, 16)  # its right edge is 416.00000000000006
    canvas = canvas_box(Size(256, 256), [box, overflow])
    tokens = token_box(box, canvas)
    assert tokens.col + tokens.cols <= canvas.width / 16


@pytest.mark.parametrize(
    ("outer", "covered"),
    [
        (Box(0, 0, 8, 6), True),
        (Box(-1, -2, 12, 9), True),
        (Box(1, 0, 8, 6), False),
        (Box(0, 1, 8, 6), False),
        (Box(0, 0, 7, 6), False),
        (Box(0, 0, 8, 5), False),
    ],
)
def test_covers(outer, covered):
    assert covers(outer, Box(0, 0, 8, 6)) == covered
