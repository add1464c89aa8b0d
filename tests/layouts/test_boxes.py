"""Boxes of other tools: every form with its right boxes, and what is said about them."""

# ruff: noqa: E501  (one form a line)
import json
import time
from pathlib import Path

import numpy as np
import pytest

from mrt_core.errors import MRTError
from mrt_core.geometry import Box, Size
from mrt_core.layouts.boxes import read_layout
from mrt_core.layouts.layout import Layout, Region
from mrt_core.layouts.readings import BOXES_AS

CASES = Path(__file__).parents[1] / "data/layout"
FRAME = Size(800, 600)
BOX = {"x": 20, "y": 30, "width": 200, "height": 120}
KETTLE, CUP = ("kettle", (120, 80, 360, 280)), ("cup", (500, 90, 260, 330))
ONE = (20, 30, 200, 120)
LOGO = ("Logo", (10, 10, 100, 50))


def regions(value, frame=FRAME, boxes_as="auto"):
    layout, notes = read_layout(value, frame, boxes_as)
    return [(region.name, tuple(region.box)) for region in layout.regions], " ".join(notes)


def error_of(*arguments):
    with pytest.raises(MRTError) as caught:
        read_layout(*arguments)
    message = str(caught.value)
    assert message.endswith(".") and "\n" not in message
    return message


CASE_RESULTS = {
    "01_fence_json": ([KETTLE, CUP], "in px"),
    "02_fence_layout": ([("Sun", (10, 10, 100, 100))], ""),
    "03_bbox2d": ([KETTLE, CUP], "in px"),
    "05_box2d_fence": ([("kettle", (96, 48, 288, 168)), ("cup", (400, 54, 208, 198))], "y1, x1, y2, x2 in thousandths"),
    "06_trailing_comma": ([("cup", ONE)], "commas"),
    "08_strings_numbers": ([("cup", ONE)], ""),
    "11_chinese_punct": ([("茶壶", ONE)], "full-width"),
    "12_florence2": (
        [("car", (33.6, 159.4, 563.2, 212.5)), ("door", (454, 96.6, 126.8, 165.3))],
        "x1, y1, x2, y2 in px",
    ),
    "17_xyxy_list": ([("Layer 1", ONE), ("Layer 2", (300, 40, 100, 160))], "x1, y1, x2, y2 in px"),
    "20_coco_list_xywh": ([("Layer 1", (100, 300, 250, 200))], "COCO"),
    "21_bbox_xyxy_label": ([("cup", (100, 120, 380, 240))], "x1, y1, x2, y2 in px"),
    "25_w_h": ([("cup", ONE)], "x, y, width, height in px"),
    "30_wrapped_objects": ([("cup", (80, 30, 640, 90))], "y1, x1, y2, x2 in thousandths"),
    "33_nested_layers": ([LOGO], 'group "Header"'),
    "34_group_children": ([LOGO], 'group "Header"'),
    "38_comments": ([("Layer 1", ONE)], "comments"),
    "42_think": ([KETTLE, CUP], "in px"),
    "46_label_int": ([("3", ONE)], ""),
    "48_zero_width": ([("b", (20, 30, 50, 120))], 'left out: "a": boxes[0].width is 0'),
    "56_comfy_two_frames": ([("Layer 1", ONE)], "2 frames"),
    "64_element_type_other": ([("cup", (80, 30, 640, 90))], "y1, x1, y2, x2 in thousandths"),
    "68_layers_bbox": ([("T", (10, 10, 90, 40))], "x1, y1, x2, y2 in px"),
    "74_prose_after": ([("Layer 1", ONE)], ""),
}


@pytest.mark.parametrize("name", CASE_RESULTS)
def test_cases(name):
    found, notes = regions((CASES / f"{name}.txt").read_text(encoding="utf-8"))
    expected, said = CASE_RESULTS[name]
    assert found == expected
    assert said in notes and bool(notes) == bool(said)


def test_a_poster_in_px_is_not_read_y_first():
    text = (CASES / "75_bbox_elem_pixel_1024.txt").read_text(encoding="utf-8")
    found, notes = regions(text, Size(1024, 1024))
    assert found == [("poster text", (120, 80, 640, 900))] and "x1, y1, x2, y2 in px" in notes
    found, notes = regions(text)  # in a frame that px would leave
    assert found == [("poster text", (96, 48, 512, 540))] and "thousandths" in notes and "boxes_as" in notes


