"""The fields of a layout, read from untrusted values.

Each function returns the checked value, or raises an MRTError that begins with `where`: the field's path in the
document, such as "layers[2].box.width".
"""

import math
import re
from numbers import Integral, Real
from typing import Any

from ..errors import MRTError
from ..geometry import Box, Size
from .layout import MAX_CAPTION_LENGTH, MAX_FRAME_SIDE, MAX_LAYERS, MAX_NAME_LENGTH, MIN_BOX_SIDE, MIN_FRAME_SIDE

SHOWN_CHARACTERS = 40  # of a string, in a message
EXACT_INTEGERS = 2**53  # beyond it a double has no fraction, and digits are no longer exact
OVERFLOW_SLACK = 1e-6  # px: x + width may round up past the limit it equals

# Control characters, lone surrogates and the two noncharacters that XML forbids: no document format stores them all.
# Captions may hold tabs and line breaks.
FORBIDDEN_IN_NAMES = re.compile(r"[\u0000-\u001f\u007f-\u009f\ud800-\udfff\ufffe\uffff]")
FORBIDDEN_IN_CAPTIONS = re.compile(r"[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\ud800-\udfff\ufffe\uffff]")


def describe(value: Any) -> str:
    """A short text for any value, safe for messages: it never recurses, and escapes what cannot be printed."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Integral):
        digits = int(int(value).bit_length() * math.log10(2)) + 1
        return str(int(value)) if digits <= 20 else f"an integer of about {digits} digits"
    if isinstance(value, Real):
        return repr(float(value)).replace("inf", "Infinity").replace("nan", "NaN")
    if isinstance(value, str):
        return f"the string {_quote(value)}"
    if isinstance(value, (list, tuple)):
        return f"a list of {len(value)}"
    return "an object" if isinstance(value, dict) else f"a value of type {type(value).__name__}"


def describe_key(key: Any) -> str:
    """As `describe`, for the key of an object: a string is only quoted."""
    return _quote(key) if isinstance(key, str) else describe(key)


def _quote(text: str) -> str:
    return repr(text[:SHOWN_CHARACTERS]) + ("…" if len(text) > SHOWN_CHARACTERS else "")


def read_object(value: Any, where: str, required: tuple[str, ...], optional: tuple[str, ...] | None = ()) -> dict:
    """An object with every `required` key and, unless `optional` is None (any key), no key beyond the two."""
    if not isinstance(value, dict):
        keys = ", ".join(required + (optional or ()))
        raise MRTError(f"{where} is {describe(value)}, but must be an object; write one in braces with {keys}.")
    for key in required:
        if key not in value:
            raise MRTError(f"{where} has no {key!r}, which is required; add it.")
    if optional is None:
        return value
    allowed = required + optional
    for key in value:
        if key not in allowed:
            known = ", ".join(allowed)
            raise MRTError(f"{where} has the unknown key {describe_key(key)}, but may only have {known}; remove it.")
    return value


def read_layer_list(value: Any, where: str) -> list | tuple:
    """A list of at most MAX_LAYERS items; none is fine."""
    if not isinstance(value, (list, tuple)):
        raise MRTError(f"{where} is {describe(value)}, but must be a list; write its items in square brackets.")
    if len(value) > MAX_LAYERS:
        raise MRTError(f"{where} has {len(value)} items, but a layout has at most {MAX_LAYERS} layers; remove some.")
    return value


def read_number(value: Any, where: str) -> int | float:
    """A finite number: an int where it is whole, else a float."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise MRTError(f"{where} is {describe(value)}, but must be a number; write a plain number such as 120.")
    try:
        number = float(value)
    except OverflowError:  # an integer past 1.8e308
        number = math.inf
    if not math.isfinite(number):
        raise MRTError(f"{where} is {describe(value)}, but must be finite; write a plain number such as 120.")
    return int(number) if number.is_integer() and abs(number) < EXACT_INTEGERS else number


def read_whole_number(value: Any, where: str, low: int, high: int, unit: str = "") -> int:
    """A whole number from `low` to `high`, both included; `unit` follows the range in the message."""
    number = read_number(value, where)
    if not isinstance(number, int) or not low <= number <= high:
        raise MRTError(
            f"{where} is {describe(number)}, but must be a whole number from {low} to {high}{unit}; change it."
        )
    return number


def read_name(value: Any, where: str) -> str:
    """A layer's name: one line in any script, at most MAX_NAME_LENGTH characters, perhaps empty."""
    return _read_text(value, where, MAX_NAME_LENGTH, FORBIDDEN_IN_NAMES)


def read_caption(value: Any, where: str) -> str:
    """A caption in any script, perhaps of several lines, at most MAX_CAPTION_LENGTH characters."""
    return _read_text(value, where, MAX_CAPTION_LENGTH, FORBIDDEN_IN_CAPTIONS)


def _read_text(value: Any, where: str, longest: int, forbidden: re.Pattern[str]) -> str:
    if not isinstance(value, str):
        raise MRTError(f"{where} is {describe(value)}, but must be a string; write it in quotes, or leave it out.")
    if len(value) > longest:
        raise MRTError(f"{where} has {len(value)} characters, but may have at most {longest}; shorten it.")
    if found := forbidden.search(value):
        code = f"U+{ord(found[0]):04X}"
        raise MRTError(
            f"{where} contains {code}, but control characters and lone surrogates are not allowed; remove it."
        )
    return value


def read_frame(width: Any, height: Any, where: str = "frame") -> Size:
    """The frame: whole px from MIN_FRAME_SIDE to MAX_FRAME_SIDE on each side."""
    limits = (MIN_FRAME_SIDE, MAX_FRAME_SIDE, " px")
    return Size(
        read_whole_number(width, f"{where}.width", *limits), read_whole_number(height, f"{where}.height", *limits)
    )


def read_box(value: dict, where: str, frame: Size) -> Box:
    """The box {x, y, width, height} in frame px: at least MIN_BOX_SIDE a side, at most one frame past the frame."""
    box = Box(*(read_number(value[key], f"{where}.{key}") for key in Box._fields))
    return check_box(box, where, frame)


def check_box(box: Box, where: str, frame: Size) -> Box:
    """`box` itself, if it keeps to the limits that `read_box` states."""
    for key in ("width", "height"):
        if getattr(box, key) < MIN_BOX_SIDE:
            raise MRTError(
                f"{where}.{key} is {describe(getattr(box, key))}, but a box is at least {MIN_BOX_SIDE} px wide and"
                " high; make it larger, or leave it out."
            )
    spans = (("x", "width", box.x, box.right, frame.width), ("y", "height", box.y, box.bottom, frame.height))
    for axis, side, start, end, length in spans:
        if start < -length or end > 2 * length + OVERFLOW_SLACK:
            raise MRTError(
                f"{where} spans {axis} = {describe(start)} to {describe(end)}, but may reach at most one frame {side}"
                f" past the frame, {-length} to {2 * length}; move or shrink it."
            )
    return box
