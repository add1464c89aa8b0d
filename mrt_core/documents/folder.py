"""The lossless interchange format: one PNG per layer and a JSON manifest, in a folder or a ZIP file.

manifest.json holds the frame, the metadata and the layers bottom to top with their placement; a group is an item with
"layers" of its own. Pixels come back byte for byte, colour under transparency included.
"""

import hashlib
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..atomic import atomic_file, refuse_existing
from ..errors import MRTError
from ..geometry import Size
from ..stacks.layers import Group, Layer, LayerStack
from .budget import PixelBudget, check_frame
from .metadata import parse_json, to_json
from .png_zip import ZIP_DATE, decode_layer, encode_png, open_zip, read_member, zip_budget
from .wording import reason, shown

MANIFEST = "manifest.json"
FORMAT, VERSION = "mrt-layers", 1

ReadFile = Callable[[str], bytes]
WriteFile = Callable[[str, bytes], None]


def save_folder(stack: LayerStack, path: Path, overwrite: bool = False) -> None:
    """Write `stack` as a folder. Files of other origin in an existing folder are left alone.

    The manifest is written last and whole, over images whose names depend on their pixels: at every moment the folder
    holds the old document or the new one. Raises MRTError when `path` exists and `overwrite` is False.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise MRTError(f'"{path}" is a file; choose the name of a folder, or give the file name an extension.')
    refuse_existing(path, overwrite)
    old = set(_old_files(path / MANIFEST))
    path.mkdir(parents=True, exist_ok=True)

    def write(name: str, data: bytes) -> None:
        with atomic_file(path / name, overwrite=True) as file:
            file.write(data)

    new = _write_document(stack, write)
    for name in old - new:
        (path / name).unlink(missing_ok=True)


def load_folder(path: Path) -> LayerStack:
    """The stack in a folder written by `save_folder`; raises MRTError when it is none or is damaged."""
    path = Path(path)

    def read(name: str) -> bytes:
        try:
            return (path / name).read_bytes()
        except OSError as error:
            raise MRTError(f'Cannot read "{path / name}": {error.strerror}; save the document again.') from error

    try:
        size = sum(file.stat().st_size for file in path.iterdir() if file.is_file())
    except OSError as error:
        raise MRTError(f'Cannot read the folder "{path}": {error.strerror}; check the path.') from error
    return _read_document(read, str(path), PixelBudget(size))


def save_zip(stack: LayerStack, path: Path, overwrite: bool = False) -> None:
    """Write `stack` as one ZIP file, whole or not at all; raises MRTError as `atomic_file` does."""
    with atomic_file(Path(path), overwrite) as file, zipfile.ZipFile(file, "w") as archive:
        _write_document(stack, lambda name, data: archive.writestr(zipfile.ZipInfo(name, ZIP_DATE), data))


def load_zip(path: Path) -> LayerStack:
    """The stack in a ZIP file written by `save_zip`; raises MRTError when it is none or is damaged."""
    with open_zip(path) as archive:
        return _read_document(lambda name: read_member(archive, name), str(path), zip_budget(archive))


def _write_document(stack: LayerStack, write: WriteFile) -> set[str]:
    """Write the images, then the manifest; returns the images' file names."""
    files: set[str] = set()
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "frame": {"width": stack.frame.width, "height": stack.frame.height},
        "metadata": stack.metadata,
        "layers": [_write_node(node, files, write) for node in stack.layers],
    }
    write(MANIFEST, to_json(manifest).encode("ascii"))
    return files


def _write_node(node: Layer | Group, files: set[str], write: WriteFile) -> dict[str, Any]:
    item: dict[str, Any] = {
        "name": node.name,
        "opacity": node.opacity,
        "blend_mode": node.blend_mode,
        "visible": node.visible,
    }
    if isinstance(node, Group):
        return {**item, "closed": node.closed, "layers": [_write_node(child, files, write) for child in node.layers]}
    height, width = node.pixels.shape[:2]
    file = None
    if node.pixels.size:
        file = _file_name(len(files), node)
        files.add(file)
        write(file, encode_png(node.pixels))
    return {**item, "caption": node.caption, "x": node.x, "y": node.y, "width": width, "height": height, "file": file}


def _file_name(index: int, layer: Layer) -> str:
    """An ASCII name that sorts in z-order, can be recognised, and changes when the pixels do."""
    words = re.sub(r"[^a-z0-9]+", "-", layer.name.lower()).strip("-")[:40] or "layer"
    digest = hashlib.blake2b(np.ascontiguousarray(layer.pixels), digest_size=4).hexdigest()
    return f"{index:03d}-{words}-{digest}.png"


def _read_document(read: ReadFile, where: str, budget: PixelBudget) -> LayerStack:
    try:
        manifest = parse_json(read(MANIFEST))
        if manifest["format"] != FORMAT or manifest["version"] != VERSION:
            raise MRTError(
                f'"{where}" is {shown(manifest["format"])} version {shown(manifest["version"])}; this reads "{FORMAT}" version '
                f"{VERSION}."
            )
        frame = Size(int(manifest["frame"]["width"]), int(manifest["frame"]["height"]))
        check_frame(frame, where)
        remarks: list[str] = []
        layers = tuple(_read_node(item, read, budget, remarks) for item in manifest["layers"])
        return LayerStack(frame, layers, dict(manifest.get("metadata") or {}), tuple(remarks))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        if isinstance(error, MRTError):
            raise
        raise MRTError(f'The manifest of "{where}" is damaged ({reason(error)}); save the document again.') from error


def _read_node(item: dict[str, Any], read: ReadFile, budget: PixelBudget, remarks: list[str]) -> Layer | Group:
    opacity = min(max(float(item["opacity"]), 0.0), 1.0)
    if opacity != item["opacity"]:
        remarks.append(f'Layer "{item["name"]}": its opacity {shown(item["opacity"])} was taken for {opacity:g}.')
    shared = {
        "name": str(item["name"]),
        "opacity": opacity,
        "blend_mode": str(item["blend_mode"]),
        "visible": bool(item["visible"]),
    }
    if "layers" in item:
        inside = tuple(_read_node(child, read, budget, remarks) for child in item["layers"])
        return Group(inside, closed=bool(item["closed"]), **shared)
    if item["file"] is None:  # a layer without area, which PNG cannot hold
        pixels = np.zeros((0, int(item["width"]), 4) if item["height"] == 0 else (int(item["height"]), 0, 4), np.uint8)
    else:
        picture = decode_layer(read(_plain_name(item["file"])), item["name"], budget)
        pixels = picture.pixels
        remarks.extend(f'Layer "{item["name"]}": {remark}.' for remark in picture.remarks)
    return Layer(pixels, int(item["x"]), int(item["y"]), caption=str(item["caption"]), **shared)


def _plain_name(name: str) -> str:
    """`name`, refused when it points outside the document's own folder."""
    if not isinstance(name, str) or not name or name != Path(name).name or "\\" in name:
        raise MRTError(f"The manifest names the image file {shown(name)}; only a plain file name beside it is read.")
    return name


def _old_files(manifest: Path) -> Iterator[str]:
    """The images of the document that `manifest` describes, when it is one of ours."""
    try:
        document = json.loads(manifest.read_bytes())
        if document["format"] == FORMAT:
            yield from _listed(document["layers"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return


def _listed(items: list[dict[str, Any]]) -> Iterator[str]:
    for item in items:
        if "layers" in item:
            yield from _listed(item["layers"])
        elif item["file"]:
            yield _plain_name(item["file"])