def test_refusals():
    assert "holds no boxes" in error_of((CASES / "43_none.txt").read_text(encoding="utf-8"), FRAME)
    message = "boxes[0].x is NaN, but must be finite; write a plain number such as 120."
    assert error_of((CASES / "63_nan.txt").read_text(encoding="utf-8"), FRAME) == message


CAT, DOG = ("cat", (80, 60, 320, 240)), ("dog", (400, 300, 200, 150))  # x2 y2: 400 300, 600 450
FORMS = {  # of the cat and the dog, or of the cat alone: text or value, what a note must say ("" where none is needed)
    "gemini": ('[{"box_2d": [100, 100, 500, 500], "label": "cat"}]', [CAT], "thousandths"),
    "qwen3 beyond the frame": ('[{"bbox_2d": [100, 100, 500, 990], "label": "cat"}]', [("cat", (80, 60, 320, 534))], "thousandths"),
    "qwen cut off": ('```json\n[{"bbox_2d": [80, 60, 400, 300], "label": "cat"}, {"bbox_2d": [400, 30', [CAT], "cut off"),
    "cut in the last number": ('[{"label": "cat", "bbox_2d": [80, 60, 400, 300]}, {"bbox_2d": [1, 2, 3, 4', [CAT], "cut off"),
    "qwen tokens": ("<|object_ref_start|>cat<|object_ref_end|><|box_start|>(100,100),(500,500)<|box_end|>", [CAT], "box tags"),
    "internvl": ("<ref>cat</ref><box>[[100, 100, 500, 500]]</box>", [CAT], "box tags"),
    "minicpm": ("<ref>cat</ref><box>100 100 500 500</box>", [CAT], "box tags"),
    "deepseek": ("<|ref|>cat<|/ref|><|det|>[[100, 100, 500, 500]]<|/det|>", [CAT], "box tags"),
    "glm": ("It is <|begin_of_box|>[[100, 100, 500, 500]]<|end_of_box|>", [("Layer 1", CAT[1])], "box tags"),
    "florence tokens": ("cat<loc_100><loc_100><loc_500><loc_500>", [CAT], "Florence-2"),
    "florence quad tokens": ("cat<loc_100><loc_100><loc_500><loc_100><loc_500><loc_500><loc_100><loc_500>", [CAT], "Florence-2"),
    "paligemma": ("<loc0128><loc0128><loc0512><loc0512> cat", [("cat", (100, 75, 300, 225))], "PaliGemma"),
    "kosmos tokens": ("<phrase>cat</phrase><object><patch_index_0000><patch_index_0033></object>", [("cat", (12.5, 9.375, 25, 18.75))], "Kosmos"),
    "kosmos entities": ([["cat", [2, 5], [[0.1, 0.1, 0.5, 0.5]]]], [CAT], "0-1"),
    "florence2 task": ({"<OD>": {"bboxes": [[80, 60, 400, 300]], "labels": ["cat"]}}, [CAT], "px"),
    "florence2 ocr": ({"quad_boxes": [[80, 60, 400, 60, 400, 300, 80, 300]], "labels": ["cat"]}, [CAT], "corner points"),
    "florence2 polygons": ({"polygons": [[[80, 60, 400, 60, 400, 300]]], "labels": ["cat"]}, [CAT], "corner points"),
    "detr": ([{"score": 0.9, "label": "cat", "box": {"xmin": 80, "ymin": 60, "xmax": 400, "ymax": 300}}], [CAT], ""),
    "transformers": ("{'scores': tensor([0.9, 0.8], device='cuda:0', grad_fn=<Index>), 'labels': ['cat', 'dog'], "
                     "'boxes': tensor([[80., 60., 400., 300.],\n [400., 300., 600., 450.]])}", [CAT, DOG], "px"),
    "grounded sam": ("[DetectionResult(score=0.9, label='cat', box=BoundingBox(xmin=80, ymin=60, xmax=400, ymax=300))]", [CAT], "Python"),
    "groundingdino": ({"boxes": [[0.3, 0.3, 0.4, 0.4], [0.625, 0.625, 0.25, 0.25]], "phrases": ["cat", "dog"]}, [CAT, DOG], "centre"),
    "yolo xyxyn": ([{"name": "cat", "xyxyn": [0.1, 0.1, 0.5, 0.5]}], [CAT], "0-1"),
    "yolo xywhn": ([{"name": "cat", "xywhn": [0.3, 0.3, 0.4, 0.4]}], [CAT], "centre"),
    "yolo lines": ("0 0.3 0.3 0.4 0.4\n1 0.625 0.625 0.25 0.25 0.9\n", [("0", CAT[1]), ("1", DOG[1])], "YOLO"),
    "yolo results": ([{"name": "cat", "class": 15, "confidence": 0.9, "box": {"x1": 80, "y1": 60, "x2": 400, "y2": 300}}], [CAT], "px"),
    "yolo rows": ([[80, 60, 400, 300, 0.9, 15]], [("15", CAT[1])], "a score and a class"),
    "mmdet rows": ([[80, 60, 400, 300, 0.9]], [("Layer 1", CAT[1])], "a score"),
    "pandas": ({"xmin": {"0": 80, "1": 400}, "ymin": {"0": 60, "1": 300}, "xmax": {"0": 400, "1": 600}, "ymax": {"0": 300, "1": 450},
                "name": {"0": "cat", "1": "dog"}}, [CAT, DOG], ""),
    "coco": ({"images": [{"id": 1, "width": 800, "height": 600}], "categories": [{"id": 7, "name": "cat"}],
              "annotations": [{"id": 3, "image_id": 1, "category_id": 7, "bbox": [80, 60, 320, 240], "iscrowd": 0}]}, [CAT], "COCO"),
    "coco of a larger picture": ({"images": [{"id": 1, "width": 1600, "height": 1200}], "categories": [{"id": 7, "name": "cat"}],
              "annotations": [{"image_id": 1, "category_id": 7, "bbox": [160, 120, 640, 480]}]}, [CAT], "scaled"),
    "detectron2": ([{"bbox": [80, 60, 400, 300], "bbox_mode": 0, "category_id": 1, "label": "cat"}], [CAT], "px"),
    "sam": ([{"segmentation": {"size": [600, 800], "counts": "abc"}, "area": 9, "bbox": [80, 60, 320, 240], "predicted_iou": 0.9,
              "point_coords": [[1, 2]], "stability_score": 0.9, "crop_box": [0, 0, 800, 600]}], [("Layer 1", CAT[1])], "COCO"),
    "labelme": ({"version": "5", "shapes": [{"label": "cat", "points": [[400, 60], [80, 300]], "shape_type": "rectangle"}],
                 "imageWidth": 800, "imageHeight": 600}, [CAT], ""),
    "via": ({"a.jpg1": {"filename": "a.jpg", "regions": [{"shape_attributes": {"name": "rect", "x": 80, "y": 60, "width": 320,
             "height": 240}, "region_attributes": {"kind": "cat"}}]}}, [CAT], ""),
    "voc as json": ({"annotation": {"size": {"width": "800", "height": "600"}, "object": [{"name": "cat", "bndbox": {
        "xmin": "80", "ymin": "60", "xmax": "400", "ymax": "300"}}]}}, [CAT], ""),
    "voc as xml": ("<annotation><size><width>800</width><height>600</height></size><object><name>cat</name><bndbox><xmin>80</xmin>"
                   "<ymin>60</ymin><xmax>400</xmax><ymax>300</ymax></bndbox></object></annotation>", [CAT], "XML"),
    "roboflow": ({"predictions": [{"x": 240, "y": 180, "width": 320, "height": 240, "class": "cat", "confidence": 0.9}],
                  "image": {"width": 800, "height": 600}}, [CAT], "Roboflow"),
    "label studio": ([{"original_width": 800, "original_height": 600, "value": {"x": 10, "y": 10, "width": 40, "height": 40,
                       "rotation": 0, "rectanglelabels": ["cat"]}}], [CAT], "percent"),
    "rekognition": ({"Labels": [{"Name": "cat", "Instances": [{"BoundingBox": {"Width": 0.4, "Height": 0.4, "Left": 0.1, "Top": 0.1}}]}]},
                    [CAT], "0-1"),
    "google vision": ({"localizedObjectAnnotations": [{"name": "cat", "boundingPoly": {"normalizedVertices": [{"x": 0.1, "y": 0.1},
                       {"x": 0.5, "y": 0.1}, {"x": 0.5, "y": 0.5}]}}]}, [CAT], "corner points"),
    "easyocr": ([[[[80, 60], [400, 60], [400, 300], [80, 300]], "cat", 0.9]], [CAT], "corner points"),
    "paddleocr": ([[[[[80, 60], [400, 60], [400, 300], [80, 300]], ["cat", 0.9]]]], [CAT], "corner points"),
    "paddleocr 3": ({"rec_polys": [[[80, 60], [400, 60], [400, 300], [80, 300]]], "rec_texts": ["cat"], "rec_scores": [0.9]}, [CAT], "corner"),
    "percent": ([{"left": "10%", "top": "10%", "width": "40%", "height": "40%", "label": "cat"}], [CAT], "percent"),
    "px": ([{"left": "80px", "top": "60px", "width": "320px", "height": "240px", "label": "cat"}], [CAT], "px"),
    "corners by name": ([{"label": "cat", "topLeft": {"x": 80, "y": 60}, "bottomRight": {"x": 400, "y": 300}}], [CAT], "corner points"),
    "centre and size": ([{"label": "cat", "center": [240, 180], "size": [320, 240]}], [CAT], "centre"),
    "names as keys": ({"cat": [80, 60, 400, 300], "dog": {"bbox": [400, 300, 600, 450]}}, [CAT, DOG], "names of its boxes"),
    "labelled rows": ([["cat", 80, 60, 400, 300], ["dog", 400, 300, 600, 450]], [CAT, DOG], "px"),
    "json lines": ('{"bbox": [80, 60, 400, 300], "label": "cat"}\n{"bbox": [400, 300, 600, 450], "label": "dog"}\n', [CAT, DOG], "2 JSON values"),
    "csv": ("label,x1,y1,x2,y2\ncat,80,60,400,300\ndog,400,300,600,450\n", [CAT, DOG], "table"),
    "csv without names": ("80,60,400,300,cat\n400,300,600,450,dog\n", [CAT, DOG], "lines"),
    "prose": ("The picture shows:\n1. **cat**: [80, 60, 400, 300]\n2. dog at [400, 300, 600, 450]", None, "lines"),
    "one quotes": ("[{'label': 'cat', 'bbox': (80, 60, 400, 300), 'crowd': False}]", [CAT], "quotes"),
    "keys without quotes": ("boxes = [{label: cat, bbox: [80, 60, 400, 300]},]", [CAT], "without quotes"),
    "numpy": ("[[ 80.  60. 400. 300.]\n [400. 300. 600. 450.]]", [("Layer 1", CAT[1]), ("Layer 2", DOG[1])], "px"),
    "escaped": ('[{\\"bbox\\": [80, 60, 400, 300], \\"label\\": \\"cat\\"}]', [CAT], "px"),
    "a quote in a label": ('[{"label": "the "big" cat", "bbox": [80, 60, 400, 300]}, ]', [('the "big" cat', CAT[1])], "px"),
    "only the end of a thought": ('no [1, 2, 3, 4]...</think>[{"bbox": [80, 60, 400, 300], "label": "cat"}]', [CAT], "px"),
    "xywh": ([{"label": "cat", "bbox": [80, 60, 320, 240]}, {"label": "dog", "bbox": [400, 300, 200, 150]}], [CAT, DOG], "x, y, width, height"),
    "shares": ([{"label": "cat", "bbox": [0.1, 0.1, 0.5, 0.5]}], [CAT], "0-1"),
    "said format": ([{"label": "cat", "bbox": [80, 60, 320, 240], "bbox_format": "xywh"}], [CAT], "x, y, width, height"),
    "named numbers": ("1. cat: x=80, y=60, width=320, height=240\n2. dog: x=400, y=300, width=200, height=150", [CAT, DOG], "lines"),
    "xml attributes": ("<boxes><box label='cat' x1='80' y1='60' x2='400' y2='300'/></boxes>", [CAT], "px"),
    "markdown table": ("| label | x1 | y1 | x2 | y2 |\n|---|---|---|---|---|\n| cat | 80 | 60 | 400 | 300 |", [CAT], "table"),
    "yaml": ("- label: cat\n  bbox: [80, 60, 400, 300]\n- label: dog\n  bbox: [400, 300, 600, 450]", [CAT, DOG], "lines"),
    "cogvlm": ("A cat [[100,099,500,500]]", [("Layer 1", (80, 59, 320, 241))], "CogVLM"),
    "a tuple": ("([[80, 60], [400, 60], [400, 300], [80, 300]], 'cat', 0.37)", [CAT], "corner points"),
    "turned": ([{**BOX, "label": "cat", "angle": 45}], [("cat", ONE)], "rotation was left out"),
    "a larger design": ({"width": 1600, "height": 1200, "objects": [{"name": "cat", "bbox": [160, 120, 800, 600]}]}, [CAT], "scaled"),
    "a wrapped layout": ({"layout": {"frame": {"width": 400, "height": 300}, "layers": [{"name": "cat", "box": BOX}]}}, [("cat", ONE)], ""),
    "a group elsewhere": ({"layers": [{"name": "g", "box": {"x": 70, "y": 50, "width": 500, "height": 400}, "layers": [
        {"name": "cat", "box": {"x": 10, "y": 10, "width": 320, "height": 240}}]}]}, [CAT], "group's corner"),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_forms(name):
    value, expected, said = FORMS[name]
    found, notes = regions(value)
    if expected is None:
        assert [box for _, box in found] == [CAT[1], DOG[1]]
    else:
        assert found == expected
    assert said in notes and bool(notes) == bool(said)


def test_forms_are_many():
    assert len(FORMS) >= 40


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
        ({"label": 3}, "3", "3"),
        ({"label": "a\0b"}, "ab", "ab"),
        ({"label": None}, "Layer 1", ""),
    ],
)
def test_names_and_captions(extra, name, caption):
    layout, notes = read_layout({**BOX, **extra}, FRAME)
    assert layout.regions == (Region(name, Box(*ONE), caption),) and notes == ()


