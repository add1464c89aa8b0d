"""Layout documents: the JSON form of a layout, described in docs/layout.md and data/layout.schema.json."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import MRTError
from ..geometry import Box, Size, frame_box
from .fields import (
    read_box,
    read_caption,
    read_frame,
    read_layer_list,
    read_name,
    read_object,
    read_whole_number,
)
from .layout import BACKGROUND_NAME, Layout, Region, name_unnamed
from .lenient import MAX_INTEGER_DIGITS, TOO_DEEP, key_twice

MAX_Z = 1_000_000
MAX_FILE_BYTES = 8 * 2**20  # more than fifty captions of the greatest length fill, however they are escaped


def parse_layout(document: str | dict) -> Layout:
    """The layout that a document, as JSON text or as the decoded object, describes; MRTError says what is wrong.

    Layers stand bottom to top in list order. A layer's optional "z" replaces its place in the list, counted from 0, as
    the value by which the layers are sorted; equal values keep their list order. Unnamed layers become "Layer 1",
    "Layer 2" and so on by their place in the sorted stack.
    """
    document = decode_json(document) if isinstance(document, str) else document
    document = read_object(document, "the layout", ("frame", "layers"), ("caption", "background"))
    frame_object = read_object(document["frame"], "frame", ("width", "height"))
    frame = read_frame(frame_object["width"], frame_object["height"])
    stacked = []
    for index, layer in enumerate(read_layer_list(document["layers"], "layers")):
        where = f"layers[{index}]"
        layer = read_object(layer, where, ("box",), ("name", "caption", "z"))
        z = read_whole_number(layer.get("z", index), f"{where}.z", -MAX_Z, MAX_Z)
        stacked.append((z, _read_region(layer, where, _box(layer["box"], where, frame))))
    stacked.sort(key=lambda item: item[0])
    return Layout(
        frame=frame,
        regions=name_unnamed(region for _, region in stacked),
        caption=read_caption(document.get("caption", ""), "caption"),
        background=_read_background(document["background"], frame) if "background" in document else None,
    )


def layout_to_json(layout: Layout) -> dict:
    """The document of `layout`, layers bottom to top without "z"; `parse_layout` gives an equal layout back."""
    document: dict[str, Any] = {"frame": layout.frame._asdict()}
    if layout.caption:
        document["caption"] = layout.caption
    if layout.background is not None:
        document["background"] = _region_object(layout.background)
    document["layers"] = [_region_object(region) for region in layout.regions]
    return document


def load_layout(path: str | Path) -> Layout:
    """The layout in a UTF-8 JSON file; MRTError if the file cannot be read or does not hold a layout."""
    return parse_layout(read_json_file(path))


def read_json_file(path: str | Path) -> str:
    """The text of a UTF-8 JSON file of a layout or of boxes; MRTError if the file cannot be read."""
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL in it
        reason = getattr(error, "strerror", None) or str(error)
        raise MRTError(f"{str(path)!r} cannot be read ({reason}); give the path of a layout's JSON file.") from error
    if len(data) > MAX_FILE_BYTES:
        limit = f"the {MAX_FILE_BYTES // 2**20} MiB that a layout may have"
        raise MRTError(f"{str(path)!r} is larger than {limit}; give the path of a layout's JSON file.")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MRTError(
            f"{str(path)!r} is not UTF-8 text at byte {error.start}, as a layout's JSON file must be; save it as UTF-8."
        ) from error


def decode_json(text: str) -> Any:
    """The value of a JSON text; MRTError with line and column where it is not JSON."""
    try:
        return json.loads(text.removeprefix("\ufeff"), object_pairs_hook=_unique_keys, parse_int=_parse_integer)
    except json.JSONDecodeError as error:
        raise MRTError(
            f"the text is not valid JSON at line {error.lineno}, column {error.colno} ({error.msg}); correct it there."
        ) from error
    except RecursionError as error:
        raise MRTError(TOO_DEEP) from error


def _read_region(value: dict, where: str, box: Box) -> Region:
    return Region(
        name=read_name(value.get("name", ""), f"{where}.name"),
        box=box,
        caption=read_caption(value.get("caption", ""), f"{where}.caption"),
    )


def _read_background(value: Any, frame: Size) -> Region:
    value = read_object(value, "background", (), ("name", "box", "caption"))
    box = _box(value["box"], "background", frame) if "box" in value else frame_box(frame)
    region = _read_region(value, "background", box)
    return region if region.name else replace(region, name=BACKGROUND_NAME)


def _box(value: Any, where: str, frame: Size) -> Box:
    where = f"{where}.box"
    return read_box(read_object(value, where, Box._fields), where, frame)


def _region_object(region: Region) -> dict:
    fields: dict[str, Any] = {"name": region.name, "box": region.box._asdict()}
    return {**fields, "caption": region.caption} if region.caption else fields


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise MRTError(key_twice(key))
        result[key] = value
    return result


def _parse_integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= MAX_INTEGER_DIGITS else float(digits)
