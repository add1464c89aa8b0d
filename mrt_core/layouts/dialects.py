"""Every box in a decoded value of any tool, in its order, as it is written.

`find_marks` walks objects, lists, groups and wrappers. What the keys leave open about order and scale, `readings` decides.
"""

from dataclasses import replace
from typing import Any

from ..errors import MRTError
from .dialect_keys import GROUPS, NOT_BOXES, POINT_KEYS, TITLES, XYWH, XYXY, plain_key
from .fields import describe, describe_key
from .labels import clean_text, described, first_text, label_of, text_caption
from .lenient import MAX_DEPTH, TOO_DEEP
from .marks import (
    NUMBER_TEXT,
    POINTS_ONLY,
    Context,
    Finds,
    Mark,
    is_numbers,
    is_points,
    is_share,
    mark_from_numbers,
    mark_from_points,
)
from .object_forms import find_form, has_columns, read_form, rows_of, stated_context

MAX_BOXES = 100_000  # in one value: what a detector finds on a picture many times over


def find_marks(value: Any, where: str, document: bool = False) -> Finds:
    """Every box in a decoded value, in its order; a box that cannot be read gives a sentence in `bad`."""
    finds = Finds()
    _walk(_first_frame(value, finds), where, Context(document=document), finds)
    return finds


def _walk(value: Any, where: str, context: Context, finds: Finds) -> int:
    """Collect the boxes in `value`; how many were found, unreadable ones included."""
    if context.depth > MAX_DEPTH:
        raise MRTError(TOO_DEEP)
    if len(finds.marks) + len(finds.bad) > MAX_BOXES:
        raise MRTError(f"there are more than {MAX_BOXES} boxes, but a layout has at most 50 layers; keep the best.")
    before = len(finds.marks) + len(finds.bad)
    inner = replace(context, depth=context.depth + 1)
    if isinstance(value, dict):
        _walk_object(value, where, inner, finds)
    elif isinstance(value, (list, tuple)):
        _walk_list(value, where, inner, finds)
    return len(finds.marks) + len(finds.bad) - before


def _walk_list(items: list | tuple, where: str, context: Context, finds: Finds) -> None:
    if is_numbers(items):
        _try(finds, where, lambda: [mark_from_numbers(items, where, context)], context.label)
    elif is_points(items):
        _try(finds, where, lambda: [mark_from_points(items, where, context)], context.label)
    elif _is_row(items):
        _try(finds, where, lambda: [_from_row(items, where, context)], context.label)
    else:
        for index, item in enumerate(items):
            place = f"{where}[{index}]"
            if not _walk(item, place, context, finds) and not (isinstance(item, (dict, list, tuple)) and not item):
                finds.bad.append(_no_box(item, place))


def _from_row(row: list | tuple, where: str, context: Context) -> Mark:
    """A box beside its label and score, such as [points, [text, score]], [label, [..4]] or [..4, label]."""
    flat = [part for item in row for part in (item if _is_text_and_score(item) else [item])]
    texts = [item for item in flat if isinstance(item, str) and not NUMBER_TEXT.fullmatch(item[:100])]
    boxes = [item for item in flat if isinstance(item, (list, tuple)) and len(item) > 2]
    pairs = [item for item in flat if isinstance(item, (list, tuple)) and len(item) == 1 and is_numbers(item[0], 4)]
    numbers = [item for item in flat if not isinstance(item, (list, tuple)) and item not in texts]
    label = clean_text(texts[0]) if texts else ""
    if not boxes and pairs:  # Kosmos-2: ("a cat", (2, 7), [(0.1, 0.2, 0.6, 0.7)])
        boxes = [pairs[0][0]]
    inner = replace(context, label=label)
    if boxes:
        finds = Finds()
        _walk_list(boxes[0], where, inner, finds)
        if finds.bad:
            raise MRTError(finds.bad[0])
        mark = finds.marks[0]
        if texts and is_points(boxes[0]):  # optical character recognition
            mark = mark._replace(name=label, caption=text_caption(label, ""))
        shares = [item for item in numbers if isinstance(item, (int, float)) and is_share(item)]
        return mark._replace(score=shares[0] if shares else mark.score)
    if len(numbers) == 5 and isinstance(row[-1], str) and row[-1] == texts[0]:
        numbers = [*numbers[:4], numbers[4]]
    return mark_from_numbers(numbers, where, inner)


