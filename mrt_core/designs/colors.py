"""The named colours that captions speak of, and how far apart two colours look."""

import math

import numpy as np

Color = tuple[int, int, int]

PALETTE: dict[str, Color] = {
    "red": (214, 48, 49), "orange": (243, 134, 48), "yellow": (250, 211, 70), "lime": (163, 214, 74),
    "green": (46, 160, 88), "teal": (32, 156, 150), "sky blue": (105, 190, 240), "blue": (48, 100, 214),
    "navy": (28, 42, 96), "purple": (126, 70, 184), "pink": (245, 130, 175), "brown": (128, 82, 52),
    "cream": (250, 240, 216), "white": (252, 252, 252), "gray": (140, 144, 150), "black": (24, 24, 28),
}  # fmt: skip
COLOR_NAMES = tuple(PALETTE)
RED, GREEN, BLUE = 0.299, 0.587, 0.114  # weights of luminance, ITU-R BT.601


def jittered(rng: np.random.Generator, color: Color, amount: float = 14) -> Color:
    """`color` with each channel moved by about `amount` levels."""
    moved = [round(level + shift) for level, shift in zip(color, rng.normal(0, amount, 3).tolist(), strict=True)]
    return tuple(min(255, max(0, level)) for level in moved)


def pick_color(rng: np.random.Generator) -> tuple[str, Color]:
    """A palette name and a colour near it."""
    name = COLOR_NAMES[int(rng.integers(len(COLOR_NAMES)))]
    return name, jittered(rng, PALETTE[name])


def color_distance(a: Color, b: Color) -> float:
    """How far apart two colours look, in levels: their difference with channels weighted as luminance weighs them."""
    red, green, blue = (x - y for x, y in zip(a, b, strict=True))
    return math.sqrt(RED * red * red + GREEN * green * green + BLUE * blue * blue)
