"""What a layer can show: a drawing, a shape or a word, each as a captioned RGBA image.

Every element is drawn at four times its size and reduced, so that its edges are anti-aliased.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from .artwork import load_artwork, load_common_artwork, load_font, load_fonts

SUPERSAMPLING = 4

PALETTE = {
    "red": (214, 48, 49), "orange": (243, 134, 48), "yellow": (250, 211, 70), "lime": (163, 214, 74),
    "green": (46, 160, 88), "teal": (32, 156, 150), "sky blue": (105, 190, 240), "blue": (48, 100, 214),
    "navy": (28, 42, 96), "purple": (126, 70, 184), "pink": (245, 130, 175), "brown": (128, 82, 52),
    "cream": (250, 240, 216), "white": (252, 252, 252), "gray": (140, 144, 150), "black": (24, 24, 28),
}  # fmt: skip

TRAINING_WORDS = (
    "sale hello love summer music party coffee bakery happy birthday open today new best fresh dream travel yoga pizza "
    "garden winter spring autumn light night thanks welcome family friends sport dance film radio market design studio "
    "beauty health energy power smile future magic ocean forest river mountain sunny cloud rain star moon free 50% off"
).split()
HELD_OUT_WORDS = "festival kitchen weekend holiday urban cafe jazz poster gallery picnic 2026 go".split()


class Element(NamedTuple):
    """An RGBA image cropped to its content, with a caption of a few words."""

    image: Image.Image
    caption: str


class ElementMix(NamedTuple):
    """Shares of what layers show, and the share of drawings that are taken from the common ones."""

    artwork: float = 0.55
    shape: float = 0.27
    word: float = 0.18
    common: float = 0.0


EVEN_MIX = ElementMix()


def jittered(rng: np.random.Generator, color: tuple[int, int, int], amount: float = 14) -> tuple[int, int, int]:
    """`color` with each channel moved by about `amount` levels."""
    return tuple(int(c) for c in np.clip(np.asarray(color) + rng.normal(0, amount, 3), 0, 255))


def pick_color(rng: np.random.Generator) -> tuple[str, tuple[int, int, int]]:
    """A palette name and a colour near it."""
    name = str(rng.choice(list(PALETTE)))
    return name, jittered(rng, PALETTE[name])


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


POLYGONS: dict[str, Callable[[], list[tuple[float, float]]]] = {
    "triangle": lambda: [(0.5, 0.02), (0.98, 0.95), (0.02, 0.95)],
    "diamond": lambda: _regular_points(4, (0.49,), 0),
    "hexagon": lambda: _regular_points(6, (0.49,), 0),
    "star": lambda: _regular_points(10, (0.49, 0.22), 0),
    "heart": _heart_points,
    "arrow": lambda: [(0, 0.3), (0.55, 0.3), (0.55, 0.05), (1, 0.5), (0.55, 0.95), (0.55, 0.7), (0, 0.7)],
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
        draw.polygon([(x * size[0], y * size[1]) for x, y in POLYGONS[kind]()], fill=255)
    elif kind == "circle":
        draw.ellipse(outer, fill=255)
    elif kind == "ring":
        draw.ellipse(outer, outline=255, width=max(2 * SUPERSAMPLING, min(size) // 6))
    elif kind == "rectangle":
        draw.rectangle(outer, fill=255)
    else:
        draw.rounded_rectangle(outer, radius=min(size) // 4, fill=255)
    return mask.resize((width, height), Image.Resampling.BOX)


def draw_shape(rng: np.random.Generator, size: int) -> Element:
    """A coloured shape about `size` px; sometimes semi-transparent, with a gradient, or soft at the edges."""
    kind = str(rng.choice(SHAPES))
    name, color = pick_color(rng)
    aspect = rng.uniform(0.45, 2.2) if "rectangle" in kind else rng.uniform(0.85, 1.18)
    width, height = max(8, round(size * math.sqrt(aspect))), max(8, round(size / math.sqrt(aspect)))
    mask = shape_mask(kind, width, height)
    finish = rng.choice(["plain", "gradient", "semi-transparent", "soft"], p=[0.6, 0.2, 0.13, 0.07])
    words = [name, kind]
    fill = Image.new("RGB", (width, height), color)
    if finish == "gradient":
        ramp = Image.linear_gradient("L").resize((width, height))
        fill = Image.composite(Image.new("RGB", (width, height), jittered(rng, color, 50)), fill, ramp)
    elif finish == "semi-transparent":
        opacity = rng.uniform(0.4, 0.75)
        mask = mask.point(lambda value: round(value * opacity))
        words.insert(0, "semi-transparent")
    elif finish == "soft":
        mask = mask.filter(ImageFilter.GaussianBlur(size / 16))
        words.insert(0, "soft")
    fill.putalpha(mask)
    return Element(fill, " ".join(words))


def draw_word(rng: np.random.Generator, size: int, held_out: bool) -> Element:
    """One word in an open font, about 1.6 x `size` px wide, in one colour."""
    word = str(rng.choice(HELD_OUT_WORDS if held_out else TRAINING_WORDS))
    word = word.upper() if rng.random() < 0.6 else word
    name, color = pick_color(rng)
    path = str(rng.choice(load_fonts()))
    left, top, right, bottom = load_font(path, 64).getbbox(word)
    points = max(10, min(round(64 * 1.6 * size / (right - left)), size)) * SUPERSAMPLING
    font = load_font(path, points)
    left, top, right, bottom = font.getbbox(word)
    page = Image.new("L", (right - left + 2 * SUPERSAMPLING, bottom - top + 2 * SUPERSAMPLING))
    ImageDraw.Draw(page).text((SUPERSAMPLING - left, SUPERSAMPLING - top), word, font=font, fill=255)
    mask = page.resize(
        (max(1, page.width // SUPERSAMPLING), max(1, page.height // SUPERSAMPLING)), Image.Resampling.BOX
    )
    image = Image.new("RGB", mask.size, color)
    image.putalpha(mask)
    return Element(image, f'the word "{word}" in {name}')


def draw_artwork(rng: np.random.Generator, size: int, held_out: bool, common: float = 0.0) -> Element:
    """One drawing scaled so that its longer side is `size` px; with chance `common` one of the common drawings."""
    drawings = load_common_artwork() if common and rng.random() < common else load_artwork(held_out)
    drawing = drawings[int(rng.integers(len(drawings)))]
    image = Image.fromarray(drawing.pixels, "RGBA")
    scale = size / max(image.size)
    target = (max(4, round(image.width * scale)), max(4, round(image.height * scale)))
    return Element(image.resize(target, Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC), drawing.name)


def draw_element(rng: np.random.Generator, size: int, held_out: bool = False, mix: ElementMix = EVEN_MIX) -> Element:
    """A random element about `size` px, cropped to its content."""
    kind = rng.choice(["artwork", "shape", "word"], p=[mix.artwork, mix.shape, mix.word])
    if kind == "artwork":
        element = draw_artwork(rng, size, held_out, mix.common)
    elif kind == "shape":
        element = draw_shape(rng, size)
    else:
        element = draw_word(rng, size, held_out)
    return Element(element.image.crop(element.image.getchannel("A").getbbox()), element.caption)
