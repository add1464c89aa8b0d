"""Colour of other documents to 8-bit sRGB, and the sRGB profile that ours carry."""

from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms
from psd_tools.constants import ColorMode

from .. import icc

_CREATION_DATE = slice(24, 36)  # ICC.1, profile header: date and time of creation
_FIXED_DATE = bytes.fromhex("07d000010001000000000000")  # 2000-01-01, so that equal documents are equal bytes
_PLANES = {ColorMode.RGB: 3, ColorMode.CMYK: 4, ColorMode.LAB: 3}  # the others are read as gray


@lru_cache(maxsize=1)
def srgb_profile() -> bytes:
    """An ICC profile of sRGB, the same bytes on every call and every day."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[_CREATION_DATE] = _FIXED_DATE
    return bytes(profile)


def is_srgb(profile: bytes | None) -> bool:
    """Whether RGB colours with this ICC profile are sRGB as they are: without one, or with one that changes nothing."""
    return icc.conversion(profile, "RGB").transform is None


def profile_remark(mode: ColorMode, profile: bytes | None) -> str:
    """What is not exact about the colours of a document in `mode`, or ""."""
    name = "LAB" if mode == ColorMode.LAB else "CMYK" if mode == ColorMode.CMYK else "RGB"
    if name == "RGB" and mode not in (ColorMode.RGB, ColorMode.INDEXED):
        name = "L"
    return icc.conversion(profile, name).remark


def to_srgb(color: np.ndarray, mode: ColorMode, linear: bool, profile: bytes | None) -> np.ndarray:
    """Floats (height, width, channels) in 0..1, as a PSD in `mode` stores them, to 8-bit sRGB (height, width, 3).

    `linear`: the floats are linear light, as in 32-bit documents. A profile that does not fit the mode is not used.
    """
    if linear:
        color = _encode_gamma(color)
    levels = np.rint(color.clip(0, 1) * 255).astype(np.uint8)
    planes = [
        Image.fromarray(np.ascontiguousarray(levels[..., i])) for i in range(min(levels.shape[2], _PLANES.get(mode, 1)))
    ]
    if mode == ColorMode.LAB and len(planes) == 3:
        return _converted(Image.merge("LAB", planes), None)
    if mode == ColorMode.CMYK and len(planes) == 4:
        inks = Image.merge("CMYK", [plane.point(lambda level: 255 - level) for plane in planes])  # 255 stores no ink
        return _converted(inks, profile)
    image = Image.merge("RGB", planes) if len(planes) == 3 else planes[0]
    return _converted(image, None if linear else profile)


def _converted(image: Image.Image, profile: bytes | None) -> np.ndarray:
    return np.asarray(icc.to_srgb(image, profile)[0])


def _encode_gamma(color: np.ndarray) -> np.ndarray:
    """Linear light to sRGB's curve (IEC 61966-2-1)."""
    color = color.clip(0, 1)
    return np.where(color <= 0.0031308, 12.92 * color, 1.055 * color ** (1 / 2.4) - 0.055)
