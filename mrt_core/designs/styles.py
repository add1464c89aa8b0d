"""Drawing styles: every layer of a design shares one, and restyling carries an asset from one style to another."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .elements import PALETTE, pick_color


class Style(NamedTuple):
    """A named transformation of straight RGBA pixels (H, W, 4) uint8 that keeps their alpha."""

    name: str
    apply: Callable[[np.ndarray], np.ndarray]


def _luminance(pixels: np.ndarray) -> np.ndarray:
    return pixels[..., :3].astype(np.float32) @ np.float32([0.299, 0.587, 0.114]) / 255  # (H, W)


def _with_color(pixels: np.ndarray, color: np.ndarray) -> np.ndarray:
    return np.concatenate([np.rint(color.clip(0, 255)).astype(np.uint8), pixels[..., 3:]], -1)


def greyscale(pixels: np.ndarray) -> np.ndarray:
    return _with_color(pixels, np.repeat(_luminance(pixels)[..., None] * 255, 3, -1))


def posterised(pixels: np.ndarray) -> np.ndarray:
    return _with_color(pixels, np.round(pixels[..., :3] / 127.5) * 127.5)


def duotone(dark: tuple[int, int, int], light: tuple[int, int, int]) -> Callable[[np.ndarray], np.ndarray]:
    """Luminance mapped onto the line from `dark` to `light`."""
    low, high = np.float32(dark), np.float32(light)
    return lambda pixels: _with_color(pixels, low + (high - low) * _luminance(pixels)[..., None])


NATURAL = Style("full colour", lambda pixels: pixels)


def pick_style(rng: np.random.Generator) -> Style:
    """Any style, full colour among them, with equal chances."""
    kind = rng.choice(["natural", "greyscale", "posterised", "duotone"])
    if kind == "natural":
        return NATURAL
    if kind == "greyscale":
        return Style("greyscale", greyscale)
    if kind == "posterised":
        return Style("posterised", posterised)
    name, color = pick_color(rng)
    dark = PALETTE["navy"] if sum(color) > 380 else PALETTE["cream"]
    return Style(f"{name} duotone", duotone(min(dark, color, key=sum), max(dark, color, key=sum)))