def _is_text_and_score(item: Any) -> bool:
    return isinstance(item, (list, tuple)) and len(item) == 2 and isinstance(item[0], str)


def _is_row(items: list | tuple) -> bool:
    """Whether a list is one box with its label: a text, and four numbers or one list that is a box."""
    if not 2 <= len(items) <= 8 or any(isinstance(item, dict) for item in items):
        return False
    texts = [
        item
        for item in items
        if (isinstance(item, str) and not NUMBER_TEXT.fullmatch(item[:100])) or _is_text_and_score(item)
    ]
    boxes = [item for item in items if isinstance(item, (list, tuple)) and not _is_text_and_score(item)]
    numbers = len(items) - len(boxes) - len(texts)
    if boxes:
        likely = [
            box for box in boxes if is_numbers(box, 4) or is_points(box) or (len(box) == 1 and is_numbers(box[0], 4))
        ]
        return bool(len(likely) == 1 and (texts or numbers))
    return len(texts) == 1 and numbers >= 4


def _walk_object(value: dict, where: str, context: Context, finds: Finds) -> None:
    keys = {plain_key(key): key for key in reversed(value)}  # the first of two spellings counts
    context = stated_context(value, keys, context)
    children = [
        keys[key] for key in GROUPS if key in keys and isinstance(value[keys[key]], (list, dict)) and value[keys[key]]
    ]
    if children and not has_columns(value, keys):
        _walk_group(value, keys, children, where, context, finds)
        return
    if (rows := rows_of(value, keys)) is not None:
        for index, row in enumerate(rows):
            place = f"{where}[{index}]"
            if not _walk(row, place, context, finds):
                finds.bad.append(_no_box(row, place))
        return
    if any(_is_turned(value[keys[key]]) for key in ("angle", "rotation", "rotate") if key in keys):
        finds.notes.append(f"{where} is turned, but a layer's box is upright: its rotation was left out.")
    if box := find_form(value, keys):
        _try(finds, where, lambda: [described(mark, value, keys, context) for mark in read_form(value, box, where, context)],
             label_of(value, keys, context) or context.label)  # fmt: skip
        return
    _walk_wrapper(value, keys, where, context, finds)


def _is_turned(angle: Any) -> bool:
    return isinstance(angle, (int, float)) and angle not in (0, 360)


def _walk_group(value: dict, keys: dict, children: list, where: str, context: Context, finds: Finds) -> None:
    name = first_text(value, keys, TITLES) or label_of(value, keys, context)
    parent, before = find_form(value, keys), len(finds.marks)
    for key in children:
        _walk(value[key], where if context.depth == 1 and not name else f"{where}.{key}", context, finds)
    if parent and not finds.marks[before:]:
        return
    if parent:
        try:
            offset = read_form(value, parent, where, context)[0]
        except MRTError:
            offset = None
        finds.marks[before:] = _placed(finds, offset, finds.marks[before:], name or where)
    elif name and where:
        finds.notes.append(
            f'the layers of the group "{name}" were read without the group, which a layout does not have.'
        )


