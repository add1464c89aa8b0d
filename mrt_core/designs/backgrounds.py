"""Backgrounds: flat, gradient, pattern, each opaque or semi-transparent, with a caption."""

import numpy as np
from PIL import Image

from .elements import Element, pick_color


def _blend(first: tuple[int, int, int], second: tuple[int, int, int], weight: np.ndarray) -> np.ndarray:
    """Mix two colours by `weight` (H, W) in 0..1: (H, W, 3) float."""
    a, b = np.asarray(first, np.float32), np.asarray(second, np.float32)
    return a + (b - a) * weight[..., None]


def _pattern(rng: np.random.Generator, xs: np.ndarray, ys: np.ndarray, period: float) -> tuple[str, np.ndarray]:
    """A pattern's name and its anti-aliased weight (H, W) in 0..1, at pixel centres `xs`, `ys`."""
    kind = str(rng.choice(["stripes", "dots", "checks", "waves"]))
    angle = rng.uniform(0, np.pi)
    along = xs * np.cos(angle) + ys * np.sin(angle)
    softness = 1.2  # px of edge
    if kind == "stripes":
        distance = np.abs((along / period) % 1 - 0.5) * period - period / 4
    elif kind == "dots":
        distance = period * 0.28 - np.hypot((xs % period) - period / 2, (ys % period) - period / 2)
    elif kind == "checks":
        distance = np.sin(np.pi * xs / period) * np.sin(np.pi * ys / period) * period / 2
    else:
        distance = np.sin(2 * np.pi * (ys + 0.2 * period * np.sin(2 * np.pi * xs / period)) / period) * period / 4
    return kind, np.clip(distance / softness + 0.5, 0, 1)


def draw_background(rng: np.random.Generator, width: int, height: int) -> Element:
    """A background of width x height px; one in eight is semi-transparent."""
    kind = rng.choice(["flat", "gradient", "pattern"], p=[0.35, 0.35, 0.3])
    name, color = pick_color(rng)
    other_name, other = pick_color(rng)
    ys, xs = np.mgrid[0:height, 0:width].astype(np.float32) + 0.5
    if kind == "flat":
        pixels, caption = _blend(color, color, np.zeros_like(xs)), f"a flat {name} background"
    elif kind == "gradient":
        angle = rng.uniform(0, 2 * np.pi)
        along = (xs / width - 0.5) * np.cos(angle) + (ys / height - 0.5) * np.sin(angle)
        pixels = _blend(color, other, np.clip(along + 0.5, 0, 1))
        caption = f"a gradient background from {name} to {other_name}"
    else:
        period = rng.uniform(0.12, 0.35) * min(width, height)
        pattern, weight = _pattern(rng, xs, ys, period)
        pixels, caption = _blend(color, other, weight), f"a background of {name} and {other_name} {pattern}"
    alpha = np.full((height, width, 1), 255, np.float32)
    if rng.random() < 0.125:
        alpha *= rng.uniform(0.35, 0.8)
        caption = caption.replace("a ", "a semi-transparent ", 1)
    return Element(Image.fromarray(np.concatenate([pixels, alpha], -1).round().astype(np.uint8), "RGBA"), caption)
