"""Colour profiles: which of them are sRGB, and the conversion of the others (ICC.1; perceptual, black point compensated)."""

import io
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageCms

from .wording import reason, shown

_SPACES = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK", "LAB": "Lab"}  # what a profile for images of a mode is for
_SAME_LEVELS = 3  # a profile that moves no colour by more is sRGB
_PROBE = np.stack(np.meshgrid(*[np.arange(0, 256, 51, dtype=np.uint8)] * 3), -1).reshape(6, 36, 3)
_ERRORS = (ImageCms.PyCMSError, OSError, ValueError, TypeError)


class Conversion(NamedTuple):
    """How images of one mode become sRGB: `transform` (None: Pillow's own conversion), and what is not exact about it."""

    transform: ImageCms.ImageCmsTransform | None
    remark: str = ""


def to_srgb(image: Image.Image, profile: bytes | None) -> tuple[Image.Image, str]:
    """`image` (mode L, RGB, CMYK or LAB) as RGB in sRGB, and a remark where its colours are not exact, else "".

    An RGB profile also serves gray images. Without a profile L and RGB are taken for sRGB.
    """
    mode = fitting_mode(image.mode, profile)
    transform, remark = conversion(profile, mode)
    image = image if image.mode == mode else image.convert(mode)
    return (ImageCms.applyTransform(image, transform) if transform else image.convert("RGB")), remark


def fitting_mode(mode: str, profile: bytes | None) -> str:
    """The mode to convert images of `mode` from: RGB for gray ones with an RGB profile."""
    return "RGB" if mode == "L" and profile and _space(profile) == "RGB" else mode


@lru_cache(maxsize=8)  # a damaged profile can take 0.2 s to look at, and is looked at for every layer
def conversion(profile: bytes | None, mode: str) -> Conversion:
    """The conversion of images of `mode` with `profile` to sRGB; a profile that cannot be used is named in the remark."""
    if mode == "LAB":
        return Conversion(_build(ImageCms.createProfile("LAB"), mode))
    if not profile:
        inks = "it has no colour profile, so its CMYK colours are approximate"
        return Conversion(None, inks if mode == "CMYK" else "")
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        name = shown(ImageCms.getProfileDescription(source).strip())
        if _space(profile) != _SPACES[mode]:
            return Conversion(
                None,
                f"its colour profile {name} is not one for {mode} pictures, so it was left out and colours may differ",
            )
        transform = _build(source, mode)
    except _ERRORS as error:
        return Conversion(
            None,
            f"its colour profile of {len(profile)} bytes cannot be read ({reason(error)}), so its colours were taken as "
            "they are",
        )
    # By what it does and not by its name: files exist whose profile calls itself sRGB and is another.
    return Conversion(None) if mode == "RGB" and _keeps_colours(transform) else Conversion(transform)


def _build(source: ImageCms.ImageCmsProfile, mode: str) -> ImageCms.ImageCmsTransform:
    return ImageCms.buildTransform(
        source,
        ImageCms.createProfile("sRGB"),
        mode,
        "RGB",
        ImageCms.Intent.PERCEPTUAL,
        ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )


def _keeps_colours(transform: ImageCms.ImageCmsTransform) -> bool:
    moved = np.asarray(ImageCms.applyTransform(Image.fromarray(_PROBE), transform)).astype(int) - _PROBE
    return bool(np.abs(moved).max() <= _SAME_LEVELS)


def _space(profile: bytes) -> str:
    """The colour space that the header names (ICC.1, bytes 16 to 19), such as "RGB" or "GRAY"."""
    return profile[16:20].decode("latin-1").strip()
