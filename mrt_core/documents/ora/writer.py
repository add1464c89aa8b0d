"""Layer stack to OpenRaster.

What OpenRaster has no words for (captions, folded groups, metadata) travels in a JSON file of our own beside the tree.
"""

import zipfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from ...atomic import atomic_file
from ...stacks.layers import PASS_THROUGH, Group, Layer, LayerStack, check_blend_modes, composite
from ..metadata import to_json, xml_text
from ..png_zip import ZIP_DATE, encode_png
from .operators import OPERATORS

MIMETYPE = "image/openraster"
JOB = "mrt.json"
_THUMBNAIL_SIDE = 256  # px, fixed by the specification


def save_ora(stack: LayerStack, path: Path, overwrite: bool = False) -> None:
    """Write `stack` as OpenRaster, whole or not at all; layers without area become one transparent pixel.

    Raises MRTError as `atomic_file` does, and for metadata that JSON cannot hold.
    """
    check_blend_modes(stack.layers)
    with atomic_file(Path(path), overwrite) as file, zipfile.ZipFile(file, "w") as archive:

        def write(name: str, data: bytes) -> None:
            archive.writestr(zipfile.ZipInfo(name, ZIP_DATE), data)

        write("mimetype", MIMETYPE.encode())  # first and not compressed, so that the file type can be told from it
        image = ElementTree.Element("image", version="0.0.6", w=str(stack.frame.width), h=str(stack.frame.height))
        root = ElementTree.SubElement(image, "stack")
        extras: list[dict[str, Any]] = []
        for node in stack.layers:
            _write_node(node, root, extras, write)
        write("stack.xml", ElementTree.tostring(image, "utf-8", xml_declaration=True))
        write(JOB, to_json({"version": 1, "metadata": stack.metadata, "nodes": extras}).encode("ascii"))
        merged = composite(stack)
        write("mergedimage.png", encode_png(merged))
        write("Thumbnails/thumbnail.png", encode_png(_thumbnail(merged)))


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
            "composite-op": OPERATORS["normal" if through else node.blend_mode],
            "isolation": "auto" if through else "isolate",
        }
        element = ElementTree.Element("stack", attributes)
        for child in node.layers:
            _write_node(child, element, extras, write)
        extras.append({"closed": node.closed})
    else:
        source = f"data/{len(extras):03d}.png"
        write(source, encode_png(node.pixels if node.pixels.size else np.zeros((1, 1, 4), np.uint8)))
        attributes |= {"composite-op": OPERATORS[node.blend_mode], "src": source, "x": str(node.x), "y": str(node.y)}
        element = ElementTree.Element("layer", attributes)
        extras.append({"caption": node.caption})
    parent.insert(0, element)


def _thumbnail(merged: np.ndarray) -> np.ndarray:
    image = Image.fromarray(merged).convert("RGBa")
    image.thumbnail((_THUMBNAIL_SIDE, _THUMBNAIL_SIDE), Image.Resampling.BOX)
    return np.asarray(image.convert("RGBA"))
