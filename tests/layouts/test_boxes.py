import json

import numpy as np
import pytest

from mrt_core.errors import MRTError
from mrt_core.geometry import Box, Size
from mrt_core.layouts.boxes import layout_from_any, layout_from_boxes, layout_from_elements
from mrt_core.layouts.layout import Layout, Region

FRAME = Size(800, 600)
BOX = {"x": 20, "y": 30, "width": 200, "height": 120}
OBJ = {"type": "obj", "bbox": [500, 0, 1000, 1000], "desc": "a wooden table"}
TEXT = {"type": "text", "bbox": [50, 100, 200, 900], "text": "MENU", "desc": "large white letters"}

# Rules and remedies that many messages share.
A_NUMBER = "but must be a number; write a plain number such as 120."
A_STRING = "but must be a string; write it in quotes, or leave it out."
CHARACTERS = "but control characters and lone surrogates are not allowed; remove it."
SIDE = "but must be a whole number from 16 to 16384 px; change it."
SMALL = "but a box is at least 1 px wide and high; make it larger, or leave it out."
REQUIRED = "which is required; add it."
OBJECT = "but must be an object; write one in braces with"


def error_of(function, *arguments):
    with pytest.raises(MRTError) as caught:
        function(*arguments)
    return str(caught.value)


def only_region(layout: Layout) -> Region:
    (region,) = layout.regions
    return region


@pytest.mark.parametrize("boxes", [BOX, [BOX], (BOX,), [[BOX]]])
def test_every_nesting_of_one_box(boxes):
    assert layout_from_boxes(boxes, FRAME, "a poster") == Layout(
        FRAME, (Region("Layer 1", Box(20, 30, 200, 120)),), "a poster"
    )


@pytest.mark.parametrize("boxes", [[], [[]], ()])
def test_no_boxes_are_a_background_only_design(boxes):
    assert layout_from_boxes(boxes, FRAME) == Layout(FRAME, ())


def test_the_first_box_is_the_lowest_and_unnamed_ones_are_numbered():
    layout = layout_from_boxes([BOX, {**BOX, "label": "red car", "score": 0.9}, {**BOX, "label": None}], FRAME)
    assert [(region.name, region.caption) for region in layout.regions] == [
        ("Layer 1", ""),
        ("red car", "red car"),
        ("Layer 3", ""),
    ]


@pytest.mark.parametrize(
    ("extra", "name", "caption"),
    [
        ({"label": "a  red\ncar"}, "a red car", "a  red\ncar"),
        ({"label": "car", "metadata": {"desc": "a red car"}}, "car", "a red car"),
        ({"label": "car", "metadata": {"name": "Car 2", "desc": None}}, "Car 2", "car"),
        ({"metadata": {"name": "Car 2"}}, "Car 2", "Car 2"),
        ({"metadata": {"type": "text", "text": "SALE", "desc": ""}}, "SALE", 'the text "SALE"'),
        ({"metadata": {"type": "obj", "text": "SALE", "desc": "a sign"}}, "a sign", "a sign"),
        ({"metadata": ["unknown"]}, "Layer 1", ""),
        ({"label": "word " * 20}, "word word word word word word word word word word word…", "word " * 20),
        ({"label": "語" * 61}, "語" * 59 + "…", "語" * 61),
        ({"label": "語" * 60}, "語" * 60, "語" * 60),
    ],
)
def test_names_and_captions_of_boxes(extra, name, caption):
    assert only_region(layout_from_boxes({**BOX, **extra}, FRAME)) == Region(name, Box(20, 30, 200, 120), caption)


def test_numpy_numbers_of_a_detector():
    box = dict(zip(BOX, np.array([1.5, 2, 3, 4], np.float32), strict=True))
    assert only_region(layout_from_boxes(box, FRAME)).box == Box(1.5, 2, 3, 4)


def test_elements_are_scaled_to_the_frame():
    assert layout_from_elements([OBJ, TEXT], FRAME, "a menu") == Layout(
        FRAME,
        (
            Region("a wooden table", Box(0, 300, 800, 300), "a wooden table"),
            Region("MENU", Box(80, 30, 640, 90), 'the text "MENU", large white letters'),
        ),
        "a menu",
    )


