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
    names = {ColorMode.LAB: "LAB", ColorMode.CMYK: "CMYK", ColorMode.RGB: "RGB", ColorMode.INDEXED: "RGB"}
    return icc.conversion(profile, icc.fitting_mode(names.get(mode, "L"), profile)).remark


def to_srgb(color: np.ndarray, mode: ColorMode, linear: bool, profile: bytes | None) -> np.ndarray:
    """Floats (height, width, channels) in 0..1, as a PSD in `mode` stores them, to 8-bit sRGB (height, width, 3).

    `linear`: the floats are linear light, as in 32-bit documents. A profile that does not fit the mode is not used.
    """
    planes = [to_levels(color[..., i], linear) for i in range(color.shape[2])]
    return planes_to_srgb(planes, mode, None if linear else profile)


def to_levels(values: np.ndarray, linear: bool) -> np.ndarray:
    """Floats in 0..1 of any shape, linear light or not, as uint8 levels."""
    return np.rint((_encode_gamma(values) if linear else values).clip(0, 1) * 255).astype(np.uint8)


def planes_to_srgb(planes: list[np.ndarray], mode: ColorMode, profile: bytes | None) -> np.ndarray:
    """Colour channels (height, width) uint8, as a PSD in `mode` stores them, to 8-bit sRGB (height, width, 3)."""
    images = [Image.fromarray(np.ascontiguousarray(plane)) for plane in planes[: _PLANES.get(mode, 1)]]
    if mode == ColorMode.LAB and len(images) == 3:
        return _converted(Image.merge("LAB", images), None)
    if mode == ColorMode.CMYK and len(images) == 4:
        inks = Image.merge("CMYK", [image.point(lambda level: 255 - level) for image in images])  # 255 stores no ink
        return _converted(inks, profile)
    return _converted(Image.merge("RGB", images) if len(images) == 3 else images[0], profile)


def _converted(image: Image.Image, profile: bytes | None) -> np.ndarray:
    return np.asarray(icc.to_srgb(image, profile)[0])


def _encode_gamma(color: np.ndarray) -> np.ndarray:
    """Linear light to sRGB's curve (IEC 61966-2-1)."""
    color = color.clip(0, 1)
    return np.where(color <= 0.0031308, 12.92 * color, 1.055 * color ** (1 / 2.4) - 0.055)
