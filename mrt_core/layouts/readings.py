"""Order and scale of boxes: as the user says, as their keys say, else as most of them fit into the frame.

All boxes of one form are read alike. Each reading that needed a choice gives a sentence with the reason and the others.
"""

import math
from collections.abc import Iterable
from itertools import product
from typing import NamedTuple

from ..errors import MRTError
from ..geometry import Box, Size
from .dialect_keys import CENTRE, GRID, PERCENT, PX, UNIT, XYWH, XYXY, YXYX
from .marks import Mark

AUTO = "auto"
ORDERS = (XYXY, XYWH, CENTRE, YXYX)
SCALES = (PX, UNIT, PERCENT, GRID)
BOXES_AS = (AUTO, *(f"{order}-{scale}" for scale in SCALES for order in ORDERS))
UNITS = {
    PX: "px",
    UNIT: "shares of the frame (0-1)",
    PERCENT: "percent of the frame",
    GRID: "thousandths of the frame (0-1000)",
}
AXES = {
    XYXY: "x1, y1, x2, y2",
    XYWH: "x, y, width, height",
    CENTRE: "centre x, centre y, width, height",
    YXYX: "y1, x1, y2, x2",
}
TOLERANCE = 0.02  # of the frame: how far boxes that a model found in it run past it by rounding
SMALL_FRAME = 300  # px: below it boxes of at most 100 are nothing to wonder at


class Reading(NamedTuple):
    """How the four numbers of a box are read."""

    order: str
    scale: str


def read_choice(name: str) -> Reading | None:
    """The reading that a user chose by its name in BOXES_AS, None for "auto"; MRTError for another name."""
    if name not in BOXES_AS:
        raise MRTError(f"boxes are to be read as {name!r}, but it can be {', '.join(BOXES_AS)}; choose one of them.")
    return None if name == AUTO else Reading(*name.split("-"))


def place_marks(marks: Iterable[Mark], frame: Size, choice: Reading | None) -> tuple[list[Box], list[str]]:
    """A box in frame px for each mark, unchecked, and a sentence for every form of box whose reading was chosen."""
    marks = list(marks)
    groups: dict[tuple, list[int]] = {}
    for index, mark in enumerate(marks):
        groups.setdefault((mark.kind, mark.order, mark.scale, mark.hint, mark.keyed), []).append(index)
    boxes: list[Box] = [Box(0, 0, 0, 0)] * len(marks)
    notes = []
    for members in groups.values():
        group = [marks[index] for index in members]
        reading, reason = _chosen(group, choice) if choice else _by_evidence(group, frame)
        for index in members:
            boxes[index] = to_box(marks[index], reading, frame)
        if note := _note(group, reading, reason, frame, choice):
            notes.append(note)
    return boxes, notes


def to_box(mark: Mark, reading: Reading, frame: Size) -> Box:
    """The box in frame px; of thousandths, edges are rounded to whole px."""
    a, b, c, d = mark.numbers
    if reading.order == YXYX:
        left, top, right, bottom = b, a, d, c
    elif reading.order == XYXY:
        left, top, right, bottom = a, b, c, d
    elif reading.order == XYWH:
        left, top, right, bottom = a, b, a + c, b + d
    else:
        left, top, right, bottom = a - c / 2, b - d / 2, a + c / 2, b + d / 2
    if reading.scale == PX and mark.size in (None, frame):
        whole = Box(left, top, *((c, d) if reading.order in (XYWH, CENTRE) else (right - left, bottom - top)))
        return Box(*(_tidy(number) for number in whole))
    across, down = _factors(mark, reading.scale, frame)
    digits = 0 if reading.scale == GRID else 3
    edges = [left * across, top * down, right * across, bottom * down]
    left, top, right, bottom = (round(edge, digits) if math.isfinite(edge) else edge for edge in edges)
    return Box(*(_tidy(number) for number in (left, top, right - left, bottom - top)))


def _tidy(number: float) -> float:
    """A number without the noise of floats, an int where it is whole."""
    number = round(number, 4) if math.isfinite(number) else number
    return int(number) if math.isfinite(number) and number == int(number) else number


def _factors(mark: Mark, scale: str, frame: Size) -> tuple[float, float]:
    if scale == PX:
        width, height = mark.size or frame
        return frame.width / width, frame.height / height
    parts = float(scale)
    return frame.width / parts, frame.height / parts


def _chosen(group: list[Mark], choice: Reading) -> tuple[Reading, str]:
    """The user's reading; keys that say what each number is keep their order, but x and y may be the centre's."""
    mark = group[0]
    if mark.keyed and not ({mark.order, choice.order} <= {XYWH, CENTRE}):
        return Reading(mark.order or choice.order, choice.scale), "chosen"
    return choice, "chosen"


def _by_evidence(group: list[Mark], frame: Size) -> tuple[Reading, str]:
    readings = _candidates(group)
    if len(readings) == 1:
        return readings[0], _why_certain(group[0])
    fits = [_fit(group, reading, frame) for reading in readings]
    best = fits.index(max(fits))
    if fits[best] > fits[0]:
        return readings[best], f"as {_name(readings[0])} fewer of them lie in the frame"
    return readings[best], _why_first(group[0])


