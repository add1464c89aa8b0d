"""A second generator of layered designs, unlike the one that we train on: for measuring alone, never for training.

Artwork drawn from parts, cut-outs of photographs, blobs, signs and panels, words in other fonts, soft shadows (`elements`);
backgrounds of photographs, textures, gradients, stripes and noise. A design is fully determined by (seed, index, frame area).
"""

import math
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter

from mrt_core.designs.generator import pick_frame
from mrt_core.geometry import Box, Size
from mrt_core.layouts.layout import Layout, Region
from mrt_core.stacks.layers import Layer, LayerStack, composite_premultiplied, paste

from .drawings import LIGHT, MAIN, SECOND, pick_palette
from .elements import draw_element
from .paints import (
    PHOTOGRAPHS,
    TEXTURES,
    color_name,
    gradient,
    mixed,
    photograph_crop,
    smooth_noise,
    stripes,
    with_alpha,
)

FEWEST, MOST = 2, 8  # layers
OVERHANGING_SHARE, OVERHANG = 0.2, 0.4
MOST_HIDDEN = 0.6  # share of a box that all boxes above it may cover together
CLOSE_SHARE = 0.55  # of positions that are tried, those near a layer that is there
CANDIDATES, RETRIES = 40, 6
LEAST_CONTRAST = 0.1  # mean change of the picture's colours, in 0..1, where a layer shows


class OtherDesign(NamedTuple):
    """The truth, background first, its layout with captions, and the kind of every foreground layer."""

    stack: LayerStack
    layout: Layout
    kinds: tuple[str, ...]


def other_design(index: int, frame_area: int, seed: int = 0) -> OtherDesign:
    """Design number `index` of a seed, at a frame of about `frame_area` px."""
    rng = np.random.default_rng((seed, index))
    frame = pick_frame(rng, frame_area)
    ground, caption = draw_background(rng, frame)
    layers, kinds = [Layer(ground, 0, 0, "Background", caption)], []
    count = int(rng.integers(FEWEST, MOST + 1))
    size = min(frame) * min(0.62, 1.05 / math.sqrt(count))
    for _ in range(count):
        for attempt in range(RETRIES):
            element = draw_element(rng, round(size * rng.uniform(0.6, 1.15) * 0.9**attempt))
            box = place(rng, frame, element.pixels.shape[:2], [layer.box for layer in layers[1:]])
            if box is None:
                continue
            layer = Layer(element.pixels, int(box.x), int(box.y), element.caption, element.caption)
            if contrast(LayerStack(frame, tuple(layers)), layer) >= LEAST_CONTRAST:
                layers.append(layer)
                kinds.append(element.kind)
                break
    regions = tuple(Region(layer.name, layer.box, f"a {layer.caption}") for layer in layers[1:])
    listed = ", ".join(region.caption for region in regions)
    layout = Layout(frame, regions, f"{listed} on {caption}", Region("Background", layers[0].box, caption))
    return OtherDesign(LayerStack(frame, tuple(layers)), layout, tuple(kinds))


def contrast(stack: LayerStack, layer: Layer) -> float:
    """How much a layer on top of a stack changes the picture where it shows: mean over its pixels, in 0..1."""
    area = Box(0, 0, *stack.frame)
    own = paste(layer, area)
    alpha = own[..., 3]
    under = composite_premultiplied(stack)[..., :3]
    changed = np.abs(own[..., :3] - under * alpha[..., None]).mean(-1)
    return float(changed.sum() / max(alpha.sum(), 1.0))


def place(rng: np.random.Generator, frame: Size, size: tuple[int, int], boxes: list[Box]) -> Box | None:
    """A position for a new top layer of `size` (height, width) px, often near another; None where each hides too much."""
    height, width = size
    margin = OVERHANG if rng.random() < OVERHANGING_SHARE else 0.0
    low = np.asarray([-margin * width, -margin * height])
    high = np.maximum(low, [frame.width - (1 - margin) * width, frame.height - (1 - margin) * height])
    for _ in range(CANDIDATES):
        corner = rng.uniform(low, high)
        near, shift = rng.random() < CLOSE_SHARE, rng.uniform(-0.75, 0.75, 2)
        if near and boxes:
            other = boxes[int(rng.integers(len(boxes)))]
            middle = np.asarray([other.x + other.width / 2, other.y + other.height / 2])
            corner = np.clip(middle + shift * (other.width, other.height) - np.asarray([width, height]) / 2, low, high)
        x, y = np.rint(corner).astype(int).tolist()
        box = Box(x, y, width, height)
        if all(_hidden(low_box, [*boxes[i + 1 :], box]) <= MOST_HIDDEN for i, low_box in enumerate(boxes)):
            return box
    return None


def _hidden(box: Box, above: list[Box]) -> float:
    """The share of a box that other boxes cover, or more where these overlap."""
    covered = 0.0
    for other in above:
        across = min(box.right, other.right) - max(box.x, other.x)
        down = min(box.bottom, other.bottom) - max(box.y, other.y)
        covered += max(across, 0) * max(down, 0)
    return covered / box.area


def draw_background(rng: np.random.Generator, frame: Size) -> tuple[np.ndarray, str]:
    """An opaque background, straight RGBA uint8 (height, width, 4), and its caption."""
    width, height = frame
    kind = rng.choice(
        ["photograph", "blurred", "texture", "gradient", "stripes", "noise", "flat"],
        p=[0.16, 0.14, 0.14, 0.2, 0.12, 0.14, 0.1],
    )
    palette = pick_palette(rng)
    first, second = palette[MAIN], palette[rng.choice([SECOND, LIGHT])]
    words = f"{color_name(first)} and {color_name(second)}"
    if kind in ("photograph", "blurred"):
        name = str(rng.choice(list(PHOTOGRAPHS)))
        image = photograph_crop(rng, name, width, height)
        caption = f"a photograph of {PHOTOGRAPHS[name]}"
        if kind == "blurred":
            image = image.filter(ImageFilter.GaussianBlur(min(frame) * rng.uniform(0.02, 0.06)))
            caption = f"a blurred {caption[2:]}"
        pixels = np.asarray(image)
    elif kind == "texture":
        name = str(rng.choice(list(TEXTURES)))
        pixels = np.rint(np.asarray(photograph_crop(rng, name, width, height)) * (np.float32(palette[LIGHT]) / 255))
        caption = f"a background of {TEXTURES[name]}"
    elif kind == "gradient":
        pixels, caption = gradient(rng, width, height, first, second), f"a gradient background of {words}"
    elif kind == "stripes":
        pixels, caption = stripes(rng, width, height, first, second), f"a background of {words} stripes"
    elif kind == "noise":
        clouds = 0.5 + 0.6 * smooth_noise(rng, int(rng.integers(3, 9)), width, height)
        grain = rng.normal(0, 1, (256, 256)).astype(np.float32)
        grain = np.asarray(Image.fromarray(grain).resize((width, height), Image.Resampling.BILINEAR))
        pixels = mixed(first, second, clouds) + rng.uniform(2, 9) * grain[..., None]
        caption = f"a cloudy background of {words}"
    else:
        pixels, caption = np.full((height, width, 3), first), f"a flat {color_name(first)} background"
    return with_alpha(np.clip(pixels, 0, 255).astype(np.uint8), np.full((height, width), 255, np.uint8)), caption
