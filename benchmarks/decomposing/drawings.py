"""Pictures drawn from parts with random palettes, none of which anything is trained on: straight RGBA, edges anti-aliased."""

import colorsys
import math
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw

SUPERSAMPLING = 4
OUTLINED_SHARE, SHADED_SHARE = 0.3, 0.35
MOST_TURNED = 22  # degrees

Color = tuple[int, int, int]
Point = tuple[float, float]
MAIN, SECOND, ACCENT, DARK, LIGHT = range(5)  # places in a palette


def hsv(hue: float, saturation: float, value: float) -> Color:
    """A colour from hue, saturation and value in 0..1."""
    return tuple(round(255 * level) for level in colorsys.hsv_to_rgb(hue % 1, saturation, value))


def pick_palette(rng: np.random.Generator) -> tuple[Color, ...]:
    """Five colours that go together: MAIN, SECOND, ACCENT, DARK and LIGHT."""
    hue, apart = rng.random(), rng.choice([0.08, 0.33, 0.5])
    vivid, bright = rng.uniform(0.35, 0.95), rng.uniform(0.55, 0.95)
    return (
        hsv(hue, vivid, bright),
        hsv(hue + apart, vivid * rng.uniform(0.5, 1), rng.uniform(0.5, 0.95)),
        hsv(hue - apart / 2, rng.uniform(0.5, 1), rng.uniform(0.6, 1)),
        hsv(hue + rng.uniform(-0.1, 0.1), rng.uniform(0.2, 0.7), rng.uniform(0.12, 0.35)),
        hsv(hue + rng.uniform(-0.1, 0.1), rng.uniform(0.0, 0.25), rng.uniform(0.85, 1)),
    )


