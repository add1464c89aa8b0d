"""The forms in which one object holds a box, or the boxes of parallel lists and tables."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from ..errors import MRTError
from ..geometry import Size
from .dialect_keys import (
    ABSENT,
    CENTRE,
    CERTAIN,
    COCO,
    CORNER_PAIRS,
    DESCRIPTIONS,
    FORMATS,
    GRID,
    KEYED,
    LABELS,
    LISTED,
    PERCENT,
    PLACE_AND_SIZE,
    POINTED,
    PX,
    RANKS,
    SCORES,
    TEXTS,
    TITLES,
    UNIT,
    XYWH,
    XYXY,
    plain_key,
)
from .labels import clean_text, label_of
from .marks import (
    NUMBERS_IN_TEXT,
    Context,
    Mark,
    four_of,
    is_nested_points,
    is_numbers,
    is_points,
    mark_from_numbers,
    mark_from_points,
    one_scale,
    read_length,
    read_pair,
)

PLACES = {"x", "y", "left", "top", "cx", "cy", "xmin", "ymin", "x1", "y1", "center", "position"}


def stated_context(value: dict, keys: dict, context: Context) -> Context:
    """What an object says about the boxes in and below it: their format, the picture's size, names of classes."""
    changes: dict[str, Any] = {}
    for key in ("bboxformat", "boxformat", "format", "bboxtype"):
        stated = value.get(keys.get(key, ABSENT))
        if isinstance(stated, str):
            order, _, scale = stated.partition("-")
            known = FORMATS.get(plain_key(stated)) or FORMATS.get(plain_key(order))
            if known:
                changes["order"], changes["scale"] = known[0], scale if scale in (PX, UNIT, PERCENT, GRID) else known[1]
    mode = value.get(keys.get("bboxmode", ABSENT))
    if isinstance(mode, int) and mode in (0, 1):  # detectron2's XYXY_ABS and XYWH_ABS
        changes["order"], changes["scale"] = (XYXY, XYWH)[mode], PX
    if value.get(keys.get("normalized", ABSENT)) is True:
        changes["scale"] = UNIT
    unit = value.get(keys.get("unit", keys.get("units", ABSENT)))
    if isinstance(unit, str) and plain_key(unit) in ("percent", "percentage", "px", "pixel", "pixels", "normalized"):
        changes["scale"] = (
            PERCENT if plain_key(unit).startswith("percent") else PX if plain_key(unit).startswith("p") else UNIT
        )
    if size := stated_size(value, keys, root=context.depth == 1):
        changes["size"] = size
    if "originalwidth" in keys and "value" in keys:  # Label Studio
        changes["scale"] = PERCENT
    categories = value.get(keys.get("categories", ABSENT))
    if isinstance(categories, list):
        rows = [item for item in categories[:10_000] if isinstance(item, dict)]
        changes["categories"] = tuple((str(item.get("id"))[:20], clean_text(item.get("name", ""))) for item in rows)
    if any(key in keys for key in ("phrases", "logits")):
        changes["hint"] = "grounding"
    if "predictions" in keys:
        changes["hint"] = "roboflow"
    return replace(context, **changes) if changes else context


def stated_size(value: Any, keys: dict | None = None, root: bool = True) -> Size | None:
    """The size of the picture that an object says its boxes belong to, or None."""
    if not isinstance(value, dict):
        return None
    keys = {plain_key(key): key for key in value} if keys is None else keys
    images = value.get(keys.get("images", ABSENT))
    placed = any(key in keys for key in ("center", "position", "offset", "origin", "pos", "location", "topleft"))
    names = ("imagesize", "image", "canvas") if placed else ("size", "imagesize", "image", "canvas")
    holders = [value.get(keys.get(key, ABSENT)) for key in names]
    holders += [images[0]] if isinstance(images, list) and len(images) == 1 else []
    pairs = [
        (value.get(keys.get(f"{prefix}width", ABSENT)), value.get(keys.get(f"{prefix}height", ABSENT)))
        for prefix in ("image", "original", "img")
    ]
    for holder in holders:
        if isinstance(holder, dict):
            inner = {plain_key(key): holder[key] for key in holder}
            pairs.append((inner.get("width", inner.get("w")), inner.get("height", inner.get("h"))))
        elif isinstance(holder, (list, tuple)) and len(holder) == 2:
            pairs.append((holder[0], holder[1]))
    if root and keys.keys().isdisjoint(PLACES) and any(isinstance(item, list) for item in value.values()):
        pairs.append((value.get(keys.get("width", ABSENT)), value.get(keys.get("height", ABSENT))))  # of the whole
    for width, height in pairs:
        try:
            size = Size(*(int(read_length(side, "size")[0]) for side in (width, height)))
        except MRTError:
            continue
        if 1 <= size.width <= 1_000_000 and 1 <= size.height <= 1_000_000:
            return size
    return None


