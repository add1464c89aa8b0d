"""Boxes, the 16 px grid and the canvas.

All user coordinates are frame coordinates in pixels: the frame's top-left corner is (0, 0), x grows to the right, y
grows down, and a box may be negative or run past the frame. One token covers 16 x 16 px (8 px per latent pixel, 2 x 2
latent pixels per patch), and every token boundary lies on a grid anchored at the frame's origin.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

LATENT_PX = 8  # side of one latent pixel
TOKEN_PX = 16  # side of one token: a 2 x 2 patch of latent pixels
EDGE_NOISE = 1e-6  # share of a grid cell by which a float edge may miss a grid line and still lie on it


class Size(NamedTuple):
    """A width and a height in pixels."""

    width: int
    height: int


class Box(NamedTuple):
    """An axis-aligned rectangle in pixels; `width` and `height` are positive."""

    x: float
    y: float
    width: float
    height: float

    @property
    def right(self) -> float:
        return self.x + self.width

    @property
    def bottom(self) -> float:
        return self.y + self.height

    @property
    def area(self) -> float:
        return self.width * self.height


class TokenBox(NamedTuple):
    """A rectangle of whole tokens, measured from the canvas's top-left corner."""

    row: int
    col: int
    rows: int
    cols: int

    @property
    def count(self) -> int:
        return self.rows * self.cols


def union(boxes: Iterable[Box]) -> Box:
    """The smallest box around all of `boxes` (at least one)."""
    boxes = list(boxes)
    left, top = min(b.x for b in boxes), min(b.y for b in boxes)
    return Box(left, top, max(b.right for b in boxes) - left, max(b.bottom for b in boxes) - top)


def intersection(a: Box, b: Box) -> Box | None:
    """The overlap of two boxes, or None where they share no area."""
    left, top = max(a.x, b.x), max(a.y, b.y)
    right, bottom = min(a.right, b.right), min(a.bottom, b.bottom)
    return Box(left, top, right - left, bottom - top) if right > left and bottom > top else None


def covers(outer: Box, inner: Box) -> bool:
    """Whether all of `inner` lies in `outer`."""
    across = outer.x <= inner.x and inner.right <= outer.right
    return across and outer.y <= inner.y and inner.bottom <= outer.bottom


def snap_outward(box: Box, grid: int = TOKEN_PX) -> Box:
    """`box` grown outward to multiples of `grid` px; never smaller than one grid cell (architecture: canvas)."""
    left, top = (math.floor(edge / grid + EDGE_NOISE) * grid for edge in (box.x, box.y))
    right, bottom = (math.ceil(edge / grid - EDGE_NOISE) * grid for edge in (box.right, box.bottom))
    right, bottom = max(right, left + grid), max(bottom, top + grid)
    return Box(left, top, right - left, bottom - top)


def frame_box(frame: Size) -> Box:
    """The frame as a box at the origin."""
    return Box(0, 0, frame.width, frame.height)


def canvas_box(frame: Size, boxes: Iterable[Box]) -> Box:
    """The canvas: the frame united with every box, grown outward to the token grid (architecture: canvas)."""
    return snap_outward(union([frame_box(frame), *boxes]))


def token_box(box: Box, canvas: Box) -> TokenBox:
    """The tokens that cover `box`, as rows and columns of `canvas` (which lies on the grid and contains the box)."""
    snapped = snap_outward(box)
    return TokenBox(
        row=round(snapped.y - canvas.y) // TOKEN_PX,
        col=round(snapped.x - canvas.x) // TOKEN_PX,
        rows=round(snapped.height) // TOKEN_PX,
        cols=round(snapped.width) // TOKEN_PX,
    )


def token_box_pixels(tokens: TokenBox, canvas: Box) -> Box:
    """The pixels that `tokens` cover, in frame coordinates: the inverse of `token_box` up to snapping."""
    return Box(
        canvas.x + tokens.col * TOKEN_PX,
        canvas.y + tokens.row * TOKEN_PX,
        tokens.cols * TOKEN_PX,
        tokens.rows * TOKEN_PX,
    )


def whole_pixels(box: Box) -> Box:
    """`box` grown outward to whole pixels."""
    left, top = math.floor(box.x), math.floor(box.y)
    return Box(left, top, math.ceil(box.right) - left, math.ceil(box.bottom) - top)
