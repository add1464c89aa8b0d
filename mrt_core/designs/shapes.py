"""Coloured shapes, drawn at four times their size and reduced, so that their edges are anti-aliased."""

import math

import numpy as np
from PIL import Image, ImageDraw

from .colors import jittered
from .finishes import Drawing, pick_finish
from .legibility import Ground

SUPERSAMPLING = 4
GRADIENT_SHARE = 0.2
SEMI_TRANSPARENT_SHARE, SOFT_SHARE = 0.13, 0.07


def _regular_points(count: int, radii: tuple[float, ...], phase: float) -> list[tuple[float, float]]:
    """`count` points around (0.5, 0.5), cycling through `radii`, starting at angle `phase` from the top."""
    angles = [phase + 2 * math.pi * i / count for i in range(count)]
    radius = [radii[i % len(radii)] for i in range(count)]
    return [(0.5 + r * math.sin(a), 0.5 - r * math.cos(a)) for a, r in zip(angles, radius, strict=True)]


def _heart_points() -> list[tuple[float, float]]:
    angles = np.linspace(0, 2 * math.pi, 64, endpoint=False)
    x = 16 * np.sin(angles) ** 3
    y = 13 * np.cos(angles) - 5 * np.cos(2 * angles) - 2 * np.cos(3 * angles) - np.cos(4 * angles)
    return [(0.5 + a / 34, 0.47 - b / 34) for a, b in zip(x, y, strict=True)]


POLYGONS: dict[str, tuple[tuple[float, float], ...]] = {
    "triangle": ((0.5, 0.02), (0.98, 0.95), (0.02, 0.95)),
    "diamond": tuple(_regular_points(4, (0.49,), 0)),
    "hexagon": tuple(_regular_points(6, (0.49,), 0)),
    "star": tuple(_regular_points(10, (0.49, 0.22), 0)),
    "heart": tuple(_heart_points()),
    "arrow": ((0, 0.3), (0.55, 0.3), (0.55, 0.05), (1, 0.5), (0.55, 0.95), (0.55, 0.7), (0, 0.7)),
}
ROUND_SHAPES = ("circle", "ring", "rectangle", "rounded rectangle")
SHAPES = (*ROUND_SHAPES, *POLYGONS)


def shape_mask(kind: str, width: int, height: int) -> Image.Image:
    """An anti-aliased "L" mask of one of SHAPES that fills width x height px."""
    size = (width * SUPERSAMPLING, height * SUPERSAMPLING)
    mask = Image.new("L", size)
    draw = ImageDraw.Draw(mask)
    outer = (0, 0, size[0] - 1, size[1] - 1)
    if kind in POLYGONS:
        draw.polygon([(x * size[0], y * size[1]) for x, y in POLYGONS[kind]], fill=255)
    elif kind == "circle":
        draw.ellipse(outer, fill=255)
    elif kind == "ring":
        draw.ellipse(outer, outline=255, width=max(2 * SUPERSAMPLING, min(size) // 6))
    elif kind == "rectangle":
        draw.rectangle(outer, fill=255)
    else:
        draw.rounded_rectangle(outer, radius=min(size) // 4, fill=255)
    return mask.reduce(SUPERSAMPLING)


def draw_shape(rng: np.random.Generator, size: int, ground: Ground) -> Drawing:
    """A legible coloured shape about `size` px; sometimes semi-transparent, with a gradient, or soft at the edges."""
    kind = SHAPES[int(rng.integers(len(SHAPES)))]
    finish = pick_finish(rng, SEMI_TRANSPARENT_SHARE, SOFT_SHARE)
    name, color = ground.pick_color(rng, finish.opacity)
    aspect = rng.uniform(0.45, 2.2) if "rectangle" in kind else rng.uniform(0.85, 1.18)
    width, height = max(8, round(size * math.sqrt(aspect))), max(8, round(size / math.sqrt(aspect)))
    fill = Image.new("RGB", (width, height), color)
    if rng.random() < GRADIENT_SHARE:
        ramp = Image.linear_gradient("L").resize((width, height))
        fill = Image.composite(Image.new("RGB", (width, height), jittered(rng, color, 50)), fill, ramp)
    fill.putalpha(shape_mask(kind, width, height))
    return Drawing(finish.apply(fill, size), f"{finish.words} {name} {kind}".lstrip(), finish)