@pytest.mark.parametrize("boxes", [BOX, [BOX], (BOX,), [[BOX]]])
def test_every_nesting_of_one_box(boxes):
    assert read_layout(boxes, FRAME) == (Layout(FRAME, (Region("Layer 1", Box(*ONE)),)), ())


@pytest.mark.parametrize("boxes", [[], [[]], (), "[]"])
def test_no_boxes_are_a_background_only_design(boxes):
    assert read_layout(boxes, FRAME).layout == Layout(FRAME, ())


def test_elements_are_scaled_to_the_frame():
    obj = {"type": "obj", "bbox": [500, 0, 1000, 1000], "desc": "a wooden table"}
    text = {"type": "text", "bbox": [50, 100, 200, 900], "text": "MENU", "desc": "large white letters"}
    layout, notes = read_layout([obj, text], FRAME)
    assert layout.regions == (
        Region("a wooden table", Box(0, 300, 800, 300), "a wooden table"),
        Region("MENU", Box(80, 30, 640, 90), 'the text "MENU", large white letters'),
    )
    assert "y1, x1, y2, x2 in thousandths" in notes[0]


def test_numpy_numbers_of_a_detector():
    box = dict(zip(BOX, np.array([1.5, 2, 3, 4], np.float32), strict=True))
    assert read_layout(box, FRAME).layout.regions[0].box == Box(1.5, 2, 3, 4)


