"""Synthetic layered designs: the training and evaluation data of the small checkpoint.

A design is fully determined by (seed, settings), so that the held-out set is the same everywhere.
"""

import math
from dataclasses import dataclass

import numpy as np

from ..geometry import Box, Size
from ..layouts.layout import Layout, Region
from ..stacks.layers import Layer, LayerStack
from .arrangement import Arrangement
from .backgrounds import draw_background
from .elements import EVEN_MIX, ElementMix, draw_element
from .legibility import Ground
from .styles import NATURAL, Style, pick_style

ASPECTS = ((1, 1), (5, 4), (4, 5), (4, 3), (3, 4), (3, 2), (2, 3), (16, 9), (9, 16), (2, 1), (1, 2))
FEWER = 0.87  # chance of a number of layers, relative to one less
OVERFLOWING_LAYERS = 0.35  # share of layers that hang out of the frame in designs where some do
MIN_SIZE = 14  # px of an element
RETRIES = (1.0, 0.8, 0.65, 0.5)  # sizes in turn at which an element is drawn where a bigger one found no place


@dataclass(frozen=True)
class DesignSettings:
    """What designs look like: frame area in px, number of layers, shares of overflowing and of styled designs."""

    frame_area: int = 128 * 128
    min_layers: int = 1
    max_layers: int = 20
    overflow_share: float = 0.6
    styled_share: float = 0.3
    max_cover: float = 0.45  # share of a layer that another one may cover or be covered by
    mix: ElementMix = EVEN_MIX
    held_out: bool = False  # draw from the held-out artwork and words


@dataclass(frozen=True, eq=False)
class Design:
    """A layer stack with its layout, its global captions, and for each foreground layer the same layer in another style.

    `stack.layers[0]` is the background; `stack.layers[1:]` stand in the order of `layout.regions`. `assets[i]` shows
    what `stack.layers[1 + i]` shows, in `asset_style` instead of `style`.
    """

    stack: LayerStack
    layout: Layout
    short_caption: str
    style: str
    asset_style: str
    assets: tuple[np.ndarray, ...]


def pick_frame(rng: np.random.Generator, area: int) -> Size:
    """A frame of about `area` px with sides that are multiples of 16."""
    aspect_width, aspect_height = ASPECTS[int(rng.integers(len(ASPECTS)))]
    longer = max(aspect_width, aspect_height) / min(aspect_width, aspect_height)
    short = max(16, round(math.sqrt(area / longer) / 16) * 16)
    long = round(short * longer / 16) * 16
    return Size(long, short) if aspect_width > aspect_height else Size(short, long)


def pick_layer_count(rng: np.random.Generator, settings: DesignSettings) -> int:
    """Geometric: few layers are common, many are rare."""
    counts = np.arange(settings.min_layers, settings.max_layers + 1)
    weights = FEWER ** np.arange(len(counts))
    return int(counts[np.searchsorted(np.cumsum(weights / weights.sum()), rng.random())])


def pick_overflowing(rng: np.random.Generator, count: int, share: float) -> list[bool]:
    """Which of `count` layers hang out of the frame: none, or with chance `share` at least one."""
    if rng.random() >= share:
        return [False] * count
    overflowing = (rng.random(count) < OVERFLOWING_LAYERS).tolist()
    overflowing[int(rng.integers(count))] = True
    return overflowing


def _position_words(box: Box, frame: Size) -> str:
    """Where a box's centre lies in the frame, in words."""
    column = min(2, max(0, int(3 * (box.x + box.width / 2) / frame.width)))
    row = min(2, max(0, int(3 * (box.y + box.height / 2) / frame.height)))
    words = f"{('top', 'middle', 'bottom')[row]} {('left', 'center', 'right')[column]}"
    return "center" if words == "middle center" else words


def _article(caption: str) -> str:
    if caption.startswith("the "):
        return caption
    return f"{'an' if caption[0] in 'aeiou' else 'a'} {caption}"


def _join(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def pick_styles(rng: np.random.Generator, styled_share: float) -> tuple[Style, Style]:
    """The style of a design's layers, usually full colour, and another one for its assets."""
    style = pick_style(rng) if rng.random() < styled_share else NATURAL
    asset_style = pick_style(rng)
    while asset_style.name == style.name:
        asset_style = pick_style(rng)
    return style, asset_style


def generate_design(seed: int | tuple[int, ...], settings: DesignSettings = DesignSettings()) -> Design:
    """The design of `seed`: background and layers bottom to top, layout, captions and restyle assets."""
    rng = np.random.default_rng(seed)
    frame = pick_frame(rng, settings.frame_area)
    background = draw_background(rng, *frame)
    style, asset_style = pick_styles(rng, settings.styled_share)
    ground = Ground(background.colors, style)
    count = pick_layer_count(rng, settings)
    overflowing = pick_overflowing(rng, count, settings.overflow_share)
    arrangement = Arrangement(frame, settings.max_cover)
    layers, regions, assets = [], [], []
    for overflow in overflowing:
        size = min(frame) * rng.uniform(0.34, 0.62) * min(1.0, math.sqrt(4 / count))  # many layers are smaller layers
        for shrink in RETRIES:
            element = draw_element(rng, max(MIN_SIZE, round(size * shrink)), ground, settings.held_out, settings.mix)
            pixels = element.effect.apply(style.apply(element.pixels))
            box = arrangement.place(rng, (pixels.shape[1], pixels.shape[0]), overflow)
            if box is not None:
                layers.append(Layer(pixels, box.x, box.y, element.caption, element.caption))
                regions.append(Region(element.caption, box, _article(element.caption)))
                assets.append(element.effect.apply(asset_style.apply(element.pixels)))
                break
    base = Layer(background.pixels, 0, 0, "Background", background.caption)
    suffix = "" if style is NATURAL else f", {style.name}"
    shown = [region.caption for region in regions]
    placed = [f"{region.caption} at the {_position_words(region.box, frame)}" for region in regions]
    short = f"{_join(shown)} on {background.caption}{suffix}"
    long = f"{_join(placed)} on {background.caption}{suffix}"
    layout = Layout(frame, tuple(regions), long, Region("Background", Box(0, 0, *frame), background.caption))
    return Design(LayerStack(frame, (base, *layers)), layout, short, style.name, asset_style.name, tuple(assets))
