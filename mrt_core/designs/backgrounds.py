"""Backgrounds: flat, gradient, pattern, each opaque or semi-transparent, with a caption."""

from typing import NamedTuple

import numpy as np

from .colors import Color, pick_color

KINDS = ("flat", "gradient", "pattern")
PATTERNS = ("stripes", "dots", "checks", "waves")
KIND_SHARES = (0.35, 0.35, 0.3)
SEMI_TRANSPARENT_SHARE, SEMI_TRANSPARENT_OPACITIES = 0.125, (0.35, 0.8)


class Background(NamedTuple):
    """Straight RGBA `pixels` (height, width, 4) uint8, a caption, and the colours that stand for them."""

    pixels: np.ndarray
    caption: str
    colors: tuple[Color, ...]


def _blend(first: Color, second: Color, weight: np.ndarray, alpha: int) -> np.ndarray:
    """Two colours mixed by `weight` (H, W) in 0..1, in steps of 1/255: (H, W, 4) uint8."""
    steps = np.linspace((*first, alpha), (*second, alpha), 256)
    table = np.rint(steps).astype(np.uint8).view(np.uint32)[:, 0]  # one number per RGBA colour
    return table[(weight * 255 + 0.5).astype(np.uint8)].view(np.uint8).reshape(*weight.shape, 4)


def _pattern(rng: np.random.Generator, kind: str, xs: np.ndarray, ys: np.ndarray, period: float) -> np.ndarray:
    """A pattern's anti-aliased weight (H, W) in 0..1, at pixel centres `xs` (1, W), `ys` (H, 1)."""
    angle = rng.uniform(0, np.pi)
    softness = 1.2  # px of edge
    if kind == "stripes":
        along = xs * np.float32(np.cos(angle)) + ys * np.float32(np.sin(angle))
        distance = np.abs((along / period) % 1 - 0.5) * period - period / 4
    elif kind == "dots":
        distance = period * 0.28 - np.hypot((xs % period) - period / 2, (ys % period) - period / 2)
    elif kind == "checks":
        distance = np.sin(np.float32(np.pi / period) * xs) * np.sin(np.pi * ys / period) * period / 2
    else:
        distance = (
            np.sin(2 * np.pi * (ys + 0.2 * period * np.sin(2 * np.float32(np.pi / period) * xs)) / period) * period / 4
        )
    return np.clip(distance / softness + 0.5, 0, 1)


def draw_background(rng: np.random.Generator, width: int, height: int) -> Background:
    """A background of width x height px; one in eight is semi-transparent."""
    kind = KINDS[int(np.searchsorted(np.cumsum(KIND_SHARES), rng.random()))]
    (name, color), (other_name, other) = pick_color(rng), pick_color(rng)
    xs = np.arange(0.5, width, dtype=np.float32)[None, :]
    ys = np.arange(0.5, height, dtype=np.float32)[:, None]
    colors = (color, other)
    if kind == "flat":
        weight, caption, colors = np.zeros((height, width), np.float32), f"flat {name} background", (color,)
    elif kind == "gradient":
        angle = rng.uniform(0, 2 * np.pi)
        along = (xs / width - 0.5) * np.float32(np.cos(angle)) + (ys / height - 0.5) * np.float32(np.sin(angle))
        weight = np.clip(along + np.float32(0.5), 0, 1)
        caption = f"gradient background from {name} to {other_name}"
        colors = (color, other, tuple((a + b) // 2 for a, b in zip(color, other, strict=True)))
    else:
        period = float(rng.uniform(0.12, 0.35) * min(width, height))
        pattern = PATTERNS[int(rng.integers(len(PATTERNS)))]
        weight = _pattern(rng, pattern, xs, ys, period)
        caption = f"background of {name} and {other_name} {pattern}"
    opaque = rng.random() >= SEMI_TRANSPARENT_SHARE
    alpha = 255 if opaque else round(255 * rng.uniform(*SEMI_TRANSPARENT_OPACITIES))
    caption = f"a {caption}" if opaque else f"a semi-transparent {caption}"
    return Background(_blend(color, other, weight, alpha), caption, colors)
