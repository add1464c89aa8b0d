"""PSD or PSB to a layer stack: names, order, groups, opacity, modes, visibility, and the job that made the document.

A plain pixel layer keeps its pixels as they are. What a layer stack cannot keep apart (masks, clipping, effects, vector
shapes, other colour modes) is rendered into the layer's pixels, with a warning by layer name where that is not exact.
Source: Adobe file format, "Layer and Mask Information Section".
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from psd_tools import PSDImage
from psd_tools.constants import ColorMode, Resource

from ...errors import MRTError
from ...geometry import Box, Size
from ...stacks.layers import Layer, LayerStack, composite_planes
from ..budget import MAX_PIXELS, PixelBudget
from ..metadata import from_xmp
from ..wording import reason
from .alpha_channels import alpha_channels
from .color_profile import profile_remark
from .effects import complete_effects
from .names import restore_names
from .nodes import read_nodes
from .pixels import merged_pixels
from .reading import Reading, is_over_budget
from .writer import DEFAULT_PPI

_SIGNATURE = b"8BPS"
_BAND_ROWS = 256  # rows composited at a time
# What psd-tools' compositor may allocate at once, for layers that have to be rendered.
_FREE_BYTES, _BYTES_PER_BYTE = 2**29, 64


def load_psd(path: Path) -> LayerStack:
    """The layer stack in a PSD or PSB file, as 8-bit sRGB; its `warnings` say, by layer name, where it is not exact.

    Raises MRTError for a file that cannot be read or unpacks to more than `budget.MAX_PIXELS`.
    """
    path = Path(path)
    with _opened(path) as (document, budget):
        return _read_stack(document, budget)


def load_psd_preview(path: Path) -> np.ndarray:
    """The picture that the program which saved the PSD stored beside its layers: RGBA uint8 (height, width, 4).

    The remedy where `load_psd` warns that layers are not exact. Raises MRTError where
    none is stored, and where it is a white page and the layers are not.
    """
    path = Path(path)
    with _opened(path) as (document, budget):
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a preview that cannot be decoded must not come out black
            pixels = merged_pixels(document, budget)
        blank = bool((pixels == 255).all())
        if not _says_preview(document) or (blank and len(document) and not _is_white(_read_stack(document, budget))):
            raise MRTError(
                f'"{path}" stores no picture of its layers; save it again with "Maximize Compatibility", or composite the '
                "layers."
            )
        return pixels


def _is_white(stack: LayerStack) -> bool:
    """Whether the layers show nothing on a white page but white."""
    for top in range(0, stack.frame.height, _BAND_ROWS):
        rows = min(_BAND_ROWS, stack.frame.height - top)
        planes = composite_planes(stack, Box(0, top, stack.frame.width, rows))
        if (planes[:3] + 1 - planes[3] < 1 - 1 / 255).any():
            return False
    return True


@contextmanager
def _opened(path: Path) -> Iterator[tuple[PSDImage, PixelBudget]]:
    """The parsed document; whatever fails while it is used becomes one MRTError."""
    try:
        with path.open("rb") as file:
            if file.read(4) != _SIGNATURE:
                raise MRTError(
                    f'"{path}" is not a PSD file: it does not begin with "8BPS"; choose a .psd or .psb file.'
                )
        size = path.stat().st_size
    except OSError as error:
        raise MRTError(f'Cannot read "{path}": {error.strerror}; check the path.') from error
    try:
        yield PSDImage.open(path, max_alloc_bytes=_FREE_BYTES + _BYTES_PER_BYTE * size), PixelBudget(size)
    except MRTError:
        raise
    except Exception as error:  # a damaged file makes the parser raise errors of many kinds
        if is_over_budget(error):
            raise MRTError(
                f'"{path}" takes more memory to read than is allowed for a file of its size; crop or merge its layers.'
            ) from error
        raise MRTError(
            f'"{path}" is damaged or uses a feature that cannot be read ({reason(error)}); save it again in the program it came '
            "from."
        ) from error


def _read_stack(document: PSDImage, budget: PixelBudget) -> LayerStack:
    resources = document.image_resources
    job = from_xmp(resources.get_data(Resource.XMP_METADATA) or b"") or {}
    reading = Reading(budget, _dict(job.get("layers")), cache(partial(_has_preview, document)))
    if document.depth > 8 or document.color_mode != ColorMode.RGB:
        reading.warnings.append(
            f"The document is {document.color_mode.name} with {document.depth} bits per channel; its layers were "
            "converted to 8-bit sRGB."
        )
    if remark := profile_remark(document.color_mode, resources.get_data(Resource.ICC_PROFILE)):
        reading.warnings.append(f"The document: {remark}.")
    if selections := alpha_channels(document).selections:
        names = ", ".join(f'"{name}"' for name in selections)
        reading.warnings.append(f"The document: its saved selections and spot channels were left out: {names}.")
    every = list(document.descendants())
    guesses = restore_names(every)
    for layer in every:
        complete_effects(layer)
        if id(layer) in guesses:
            reading.warn(
                layer.name, f"its name does not say its script and was read as {guesses[id(layer)]}, which is a guess"
            )
    layers = read_nodes(document, reading, ())
    if not len(document):
        if not _says_preview(document):
            reading.warnings.append("The document: it has no layers, and says that it stores no picture either.")
        with reading.decoding("Background"):
            layers = (Layer(merged_pixels(document, budget), 0, 0, "Background"),)
    metadata = _with_ppi(_dict(job.get("metadata")), document)
    return LayerStack(Size(document.width, document.height), layers, metadata, tuple(reading.warnings))


def _says_preview(document: PSDImage) -> bool:
    """Whether the document says that a picture of it is stored, or says nothing."""
    version = document.image_resources.get_data(Resource.VERSION_INFO)
    return bool(getattr(version, "has_composite", True))


def _has_preview(document: PSDImage) -> bool:
    """Whether a picture of the document is stored; programs that store none leave the place for it white."""
    if not _says_preview(document) or document.width * document.height > MAX_PIXELS:
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            stored = document._record.image_data.get_data(document._record.header, split=False)
        except Exception:  # a damaged picture makes the decoder raise errors of many kinds, and is none to offer
            return False
    return stored.count(b"\xff") < len(stored)


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _with_ppi(metadata: dict[str, Any], document: PSDImage) -> dict[str, Any]:
    """`metadata` with the document's resolution, where that is not what the metadata says or the default."""
    resolution = document.image_resources.get_data(Resource.RESOLUTION_INFO)
    fixed_point = resolution.horizontal if resolution else round(DEFAULT_PPI * 65536)
    stated = metadata.get("ppi", DEFAULT_PPI)
    if isinstance(stated, int | float) and round(stated * 65536) == fixed_point:
        return metadata
    return {**metadata, "ppi": fixed_point / 65536}