def _candidates(group: list[Mark]) -> list[Reading]:
    """The readings that the keys leave open, the likeliest first."""
    mark = group[0]
    numbers = [abs(number) for each in group for number in each.numbers]
    largest, fractions = max(numbers), any(number % 1 for number in numbers if math.isfinite(number))
    normalised = largest <= 1 or (largest <= 2 and fractions)
    if mark.hint == "elements" and mark.order is None and mark.scale is None and not mark.keyed:
        if not normalised and largest <= 2 * int(GRID):
            likely = Reading(YXYX, GRID)
            if all(_is_box(to_box(each, likely, Size(1000, 1000))) for each in group):
                exact = [] if mark.kind != '"bbox"' else [likely]
                return exact or [likely, Reading(XYXY, PX), Reading(XYWH, PX)]
        scales = [UNIT] if normalised else [PX, GRID]
        return [Reading(order, scale) for scale, order in product(scales, (YXYX, XYXY, XYWH))]
    if mark.scale is not None:
        scales = [mark.scale]
        if mark.scale == GRID and mark.order is not None and largest > 2 * int(GRID):
            scales = [PX]
    elif normalised:
        scales = [UNIT]
    elif (
        mark.keyed
        or mark.hint in ("coco", "roboflow")
        or mark.size
        or largest > int(GRID)
        or min(min(m.numbers) for m in group) < 0
    ):
        scales = [PX]
    else:
        scales = [PX, GRID]
    orders = [mark.order] if mark.order else _orders(mark, normalised)
    if mark.keyed and mark.order == XYWH and mark.hint == "roboflow":
        orders = [CENTRE, XYWH]
    return [Reading(order, scale) for scale, order in product(scales, orders)]


def _orders(mark: Mark, normalised: bool) -> list[str]:
    if mark.hint == "coco":
        return [XYWH, XYXY]
    if mark.hint == "grounding":
        return [CENTRE, XYXY]
    if "xywh" in mark.kind.lower():
        return [XYWH, CENTRE]
    return [XYXY, XYWH, CENTRE] if normalised else [XYXY, XYWH]


def _is_box(box: Box) -> bool:
    return box.width >= 1 and box.height >= 1 and all(math.isfinite(number) for number in box)


def _inside(box: Box, frame: Size) -> bool:
    across, down = TOLERANCE * frame.width, TOLERANCE * frame.height
    return (
        box.x >= -across and box.y >= -down and box.right <= frame.width + across and box.bottom <= frame.height + down
    )


def _fit(group: list[Mark], reading: Reading, frame: Size) -> tuple[int, int]:
    """How many boxes of the group lie in the frame under a reading, and how many are boxes at all."""
    boxes = [to_box(mark, reading, frame) for mark in group]
    real = [box for box in boxes if _is_box(box)]
    return sum(_inside(box, frame) for box in real), len(real)


def _why_certain(mark: Mark) -> str:
    if mark.hint == "elements" and not mark.keyed and mark.order is None:
        return 'because "type" or "desc" stands beside it'
    return "by their keys and values"


def _why_first(mark: Mark) -> str:
    reasons = {
        "coco": "as in COCO, whose keys stand beside it",
        "roboflow": "as Roboflow writes them, with a class and a confidence",
        "grounding": "as GroundingDINO writes them, with phrases or logits",
    }
    return reasons.get(mark.hint, "the usual reading of its keys")


def _name(reading: Reading) -> str:
    return f"{AXES[reading.order]} in {UNITS[reading.scale]}"


def _note(group: list[Mark], reading: Reading, reason: str, frame: Size, choice: Reading | None) -> str:
    """The sentence about a group's reading; "" where nobody could read it otherwise."""
    mark, count = group[0], f"{len(group)} box{'es' if len(group) > 1 else ''}"
    if mark.size and mark.size != frame and reading.scale == PX:
        scaled = f" of a picture of {mark.size.width} x {mark.size.height} px, scaled to the frame"
    else:
        scaled = ""
    boxes = [to_box(each, reading, frame) for each in group]
    real = [box for box in boxes if _is_box(box)]
    certain = mark.certain and reading.scale == PX and not choice and not scaled
    if certain and not _suspicious(real, mark, frame):
        return ""
    note = f"{count} with {mark.kind}: read as {_name(reading)}{scaled}"
    if choice:
        kept = " (their keys say the order)" if reading.order != choice.order else ""
        return f"{note}, as chosen{kept}."
    others = [
        other for other in _others(mark) if other != reading and _fit(group, other, frame) == (len(group), len(group))
    ]
    names = ", ".join(f"{other.order}-{other.scale}" for other in others[:4])
    past = (
        f"; {len(real) - inside} run past the frame"
        if (inside := sum(_inside(box, frame) for box in real)) < len(real)
        else ""
    )
    other = f"; it could also be {names}" if names else ""
    return f"{note}, {reason}{past}{other}. If that is wrong, choose the reading with boxes_as (--boxes-as)."


def _others(mark: Mark) -> list[Reading]:
    orders = [mark.order] if mark.keyed else ORDERS
    return [Reading(order, scale) for scale in (PX, GRID, PERCENT, UNIT) for order in orders if order]


def _suspicious(boxes: list[Box], mark: Mark, frame: Size) -> bool:
    """Whether boxes in px by their keys may be something else: all of them past the frame, or within 100 px of its corner."""
    if not boxes or mark.size:
        return False
    far = any(not _inside(box, frame) for box in boxes) and all(box.x >= 0 and box.y >= 0 for box in boxes)
    small = all(box.right <= 100 and box.bottom <= 100 for box in boxes) and min(frame) > SMALL_FRAME and len(boxes) > 1
    return far or small
