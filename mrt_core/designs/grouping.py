"""Layer-grouping augmentation: merge neighbouring layers of a design into one (paper section 3.2,
architecture: grouping)."""

import math
from dataclasses import replace

import numpy as np

from ..geometry import TOKEN_PX, Box, union
from ..layouts.layout import Region
from ..stacks.layers import Layer, LayerStack, composite
from .generator import Design

MAX_GAP = 2 * TOKEN_PX  # px between two boxes that still count as adjacent


def are_close(a: Box, b: Box) -> bool:
    """Whether two boxes overlap or lie at most MAX_GAP px apart."""
    gap_x = max(a.x, b.x) - min(a.right, b.right)
    gap_y = max(a.y, b.y) - min(a.bottom, b.bottom)
    return max(gap_x, gap_y) <= MAX_GAP


def _flatten(lower: np.ndarray, upper: np.ndarray, lower_box: Box, upper_box: Box, area: Box) -> np.ndarray:
    """Two images (h, w, 4) at their boxes, flattened over `area`."""
    placed = [Layer(pixels, int(b.x), int(b.y), "") for pixels, b in ((lower, lower_box), (upper, upper_box))]
    return composite(LayerStack((0, 0), tuple(placed)), area)


def merge_with_next(design: Design, index: int) -> Design:
    """Foreground layers `index` and `index + 1` as one; they are neighbours in z-order, so the composite stays the same."""
    layers, regions, assets = list(design.stack.layers), list(design.layout.regions), list(design.assets)
    low, high = regions[index : index + 2]
    area = union([low.box, high.box])
    pixels = _flatten(layers[index + 1].pixels, layers[index + 2].pixels, low.box, high.box, area)
    asset = _flatten(assets[index], assets[index + 1], low.box, high.box, area)
    name, caption = f"{low.name} and {high.name}", f"{low.caption} and {high.caption}"
    layers[index + 1 : index + 3] = [Layer(pixels, int(area.x), int(area.y), name, caption)]
    regions[index : index + 2] = [Region(name, area, caption)]
    assets[index : index + 2] = [asset]
    stack = replace(design.stack, layers=tuple(layers))
    return replace(design, stack=stack, layout=replace(design.layout, regions=tuple(regions)), assets=tuple(assets))


def group_layers(design: Design, rng: np.random.Generator) -> Design:
    """`design` with up to a third of its layers merged into a close neighbour; its composite is unchanged."""
    for _ in range(int(rng.integers(1, math.ceil(len(design.assets) / 3) + 1))):
        boxes = [region.box for region in design.layout.regions]
        close = [i for i in range(len(boxes) - 1) if are_close(boxes[i], boxes[i + 1])]
        if not close:
            break
        design = merge_with_next(design, int(rng.choice(close)))
    return design
