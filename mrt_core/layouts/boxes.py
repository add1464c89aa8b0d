"""Layouts from the boxes of other tools: ComfyUI's bounding boxes, and "elements" on a 0-1000 grid."""

from typing import Any

from ..errors import MRTError
from ..geometry import Box, Size
from .documents import decode_json, parse_layout
from .fields import (
    check_box,
    describe,
    read_box,
    read_caption,
    read_frame,
    read_layer_list,
    read_number,
    read_object,
)
from .layout import Layout, Region, name_unnamed

ELEMENT_GRID = 1000  # elements measure the frame from 0 to 1000 in both directions
ELEMENT_CORNERS = ("ymin", "xmin", "ymax", "xmax")
NAME_LENGTH = 60  # characters of a caption that become a layer's name


def layout_from_any(value: Any, frame: Size) -> Layout:
    """The layout in any accepted form: a layout document, boxes or elements, each decoded or as JSON text.

    `frame` (px) holds for boxes, elements and documents without a frame; a document's own frame comes first.
    """
    value = decode_json(value) if isinstance(value, str) else value
    if isinstance(value, dict) and ("layers" in value or "frame" in value):
        size = read_frame(*frame)
        return parse_layout({"frame": size._asdict(), **value})
    items = value if isinstance(value, (list, tuple)) else [value]
    if any(isinstance(item, dict) and "bbox" in item for item in items):
        return layout_from_elements(value, frame)
    return layout_from_boxes(value, frame)


def layout_from_boxes(boxes: Any, frame: Size, caption: str = "") -> Layout:
    """The layout of {x, y, width, height} boxes in frame px, the first one lowest; MRTError where one is unusable.

    `boxes` is a box, a list of boxes, or a list that holds the list of boxes of one frame. A box's optional "label"
    becomes name and caption, as do "name" and "desc" of its optional "metadata"; other keys are passed over, because
    every detector adds its own.
    """
    size = read_frame(*frame)
    items = [boxes] if isinstance(boxes, dict) else boxes
    if isinstance(items, (list, tuple)) and items and all(isinstance(item, (list, tuple)) for item in items):
        if len(items) > 1:
            raise MRTError(
                f"boxes holds lists for {len(items)} frames, but a layout has one frame; pass the list of one frame."
            )
        items = items[0]
    regions = [_box_region(item, f"boxes[{index}]", size) for index, item in enumerate(read_layer_list(items, "boxes"))]
    return Layout(size, name_unnamed(regions), read_caption(caption, "caption"))


def layout_from_elements(elements: Any, frame: Size, caption: str = "") -> Layout:
    """The layout of elements {"type", "bbox", "text", "desc"}, the first one lowest; MRTError where one is unusable.

    `bbox` is [ymin, xmin, ymax, xmax] on a 0-1000 grid over the frame; its corners are rounded to whole px. Keys beyond
    the four are passed over.
    """
    size = read_frame(*frame)
    items = read_layer_list([elements] if isinstance(elements, dict) else elements, "elements")
    regions = [_element_region(item, f"elements[{index}]", size) for index, item in enumerate(items)]
    return Layout(size, name_unnamed(regions), read_caption(caption, "caption"))


def _box_region(value: Any, where: str, frame: Size) -> Region:
    value = read_object(value, where, Box._fields, None)
    box = read_box(value, where, frame)
    label = _read_optional(value, "label", where)
    metadata = value.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    title = _read_optional(metadata, "name", f"{where}.metadata")
    name, caption = _read_description(metadata, f"{where}.metadata")
    return Region(_short_name(title or label) or name, box, caption or label or title)


def _element_region(value: Any, where: str, frame: Size) -> Region:
    value = read_object(value, where, ("bbox",), None)
    if (kind := value.get("type", "obj")) not in ("obj", "text"):
        raise MRTError(f"{where}.type is {describe(kind)}, but must be 'obj' or 'text'; choose one, or leave it out.")
    corners = value["bbox"]
    where_box = f"{where}.bbox"
    if not isinstance(corners, (list, tuple)) or len(corners) != 4:
        raise MRTError(
            f"{where_box} is {describe(corners)}, but must be four numbers; write [{', '.join(ELEMENT_CORNERS)}]."
        )
    ymin, xmin, ymax, xmax = (_read_corner(corner, f"{where_box}[{index}]") for index, corner in enumerate(corners))
    for low, high, names in ((ymin, ymax, ("ymin", "ymax")), (xmin, xmax, ("xmin", "xmax"))):
        if low >= high:
            raise MRTError(
                f"{where_box} has {names[0]} {describe(low)} and {names[1]} {describe(high)}, but {names[0]} must be"
                f" smaller; write [{', '.join(ELEMENT_CORNERS)}]."
            )
    left, right = round(xmin * frame.width / ELEMENT_GRID), round(xmax * frame.width / ELEMENT_GRID)
    top, bottom = round(ymin * frame.height / ELEMENT_GRID), round(ymax * frame.height / ELEMENT_GRID)
    box = check_box(Box(left, top, right - left, bottom - top), where_box, frame)
    name, caption = _read_description(value, where)
    return Region(name, box, caption)


def _read_corner(value: Any, where: str) -> int | float:
    number = read_number(value, where)
    low, high = -ELEMENT_GRID, 2 * ELEMENT_GRID
    if not low <= number <= high:
        raise MRTError(
            f"{where} is {describe(number)}, but a box may reach at most one frame past the frame, {low} to {high} on"
            f" the 0-{ELEMENT_GRID} grid; move or shrink it."
        )
    return number


def _read_description(value: dict, where: str) -> tuple[str, str]:
    """Name and caption from an element's "desc" and, where its type is "text", its "text"; "" where there is none."""
    desc = _read_optional(value, "desc", where)
    text = _read_optional(value, "text", where) if value.get("type") == "text" else ""
    if not text:
        return _short_name(desc), desc
    caption = f'the text "{text}", {desc}' if desc else f'the text "{text}"'
    return _short_name(text), read_caption(caption, f"{where}.text with its desc")


def _read_optional(value: dict, key: str, where: str) -> str:
    text = value.get(key)
    return "" if text is None else read_caption(text, f"{where}.{key}")


def _short_name(text: str) -> str:
    """The first words of `text` on one line, at most NAME_LENGTH characters."""
    line = " ".join(text.split())
    if len(line) <= NAME_LENGTH:
        return line
    head = line[: NAME_LENGTH - 1]
    return (head.rsplit(" ", 1)[0] if " " in head else head) + "…"
