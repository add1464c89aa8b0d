"""Layouts from anything that holds boxes: a layout document, the answer of a language model, the output of a detector."""

from dataclasses import replace
from typing import Any, NamedTuple

from ..errors import MRTError
from ..geometry import Box, Size
from .dialects import find_marks
from .documents import parse_layout
from .fields import FORBIDDEN_IN_NAMES, check_box, describe, read_caption, read_frame, read_number
from .layout import MAX_LAYERS, MAX_NAME_LENGTH, Layout, Region, name_unnamed
from .marks import Mark
from .object_forms import stated_size
from .readings import AUTO, Reading, place_marks, read_choice
from .texts import EXAMPLE, inner_layout, read_text

NAME_LENGTH = 60  # characters of a caption that become a layer's name
SHOWN_NOTES = 8  # of boxes that were left out, one by one


class BoxLayout(NamedTuple):
    """A layout that was read, and a sentence for everything in it that was chosen, mended or left out."""

    layout: Layout
    notes: tuple[str, ...]


def read_layout(value: Any, frame: Size | None = None, boxes_as: str = AUTO) -> BoxLayout:
    """The layout in `value`: a layout document or boxes in any dialect of docs/layout.md, decoded or as text.

    `frame` (px) holds for boxes and for documents without a frame; a document's own frame comes first. `boxes_as`, one of
    BOXES_AS, says how the boxes' numbers are to be read. The first box is the lowest. Raises MRTError where no box can be
    used, and for boxes without a frame.
    """
    choice = read_choice(boxes_as)
    value, notes = read_text(value) if isinstance(value, str) else (value, ())
    value = value if (inner := inner_layout(value)) is None else inner
    if is_document(value):
        return _read_document(value, frame, choice, notes)
    size = _frame_of(value, frame)
    said = (f"the frame is {size.width} x {size.height} px, the size of the picture that the boxes name.",)
    regions, more = _read_regions(value, "boxes", size, choice, document=False)
    return BoxLayout(Layout(size, regions), (*notes, *(said if frame is None else ()), *more))


def is_document(value: Any) -> bool:
    """Whether a decoded value is a layout and not boxes: an object with layers or with a frame of a width and a height."""
    if not isinstance(value, dict):
        return False
    frame = value.get("frame")
    return "layers" in value or (
        "frame" in value and (not isinstance(frame, dict) or len(value) == 1 or "width" in frame)
    )


def _frame_of(value: Any, frame: Size | None) -> Size:
    if frame is not None:
        return read_frame(*frame)
    stated = stated_size(value)
    if stated is None:
        raise MRTError(
            "the boxes come without the size of their frame, but px and shares need one; give its width and height"
            " (--frame or --image on the command line)."
        )
    return read_frame(*stated)


def _read_document(document: dict, frame: Size | None, choice: Reading | None, notes: tuple[str, ...]) -> BoxLayout:
    """A layout document; one that keeps to docs/layout.md is read to the letter, another by what its layers hold."""
    if "frame" not in document:
        document = {"frame": _frame_of(document, frame)._asdict(), **document}
    layers = document.get("layers")
    try:
        strict = parse_layout(document)
        if choice is None or not strict.regions:
            return BoxLayout(strict, notes)
        error = None
    except MRTError as reason:
        error = reason
    if not isinstance(layers, (list, tuple)) or len(layers) > MAX_LAYERS:
        raise error or MRTError("the layout has no layers.")
    whole = {key: item for key, item in document.items() if key in ("frame", "caption", "background")}
    try:
        base = parse_layout({**whole, "layers": []})
        rest = {key: item for key, item in document.items() if key not in whole}
        regions, more = _read_regions(rest, "layers", base.frame, choice, document=True)
    except MRTError as reason:
        raise error or reason from None
    if not regions:
        raise error or MRTError("the layout has no boxes that can be read.")
    loose = f"the layout is not quite as docs/layout.md describes it, and its boxes were read all the same: {error}"
    return BoxLayout(replace(base, regions=regions), (*notes, *((loose,) if error else ()), *more))


