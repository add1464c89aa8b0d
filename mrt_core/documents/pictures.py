"""Pictures of every kind as straight 8-bit sRGB RGBA: one decoder for files, layers of documents and the command line.

Turned upright by their EXIF orientation; 16 and 32 bits and floats scaled to 8; palettes, gray, CMYK and Lab converted;
embedded colour profiles converted to sRGB. What is not exact or was chosen is said.
"""

import logging
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from ..errors import MRTError
from .budget import PixelBudget
from .icc import to_srgb
from .levels import to_levels
from .wording import reason

log = logging.getLogger(__name__)

MAX_PIXELS = 160_000_000  # of one picture file: A0 at 300 dpi fits
# Pillow's decoders of pictures. It knows more: some start other programs (EPS), some are formats of data.
_FORMATS = (
    "PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "DIB", "AVIF", "JPEG2000", "PPM", "TGA", "ICO", "ICNS", "PCX",
    "QOI", "SGI", "DDS",
)  # fmt: skip
_STILL = ("MPO", "ICO", "ICNS")  # their further pictures are previews of the first
_TIFF_SAMPLE_FORMAT, _TIFF_BITS = 339, 258
_UNSIGNED = 1
_SCALE = {"2": 85, "4": 17}  # of gray levels with as many bits
_TURNS = {  # EXIF 2.32, tag Orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Picture(NamedTuple):
    """Straight RGBA uint8 (height, width, 4), and remarks on what is not exact, each a clause that begins with "it"."""

    pixels: np.ndarray
    remarks: tuple[str, ...]


def read_image(path: str | os.PathLike) -> np.ndarray:
    """The picture file at `path` as straight sRGB RGBA uint8 (height, width, 4); logs what is not exact.

    Raises MRTError for a file that is missing, damaged, no picture, or larger than `MAX_PIXELS`.
    """
    path = Path(path)

    def allow(width: int, height: int) -> None:
        limit = min(MAX_PIXELS, PixelBudget(path.stat().st_size).limit)
        if width * height > limit:
            raise MRTError(
                f"{path} has {width} x {height} px, and {limit} pixels are allowed for a picture file of its size; make "
                "the picture smaller."
            )

    try:
        with path.open("rb") as file:
            picture = decode_picture(file, f"{path} cannot be read as an image", allow)
    except OSError as error:
        raise MRTError(
            f"{path} cannot be read as an image ({error.strerror or reason(error)}); check the path."
        ) from error
    for remark in picture.remarks:
        log.warning("%s: %s.", path.name, remark)
    return picture.pixels


def decode_picture(file: BinaryIO, failure: str, allow: Callable[[int, int], None]) -> Picture:
    """The picture in an open `file`, its first frame where it has several.

    `allow(width, height)` raises MRTError for a size that is too large, before memory is taken for the pixels;
    `failure` begins the sentence of the MRTError for one that cannot be decoded, and names it.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            picture = _decode(file, allow)
        except MRTError:
            raise
        except UnidentifiedImageError as error:
            raise MRTError(
                f"{failure} ({_what_it_is(file)}); give a PNG, JPEG, WebP or TIFF file of 8 or 16 bits."
            ) from error
        except Image.DecompressionBombError as error:
            raise MRTError(f"{failure}, for it has too many pixels; make it smaller.") from error
        except Exception as error:  # a damaged file makes Pillow's decoders raise errors of many kinds
            raise MRTError(f"{failure} ({reason(error)}); download or save it again.") from error
    if any("EXIF" in str(warning.message) for warning in caught):
        return picture._replace(remarks=(*picture.remarks, "its EXIF data is damaged, so it may not be upright"))
    return picture


def _what_it_is(file: BinaryIO) -> str:
    """What can be said of a file that Pillow does not know."""
    file.seek(0)
    head = file.read(4)
    if not head:
        return "it is empty"
    return "it is a layered document" if head == b"8BPS" else "it holds no picture of a known kind"


def _decode(file: BinaryIO, allow: Callable[[int, int], None]) -> Picture:
    Image.init()
    with Image.open(file, formats=[name for name in _FORMATS if name in Image.OPEN]) as image:
        allow(*image.size)
        frames = 1 if image.format in _STILL else getattr(image, "n_frames", 1)
        remarks = [f"it has {frames} frames, of which the first was read"] if frames > 1 else []
        profile = image.info.get("icc_profile")
        stored = _stored_mode(image)
        image.load()
        color, alpha, remark = _color_and_alpha(image, stored)
        remarks += [remark] if remark else []
        color, remark = to_srgb(color, profile)
        remarks += [remark] if remark else []
        color.putalpha(alpha if alpha is not None else 255)
        return Picture(np.asarray(_upright(color, image)), tuple(remarks))


def _stored_mode(image: Image.Image) -> str:
    """Pillow's name for how the file stores a pixel, such as "RGB;16B" or "L;4"; "" where there is none."""
    arguments = image.tile[0][3] if image.tile else ""
    mode = arguments if isinstance(arguments, str) or not arguments else arguments[0]
    return mode if isinstance(mode, str) else ""


def _color_and_alpha(image: Image.Image, stored: str) -> tuple[Image.Image, Image.Image | None, str]:
    """Colour in mode L, RGB, CMYK or LAB with 8 bits, alpha as L or None, and a remark."""
    clear = image.info.get("transparency")
    if image.mode.startswith("I") or image.mode == "F":
        values, bits = _values(image)
        levels, remark = to_levels(values, bits)
        alpha = Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)) if clear is not None else None
        return Image.fromarray(levels), alpha, remark
    if clear is not None and not isinstance(clear, bytes):
        image = image.copy()
        image.info["transparency"] = _at_8_bits(clear, stored)
    see_through = clear is not None or image.mode in ("RGBA", "RGBa", "LA", "La", "PA")
    if image.mode in ("L", "LA", "La", "1"):
        gray = image.convert("LA") if see_through and clear is None else image.convert("RGBA" if see_through else "L")
        return (gray.getchannel(0), gray.getchannel("A"), "") if see_through else (gray, None, "")
    if see_through:
        rgba = image.convert("RGBA")
        return rgba.convert("RGB"), rgba.getchannel("A"), ""
    return image if image.mode in ("CMYK", "LAB", "RGB") else image.convert("RGB"), None, ""