def rows_of(value: dict, keys: dict) -> Iterator[dict] | None:
    """The objects of parallel lists, such as {bboxes: [...], labels: [...]}, or of a table's columns; None for neither."""
    columns = _columns(value, keys)
    if columns is not None:
        return columns
    for key in (*sorted(keys.keys() & LISTED.keys(), key=RANKS.__getitem__), *(key for key in POINTED if key in keys)):
        items = value[keys[key]]
        if not isinstance(items, (list, tuple)) or not items or is_points(items):
            continue
        if all(
            isinstance(item, (list, tuple)) and (is_numbers(item, 1) or is_points(item) or is_nested_points(item))
            for item in items
        ):
            return _zipped(value, keys, keys[key], items)
        if (
            key in ("bboxes", "boxes", "boundingboxes", "value")
            and all(isinstance(item, dict) for item in items)
            and len(items) > 0
        ):
            beside = any(isinstance(value.get(keys.get(name, ABSENT)), list) for name in LABELS)
            if beside:
                return _zipped(value, keys, keys[key], items)
    return None


def _zipped(value: dict, keys: dict, box_key: str, items: Any) -> Iterator[dict]:
    """One object per box: its place in the lists of labels and scores, and what the object says of all of them."""
    beside = {
        key: value[key] for plain, key in keys.items() if plain in (*LABELS, *SCORES, *TITLES, *DESCRIPTIONS, *TEXTS)
    }
    # of two lists of labels the one with words
    order = sorted(
        beside,
        key=lambda key: not (isinstance(beside[key], (list, tuple)) and any(isinstance(i, str) for i in beside[key])),
    )
    single = {
        key: value[key]
        for plain, key in keys.items()
        if plain in COCO and not isinstance(value[key], (list, tuple, dict))
    }
    for index, item in enumerate(items):
        row = dict(single)
        label = None
        for key in order:
            part = beside[key]
            if isinstance(part, (list, tuple)):
                part = part[index] if index < len(part) else None
            if part is None or isinstance(part, (list, tuple, dict)):
                continue
            if plain_key(key) in SCORES:
                row["score"] = part
            elif label is None:
                label = row["label"] = part
        if isinstance(item, dict):
            yield {**item, **row}
        else:
            yield {box_key: item[0] if is_nested_points(item) and len(item) == 1 else item, **row}


def has_columns(value: dict, keys: dict) -> bool:
    return _columns(value, keys) is not None


def _columns(value: dict, keys: dict) -> Iterator[dict] | None:
    for row in KEYED:
        if row.keys[0] not in keys:
            continue
        columns = [value.get(keys.get(key, ABSENT)) for key in row.keys]
        if all(isinstance(column, (list, tuple, dict)) and column for column in columns):
            lists = {
                key: list(item.values()) if isinstance(item, dict) else item
                for key, item in value.items()
                if isinstance(item, (dict, list))
            }
            if any(isinstance(part, (dict, list)) for key in row.keys for part in lists[keys[key]]):
                return None
            count = min(len(lists[keys[key]]) for key in row.keys)
            return ({key: item[index] for key, item in lists.items() if index < len(item)} for index in range(count))
    return None


def find_form(value: dict, keys: dict) -> tuple[str, Any] | None:
    """Which form of box an object holds, and under which key or keys; None where it holds none."""
    for key in sorted(keys.keys() & LISTED.keys(), key=RANKS.__getitem__):
        listed = LISTED[key]
        if (item := value[keys[key]]) is not None:
            if is_numbers(item, 3) or (isinstance(item, str) and len(NUMBERS_IN_TEXT.findall(item[:400])) == 4):
                return "list", (keys[key], listed)
            if is_points(item):
                return "points", keys[key]
            if isinstance(item, dict) and find_form(item, {plain_key(k): k for k in item}):
                return "inner", keys[key]
    for row in KEYED:
        if row.keys[0] in keys and all(key in keys for key in row.keys):
            return "keyed", row
    for pair in CORNER_PAIRS:
        if all(key in keys and isinstance(value[keys[key]], (list, tuple, dict)) for key in pair):
            return "pair", [value[keys[key]] for key in pair]
    if "center" in keys and "size" in keys:
        return "place", (value[keys["center"]], value[keys["size"]], CENTRE)
    for pair in PLACE_AND_SIZE:
        if all(key in keys and isinstance(value[keys[key]], (list, tuple, dict)) for key in pair):
            return "place", (value[keys[pair[0]]], value[keys[pair[1]]], XYWH)
    if all(key in keys for key in ("cx", "cy", "r")):
        return "circle", [value[keys[key]] for key in ("cx", "cy", "r")]
    if "allpointsx" in keys and "allpointsy" in keys:
        return "axes", (value[keys["allpointsx"]], value[keys["allpointsy"]])
    for key in POINTED:
        item = value.get(keys.get(key, ABSENT))
        if (
            isinstance(item, dict)
            and (inner := find_form(item, {plain_key(k): k for k in item}))
            and inner[0] == "points"
        ):
            return "inner", keys[key]
        if isinstance(item, (list, tuple)) and item:
            item = item[0] if len(item) == 1 and is_nested_points(item) else item
            points = all(isinstance(p, dict) and p and {plain_key(k) for k in p} <= {"x", "y", "z"} for p in item)
            if (len(item) > 1 and (is_points(item) or points)) or (is_numbers(item, 6) and len(item) % 2 == 0):
                return "points", keys[key]
    return None