def _read_regions(
    value: Any, where: str, frame: Size, choice: Reading | None, document: bool
) -> tuple[tuple[Region, ...], list[str]]:
    """The regions of all boxes in `value`, at most MAX_LAYERS, and the notes; MRTError where there are only bad boxes."""
    if not isinstance(value, (dict, list, tuple)):
        raise MRTError(f"the boxes are {describe(value)}, but must be a list or an object; write such as {EXAMPLE}.")
    finds = find_marks(value, where if not isinstance(value, dict) or document else _root(value), document)
    marks = finds.marks
    boxes, notes = place_marks(marks, frame, choice)
    good, bad = [], [_one_line(error) for error in finds.bad]
    for mark, box in zip(marks, boxes, strict=True):
        try:
            good.append((mark, _checked(mark, box, frame)))
        except MRTError as error:
            label = mark.caption[:40] or mark.name[:40]
            bad.append(_one_line(f'"{label}": {error}' if label else str(error)))
    if not good and bad:
        first = bad[0][bad[0].index('": ') + 3 :] if bad[0].startswith('"') and '": ' in bad[0] else bad[0]
        raise MRTError(first if len(bad) == 1 else f"none of the {len(bad)} boxes can be used; the first: {first}")
    if not good and (not _is_empty(value) and not document):
        raise MRTError(f"{describe(value)} holds no boxes, but a layout is made of them; write such as {EXAMPLE}.")
    left_out = [f"left out: {error}" for error in bad[:SHOWN_NOTES]]
    if len(bad) > SHOWN_NOTES:
        left_out.append(f"left out: {len(bad) - SHOWN_NOTES} more boxes that cannot be used.")
    if len({mark.z for mark, _ in good} - {None}):
        good = [
            item
            for _, item in sorted(enumerate(good), key=lambda pair: pair[0] if pair[1][0].z is None else pair[1][0].z)
        ]
    good, limited = _limited(good)
    regions = name_unnamed(_region(mark, box) for mark, box in good)
    return regions, [*map(_one_line, (*finds.notes, *notes)), *left_out, *limited]


def _one_line(sentence: str) -> str:
    """A sentence that quotes foreign keys and labels, without their line breaks and control characters."""
    return FORBIDDEN_IN_NAMES.sub(" ", sentence)


def _root(value: dict) -> str:
    return "boxes[0]"


def _is_empty(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(isinstance(item, (list, tuple)) and not item for item in value)
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(item, (list, tuple)) and not item for item in value.values())
    )


def _checked(mark: Mark, box: Box, frame: Size) -> Box:
    for key, number in zip(Box._fields, box, strict=True):
        read_number(number, f"{mark.where}.{key}")
    return check_box(box, mark.where, frame)


def _limited(good: list[tuple[Mark, Box]]) -> tuple[list[tuple[Mark, Box]], list[str]]:
    """At most MAX_LAYERS boxes in their order: those of the highest score, without scores the first."""
    if len(good) <= MAX_LAYERS:
        return good, []
    scored = all(mark.score is not None for mark, _ in good)
    order = sorted(range(len(good)), key=lambda index: -(good[index][0].score or 0)) if scored else range(len(good))
    kept = sorted(list(order)[:MAX_LAYERS])
    which = "those of the highest score" if scored else "the first of them, because not all have a score,"
    return [good[index] for index in kept], [
        f"there are {len(good)} boxes, but a layout has at most {MAX_LAYERS} layers: {which} were kept."
    ]


def _region(mark: Mark, box: Box) -> Region:
    return Region(_short_name(mark.name), box, read_caption(mark.caption, f"{mark.where}.caption"))


def _short_name(text: str) -> str:
    """The first words of `text` on one line, at most NAME_LENGTH characters."""
    line = FORBIDDEN_IN_NAMES.sub("", " ".join(text.split()))[:MAX_NAME_LENGTH]
    if len(line) <= NAME_LENGTH:
        return line
    head = line[: NAME_LENGTH - 1]
    return (head.rsplit(" ", 1)[0] if " " in head else head) + "…"