@pytest.mark.parametrize(
    ("choice", "box"),
    [
        ("xyxy-px", (100, 200, 200, 100)),
        ("xywh-px", (100, 200, 300, 300)),
        ("cxcywh-px", (-50, 50, 300, 300)),
        ("yxyx-px", (200, 100, 100, 200)),
        ("xyxy-1000", (80, 120, 160, 60)),
        ("yxyx-1000", (160, 60, 80, 120)),
    ],
)
def test_a_chosen_reading(choice, box):
    found, notes = regions([[100, 200, 300, 300]], boxes_as=choice)
    assert found == [("Layer 1", box)] and "as chosen" in notes


def test_a_choice_of_the_scale_keeps_the_order_of_the_keys():
    value = {"layers": [{"box": {"x": 100, "y": 100, "width": 500, "height": 500}}]}
    assert regions(value, boxes_as="yxyx-1000")[0] == [("Layer 1", (80, 60, 400, 300))]
    assert regions(value, boxes_as="cxcywh-1000")[0] == [("Layer 1", (-120, -90, 400, 300))]
    assert error_of(BOX, FRAME, "polar").startswith("boxes are to be read as 'polar'") and "polar" not in BOXES_AS


def test_the_best_of_too_many():
    boxes = [{**BOX, "label": str(index), "score": index / 100} for index in range(60)]
    found, notes = regions(boxes)
    assert [name for name, _ in found] == [str(index) for index in range(10, 60)]
    assert "there are 60 boxes" in notes and "highest score" in notes
    found, notes = regions([BOX] * 51)
    assert len(found) == 50 and "the first of them" in notes


