"""OpenRaster to a layer stack, as leniently as other programs and people write it.

What is not exact, not known or could not be read is a warning that names it: an unreadable layer costs that layer and
not the document.
"""

import math
import posixpath
import zipfile
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

from ...errors import MRTError
from ...geometry import Size, union
from ...stacks.layers import PASS_THROUGH, Group, Layer, LayerStack
from ..budget import BudgetError, PixelBudget, check_frame
from ..folding import covered_by, fold, uncovered_by
from ..metadata import parse_json
from ..png_zip import decode_layer, open_zip, read_member, zip_budget
from ..wording import reason, shown
from ..xml_tree import DoctypeError, parse_xml
from .operators import ATOP, ERASE, KEEP, read_operator
from .writer import JOB, MIMETYPE

_LARGEST = 2**31  # px, of a position
_TRUE = ("true", "1", "yes")
# What is read, and what says nothing about the picture.
_SHARED_ATTRIBUTES = {"name", "x", "y", "opacity", "visibility", "composite-op", "alpha-preserve"}
_IDLE_ATTRIBUTES = {"selected", "edit-locked", "locked", "id", "uuid", "version", "xres", "yres", "w", "h", "collapsed"}
_ATTRIBUTES = {
    "layer": _SHARED_ATTRIBUTES | _IDLE_ATTRIBUTES | {"src"},
    "stack": _SHARED_ATTRIBUTES | _IDLE_ATTRIBUTES | {"isolation"},
}


def load_ora(path: Path) -> LayerStack:
    """The layer stack in an OpenRaster file; its `warnings` name what is not exact. Raises MRTError when it cannot be read."""
    with open_zip(Path(path)) as archive:
        members = archive.namelist()
        kind = read_member(archive, "mimetype").strip().decode("latin-1") if "mimetype" in members else MIMETYPE
        if "stack.xml" not in members and (kind != MIMETYPE or "mimetype" not in members):
            raise MRTError(f'"{path}" is a ZIP file but not OpenRaster; choose an .ora file.')
        image = _parse(read_member(archive, "stack.xml"), path)
        job = _read_job(archive)
        reading = _Reading(archive, zip_budget(archive), (job or {}).get("nodes"))
        if job is None:
            reading.warnings.append(f"The document: {JOB} cannot be read, so captions and metadata were left out.")
        if kind != MIMETYPE:
            reading.warnings.append(f"The document: it calls itself {shown(kind)} and was read as OpenRaster.")
        root = next((child for child in image if _tag(child) == "stack"), None)
        if _tag(image) != "image" or root is None:
            raise MRTError(f'"{path}" has no layer stack; save it again in the program it came from.')
        for child in image:
            if child is not root:
                reading.warnings.append(f'The element "{_tag(child)}" of the document is not known and was left out.')
        try:
            layers = reading.root(root)
        except RecursionError as error:
            raise MRTError(f'The layer stack of "{path}" is damaged ({reason(error)}); save it again.') from error
        frame = _frame(image, layers, path, reading)
        metadata = (job or {}).get("metadata")
        return LayerStack(frame, layers, metadata if isinstance(metadata, dict) else {}, tuple(reading.warnings))


def _parse(xml: bytes, path: Path) -> ElementTree.Element:
    try:
        return parse_xml(xml)
    except DoctypeError as error:
        raise MRTError(
            f'The layer stack of "{path}" has XML declarations, which are not read; save it again.'
        ) from error
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise MRTError(f'The layer stack of "{path}" is damaged ({reason(error)}); save it again.') from error


def _frame(image: ElementTree.Element, layers: tuple[Layer | Group, ...], path: Path, reading: "_Reading") -> Size:
    """The declared size, or what holds every layer where none can be read."""
    sides = [_number(image.get(key, "")) for key in ("w", "h")]
    if all(side is not None and side >= 1 for side in sides):
        frame = Size(round(sides[0]), round(sides[1]))
    else:
        boxes = [layer.box for layer in LayerStack(Size(1, 1), layers).flat()]
        around = union(boxes) if boxes else None
        if around is None or min(around.right, around.bottom) < 1:
            raise MRTError(f'The layer stack of "{path}" is damaged (it has no width and height); save it again.')
        frame = Size(int(around.right), int(around.bottom))
        reading.warnings.append(
            f"The document: its width and height cannot be read, so {frame.width} x {frame.height} px were taken, which "
            "hold its layers."
        )
    check_frame(frame, str(path))
    return frame