def read_form(value: dict, box: tuple[str, Any], where: str, context: Context) -> list[Mark]:
    """The marks of an object whose form `find_form` found; MRTError where a number is none."""
    form, found = box
    if form == "list":
        key, listed = found
        items, place = value[key], f"{where}.{key}"
        if isinstance(items, str):
            items = NUMBERS_IN_TEXT.findall(items[:400])
        inner = replace(context, order=context.order or listed.order, scale=context.scale or listed.scale, label="")
        mark = mark_from_numbers(items, place, inner)
        beside = value.get("line") and "a line of four numbers"
        return [mark._replace(where=where, kind=beside or f'"{key}"')]
    if form == "inner":
        item = value[found]
        keys = {plain_key(key): key for key in item}
        inner = stated_context(item, keys, context)
        if "rectanglelabels" in keys or (
            "rotation" in keys and "width" in keys and inner.scale is None and "originalwidth" in keys
        ):
            inner = replace(inner, scale=PERCENT)
        place = where if form == "inner" and plain_key(found) in ("value", "shapeattributes") else f"{where}.{found}"
        label = label_of(item, keys, context)
        marks = [
            mark._replace(name=mark.name or label, caption=mark.caption or label)
            for mark in read_form(item, find_form(item, keys), place, inner)  # type: ignore[arg-type]
        ]
        return [
            mark._replace(where=where, kind=mark.kind if mark.certain else f'"{found}" with {mark.kind}')
            for mark in marks
        ]
    if form == "points":
        return [_pointed(value, found, where, context)]
    if form == "keyed":
        keys = {plain_key(key): key for key in reversed(value)}
        lengths = [read_length(value[keys[key]], f"{where}.{keys[key]}") for key in found.keys]
        numbers = four_of(number for number, _ in lengths)
        scale = context.scale or one_scale({unit for _, unit in lengths if unit}, where)
        kind = ", ".join(keys[key] for key in found.keys)
        if found.order == XYWH and ("scalex" in keys or "scaley" in keys):  # fabric.js
            factors = [read_length(value[keys[key]], where)[0] if key in keys else 1 for key in ("scalex", "scaley")]
            numbers = (*numbers[:2], numbers[2] * factors[0], numbers[3] * factors[1])
            kind += " times scaleX and scaleY"
        certain = tuple(found.keys) in CERTAIN and "times" not in kind
        return [Mark(where, numbers, kind, found.order, scale, keyed=True, certain=certain, size=context.size)]
    if form == "pair":
        return [
            mark_from_points([read_pair(item, ("x", "y"), where) for item in found], where, replace(context, label=""))
        ]
    if form == "place":
        place, size, order = found
        four = (*read_pair(place, ("x", "y"), where), *read_pair(size, ("width", "height"), where))
        numbers = four_of(read_length(number, where)[0] for number in four)
        return [Mark(where, numbers, "a place and a size", order, context.scale, keyed=True, size=context.size)]
    if form == "circle":
        x, y, radius = (read_length(number, where)[0] for number in found)
        return [
            Mark(
                where, (x, y, 2 * radius, 2 * radius), "cx, cy, r", CENTRE, context.scale, keyed=True, size=context.size
            )
        ]
    xs, ys = found
    if not is_numbers(xs, 2) or not is_numbers(ys, 2) or len(xs) != len(ys):
        raise MRTError(
            f"{where} has lists of x and y that do not belong together, but each x needs its y; mend or leave it out."
        )
    return [mark_from_points(list(zip(xs, ys, strict=True)), where, replace(context, label=""))]


def _pointed(value: dict, key: str, where: str, context: Context) -> Mark:
    points = value[key]
    if len(points) == 1:
        points = points[0]
    if is_numbers(points, 6):
        points = list(zip(points[::2], points[1::2], strict=True))
    shape = value.get("shape_type")
    if shape in ("point", "line", "linestrip", "points"):
        raise MRTError(f"{where} is a {shape}, but a layer needs a box or an outline; leave it out.")
    if shape == "circle" and is_points(points) and len(points) == 2:  # LabelMe: the centre and a point on the edge
        (x, y), (a, b) = ([read_length(n, where)[0] for n in point] for point in points)
        radius = ((x - a) ** 2 + (y - b) ** 2) ** 0.5
        points = [[x - radius, y - radius], [x + radius, y + radius]]
    scale = UNIT if plain_key(key) == "normalizedvertices" else None
    mark = mark_from_points(points, where, replace(context, label="", scale=context.scale or scale))
    return mark._replace(certain="shape_type" in value, kind=f'the corner points of "{key}"')
