"""PNG images and ZIP archives, read with care: both can unpack to far more than they hold."""

import io
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import MRTError
from .budget import PixelBudget

ZIP_DATE = (1980, 1, 1, 0, 0, 0)  # fixed, so that equal stacks are equal bytes
MAX_MEMBER_BYTES = 2**30  # of one file in an archive, unpacked

_DAMAGE = (KeyError, OSError, ValueError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error)


def encode_png(pixels: np.ndarray) -> bytes:
    """RGBA uint8 (height, width, 4) as a PNG file, quickly packed."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def decode_png(data: bytes, name: str, budget: PixelBudget) -> np.ndarray:
    """A PNG file as RGBA uint8 (height, width, 4); its declared size is checked against `budget` first. Raises MRTError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the budget is the limit
            with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
                budget.spend(name, *image.size)
                return np.asarray(image.convert("RGBA"))
    except MRTError:
        raise
    except (OSError, ValueError, SyntaxError, zlib.error, Image.DecompressionBombError) as error:
        raise MRTError(f"The image of layer {name!r} cannot be decoded ({error}); save the document again.") from error


def open_zip(path: Path) -> zipfile.ZipFile:
    """The archive at `path`, open for reading; raises MRTError when it is none."""
    try:
        return zipfile.ZipFile(path)
    except (*_DAMAGE, NotImplementedError) as error:
        raise MRTError(f'"{path}" is not a ZIP file that can be read ({error}); save the document again.') from error


def read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    """One file of an archive; raises MRTError when it is missing, damaged or larger than `MAX_MEMBER_BYTES` unpacked."""
    try:
        with archive.open(name) as member:
            data = member.read(MAX_MEMBER_BYTES + 1)
    except _DAMAGE as error:
        raise MRTError(f'Cannot read {name!r} in "{archive.filename}" ({error}); save the document again.') from error
    if len(data) > MAX_MEMBER_BYTES:
        raise MRTError(
            f'{name!r} in "{archive.filename}" unpacks to more than {MAX_MEMBER_BYTES} bytes; save its layers smaller.'
        )
    return data


def zip_budget(archive: zipfile.ZipFile) -> PixelBudget:
    """How many pixels the images of an archive may unpack to."""
    return PixelBudget(sum(member.compress_size for member in archive.infolist()))