def _read_job(archive: zipfile.ZipFile) -> dict[str, Any] | None:
    """Our own notes, empty in a file of another program; None for notes that cannot be read: welcome, not needed."""
    if JOB not in archive.namelist():
        return {}
    try:
        job = parse_json(read_member(archive, JOB))
    except (ValueError, RecursionError):  # MRTError among them
        return None
    return job if isinstance(job, dict) else None


def _tag(element: ElementTree.Element) -> str:
    """The element's name without its namespace."""
    return element.tag.rpartition("}")[2]


def _number(text: str) -> float | None:
    """A number as people write it, with a decimal comma too; None where it is none."""
    try:
        value = float(text.strip().replace(",", "."))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


class _Reading:
    """What is needed and collected while one archive is read."""

    def __init__(self, archive: zipfile.ZipFile, budget: PixelBudget, extras: Any) -> None:
        self.archive = archive
        self.budget = budget
        self.extras = extras if isinstance(extras, list) else []
        self.warnings: list[str] = []
        self._members = set(archive.namelist())
        self._lost: MRTError | None = None
        self._count = 0

    def root(self, stack: ElementTree.Element) -> tuple[Layer | Group, ...]:
        """The document's layers; raises MRTError where it has some and none could be read."""
        self._warn_of_unknown(stack, "The document")
        layers = self._children(stack, *self._place(stack, "The document"))
        if self._lost and not any(LayerStack(Size(1, 1), layers).flat()):
            raise self._lost
        return layers

    def _children(self, parent: ElementTree.Element, x: int, y: int) -> tuple[Layer | Group, ...]:
        """The layers and groups in an XML stack whose corner is (x, y), bottom to top."""
        nodes: tuple[Layer | Group, ...] = ()
        for element in reversed(parent):
            if _tag(element) not in ("layer", "stack"):
                self.warnings.append(f'The element "{_tag(element)}" in the layer stack is not known and was left out.')
                continue
            what = f'Layer "{element.get("name") or element.get("src") or ""}"'
            self._warn_of_unknown(element, what)
            operator = self._operator(element, what)
            mode = "normal" if operator in (ATOP, ERASE, KEEP) else operator
            node = self._node(element, what, mode, x, y)
            if node is not None:
                nodes = self._stacked(nodes, node, element, operator, what)
        return nodes

    def _stacked(
        self,
        below: tuple[Layer | Group, ...],
        node: Layer | Group,
        element: ElementTree.Element,
        operator: str,
        what: str,
    ) -> tuple[Layer | Group, ...]:
        """`node` on the nodes `below` it in its stack, with what either does to the other's alpha folded into pixels."""
        if operator == ATOP or element.get("alpha-preserve", "").strip().lower() in _TRUE:
            self.warnings.append(f"{what}: it is clipped to what lies below it, which was worked into its alpha.")
            return (*below, fold(node, covered_by(below)))
        if operator not in (ERASE, KEEP):
            return (*below, node)
        deed = "erases" if operator == ERASE else "masks"
        if not node.visible:
            self.warnings.append(f'{what}: it {deed} what lies below it; it is hidden, and was read as "normal".')
            return (*below, node)
        self.warnings.append(f"{what}: it {deed} what lies below it, which was worked into the alpha of those layers.")
        left = uncovered_by((node,)) if operator == ERASE else covered_by((node,))
        return tuple(fold(lower, left) for lower in below)

    def _node(self, element: ElementTree.Element, what: str, mode: str, x: int, y: int) -> Layer | Group | None:
        """The layer or group of `element`, in a stack whose corner is (x, y); None for a layer that cannot be read."""
        name, source = element.get("name", ""), element.get("src", "")
        dx, dy = self._place(element, what)
        shared = {"name": name, "opacity": self._opacity(element, what), "visible": self._visible(element, what)}
        if _tag(element) == "stack":
            through = mode == "normal" and element.get("isolation", "auto") == "auto" and self._own
            inside = self._children(element, x + dx, y + dy)
            closed = bool(self._extra("closed"))
            return Group(inside, blend_mode=PASS_THROUGH if through else mode, closed=closed, **shared)
        caption = str(self._extra("caption") or "")
        try:
            picture = decode_layer(read_member(self.archive, self._member(source)), name or source, self.budget)
        except BudgetError:
            raise
        except MRTError as error:
            self._lost = self._lost or error
            self.warnings.append(f"{what}: it was left out. {error}")
            return None
        self.warnings += [f"{what}: {remark}." for remark in picture.remarks]
        return Layer(picture.pixels, x + dx, y + dy, caption=caption, blend_mode=mode, **shared)

    def _operator(self, element: ElementTree.Element, what: str) -> str:
        """The blend mode, or what the layer does to others' alpha."""
        text = element.get("composite-op", "svg:src-over")
        operator = read_operator(text)
        if operator is None or (operator == PASS_THROUGH and _tag(element) == "layer"):
            self.warnings.append(f'{what}: its blend mode "{text}" is not known and was read as "normal".')
            return "normal"
        return operator

    def _place(self, element: ElementTree.Element, what: str) -> tuple[int, int]:
        """The position of an element in its stack, px."""
        return self._position(element, "x", what), self._position(element, "y", what)

    def _position(self, element: ElementTree.Element, key: str, what: str) -> int:
        text = element.get(key, "0")
        value = _number(text)
        if value is None or abs(value) > _LARGEST:
            self.warnings.append(f"{what}: its {key} {shown(text)} cannot be read and was taken for 0.")
            return 0
        if value != round(value):
            self.warnings.append(f"{what}: its {key} {shown(text)} was rounded to {round(value)}.")
        return round(value)

    def _opacity(self, element: ElementTree.Element, what: str) -> float:
        text = element.get("opacity", "1")
        value = _number(text)
        if value is not None and 0 <= value <= 1:
            return value
        taken = 1.0 if value is None else min(max(value, 0.0), 1.0)
        self.warnings.append(f"{what}: its opacity {shown(text)} is none from 0 to 1 and was taken for {taken:g}.")
        return taken

    def _visible(self, element: ElementTree.Element, what: str) -> bool:
        text = element.get("visibility", "visible")
        word = text.strip().lower()
        if word not in ("visible", "hidden"):
            self.warnings.append(f'{what}: its visibility {shown(text)} is not known and was taken for "visible".')
        return word != "hidden"

    def _warn_of_unknown(self, element: ElementTree.Element, what: str) -> None:
        """Name the attributes that are not read, and what a layer holds: the format has nothing there."""
        unknown = [key.rpartition("}")[2] for key in element.attrib]
        unknown = [key for key in unknown if key not in _ATTRIBUTES[_tag(element)]]
        if unknown:
            self.warnings.append(f"{what}: what is not known was left out: {', '.join(map(shown, unknown))}.")
        if _tag(element) == "layer" and len(element):
            held = ", ".join(shown(_tag(child)) for child in element)
            self.warnings.append(f"{what}: it holds elements that are not known and were left out: {held}.")

    def _member(self, source: str) -> str:
        """The archive's name for the file `source`, which may be written as a path or a URL."""
        slashed = source.strip().replace("\\", "/")
        for name in (source, posixpath.normpath(slashed).lstrip("/"), posixpath.normpath(unquote(slashed)).lstrip("/")):
            if name in self._members:
                return name
        return source

    @property
    def _own(self) -> bool:
        """Whether we wrote the file. Other programs leave the isolation at "auto" for groups that they do isolate."""
        return bool(self.extras)

    def _extra(self, key: str) -> Any:
        """Our own note on the current node; they are numbered as the nodes are met, a group after what it holds."""
        index, self._count = self._count, self._count + 1
        note = self.extras[index] if index < len(self.extras) else None
        return note.get(key) if isinstance(note, dict) else None
