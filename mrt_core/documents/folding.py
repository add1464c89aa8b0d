"""What a layer does to others' alpha, worked into their pixels: a layer stack has layers that cover, and no other kind."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ..geometry import Box, Size
from ..stacks.layers import Group, Layer, LayerStack, composite_planes

Nodes = tuple[Layer | Group, ...]
Coverage = Callable[[Box], np.ndarray]  # of a box in whole px: floats (height, width) in 0..1

_BAND_ROWS = 256  # rows composited at a time


def covered_by(nodes: Nodes) -> Coverage:
    """How much `nodes`, composited, cover of each pixel."""
    return lambda box: composite_planes(LayerStack(Size(1, 1), nodes), box)[3]


def uncovered_by(nodes: Nodes) -> Coverage:
    """What `nodes`, composited, leave uncovered of each pixel."""
    covered = covered_by(nodes)
    return lambda box: 1 - covered(box)


def fold(node: Layer | Group, coverage: Coverage) -> Layer | Group:
    """`node` with the alpha of each of its layers multiplied by `coverage`."""
    if isinstance(node, Group):
        return replace(node, layers=tuple(fold(child, coverage) for child in node.layers))
    pixels = node.pixels.copy()
    height, width = pixels.shape[:2]
    for top in range(0, height, _BAND_ROWS):
        alpha = pixels[top : top + _BAND_ROWS, :, 3]
        alpha[...] = np.rint(alpha * coverage(Box(node.x, node.y + top, width, len(alpha))))
    return replace(node, pixels=pixels)
