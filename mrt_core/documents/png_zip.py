"""PNG images and ZIP archives, read with care: both can unpack to far more than they hold."""

import io
import os
import zipfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import MRTError
from .budget import BudgetError, PixelBudget
from .pictures import Picture, decode_picture
from .wording import reason, shown

ZIP_DATE = (1980, 1, 1, 0, 0, 0)  # fixed, so that equal stacks are equal bytes
# What one file in an archive may unpack to: PNG files are packed already, and descriptions are short.
_FREE_BYTES, _BYTES_PER_BYTE = 2**24, 16

_DAMAGE = (KeyError, OSError, ValueError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error)


def encode_png(pixels: np.ndarray) -> bytes:
    """RGBA uint8 (height, width, 4) as a PNG file, quickly packed."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def decode_layer(data: bytes, name: str, budget: PixelBudget) -> Picture:
    """The picture file of the layer `name`, PNG as a rule; its size is checked against `budget` first. Raises MRTError."""
    failure = f"The image of layer {shown(name)} cannot be decoded"
    return decode_picture(io.BytesIO(data), failure, lambda width, height: budget.spend(name, width, height))


def open_zip(path: Path) -> zipfile.ZipFile:
    """The archive at `path`, open for reading; raises MRTError when it is none."""
    try:
        return zipfile.ZipFile(path)
    except _DAMAGE as error:
        raise MRTError(
            f'"{path}" is not a ZIP file that can be read ({reason(error)}); save the document again.'
        ) from error


def read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    """One file of an archive; raises MRTError when it is missing or damaged, BudgetError where it unpacks to too much."""
    size = _size(archive)
    limit = _FREE_BYTES + _BYTES_PER_BYTE * size
    try:
        if archive.getinfo(name).compress_size > size:
            raise EOFError("it ends too early")  # before that much memory is asked for
        with archive.open(name) as member:
            data = member.read(limit + 1)
    except _DAMAGE as error:
        raise MRTError(
            f'Cannot read {shown(name)} in "{archive.filename}" ({reason(error)}); save the document again.'
        ) from error
    if len(data) > limit:
        raise BudgetError(
            f'{shown(name)} in "{archive.filename}" unpacks to more than the {limit} bytes that are allowed for an archive '
            "of its size; save the document again."
        )
    return data


def zip_budget(archive: zipfile.ZipFile) -> PixelBudget:
    """How many pixels the images of an archive may unpack to."""
    return PixelBudget(_size(archive))


def _size(archive: zipfile.ZipFile) -> int:
    """The archive's size on disk, in bytes."""
    return os.fstat(archive.fp.fileno()).st_size