def _values(image: Image.Image) -> tuple[np.ndarray, int | None]:
    """The values of a gray image that has more than 8 bits, and how many bits they are stored with, where it is known."""
    values = np.asarray(image)
    if image.mode.startswith("I;16") or image.format in ("PNG", "PPM", "JPEG2000"):
        return values, 16
    tags = getattr(image, "tag_v2", {})
    if image.mode == "I" and tags.get(_TIFF_SAMPLE_FORMAT, (_UNSIGNED,))[0] == _UNSIGNED:
        values = values.view(np.uint32)  # Pillow reads them as signed
    return values, tags.get(_TIFF_BITS, (None,))[0]


def _at_8_bits(clear: int | tuple[int, ...], stored: str) -> int | tuple[int, ...]:
    """The colour that a PNG declares transparent, which Pillow leaves in the file's own depth, in 8 bits."""
    _, _, depth = stored.partition(";")
    if depth.startswith("16"):
        return tuple(value >> 8 for value in clear) if isinstance(clear, tuple) else clear >> 8
    return clear * _SCALE.get(depth, 1) if isinstance(clear, int) and stored.startswith("L") else clear


def _upright(pixels: Image.Image, source: Image.Image) -> Image.Image:
    """`pixels` turned as the EXIF orientation of `source` asks; Pillow has already turned TIFF files and taken it away."""
    turn = _TURNS.get(source.getexif().get(ExifTags.Base.Orientation, 1))
    return pixels if turn is None else pixels.transpose(turn)