class Pen:
    """Draws on a unit square, x to the right and y down; colours are places in the palette."""

    def __init__(self, side: int, palette: Sequence[Color], outlined: bool):
        self.side, self.palette, self.outlined = side * SUPERSAMPLING, palette, outlined
        self.image = Image.new("RGBA", (self.side, self.side))
        self.draw = ImageDraw.Draw(self.image)

    def _px(self, points: Sequence[Point]) -> list[Point]:
        return [(x * (self.side - 1), y * (self.side - 1)) for x, y in points]

    def _border(self) -> dict:
        width = max(1, self.side // 70)
        return {"outline": self.palette[DARK], "width": width} if self.outlined else {}

    def polygon(self, color: int, *points: Point) -> None:
        self.draw.polygon(self._px(points), self.palette[color], **self._border())

    def ellipse(self, color: int, x0: float, y0: float, x1: float, y1: float) -> None:
        self.draw.ellipse(self._px([(x0, y0), (x1, y1)]), self.palette[color], **self._border())

    def box(self, color: int, x0: float, y0: float, x1: float, y1: float, radius: float = 0.0) -> None:
        corners = self._px([(x0, y0), (x1, y1)])
        self.draw.rounded_rectangle(corners, radius * self.side, self.palette[color], **self._border())

    def pie(self, color: int, x0: float, y0: float, x1: float, y1: float, start: float, end: float) -> None:
        self.draw.pieslice(self._px([(x0, y0), (x1, y1)]), start, end, self.palette[color], **self._border())

    def arc(
        self, color: int, x0: float, y0: float, x1: float, y1: float, start: float, end: float, width: float
    ) -> None:
        stroke = max(1, round(width * self.side))
        self.draw.arc(self._px([(x0, y0), (x1, y1)]), start, end, self.palette[color], stroke)

    def line(self, color: int, width: float, *points: Point) -> None:
        self.draw.line(self._px(points), self.palette[color], max(1, round(width * self.side)), joint="curve")


def _around(x: float, y: float, radii: Sequence[float], count: int) -> list[Point]:
    """`count` points around (x, y) whose distances go through `radii` in turn."""
    turns = [2 * math.pi * i / count for i in range(count)]
    return [
        (x + radii[i % len(radii)] * math.sin(a), y - radii[i % len(radii)] * math.cos(a)) for i, a in enumerate(turns)
    ]


def crate(pen: Pen, rng: np.random.Generator) -> None:
    pen.box(MAIN, 0.06, 0.1, 0.94, 0.9)
    planks = int(rng.integers(3, 6))
    for i in range(1, planks):
        y = 0.1 + 0.8 * i / planks
        pen.line(DARK, 0.012, (0.06, y), (0.94, y))
    pen.polygon(SECOND, (0.06, 0.8), (0.84, 0.1), (0.94, 0.1), (0.94, 0.2), (0.16, 0.9), (0.06, 0.9))
    for box in ((0.06, 0.1, 0.94, 0.2), (0.06, 0.8, 0.94, 0.9), (0.06, 0.1, 0.17, 0.9), (0.83, 0.1, 0.94, 0.9)):
        pen.box(SECOND, *box)
    for x in (0.115, 0.885):
        for y in (0.15, 0.85):
            pen.ellipse(DARK, x - 0.02, y - 0.02, x + 0.02, y + 0.02)


def tram(pen: Pen, rng: np.random.Generator) -> None:
    pen.line(DARK, 0.02, (0.3, 0.16), (0.5, 0.06), (0.7, 0.16))
    pen.box(MAIN, 0.04, 0.16, 0.96, 0.8, 0.08)
    pen.box(LIGHT, 0.04, 0.52, 0.96, 0.6)
    windows = int(rng.integers(3, 6))
    for i in range(windows):
        x = 0.1 + 0.8 * i / windows
        pen.box(SECOND, x, 0.25, x + 0.62 / windows, 0.46, 0.02)
    pen.box(ACCENT, 0.42, 0.25, 0.58, 0.78, 0.02)
    for x in (0.2, 0.8):
        pen.ellipse(DARK, x - 0.1, 0.72, x + 0.1, 0.92)
        pen.ellipse(LIGHT, x - 0.04, 0.78, x + 0.04, 0.86)


def tree(pen: Pen, rng: np.random.Generator) -> None:
    pen.polygon(DARK, (0.44, 0.5), (0.56, 0.5), (0.6, 0.98), (0.4, 0.98))
    if rng.random() < 0.5:
        for top, bottom, half in ((0.38, 0.8, 0.42), (0.2, 0.58, 0.34), (0.02, 0.36, 0.24)):
            pen.polygon(MAIN if top != 0.2 else SECOND, (0.5, top), (0.5 + half, bottom), (0.5 - half, bottom))
        return
    for x, y, r in ((0.3, 0.42, 0.24), (0.7, 0.42, 0.24), (0.5, 0.26, 0.25), (0.5, 0.46, 0.22)):
        pen.ellipse(MAIN, x - r, y - r, x + r, y + r)
    for x, y in rng.uniform((0.2, 0.15), (0.8, 0.55), (6, 2)):
        pen.ellipse(ACCENT, x - 0.045, y - 0.045, x + 0.045, y + 0.045)


def fish(pen: Pen, rng: np.random.Generator) -> None:
    pen.polygon(SECOND, (0.68, 0.5), (0.98, 0.22), (0.9, 0.5), (0.98, 0.78))
    pen.polygon(ACCENT, (0.35, 0.32), (0.6, 0.08), (0.62, 0.36))
    pen.ellipse(MAIN, 0.03, 0.24, 0.77, 0.76)
    for x in np.linspace(0.36, 0.6, int(rng.integers(2, 5))):
        pen.arc(LIGHT, x - 0.16, 0.32, x, 0.68, -60, 60, 0.02)
    pen.polygon(ACCENT, (0.36, 0.55), (0.56, 0.62), (0.42, 0.72))
    pen.ellipse(LIGHT, 0.12, 0.37, 0.24, 0.49)
    pen.ellipse(DARK, 0.15, 0.4, 0.21, 0.46)


def house(pen: Pen, rng: np.random.Generator) -> None:
    pen.box(DARK, 0.7, 0.1, 0.8, 0.4)
    pen.box(MAIN, 0.14, 0.42, 0.86, 0.95)
    pen.polygon(SECOND, (0.5, 0.05), (0.98, 0.46), (0.02, 0.46))
    left = rng.random() < 0.5
    door, window = (0.22, 0.58) if left else (0.58, 0.22)
    pen.box(ACCENT, door, 0.6, door + 0.18, 0.95)
    pen.ellipse(DARK, door + 0.12, 0.76, door + 0.15, 0.79)
    pen.box(LIGHT, window, 0.56, window + 0.2, 0.76)
    pen.line(DARK, 0.015, (window + 0.1, 0.56), (window + 0.1, 0.76))
    pen.line(DARK, 0.015, (window, 0.66), (window + 0.2, 0.66))


def lamp(pen: Pen, rng: np.random.Generator) -> None:
    pen.ellipse(DARK, 0.28, 0.86, 0.72, 0.98)
    pen.line(SECOND, 0.05, (0.5, 0.5), (0.5, 0.92))
    width = rng.uniform(0.1, 0.22)
    pen.ellipse(ACCENT, 0.38, 0.42, 0.62, 0.62)
    pen.polygon(MAIN, (0.5 - width, 0.04), (0.5 + width, 0.04), (0.88, 0.52), (0.12, 0.52))
    pen.box(LIGHT, 0.12, 0.47, 0.88, 0.52)


def flag(pen: Pen, rng: np.random.Generator) -> None:
    pen.box(DARK, 0.05, 0.02, 0.1, 0.98, 0.02)
    edge = [(x, 0.04 * math.sin(7 * x)) for x in np.linspace(0.1, 0.97, 24)]
    stripes = int(rng.integers(2, 5))
    for i in range(stripes):
        top, bottom = (0.1 + 0.5 * j / stripes for j in (i, i + 1))
        points = [(x, top + y) for x, y in edge] + [(x, bottom + y) for x, y in reversed(edge)]
        pen.polygon((MAIN, LIGHT, SECOND, ACCENT)[i], *points)
    if rng.random() < 0.5:
        pen.polygon(ACCENT, *_around(0.4, 0.36, (0.15, 0.06), 10))


def bottle(pen: Pen, rng: np.random.Generator) -> None:
    pen.box(DARK, 0.42, 0.01, 0.58, 0.1, 0.02)
    pen.polygon(MAIN, (0.43, 0.09), (0.57, 0.09), (0.58, 0.28), (0.7, 0.42), (0.3, 0.42), (0.42, 0.28))
    pen.box(MAIN, 0.3, 0.38, 0.7, 0.98, 0.05)
    pen.box(LIGHT, 0.3, 0.52, 0.7, 0.82)
    r = rng.uniform(0.07, 0.12)
    pen.ellipse(ACCENT, 0.5 - r, 0.67 - r, 0.5 + r, 0.67 + r)
    pen.line(SECOND, 0.025, (0.36, 0.46), (0.36, 0.92))


def book(pen: Pen, rng: np.random.Generator) -> None:
    pen.polygon(DARK, (0.1, 0.12), (0.78, 0.04), (0.92, 0.86), (0.22, 0.97))
    pen.polygon(LIGHT, (0.14, 0.14), (0.8, 0.06), (0.9, 0.82), (0.24, 0.92))
    pen.polygon(MAIN, (0.08, 0.1), (0.74, 0.03), (0.85, 0.79), (0.18, 0.88))
    pen.polygon(SECOND, (0.08, 0.1), (0.18, 0.09), (0.28, 0.87), (0.18, 0.88))
    for i in range(int(rng.integers(2, 4))):
        y = 0.26 + 0.1 * i
        pen.line(ACCENT, 0.035, (0.3, y), (0.66 - 0.08 * i, y - 0.04))


def cup(pen: Pen, rng: np.random.Generator) -> None:
    pen.arc(SECOND, 0.62, 0.36, 0.96, 0.74, 0, 360, 0.055)
    pen.polygon(MAIN, (0.1, 0.28), (0.8, 0.28), (0.72, 0.86), (0.18, 0.86))
    pen.ellipse(LIGHT, 0.1, 0.2, 0.8, 0.36)
    pen.ellipse(DARK, 0.16, 0.23, 0.74, 0.34)
    pen.ellipse(SECOND, 0.06, 0.84, 0.84, 0.96)
    for x in rng.uniform(0.25, 0.65, 3):
        pen.ellipse(ACCENT, x - 0.04, 0.52, x + 0.04, 0.6)


def leaf(pen: Pen, rng: np.random.Generator) -> None:
    side = [(0.5 + 0.4 * math.sin(math.pi * t) ** rng.uniform(0.9, 1.1), 0.04 + 0.8 * t) for t in np.linspace(0, 1, 16)]
    pen.line(DARK, 0.035, (0.5, 0.8), (0.44, 0.99))
    pen.polygon(MAIN, *side, *[(1 - x, y) for x, y in reversed(side)])
    pen.polygon(SECOND, *side)
    pen.line(LIGHT, 0.02, (0.5, 0.06), (0.5, 0.84))
    for y in np.linspace(0.28, 0.7, int(rng.integers(3, 6))):
        pen.line(LIGHT, 0.014, (0.26, y - 0.1), (0.5, y), (0.74, y - 0.1))


def gear(pen: Pen, rng: np.random.Generator) -> None:
    teeth = int(rng.integers(7, 12))
    points = []
    for i in range(teeth):
        for turn, radius in ((-0.3, 0.37), (-0.18, 0.49), (0.18, 0.49), (0.3, 0.37)):
            angle = 2 * math.pi * (i + turn) / teeth
            points.append((0.5 + radius * math.sin(angle), 0.5 - radius * math.cos(angle)))
    pen.polygon(MAIN, *points)
    pen.ellipse(SECOND, 0.26, 0.26, 0.74, 0.74)
    pen.ellipse(LIGHT, 0.36, 0.36, 0.64, 0.64)
    pen.polygon(DARK, *_around(0.5, 0.5, (0.1,), 6))


def car(pen: Pen, rng: np.random.Generator) -> None:
    roof = rng.uniform(0.2, 0.32)
    pen.polygon(MAIN, (0.2, 0.5), (0.32, roof), (0.68, roof), (0.82, 0.5))
    pen.polygon(LIGHT, (0.27, 0.49), (0.36, roof + 0.05), (0.49, roof + 0.05), (0.49, 0.49))
    pen.polygon(LIGHT, (0.53, 0.49), (0.53, roof + 0.05), (0.65, roof + 0.05), (0.74, 0.49))
    pen.box(MAIN, 0.03, 0.46, 0.97, 0.74, 0.07)
    pen.box(SECOND, 0.03, 0.62, 0.97, 0.68)
    pen.ellipse(ACCENT, 0.86, 0.5, 0.95, 0.59)
    for x in (0.24, 0.76):
        pen.ellipse(DARK, x - 0.12, 0.6, x + 0.12, 0.84)
        pen.ellipse(LIGHT, x - 0.05, 0.67, x + 0.05, 0.77)


def cat(pen: Pen, rng: np.random.Generator) -> None:
    curl = rng.uniform(0.3, 0.5)
    pen.arc(MAIN, 0.62, curl, 0.98, 0.95, -80, 90, 0.07)
    pen.ellipse(MAIN, 0.2, 0.42, 0.8, 0.99)
    pen.polygon(MAIN, (0.24, 0.02), (0.46, 0.2), (0.2, 0.32))
    pen.polygon(MAIN, (0.76, 0.02), (0.54, 0.2), (0.8, 0.32))
    pen.ellipse(MAIN, 0.18, 0.12, 0.82, 0.58)
    pen.ellipse(LIGHT, 0.36, 0.6, 0.64, 0.96)
    for x in (0.36, 0.64):
        pen.ellipse(ACCENT, x - 0.075, 0.26, x + 0.075, 0.4)
        pen.ellipse(DARK, x - 0.025, 0.27, x + 0.025, 0.39)
    pen.polygon(SECOND, (0.46, 0.43), (0.54, 0.43), (0.5, 0.48))


def lighthouse(pen: Pen, rng: np.random.Generator) -> None:
    pen.ellipse(DARK, 0.1, 0.84, 0.9, 0.99)
    bands = int(rng.integers(4, 7))
    for i in range(bands):
        top, bottom = (0.26 + 0.64 * j / bands for j in (i, i + 1))
        inner, outer = (0.14 + 0.1 * (y - 0.26) / 0.64 for y in (top, bottom))
        color = (MAIN, LIGHT)[i % 2]
        pen.polygon(color, (0.5 - inner, top), (0.5 + inner, top), (0.5 + outer, bottom), (0.5 - outer, bottom))
    pen.box(SECOND, 0.32, 0.23, 0.68, 0.28)
    pen.box(ACCENT, 0.4, 0.12, 0.6, 0.23)
    pen.pie(DARK, 0.36, 0.01, 0.64, 0.23, 180, 360)


def potted_plant(pen: Pen, rng: np.random.Generator) -> None:
    for turn in np.linspace(-1.1, 1.1, int(rng.integers(4, 8))):
        x, y = 0.5 + 0.36 * math.sin(turn), 0.6 - 0.52 * math.cos(turn)
        across, down = 0.08 * math.cos(turn), 0.08 * math.sin(turn)
        middle = (0.5 + (x - 0.5) * 0.6, 0.6 + (y - 0.6) * 0.6)
        pen.polygon(
            SECOND, (0.5, 0.62), (middle[0] - across, middle[1] - down), (x, y), (middle[0] + across, middle[1] + down)
        )
    pen.polygon(MAIN, (0.24, 0.62), (0.76, 0.62), (0.68, 0.97), (0.32, 0.97))
    pen.box(ACCENT, 0.2, 0.57, 0.8, 0.68, 0.02)


def toy_rocket(pen: Pen, rng: np.random.Generator) -> None:
    pen.polygon(ACCENT, (0.4, 0.8), (0.6, 0.8), (0.5, rng.uniform(0.92, 0.99)))
    pen.polygon(SECOND, (0.32, 0.5), (0.14, 0.84), (0.34, 0.78))
    pen.polygon(SECOND, (0.68, 0.5), (0.86, 0.84), (0.66, 0.78))
    body = [(0.5 + 0.2 * math.sin(math.pi * (0.1 + 0.75 * t)), 0.03 + 0.77 * t) for t in np.linspace(0, 1, 16)]
    pen.polygon(MAIN, (0.5, 0.01), *body, *[(1 - x, y) for x, y in reversed(body)])
    pen.ellipse(DARK, 0.39, 0.28, 0.61, 0.5)
    pen.ellipse(LIGHT, 0.42, 0.31, 0.58, 0.47)


def guitar_pick(pen: Pen, rng: np.random.Generator) -> None:
    pen.pie(MAIN, 0.05, 0.02, 0.95, 0.9, 180, 360)
    pen.polygon(MAIN, (0.05, 0.45), (0.95, 0.45), (0.54, 0.98), (0.46, 0.98))
    pen.ellipse(SECOND, 0.28, 0.2, 0.72, 0.64)
    pen.polygon(LIGHT, *_around(0.5, 0.42, (0.18, 0.08), 2 * int(rng.integers(4, 8))))


def kite(pen: Pen, rng: np.random.Generator) -> None:
    tail = [(0.5 + 0.07 * math.sin(14 * t), 0.66 + 0.32 * t) for t in np.linspace(0, 1, 20)]
    pen.line(DARK, 0.015, *tail)
    for t in (0.4, 0.75):
        x, y = 0.5 + 0.07 * math.sin(14 * t), 0.66 + 0.32 * t
        pen.polygon(ACCENT, (x - 0.07, y - 0.04), (x + 0.07, y + 0.04), (x + 0.07, y - 0.04), (x - 0.07, y + 0.04))
    middle = rng.uniform(0.24, 0.34)
    for color, a, b in (
        (MAIN, (0.5, 0.01), (0.1, middle)),
        (SECOND, (0.5, 0.01), (0.9, middle)),
        (LIGHT, (0.5, 0.68), (0.1, middle)),
        (ACCENT, (0.5, 0.68), (0.9, middle)),
    ):
        pen.polygon(color, a, b, (0.5, middle))


def sandwich(pen: Pen, rng: np.random.Generator) -> None:
    pen.pie(MAIN, 0.06, 0.1, 0.94, 0.8, 180, 360)
    wave = [(x, 0.5 + 0.03 * math.sin(30 * x)) for x in np.linspace(0.03, 0.97, 40)]
    pen.polygon(SECOND, (0.03, 0.45), (0.97, 0.45), *reversed(wave))
    pen.box(DARK, 0.07, 0.52, 0.93, 0.64, 0.05)
    pen.box(ACCENT, 0.05, 0.62, 0.95, 0.68, 0.02)
    pen.box(MAIN, 0.07, 0.67, 0.93, 0.84, 0.07)
    for x in np.linspace(0.3, 0.7, int(rng.integers(3, 6))):
        pen.ellipse(LIGHT, x - 0.02, 0.22, x + 0.02, 0.25)


def clock(pen: Pen, rng: np.random.Generator) -> None:
    pen.ellipse(MAIN, 0.03, 0.03, 0.97, 0.97)
    pen.ellipse(LIGHT, 0.12, 0.12, 0.88, 0.88)
    for x, y in _around(0.5, 0.5, (0.33,), 12):
        pen.ellipse(DARK, x - 0.018, y - 0.018, x + 0.018, y + 0.018)
    for length, width, color in ((0.2, 0.045, DARK), (0.29, 0.03, SECOND)):
        turn = rng.uniform(0, 2 * math.pi)
        pen.line(color, width, (0.5, 0.5), (0.5 + length * math.sin(turn), 0.5 - length * math.cos(turn)))
    pen.ellipse(ACCENT, 0.46, 0.46, 0.54, 0.54)


def flower(pen: Pen, rng: np.random.Generator) -> None:
    pen.line(DARK, 0.035, (0.5, 0.4), (0.48, 0.98))
    pen.polygon(SECOND, (0.49, 0.86), (0.72, 0.66), (0.82, 0.7), (0.7, 0.84))
    for x, y in _around(0.5, 0.34, (0.2,), int(rng.integers(5, 9))):
        pen.ellipse(MAIN, x - 0.13, y - 0.13, x + 0.13, y + 0.13)
    pen.ellipse(ACCENT, 0.38, 0.22, 0.62, 0.46)


DRAWINGS: dict[str, Callable[[Pen, np.random.Generator], None]] = {
    "wooden crate": crate, "tram": tram, "tree": tree, "fish": fish, "house": house, "table lamp": lamp, "flag": flag,
    "bottle": bottle, "book": book, "cup": cup, "leaf": leaf, "gear": gear, "car": car, "cat": cat,
    "lighthouse": lighthouse, "potted plant": potted_plant, "toy rocket": toy_rocket, "guitar pick": guitar_pick,
    "kite": kite, "sandwich": sandwich, "clock": clock, "flower": flower,
}  # fmt: skip


def draw(rng: np.random.Generator, size: int) -> tuple[np.ndarray, str, Color]:
    """A drawing whose longer side is about `size` px, cropped to its content: straight RGBA uint8, its name, main colour."""
    name = list(DRAWINGS)[int(rng.integers(len(DRAWINGS)))]
    palette = pick_palette(rng)
    pen = Pen(size, palette, bool(rng.random() < OUTLINED_SHARE))
    DRAWINGS[name](pen, rng)
    image = pen.image
    if rng.random() < SHADED_SHARE:
        image = shaded(image)
    across, turned = rng.uniform(0.8, 1.25), rng.random() < 0.5
    turn = rng.uniform(-MOST_TURNED, MOST_TURNED)
    width, height = round(size * min(1, across)), round(size * min(1, 1 / across))
    image = image.resize((width * 2, height * 2), Image.Resampling.BOX)
    if turned:
        image = image.convert("RGBa").rotate(turn, Image.Resampling.BICUBIC, expand=True).convert("RGBA")
    image = image.reduce(2)
    return np.asarray(image.crop(image.getchannel("A").getbbox())), name, palette[MAIN]


def shaded(image: Image.Image) -> Image.Image:
    """The image (RGBA) lighter at its top and darker at its bottom."""
    light = Image.new("L", (1, 256))
    light.putdata([255 - level // 2 for level in range(256)])
    pixels = np.asarray(image).copy()
    pixels[..., :3] = pixels[..., :3] * (np.asarray(light.resize(image.size))[..., None] / 255.0)
    return Image.fromarray(pixels)
