"""A box as it is written, read from a list of numbers or of points."""

# ruff: noqa: RUF001  (full-width signs are what is read here)
import re
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..errors import MRTError
from ..geometry import Size
from .dialect_keys import CENTRE, PERCENT, PX, UNIT, XYXY, plain_key
from .fields import describe, read_number

POINTS_ONLY = "a point has no extent, so no layer can be made of it; ask the model for boxes (x1, y1, x2, y2)."
NUMBER_TEXT = re.compile(
    r"\s*([+\-−－]?(?:\d{1,20}(?:\.\d{0,40})?|\.\d{1,40})(?:[eE][+-]?\d{1,3})?)\s*(px|pt|%|％)?\s*"
)
NUMBERS_IN_TEXT = re.compile(r"[+-]?(?:\d{1,20}(?:\.\d{0,40})?|\.\d{1,40})%?")


class Mark(NamedTuple):
    """A box as it is written: four numbers, and what its keys say of them."""

    where: str
    numbers: tuple[float, float, float, float]
    kind: str  # the keys it was known by, as a note says them
    order: str | None = None
    scale: str | None = None
    keyed: bool = False  # whether the keys, not the places in a list, say what each number is
    certain: bool = False  # whether nothing about it needs to be said
    hint: str = ""  # a family that the keys beside it belong to: "coco", "elements", "roboflow", "grounding"
    name: str = ""
    caption: str = ""
    score: float | None = None
    z: float | None = None
    size: Size | None = None  # of the picture that its px belong to, where that is stated


@dataclass
class Finds:
    """What a walk collects: marks, a sentence for each box that cannot be read, and notes."""

    marks: list[Mark] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Context:
    """What the objects around a value say about the boxes in it."""

    label: str = ""
    document: bool = False
    hint: str = ""
    order: str | None = None
    scale: str | None = None
    size: Size | None = None
    categories: tuple[tuple[str, str], ...] = ()
    depth: int = 0


def read_length(value: Any, where: str) -> tuple[float, str | None]:
    """A number, perhaps as a text such as "34px" or "12%", and the scale that its unit names."""
    if isinstance(value, str) and (found := NUMBER_TEXT.fullmatch(value[:100].translate({0x2212: "-", 0xFF0D: "-"}))):
        unit = {"%": PERCENT, "％": PERCENT, "px": PX}.get(found[2] or "")
        return read_number(float(found[1]), where), unit
    return read_number(value, where), None


def mark_from_numbers(items: list | tuple, where: str, context: Context) -> Mark:
    """Four numbers; five or six with class and score; eight are four corners."""
    lengths = [read_length(item, f"{where}[{index}]") for index, item in enumerate(items)]
    numbers, units = [number for number, _ in lengths], {unit for _, unit in lengths if unit}
    if len(numbers) >= 6 and len(numbers) % 2 == 0 and not (len(numbers) == 6 and is_share(numbers[4], numbers[1])):
        return mark_from_points(list(zip(numbers[::2], numbers[1::2], strict=True)), where, context)
    score, label, kind = None, "", "a list of four numbers"
    order, scale = context.order, context.scale or one_scale(units, where)
    if len(numbers) == 5 and _is_class(numbers[0]) and max(numbers[1:]) <= 1:
        label, numbers, order, scale, kind = f"{numbers[0]:g}", numbers[1:], CENTRE, UNIT, "a class and four numbers"
    elif len(numbers) == 5 and is_share(numbers[4]):
        score, numbers, kind = numbers[4], numbers[:4], "four numbers and a score"
    elif len(numbers) == 6 and is_share(numbers[4]) and _is_class(numbers[5]):
        score, label, numbers, kind = numbers[4], f"{numbers[5]:g}", numbers[:4], "four numbers, a score and a class"
    elif len(numbers) == 6 and _is_class(numbers[0]) and is_share(numbers[1]):
        score, label, numbers, kind = numbers[1], f"{numbers[0]:g}", numbers[2:], "a class, a score and four numbers"
    if len(numbers) != 4:
        raise MRTError(f"{where} is a list of {len(items)} numbers, but a box has four; write [x1, y1, x2, y2].")
    mark = Mark(where, four_of(numbers), kind, order, scale, hint=context.hint, score=score, size=context.size)
    return mark._replace(name=context.label or label, caption=context.label or label)


def mark_from_points(points: Any, where: str, context: Context) -> Mark:
    """The box around two corners or more."""
    xs, ys, units = [], [], set()
    for index, point in enumerate(points):
        if isinstance(point, dict):
            keys = {plain_key(key): value for key, value in point.items()}
            point = (keys.get("x", 0), keys.get("y", 0))  # Google leaves out a 0
        for axis, value in zip((xs, ys), point, strict=True):
            number, unit = read_length(value, f"{where}[{index}]")
            axis.append(number)
            units.add(unit)
    if len(xs) < 2:
        raise MRTError(f"{where} is a point, but {POINTS_ONLY}")
    numbers = four_of((min(xs), min(ys), max(xs), max(ys)))
    scale = context.scale or one_scale(units - {None}, where)
    mark = Mark(where, numbers, "corner points", XYXY, scale, keyed=True, size=context.size)
    return mark._replace(name=context.label, caption=context.label)


def is_numbers(items: Any, least: int = 1) -> bool:
    """Whether a value is a list of numbers, or of texts that are numbers."""
    return isinstance(items, (list, tuple)) and len(items) >= least and all(_is_number(item) for item in items)


def _is_number(item: Any) -> bool:
    if isinstance(item, str):
        return NUMBER_TEXT.fullmatch(item[:100]) is not None
    return item is not None and not isinstance(item, (dict, list, tuple))


def is_points(items: Any) -> bool:
    """Whether a value is a list of (x, y) pairs."""
    return (
        isinstance(items, (list, tuple))
        and len(items) >= 2
        and all(is_numbers(item, 2) and len(item) == 2 for item in items)
    )


def is_share(number: float, other: float = 0) -> bool:
    """Whether a number may be a score: 0 to 1; `other` too."""
    return 0 <= number <= 1 or (0 <= other <= 1 and other != 0)


def _is_class(number: float) -> bool:
    return number >= 0 and float(number).is_integer()


def four_of(numbers: Any) -> tuple[float, float, float, float]:
    a, b, c, d = numbers
    return a, b, c, d


def one_scale(units: set[str], where: str) -> str | None:
    if len(units) > 1:
        raise MRTError(f"{where} mixes px and percent, but a box has one unit; write all four numbers in the same.")
    return next(iter(units), None)


def is_nested_points(item: Any) -> bool:
    return isinstance(item, (list, tuple)) and bool(item) and (is_points(item[0]) or is_numbers(item[0], 6))


def read_pair(value: Any, names: tuple[str, str], where: str) -> tuple[Any, Any]:
    if isinstance(value, (list, tuple)) and len(value) == 2:
        return value[0], value[1]
    if isinstance(value, dict):
        keys = {plain_key(key): item for key, item in value.items()}
        shorts = [name if name in keys else name[0] for name in names]
        if all(short in keys for short in shorts):
            return keys[shorts[0]], keys[shorts[1]]
    raise MRTError(
        f"{where} has {describe(value)} for a pair of numbers, but it must be [a, b] or an object of two; correct it."
    )
