"""Drawing styles: every layer of a design shares one, and restyling carries an asset from one style to another."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter

from .colors import BLUE, GREEN, PALETTE, RED, Color, pick_color

KINDS = ("natural", "greyscale", "posterised", "duotone", "outline", "recoloured")
HUES = ("red", "orange", "yellow", "green", "teal", "sky blue", "blue", "purple", "pink")
LEAST_TINT = 0.45  # how much of the new colour recolouring gives to white and grey
EDGE_GAIN = 3.0  # lines of an outline reach full strength where luminance changes by a third of its range
POSTERISED = np.round(np.arange(256) / 127.5) * 127.5  # three levels for 256


class Style(NamedTuple):
    """A named transformation of straight RGBA pixels (H, W, 4) uint8 that keeps their alpha."""

    name: str
    apply: Callable[[np.ndarray], np.ndarray]


def _luminance(pixels: np.ndarray) -> np.ndarray:
    """(H, W) float32 in 0..1."""
    red, green, blue = (np.float32(weight / 255) * pixels[..., i] for i, weight in enumerate((RED, GREEN, BLUE)))
    return red + green + blue


def _with_color(pixels: np.ndarray, color: np.ndarray) -> np.ndarray:
    """The pixels' alpha with `color` (H, W, 3) float, or (H, W, 1) for grey, in levels."""
    changed = pixels.copy()
    changed[..., :3] = np.rint(color)
    return changed


def greyscale(pixels: np.ndarray) -> np.ndarray:
    return _with_color(pixels, _luminance(pixels)[..., None] * 255)


def posterised(pixels: np.ndarray) -> np.ndarray:
    return _with_color(pixels, POSTERISED[pixels[..., :3]])


def duotone(dark: Color, light: Color) -> Callable[[np.ndarray], np.ndarray]:
    """Luminance mapped onto the line from `dark` to `light`."""
    low, high = np.float32(dark), np.float32(light)
    return lambda pixels: _with_color(pixels, low + (high - low) * _luminance(pixels)[..., None])


def recoloured(color: Color) -> Callable[[np.ndarray], np.ndarray]:
    """`color` in place of every hue, the paler the less saturated the pixel is, and as dark as the pixel is dark."""
    tint = 255 - np.float32(color)

    def apply(pixels: np.ndarray) -> np.ndarray:
        red, green, blue = np.moveaxis(pixels[..., :3], -1, 0).astype(np.float32)  # (H, W) each
        value = np.maximum(np.maximum(red, green), blue)
        chroma = np.maximum(value - np.minimum(np.minimum(red, green), blue), LEAST_TINT * value)
        return _with_color(pixels, value[..., None] - chroma[..., None] * (tint / 255))

    return apply


def outline(pixels: np.ndarray) -> np.ndarray:
    """Edges and the rim as dark lines on a flat pale fill, both in the drawing's mean colour."""
    alpha = pixels[..., 3].astype(np.float32) / 255
    mean = alpha.ravel() @ pixels[..., :3].reshape(-1, 3).astype(np.float32) / alpha.sum()
    luminance = np.pad(_luminance(pixels) * alpha, 1, mode="edge")  # (H + 2, W + 2)
    across, down = luminance[1:-1, 2:] - luminance[1:-1, :-2], luminance[2:, 1:-1] - luminance[:-2, 1:-1]
    inner = Image.fromarray(np.pad(pixels[..., 3], 1)).filter(ImageFilter.MinFilter(3))
    rim = alpha - np.asarray(inner)[1:-1, 1:-1] / np.float32(255)
    line = np.maximum(EDGE_GAIN * np.maximum(np.abs(across), np.abs(down)), rim).clip(0, 1)[..., None]  # (H, W, 1)
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
