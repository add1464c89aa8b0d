"""Fills of photographs, textures, gradients and stripes. The photographs are scikit-image's samples."""

import math
from functools import cache

import numpy as np
import skimage.data
from PIL import Image

from mrt_core.designs.colors import PALETTE, color_distance

from .drawings import MAIN, SECOND, Color, pick_palette

PHOTOGRAPHS = {"astronaut": "an astronaut", "chelsea": "a cat's fur", "coffee": "a coffee cup", "rocket": "a night sky"}
TEXTURES = {"brick": "bricks", "grass": "grass", "gravel": "gravel"}


@cache
def photograph(name: str) -> Image.Image:
    """A sample photograph or texture of scikit-image, RGB."""
    return Image.fromarray(getattr(skimage.data, name)()).convert("RGB")


def photograph_crop(rng: np.random.Generator, name: str, width: int, height: int) -> Image.Image:
    """A random crop of a photograph, scaled to width x height px."""
    image = photograph(name)
    most = min(image.width / width, image.height / height)
    scale = most * rng.uniform(0.45, 1.0)
    w, h = scale * width, scale * height
    x, y = rng.uniform(0, 1, 2) * (image.width - w, image.height - h)
    return image.resize((width, height), Image.Resampling.BICUBIC, (x, y, x + w, y + h))


def smooth_noise(rng: np.random.Generator, cells: int, width: int, height: int) -> np.ndarray:
    """Low-frequency noise (height, width) from about -1 to 1, `cells` bumps a side."""
    coarse = Image.fromarray(rng.uniform(-1, 1, (cells, cells)).astype(np.float32))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))


def mixed(first: Color, second: Color, weight: np.ndarray) -> np.ndarray:
    """Two colours mixed by a weight (h, w), clipped to 0..1: (h, w, 3) uint8."""
    share = np.clip(weight, 0, 1)[..., None]
    return np.rint(np.float32(first) * (1 - share) + np.float32(second) * share).astype(np.uint8)


def gradient(rng: np.random.Generator, width: int, height: int, first: Color, second: Color) -> np.ndarray:
    """Two colours from side to side, or from a point outwards: (height, width, 3) uint8."""
    ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
    xs, ys = xs / width - 0.5, ys / height - 0.5
    angle, (x, y), radial = rng.uniform(0, 2 * math.pi), rng.uniform(-0.4, 0.4, 2), rng.random() < 0.4
    weight = np.hypot(xs - x, ys - y) * 1.3 if radial else 0.5 + xs * math.cos(angle) + ys * math.sin(angle)
    return mixed(first, second, weight)


def stripes(rng: np.random.Generator, width: int, height: int, first: Color, second: Color) -> np.ndarray:
    """Stripes of two colours with soft edges: (height, width, 3) uint8."""
    ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
    angle, period = rng.uniform(0, math.pi), rng.uniform(0.08, 0.3) * min(width, height)
    distance = np.abs(((xs * math.cos(angle) + ys * math.sin(angle)) / period) % 1 - 0.5) - 0.25
    return mixed(first, second, 0.5 + distance * period)


def fill(rng: np.random.Generator, width: int, height: int) -> tuple[np.ndarray, Color]:
    """What a blob or a sign is filled with: (height, width, 3) uint8, and the colour that names it."""
    palette = pick_palette(rng)
    kind = rng.choice(["flat", "gradient", "stripes", "texture"], p=[0.35, 0.35, 0.12, 0.18])
    if kind == "flat":
        return np.full((height, width, 3), palette[MAIN], np.uint8), palette[MAIN]
    if kind == "texture":
        name = rng.choice([*PHOTOGRAPHS, *TEXTURES])
        pixels = np.asarray(photograph_crop(rng, str(name), width, height))
        tinted = pixels * (np.float32(palette[MAIN]) / 255 * 0.7 + 0.3)
        return np.rint(tinted).astype(np.uint8), tuple(int(c) for c in tinted.mean((0, 1)))
    paint = gradient if kind == "gradient" else stripes
    return paint(rng, width, height, palette[MAIN], palette[SECOND]), palette[MAIN]


def color_name(color: Color) -> str:
    """The palette's name that is nearest to a colour."""
    return min(PALETTE, key=lambda name: color_distance(PALETTE[name], color))


def with_alpha(color: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Straight RGBA uint8 (h, w, 4) from colours (h, w, 3) and alpha (h, w), both uint8."""
    return np.concatenate([color, alpha[..., None]], -1)