def test_bad_boxes_are_named_and_the_others_stay():
    bad = [
        {**BOX, "x": float("inf")},
        {**BOX, "width": -1},
        {"label": "no box"},
        {**BOX, "y": 10**400},
        {**BOX, "x": True},
        7,
        "x",
    ]
    found, notes = regions([BOX, *bad])
    assert found == [("Layer 1", ONE)] and notes.count("left out:") == 7
    assert "Infinity" in notes and "401 digits" in notes and "no box" not in error_of([bad[0]], FRAME)
    assert error_of(bad, FRAME).startswith("none of the 7 boxes can be used; the first: ")


@pytest.mark.parametrize(
    "points",
    ['[{"point_2d": [10, 20], "label": "cat"}]', '[{"point": [10, 20], "label": "cat"}]', '<point x="1.5" y="2" alt="cat">cat</point>',
     '<points x1="1.5" y1="2" x2="3" y2="4" alt="cat">cat</points>'],
)  # fmt: skip
def test_points_are_refused(points):
    assert "a point has no extent" in error_of(points, FRAME) and "ask the model for boxes" in error_of(points, FRAME)


def test_boxes_without_a_frame():
    assert "come without the size of their frame" in error_of([BOX])
    layout, notes = read_layout({"imageWidth": 640, "imageHeight": 480, "shapes": [BOX]})
    assert layout.frame == Size(640, 480) and "640 x 480" in notes[0]


