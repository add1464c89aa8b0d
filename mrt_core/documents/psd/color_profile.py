"""Colour of other documents to 8-bit sRGB, and the sRGB profile that ours carry."""

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms
from psd_tools.constants import ColorMode

_CREATION_DATE = slice(24, 36)  # ICC.1, profile header: date and time of creation
_FIXED_DATE = bytes.fromhex("07d000010001000000000000")  # 2000-01-01, so that equal documents are equal bytes
_PLANES = {ColorMode.RGB: 3, ColorMode.CMYK: 4, ColorMode.LAB: 3}  # the others are read as gray


@lru_cache(maxsize=1)
def srgb_profile() -> bytes:
    """An ICC profile of sRGB, the same bytes on every call and every day."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[_CREATION_DATE] = _FIXED_DATE
    return bytes(profile)


@lru_cache(maxsize=1)  # a damaged profile can take 0.2 s to look at, and is looked at for every layer
def is_srgb(profile: bytes | None) -> bool:
    """Whether colours with this ICC profile are sRGB as they are: no profile, ours, or one that calls itself so."""
    if not profile or profile == srgb_profile():
        return True
    try:
        name = ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile))).lower()
    except (ImageCms.PyCMSError, OSError):
        return False
    return "srgb" in name and "linear" not in name


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
        return _transform(Image.merge("LAB", planes), None)
    if mode == ColorMode.CMYK and len(planes) == 4:
        inks = Image.merge("CMYK", [plane.point(lambda level: 255 - level) for plane in planes])  # 255 stores no ink
        return _transform(inks, profile)
    image = Image.merge("RGB", planes) if len(planes) == 3 else planes[0]
    return np.asarray(image.convert("RGB")) if linear or is_srgb(profile) else _transform(image, profile)


def _transform(image: Image.Image, profile: bytes | None) -> np.ndarray:
    transform = _transform_to_srgb(profile, image.mode)
    return np.asarray(ImageCms.applyTransform(image, transform) if transform else image.convert("RGB"))


@lru_cache(maxsize=1)
def _transform_to_srgb(profile: bytes | None, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The conversion of images in `mode`; None without a profile, or with a broken one or one of another mode."""
    try:
        if mode == "LAB":
            source = ImageCms.createProfile("LAB")
        elif profile:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        else:
            return None
        return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError):
        return None


def _encode_gamma(color: np.ndarray) -> np.ndarray:
    """Linear light to sRGB's curve (IEC 61966-2-1)."""
    color = color.clip(0, 1)
    return np.where(color <= 0.0031308, 12.92 * color, 1.055 * color ** (1 / 2.4) - 0.055)