def _placed(finds: Finds, parent: Mark | None, marks: list[Mark], name: str) -> list[Mark]:
    """The marks of a group with a box of its own: from the frame's corner, or from the group's where only that fits."""
    text = f'the group "{name}" has a box of its own, which was left out; the boxes in it were read from the'
    if parent is None or parent.order not in (XYWH, XYXY) or not (parent.numbers[0] or parent.numbers[1]):
        finds.notes.append(f"{text} frame's corner.")
        return marks
    x, y, a, b = parent.numbers
    width, height = (a, b) if parent.order == XYWH else (a - x, b - y)
    if not all(mark.order in (XYWH, XYXY) for mark in marks):
        return marks

    def ends(mark: Mark) -> tuple[float, float]:
        left, top, c, d = mark.numbers
        return (left + c, top + d) if mark.order == XYWH else (c, d)

    inside = all(
        m.numbers[0] >= x and m.numbers[1] >= y and ends(m)[0] <= x + width and ends(m)[1] <= y + height for m in marks
    )
    relative = all(
        m.numbers[0] >= 0 and m.numbers[1] >= 0 and ends(m)[0] <= width and ends(m)[1] <= height for m in marks
    )
    if inside or not relative:
        finds.notes.append(f"{text} frame's corner.")
        return marks
    finds.notes.append(f"{text} group's corner, because only so they lie in it.")
    return [
        m._replace(numbers=(m.numbers[0] + x, m.numbers[1] + y, m.numbers[2] + (0 if m.order == XYWH else x),
                            m.numbers[3] + (0 if m.order == XYWH else y))) for m in marks
    ]  # fmt: skip


def _walk_wrapper(value: dict, keys: dict, where: str, context: Context, finds: Finds) -> None:
    """An object without a box of its own: look into its values, where the keys may be the boxes' names."""
    inner = {
        key: item
        for key, item in value.items()
        if isinstance(item, (dict, list, tuple)) and plain_key(key) not in NOT_BOXES
    }
    label = label_of(value, keys, context) or first_text(value, keys, TITLES)
    named = inner and len(inner) == len(value) and all(_is_one_box(item) for item in inner.values())
    if not named and any(key in keys for key in POINT_KEYS):
        point = next(key for key in POINT_KEYS if key in keys)
        finds.bad.append(f"{where}.{keys[point]} is a point, but {POINTS_ONLY}")
        return
    if named:
        finds.notes.append(f"the keys of {where or 'the object'} were read as the names of its boxes.")
    for key, item in inner.items():
        if is_numbers(item) and not named:
            continue
        if (
            not named
            and isinstance(item, (list, tuple))
            and not any(isinstance(part, (dict, list, tuple)) for part in item)
        ):
            continue
        below = replace(context, label=clean_text(key) if named else label or context.label)
        _walk(
            item,
            f"{where}.{key}" if isinstance(key, str) and len(key) < 60 and context.depth > 1 else str(key)[:60],
            below,
            finds,
        )


def _is_one_box(item: Any) -> bool:
    if isinstance(item, dict):
        return bool(find_form(item, {plain_key(key): key for key in item}))
    return is_numbers(item, 4) or (
        isinstance(item, (list, tuple)) and bool(item) and all(is_numbers(part, 4) for part in item)
    )


def _try(finds: Finds, where: str, read: Any, label: str = "") -> None:
    try:
        finds.marks += read()
    except MRTError as error:
        finds.bad.append(str(error) if not label else f'"{label[:40]}": {error}')


def _no_box(item: Any, where: str) -> str:
    if isinstance(item, dict):
        keys = ", ".join(describe_key(key) for key in list(item)[:6]) or "no keys"
        return (
            f"{where} holds no box among its keys {keys}, but a box has x, y, width and height or four numbers; add it."
        )
    return f"{where} is {describe(item)}, but a box is an object or a list of four numbers; write one."


def _first_frame(value: Any, finds: Finds) -> Any:
    """The boxes of one frame where `value` has a list for each, as ComfyUI's detectors write them."""
    if not isinstance(value, (list, tuple)) or not value:
        return value
    if not all(
        isinstance(item, (list, tuple)) and not _is_boxlike(item) and all(map(_is_boxlike, item)) for item in value
    ):
        return value
    full = [index for index, item in enumerate(value) if item]
    if len(value) > 1:
        first = full[0] if full else 0
        finds.notes.append(
            f"there are boxes for {len(value)} frames, and a layout has one: those of the frame {first + 1} were read."
        )
    return value[full[0]] if full else []


def _is_boxlike(item: Any) -> bool:
    return (
        isinstance(item, dict)
        or is_numbers(item, 4)
        or is_points(item)
        or (isinstance(item, (list, tuple)) and _is_row(item))
    )
