"""OpenRaster (.ora): a ZIP of PNG layers and an XML tree, which Krita, GIMP and MyPaint open.

What OpenRaster has no words for (captions, folded groups, metadata) travels in a JSON file of our own beside the tree.
Source: OpenRaster specification 0.0.6, "File layout", "Layer stack".
"""

import json
import zipfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from ..atomic import atomic_file
from ..errors import MRTError
from ..geometry import Size
from ..stacks.layers import PASS_THROUGH, Group, Layer, LayerStack, check_blend_modes, composite
from .budget import PixelBudget
from .metadata import to_json, xml_text
from .png_zip import ZIP_DATE, decode_layer, encode_png, open_zip, read_member, zip_budget
from .wording import reason

_MIMETYPE = "image/openraster"
_JOB = "mrt.json"
_THUMBNAIL_SIDE = 256  # px, fixed by the specification
# The specification's operators; other programs take an operator they do not know for "svg:src-over".
_OPERATORS = {
    "normal": "svg:src-over",
    "multiply": "svg:multiply",
    "screen": "svg:screen",
    "overlay": "svg:overlay",
    "darken": "svg:darken",
    "lighten": "svg:lighten",
    "color-dodge": "svg:color-dodge",
    "color-burn": "svg:color-burn",
    "hard-light": "svg:hard-light",
    "soft-light": "svg:soft-light",
    "difference": "svg:difference",
    "color": "svg:color",
    "luminosity": "svg:luminosity",
    "hue": "svg:hue",
    "saturation": "svg:saturation",
    "linear-dodge": "svg:plus",
    # Krita's names for its own
    "dissolve": "krita:dissolve",
    "exclusion": "krita:exclusion",
    "subtract": "krita:subtract",
    "divide": "krita:divide",
    "linear-burn": "krita:linear_burn",
    "linear-light": "krita:linear light",
    "vivid-light": "krita:vivid_light",
    "pin-light": "krita:pin_light",
    "hard-mix": "krita:hard mix",
    "darker-color": "krita:darker color",
    "lighter-color": "krita:lighter color",
    "grain-extract": "krita:grain_extract",
    "grain-merge": "krita:grain_merge",
}
_MODES = {operator: mode for mode, operator in _OPERATORS.items()}


def save_ora(stack: LayerStack, path: Path, overwrite: bool = False) -> None:
    """Write `stack` as OpenRaster, whole or not at all; layers without area become one transparent pixel.

    Raises MRTError as `atomic_file` does, and for metadata that JSON cannot hold.
    """
    check_blend_modes(stack.layers)
    with atomic_file(Path(path), overwrite) as file, zipfile.ZipFile(file, "w") as archive:

        def write(name: str, data: bytes) -> None:
            archive.writestr(zipfile.ZipInfo(name, ZIP_DATE), data)

        write("mimetype", _MIMETYPE.encode())  # first and not compressed, so that the file type can be told from it
        image = ElementTree.Element("image", version="0.0.6", w=str(stack.frame.width), h=str(stack.frame.height))
        root = ElementTree.SubElement(image, "stack")
        extras: list[dict[str, Any]] = []
        for node in stack.layers:
            _write_node(node, root, extras, write)
        write("stack.xml", ElementTree.tostring(image, "utf-8", xml_declaration=True))
        write(_JOB, to_json({"version": 1, "metadata": stack.metadata, "nodes": extras}).encode("ascii"))
        merged = composite(stack)
        write("mergedimage.png", encode_png(merged))
        write("Thumbnails/thumbnail.png", encode_png(_thumbnail(merged)))


def load_ora(path: Path) -> LayerStack:
    """The layer stack in an OpenRaster file; raises MRTError when it cannot be read."""
    with open_zip(Path(path)) as archive:
        if read_member(archive, "mimetype").strip() != _MIMETYPE.encode():
            raise MRTError(f'"{path}" is a ZIP file but not OpenRaster; choose an .ora file.')
        image = _parse(read_member(archive, "stack.xml"), path)
        job = _read_job(archive)
        reading = _Reading(archive, zip_budget(archive), job.get("nodes"))
        root = image.find("stack")
        if image.tag != "image" or root is None:
            raise MRTError(f'"{path}" has no layer stack; save it again in the program it came from.')
        try:
            layers = reading.children(root)
            frame = Size(int(image.get("w", "")), int(image.get("h", "")))
        except MRTError:
            raise
        except (ValueError, RecursionError) as error:
            raise MRTError(f'The layer stack of "{path}" is damaged ({reason(error)}); save it again.') from error
        metadata = job.get("metadata")
        return LayerStack(frame, layers, metadata if isinstance(metadata, dict) else {}, tuple(reading.warnings))