HOSTILE = {
    "brackets": "[" * 1_000_000,
    "objects": '{"a":' * 200_000,
    "quotes": '{"a": "' + 'b" ' * 300_000,
    "numbers": "[" + "1," * 300_000,
    "comments": "[/*" * 300_000,
    "digits": "[" + "9" * 1_000_000 + "]",
    "infinite": '[{"x": 1e400, "y": Infinity, "width": -Infinity, "height": NaN}]',
    "words": "[a" * 300_000,
    "tags": "<box>" * 200_000,
    "locations": "<loc_" * 200_000,
    "refs": "<ref>" * 200_000,
    "fences": "```\n" * 200_000,
    "thoughts": "<think>" * 100_000,
    "voc": "<object>" * 100_000 + "<bndbox>",
    "long lines": ("1" * 1999 + "\n") * 300,
    "blanks": "[1" + " " * 1_000_000,
    "boxes": json.dumps([{"x": 1, "y": 1, "width": 0, "height": 4}] * 20_000),
    "wide": json.dumps({str(index): [1, 2] for index in range(100_000)}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_texts_are_refused_in_time(name):
    start = time.perf_counter()
    error_of(HOSTILE[name], FRAME)
    assert time.perf_counter() - start < 20  # seconds, on a slow machine; a quadratic reader takes hours


def test_deep_values_are_refused():
    value = [1, 2, 3, 4]
    for _ in range(900):
        value = [value]
    assert error_of(value, FRAME) == "the text is nested too deeply, but a layout has four levels; remove the nesting."
