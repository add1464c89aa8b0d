"""The boxes in a text: JSON where it is JSON, else what a language model wrote around, before or in place of it."""

import json
import re
from typing import Any, NamedTuple

from ..errors import MRTError
from .documents import decode_json
from .fields import describe
from .lenient import find_values
from .marks import POINTS_ONLY
from .tokens import has_points, read_lines, read_tokens

THOUGHT_END = re.compile(r"</(?:think|thinking|thought|reasoning)>|◁/think▷", re.IGNORECASE)
THOUGHT_START = re.compile(r"<(?:think|thinking|thought|reasoning)>|◁think▷", re.IGNORECASE)
FENCE = re.compile(r"(?:```|~~~)[^\n`]*\n")
FENCE_END = re.compile(r"```|~~~")
ESCAPED_JSON = re.compile(r'[\[{,]\s{0,9}\\"')
PADDED = re.compile(r"[\[,]\s?0\d\d\s?[,\]]")
EXAMPLE = '[{"x": 20, "y": 30, "width": 200, "height": 120, "label": "cup"}]'


class Text(NamedTuple):
    """What a text holds, as one decoded value, and a sentence for each thing that a reader should know about it."""

    value: Any
    notes: tuple[str, ...]


def read_text(text: str) -> Text:
    """The layout or the boxes in `text`; MRTError where it holds neither, or points only."""
    text = text.removeprefix("\ufeff")
    try:
        value = decode_json(text)
    except MRTError as error:
        if not isinstance(error.__cause__, json.JSONDecodeError):
            raise
        return _read_loosely(text, error)
    if isinstance(value, (dict, list)):
        return Text(value, ())
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{", "`", "<"):  # JSON written as a JSON string
        return read_text(value)
    raise MRTError(_no_boxes(text))


def _read_loosely(text: str, error: MRTError) -> Text:
    """As `read_text` for what is not JSON by itself; `error` says why not."""
    answer = _without_thoughts(text)
    boxes, what = read_tokens(answer)
    if boxes:
        return Text(boxes, (f"the boxes were read from {what}.",))
    if ESCAPED_JSON.search(answer):
        answer = answer.replace('\\"', '"').replace("\\n", "\n")
    if answer.lstrip()[:1] == "(" and answer.rstrip()[-1:] == ")":  # a Python tuple
        answer = f"[{answer}]"
    fenced = _fenced(answer)
    found = find_values(fenced)
    if not found.values and fenced is not answer:
        found = find_values(answer)
    boxes, what = ([], "") if any(not _is_bare_box(value) for value in found.values) else read_lines(fenced)
    if len(boxes) < len(found.values) and any(value != [] for value in found.values):
        if PADDED.search(fenced) and all(map(_is_box_list, found.values)):
            boxes = [box for value in found.values for box in (value if isinstance(value[0], list) else [value])]
            marked = [{"bbox": box, "bbox_format": "xyxy-1000"} for box in boxes]
            return Text(marked, ("numbers with leading zeros are thousandths of the frame, as CogVLM writes them.",))
        return _united(found.values, found.notes)
    if boxes:
        return Text(boxes, (f"the boxes were read from {what}.",))
    if has_points(answer):
        raise MRTError(f"the text holds points and no boxes, and {POINTS_ONLY}")
    if found.values and not found.notes:
        return Text([], ("the text holds an empty list, so there are no boxes.",))
    if answer.lstrip()[:1] in ("[", "{") and answer is text:
        raise error
    raise MRTError(_no_boxes(answer.strip() or text)) from error


def _no_boxes(text: str) -> str:
    shown = describe(" ".join(text[:200].split())).removeprefix("the string ")
    return f"the text {shown} holds no boxes, but a layout is made of them; give them as JSON, such as {EXAMPLE}."


def _without_thoughts(text: str) -> str:
    """What follows the last thought; the template of some models swallows the tag that opens it."""
    *_, answer = THOUGHT_END.split(text)
    return THOUGHT_START.split(answer)[0]


def _fenced(text: str) -> str:
    """The contents of all code fences, one below the other, the last perhaps cut off; the whole text where it has none."""
    parts, position = [], 0
    while start := FENCE.search(text, position):
        end = FENCE_END.search(text, start.end())
        position = end.end() if end else len(text)
        parts.append(text[start.end() : end.start() if end else len(text)])
    return "\n".join(parts) if parts else text


def _united(values: tuple[Any, ...], notes: tuple[str, ...]) -> Text:
    """Several values of a text as one: the last layout, else the boxes of all of them, each once."""
    different = (
        [value for index, value in enumerate(values) if value not in values[:index]] if len(values) < 100 else values
    )
    layouts = [value for value in different if isinstance(value, dict) and ("layers" in value or "frame" in value)]
    if len(different) == 1:
        return Text(different[0], notes)
    if layouts:
        return Text(
            layouts[-1], (*notes, f"the text holds {len(different)} JSON values; the last layout among them was read.")
        )
    boxes = []
    for value in different:
        boxes += value if isinstance(value, list) and not _is_bare_box(value) else [value]
    return Text(boxes, (*notes, f"the text holds {len(different)} JSON values; the boxes of all of them were read."))


def _is_box_list(value: Any) -> bool:
    if not isinstance(value, list) or not value:
        return False
    return all(map(_is_bare_box, value if isinstance(value[0], list) else [value]))


def inner_layout(value: Any) -> Any:
    """The layout in an object that only wraps it, such as {"layout": {"frame": ..., "layers": ...}}; else the value."""
    while isinstance(value, dict) and len(value) == 1 and "layers" not in value and "frame" not in value:
        (inner,) = value.values()
        if not isinstance(inner, dict):
            return value
        if "layers" in inner:
            return inner
        value = inner if len(inner) == 1 else None
    return value


def _is_bare_box(value: Any) -> bool:
    """Whether a value is a flat list, as in "cup: [1, 2, 3, 4]", where the words of the line are its label."""
    return isinstance(value, list) and not any(isinstance(item, (dict, list)) for item in value)
