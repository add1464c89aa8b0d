"""Layered documents: one `save` and one `load` that choose the format by the path's extension.

.psd and .psb (Photoshop), .ora (OpenRaster), .zip or a folder (PNG files and a JSON manifest, lossless), and .svg, which
is only written. A path is never changed: a stack that is too large for .psd is refused, `extension_for` says so before.
"""

import logging
from collections.abc import Callable
from pathlib import Path

from ..atomic import refuse_existing
from ..errors import MRTError
from ..stacks.layers import LayerStack
from .folder import load_folder, load_zip, save_folder, save_zip
from .ora import load_ora, save_ora
from .psd.reader import load_psd
from .psd.writer import needs_psb, save_psd
from .svg import save_svg

log = logging.getLogger(__name__)

_WRITERS: dict[str, Callable[[LayerStack, Path, bool], None]] = {
    ".psd": save_psd,
    ".psb": save_psd,
    ".ora": save_ora,
    ".zip": save_zip,
    ".svg": save_svg,
    "": save_folder,
}
_READERS: dict[str, Callable[[Path], LayerStack]] = {
    ".psd": load_psd,
    ".psb": load_psd,
    ".ora": load_ora,
    ".zip": load_zip,
    "": load_folder,
}


def save(stack: LayerStack, path: str | Path, overwrite: bool = False) -> None:
    """Write `stack` to `path` in the format of its extension, whole or not at all.

    Raises MRTError for an unknown extension, for a path that exists unless `overwrite` is True, and for a stack that the
    format cannot hold.
    """
    path = Path(path)
    _choose(_WRITERS, path, "written")(stack, path, overwrite)


def check_destination(path: str | Path, overwrite: bool = False) -> None:
    """Raise the MRTError that `save` would raise for the path alone, so that long work is not done in vain."""
    path = Path(path)
    _choose(_WRITERS, path, "written")
    refuse_existing(path, overwrite)


def extension_for(stack: LayerStack) -> str:
    """ ".psd", or ".psb" where `stack` may be too large for PSD: for callers that choose the name of a file themselves."""
    return ".psb" if needs_psb(stack) else ".psd"


def load(path: str | Path) -> LayerStack:
    """The layer stack in the file or folder at `path`, its warnings logged too; raises MRTError when it cannot be read."""
    path = Path(path)
    stack = (load_folder if path.is_dir() else _choose(_READERS, path, "read"))(path)
    for warning in stack.warnings:
        log.warning("%s: %s", path.name, warning)
    return stack


def _choose(formats: dict[str, Callable], path: Path, done: str) -> Callable:
    chosen = formats.get(path.suffix.lower())
    if chosen is None:
        known = ", ".join(suffix for suffix in formats if suffix)
        raise MRTError(
            f'"{path.name}" has the extension "{path.suffix}", which cannot be {done}; use one of {known}, or no '
            "extension for a folder of PNG files."
        )
    return chosen