def test_element_corners_are_rounded_to_whole_pixels():
    element = {"bbox": [-1000, 333, 2000, 667.5]}
    assert only_region(layout_from_elements(element, Size(100, 64))) == Region("Layer 1", Box(33, -64, 34, 192))


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        (None, "boxes is null, but must be a list; write its items in square brackets."),
        ([[BOX], [BOX]], "boxes holds lists for 2 frames, but a layout has one frame; pass the list of one frame."),
        ([[BOX, 5]], f"boxes[1] is 5, {OBJECT} x, y, width, height."),
        ([BOX, [BOX]], f"boxes[1] is a list of 1, {OBJECT} x, y, width, height."),
        ([BOX] * 51, "boxes has 51 items, but a layout has at most 50 layers; remove some."),
        ([{"x": 1}], f"boxes[0] has no 'y', {REQUIRED}"),
        ({**BOX, "x": "1"}, f"boxes[0].x is the string '1', {A_NUMBER}"),
        (
            {**BOX, "width": 0},
            f"boxes[0].width is 0, {SMALL}",
        ),
        (
            {**BOX, "y": 1100},
            "boxes[0] spans y = 1100 to 1220, but may reach at most one frame height past the frame, -600 to 1200;"
            " move or shrink it.",
        ),
        ({**BOX, "label": 3}, f"boxes[0].label is 3, {A_STRING}"),
        (
            {**BOX, "metadata": {"desc": "\0"}},
            f"boxes[0].metadata.desc contains U+0000, {CHARACTERS}",
        ),
    ],
)
def test_unusable_boxes(boxes, message):
    assert error_of(layout_from_boxes, boxes, FRAME) == message


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        ("x", "elements is the string 'x', but must be a list; write its items in square brackets."),
        ([OBJ, BOX], f"elements[1] has no 'bbox', {REQUIRED}"),
        (
            {**OBJ, "bbox": [1, 2, 3]},
            "elements[0].bbox is a list of 3, but must be four numbers; write [ymin, xmin, ymax, xmax].",
        ),
        ({**OBJ, "bbox": [1, 2, True, 4]}, f"elements[0].bbox[2] is true, {A_NUMBER}"),
        (
            {**OBJ, "bbox": [9, 2, 3, 4]},
            "elements[0].bbox has ymin 9 and ymax 3, but ymin must be smaller; write [ymin, xmin, ymax, xmax].",
        ),
        (
            {**OBJ, "bbox": [1, 4, 3, 4]},
            "elements[0].bbox has xmin 4 and xmax 4, but xmin must be smaller; write [ymin, xmin, ymax, xmax].",
        ),
        (
            {**OBJ, "bbox": [1, 2, 3, 1e308]},
            "elements[0].bbox[3] is 1e+308, but a box may reach at most one frame past the frame,"
            " -1000 to 2000 on the 0-1000 grid; move or shrink it.",
        ),
        ({**OBJ, "bbox": [0, 0, 1000, 0.5]}, f"elements[0].bbox.width is 0, {SMALL}"),
        (
            {**OBJ, "type": "image"},
            "elements[0].type is the string 'image', but must be 'obj' or 'text'; choose one, or leave it out.",
        ),
        ({**TEXT, "text": 7}, f"elements[0].text is 7, {A_STRING}"),
        (
            {**TEXT, "text": "t" * 9990},
            "elements[0].text with its desc has 10022 characters, but may have at most 10000; shorten it.",
        ),
    ],
)
def test_unusable_elements(elements, message):
    assert error_of(layout_from_elements, elements, FRAME) == message


@pytest.mark.parametrize("function", [layout_from_boxes, layout_from_elements, layout_from_any])
def test_an_unusable_frame(function):
    message = f"frame.height is 0, {SIDE}"
    value = {"layers": []} if function is layout_from_any else []
    assert error_of(function, value, Size(64, 0)) == message


DOCUMENT = {
    "frame": {"width": 100, "height": 64},
    "layers": [{"name": "Sun", "box": {**BOX, "width": 60, "height": 40}}],
}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (DOCUMENT, Layout(Size(100, 64), (Region("Sun", Box(20, 30, 60, 40)),))),
        ({"layers": DOCUMENT["layers"]}, Layout(FRAME, (Region("Sun", Box(20, 30, 60, 40)),))),
        ([{**BOX, "label": "car"}], Layout(FRAME, (Region("car", Box(20, 30, 200, 120), "car"),))),
        (BOX, Layout(FRAME, (Region("Layer 1", Box(20, 30, 200, 120)),))),
        ([[BOX]], Layout(FRAME, (Region("Layer 1", Box(20, 30, 200, 120)),))),
        ([], Layout(FRAME, ())),
        (OBJ, Layout(FRAME, (Region("a wooden table", Box(0, 300, 800, 300), "a wooden table"),))),
        ([OBJ], Layout(FRAME, (Region("a wooden table", Box(0, 300, 800, 300), "a wooden table"),))),
    ],
)
def test_any_form_decoded_or_as_text(value, expected):
    assert layout_from_any(value, FRAME) == expected
    assert layout_from_any(json.dumps(value), FRAME) == expected


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (5, "boxes is 5, but must be a list; write its items in square brackets."),
        ("[1,", "the text is not valid JSON at line 1, column 4 (Expecting value); correct it there."),
        ({"frame": {}}, f"the layout has no 'layers', {REQUIRED}"),
        ([BOX, OBJ], f"elements[0] has no 'bbox', {REQUIRED}"),
    ],
)
def test_any_form_fails_clearly(value, message):
    assert error_of(layout_from_any, value, FRAME) == message
