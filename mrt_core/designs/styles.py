"""Drawing styles: every layer of a design shares one, and restyling carries an asset from one style to another."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter

from .colors import LUMINANCE, PALETTE, Color, pick_color

KINDS = ("natural", "greyscale", "posterised", "duotone", "outline", "recoloured")
HUES = ("red", "orange", "yellow", "green", "teal", "sky blue", "blue", "purple", "pink")
LEAST_TINT = 0.45  # how much of the new colour recolouring gives to white and grey
EDGE_GAIN = 3.0  # lines of an outline reach full strength where luminance changes by a third of its range


class Style(NamedTuple):
    """A named transformation of straight RGBA pixels (H, W, 4) uint8 that keeps their alpha."""

    name: str
    apply: Callable[[np.ndarray], np.ndarray]


def _luminance(pixels: np.ndarray) -> np.ndarray:
    return pixels[..., :3].astype(np.float32) @ LUMINANCE / 255  # (H, W)


def _with_color(pixels: np.ndarray, color: np.ndarray) -> np.ndarray:
    return np.concatenate([np.rint(color.clip(0, 255)).astype(np.uint8), pixels[..., 3:]], -1)


def greyscale(pixels: np.ndarray) -> np.ndarray:
    return _with_color(pixels, np.repeat(_luminance(pixels)[..., None] * 255, 3, -1))


def posterised(pixels: np.ndarray) -> np.ndarray:
    return _with_color(pixels, np.round(pixels[..., :3] / 127.5) * 127.5)


def duotone(dark: Color, light: Color) -> Callable[[np.ndarray], np.ndarray]:
    """Luminance mapped onto the line from `dark` to `light`."""
    low, high = np.float32(dark), np.float32(light)
    return lambda pixels: _with_color(pixels, low + (high - low) * _luminance(pixels)[..., None])


def recoloured(color: Color) -> Callable[[np.ndarray], np.ndarray]:
    """`color` in place of every hue, the paler the less saturated the pixel is, and as dark as the pixel is dark."""
    tint = 255 - np.float32(color)

    def apply(pixels: np.ndarray) -> np.ndarray:
        levels = pixels[..., :3].astype(np.float32)
        value = levels.max(-1, keepdims=True)  # (H, W, 1)
        saturation = 1 - levels.min(-1, keepdims=True) / np.maximum(value, 1)
        return _with_color(pixels, value * (1 - np.maximum(saturation, LEAST_TINT) * tint / 255))

    return apply


def outline(pixels: np.ndarray) -> np.ndarray:
    """Edges and the rim as dark lines on a flat pale fill, both in the drawing's mean colour."""
    alpha = pixels[..., 3].astype(np.float32) / 255
    mean = (pixels[..., :3] * alpha[..., None]).sum((0, 1)) / alpha.sum()
    luminance = np.pad(_luminance(pixels) * alpha, 1, mode="edge")  # (H + 2, W + 2)
    across = np.maximum(
        np.abs(luminance[1:-1, 2:] - luminance[1:-1, :-2]), np.abs(luminance[2:, 1:-1] - luminance[:-2, 1:-1])
    )
    inner = Image.fromarray(np.pad(pixels[..., 3], 1)).filter(ImageFilter.MinFilter(3))
    rim = alpha - np.asarray(inner, np.float32)[1:-1, 1:-1] / 255
    line = np.maximum(EDGE_GAIN * across, rim).clip(0, 1)[..., None]  # (H, W, 1)
    fill, ink = 255 - 0.35 * (255 - mean), 0.35 * mean
    return _with_color(pixels, fill + (ink - fill) * line)


NATURAL = Style("full colour", lambda pixels: pixels)


def pick_style(rng: np.random.Generator) -> Style:
    """Any style, full colour among them, with equal chances."""
    kind = KINDS[int(rng.integers(len(KINDS)))]
    if kind == "natural":
        return NATURAL
    if kind == "greyscale":
        return Style("greyscale", greyscale)
    if kind == "posterised":
        return Style("posterised", posterised)
    if kind == "outline":
        return Style("outline", outline)
    if kind == "recoloured":
        name = HUES[int(rng.integers(len(HUES)))]
        return Style(f"recoloured in {name}", recoloured(PALETTE[name]))
    name, color = pick_color(rng)
    dark = PALETTE["navy"] if sum(color) > 380 else PALETTE["cream"]
    return Style(f"{name} duotone", duotone(min(dark, color, key=sum), max(dark, color, key=sum)))