def _write_node(node: Layer | Group, parent: ElementTree.Element, extras: list[dict[str, Any]], write: Any) -> None:
    """Append `node` to the XML, where the topmost comes first, and its own notes to `extras`, bottom to top."""
    attributes = {
        "name": xml_text(node.name),
        "opacity": repr(float(node.opacity)),
        "visibility": "visible" if node.visible else "hidden",
    }
    if isinstance(node, Group):
        through = node.blend_mode == PASS_THROUGH
        attributes |= {
            "composite-op": _OPERATORS["normal" if through else node.blend_mode],
            "isolation": "auto" if through else "isolate",
        }
        element = ElementTree.Element("stack", attributes)
        for child in node.layers:
            _write_node(child, element, extras, write)
        extras.append({"closed": node.closed})
    else:
        source = f"data/{len(extras):03d}.png"
        write(source, encode_png(node.pixels if node.pixels.size else np.zeros((1, 1, 4), np.uint8)))
        attributes |= {"composite-op": _OPERATORS[node.blend_mode], "src": source, "x": str(node.x), "y": str(node.y)}
        element = ElementTree.Element("layer", attributes)
        extras.append({"caption": node.caption})
    parent.insert(0, element)


def _thumbnail(merged: np.ndarray) -> np.ndarray:
    image = Image.fromarray(merged).convert("RGBa")
    image.thumbnail((_THUMBNAIL_SIDE, _THUMBNAIL_SIDE), Image.Resampling.BOX)
    return np.asarray(image.convert("RGBA"))


def _parse(xml: bytes, path: Path) -> ElementTree.Element:
    if b"<!" in xml:
        raise MRTError(f'The layer stack of "{path}" has XML declarations, which are not read; save it again.')
    try:
        return ElementTree.fromstring(xml)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise MRTError(f'The layer stack of "{path}" is damaged ({reason(error)}); save it again.') from error


def _read_job(archive: zipfile.ZipFile) -> dict[str, Any]:
    if _JOB not in archive.namelist():
        return {}
    try:
        job = json.loads(read_member(archive, _JOB))
    except (ValueError, RecursionError):  # MRTError among them: our notes are welcome, not needed
        return {}
    return job if isinstance(job, dict) else {}


class _Reading:
    """What is needed and collected while one archive is read."""

    def __init__(self, archive: zipfile.ZipFile, budget: PixelBudget, extras: Any) -> None:
        self.archive = archive
        self.budget = budget
        self.extras = extras if isinstance(extras, list) else []
        self.warnings: list[str] = []
        self._count = 0

    def children(self, parent: ElementTree.Element) -> tuple[Layer | Group, ...]:
        """The layers and groups in an XML stack, bottom to top."""
        return tuple(self._node(element) for element in reversed(parent) if element.tag in ("layer", "stack"))

    def _node(self, element: ElementTree.Element) -> Layer | Group:
        name = element.get("name", "")
        operator = element.get("composite-op", "svg:src-over")
        if operator not in _MODES:
            self.warnings.append(f'Layer "{name}": its blend mode "{operator}" is not known and was read as "normal".')
        mode = _MODES.get(operator, "normal")
        shared = {
            "name": name,
            "opacity": min(max(float(element.get("opacity", "1")), 0.0), 1.0),
            "visible": element.get("visibility", "visible") != "hidden",
        }
        if element.tag == "stack":
            inside = self.children(element)
            through = mode == "normal" and element.get("isolation", "auto") == "auto" and self._own
            return Group(
                inside, blend_mode=PASS_THROUGH if through else mode, closed=bool(self._extra("closed")), **shared
            )
        pixels = decode_layer(read_member(self.archive, element.get("src", "")), name, self.budget).pixels
        x, y = int(element.get("x", "0")), int(element.get("y", "0"))
        return Layer(pixels, x, y, caption=str(self._extra("caption") or ""), blend_mode=mode, **shared)

    @property
    def _own(self) -> bool:
        """Whether we wrote the file. Other programs leave the isolation at "auto" for groups that they do isolate."""
        return bool(self.extras)

    def _extra(self, key: str) -> Any:
        """Our own note on the current node; they are numbered as the nodes are met."""
        index, self._count = self._count, self._count + 1
        note = self.extras[index] if index < len(self.extras) else None
        return note.get(key) if isinstance(note, dict) else None
