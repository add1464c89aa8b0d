"""Synthetic layered designs: the training and evaluation data of the small checkpoint.

A design is fully determined by (seed, settings), so that the held-out set is the same everywhere.
"""

import math
from dataclasses import dataclass

import numpy as np

from ..geometry import Box, Size, intersection
from ..layers import Layer, LayerStack
from ..layout import Layout, Region
from .backgrounds import draw_background
from .elements import EVEN_MIX, Element, ElementMix, draw_element
from .styles import NATURAL, Style, pick_style

ASPECTS = ((1, 1), (5, 4), (4, 5), (4, 3), (3, 4), (3, 2), (2, 3), (16, 9), (9, 16), (2, 1), (1, 2))
MIN_CONTRAST = 40  # levels of 255


@dataclass(frozen=True)
class DesignSettings:
    """What designs look like: frame area in px, number of layers, shares of overflowing and of styled designs."""

    frame_area: int = 128 * 128
    min_layers: int = 1
    max_layers: int = 12
    overflow_share: float = 0.4
    styled_share: float = 0.3
    max_cover: float = 0.35  # share of a layer that one layer above it may cover
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
    unit = math.sqrt(area / (aspect_width * aspect_height))
    return Size(*(max(16, round(unit * side / 16) * 16) for side in (aspect_width, aspect_height)))


def pick_layer_count(rng: np.random.Generator, settings: DesignSettings) -> int:
    """Geometric-like: few layers are common, many are rare."""
    counts = np.arange(settings.min_layers, settings.max_layers + 1)
    weights = 0.82 ** np.arange(len(counts))
    return int(rng.choice(counts, p=weights / weights.sum()))


def _place(rng: np.random.Generator, size: tuple[int, int], frame: Size, taken: list[Box], settings: DesignSettings,
           overflow: bool) -> Box | None:  # fmt: skip
    """A position for a new top layer that leaves the layers below visible, or None after twelve tries."""
    width, height = size
    margin = 0.45 if overflow else 0.0  # share of the layer that may hang outside
    left, top = -margin * width, -margin * height
    right = max(left, frame.width - (1 - margin) * width)  # a word may be wider than a small frame
    bottom = max(top, frame.height - (1 - margin) * height)
    for _ in range(12):
        x, y = rng.uniform(left, right), rng.uniform(top, bottom)
        box = Box(round(x), round(y), width, height)
        overlaps = [(intersection(box, other), other) for other in taken]
        if all(hit is None or hit.area <= settings.max_cover * min(other.area, box.area) for hit, other in overlaps):
            return box
    return None


def _is_legible(element: Element, background: Element) -> bool:
    """Whether an element's mean colour stands out from the background's by at least MIN_CONTRAST levels in a channel."""
    pixels, ground = np.asarray(element.image, np.float32), np.asarray(background.image, np.float32)
    weight = pixels[..., 3:]
    color = (pixels[..., :3] * weight).sum((0, 1)) / weight.sum()
    return float(np.abs(color - ground[..., :3].mean((0, 1))).max()) >= MIN_CONTRAST


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


def _styled(element: Element, style: Style) -> np.ndarray:
    return style.apply(np.asarray(element.image))


def generate_design(seed: int | tuple[int, ...], settings: DesignSettings = DesignSettings()) -> Design:
    """The design of `seed`: background and layers bottom to top, layout, captions and restyle assets."""
    rng = np.random.default_rng(seed)
    frame = pick_frame(rng, settings.frame_area)
    background = draw_background(rng, *frame)
    style = pick_style(rng) if rng.random() < settings.styled_share else NATURAL
    asset_style = pick_style(rng)
    while asset_style.name == style.name:
        asset_style = pick_style(rng)
    overflow = rng.random() < settings.overflow_share
    count = pick_layer_count(rng, settings)
    short_side = min(frame)
    shrink = min(1.0, math.sqrt(4 / count))  # many layers are smaller layers
    layers, regions, assets = [], [], []
    for _ in range(count):
        size = max(14, round(short_side * rng.uniform(0.34, 0.62) * shrink))
        element = draw_element(rng, size, settings.held_out, settings.mix)
        while not _is_legible(element, background):
            element = draw_element(rng, size, settings.held_out, settings.mix)
        hangs = overflow and rng.random() < 0.5
        box = _place(rng, element.image.size, frame, [region.box for region in regions], settings, hangs)
        if box is None:
            continue
        layers.append(Layer(_styled(element, style), box.x, box.y, element.caption, element.caption))
        regions.append(Region(element.caption, box, _article(element.caption)))
        assets.append(_styled(element, asset_style))
    base = Layer(np.asarray(background.image), 0, 0, "Background", background.caption)
    suffix = "" if style is NATURAL else f", {style.name}"
    shown = [region.caption for region in regions]
    placed = [f"{region.caption} at the {_position_words(region.box, frame)}" for region in regions]
    short = f"{_join(shown)} on {background.caption}{suffix}"
    long = f"{_join(placed)} on {background.caption}{suffix}"
    layout = Layout(frame, tuple(regions), long, Region("Background", Box(0, 0, *frame), background.caption))
    return Design(LayerStack(frame, (base, *layers)), layout, short, style.name, asset_style.name, tuple(assets))
