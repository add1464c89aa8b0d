"""RGBA layers, the stack they form, and how they are composited.

Pixels are straight (not premultiplied) alpha. Compositing is Porter-Duff "over" in gamma space, as design tools and
the training data do it; other blend modes follow the PDF 1.7 compositing formula, also in gamma space.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..errors import MRTError
from ..geometry import Box, Size
from .blending import BLEND_FUNCTIONS, blend

PASS_THROUGH = "pass-through"  # a group's mode: its layers meet the backdrop as if the group were not there
BLEND_MODES = tuple(BLEND_FUNCTIONS)


@dataclass(frozen=True, eq=False)
class Layer:
    """One RGBA layer: `pixels` (height, width, 4) uint8 with straight alpha, its top-left corner at (x, y) px in the frame."""

    pixels: np.ndarray
    x: int
    y: int
    name: str
    caption: str = ""
    opacity: float = 1.0  # 0..1
    blend_mode: str = "normal"  # one of BLEND_MODES
    visible: bool = True

    @property
    def box(self) -> Box:
        height, width = self.pixels.shape[:2]
        return Box(self.x, self.y, width, height)


@dataclass(frozen=True, eq=False)
class Group:
    """A folder of layers and groups, bottom to top; any mode but pass-through composites them on their own first."""

    layers: tuple["Layer | Group", ...]
    name: str
    opacity: float = 1.0  # 0..1
    blend_mode: str = PASS_THROUGH  # or one of BLEND_MODES
    visible: bool = True
    closed: bool = False  # folded up in a program's layer list


@dataclass(frozen=True, eq=False)
class LayerStack:
    """Layers and groups bottom to top over a frame (width, height) px; layers may lie partly or wholly outside it.

    `metadata` is JSON-ready and travels with the document; `warnings` say, by layer name, where reading was not exact.
    """

    frame: Size
    layers: tuple[Layer | Group, ...]
    metadata: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def flat(self) -> Iterator[Layer]:
        """Every layer bottom to top without its groups, whose opacity and visibility it takes over."""
        return _flat(self.layers, 1.0, True)


def _flat(nodes: tuple[Layer | Group, ...], opacity: float, visible: bool) -> Iterator[Layer]:
    for node in nodes:
        if isinstance(node, Group):
            yield from _flat(node.layers, opacity * node.opacity, visible and node.visible)
        else:
            yield replace(node, opacity=node.opacity * opacity, visible=node.visible and visible)


def over(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """Porter-Duff "over" of two premultiplied float images (..., 4) with values 0..1."""
    return top + bottom * (1.0 - top[..., 3:])


def premultiply(pixels: np.ndarray) -> np.ndarray:
    """uint8 straight RGBA (..., 4) to float32 premultiplied RGBA in 0..1."""
    image = pixels.astype(np.float32) / 255.0
    image[..., :3] *= image[..., 3:]
    return image


def unpremultiply(image: np.ndarray) -> np.ndarray:
    """Float premultiplied RGBA (..., 4) in 0..1 to uint8 straight RGBA; colour is 0 where alpha is 0."""
    alpha = image[..., 3:]
    color = np.divide(image[..., :3], alpha, out=np.zeros_like(image[..., :3]), where=alpha > 0)
    return np.rint(np.concatenate([color, alpha], -1).clip(0, 1) * 255).astype(np.uint8)


def paste(layer: Layer, area: Box) -> np.ndarray:
    """The layer's premultiplied float32 pixels on a transparent image of `area` (whole pixels): (height, width, 4)."""
    target = np.zeros((4, round(area.height), round(area.width)), np.float32)
    _draw_layer(target, replace(layer, blend_mode="normal"), round(area.x), round(area.y))
    return np.moveaxis(target, 0, -1)


def composite(stack: LayerStack, area: Box | None = None) -> np.ndarray:
    """The visible layers flattened over `area` (default: the frame): straight uint8 RGBA (height, width, 4)."""
    return unpremultiply(composite_premultiplied(stack, area))


def composite_premultiplied(stack: LayerStack, area: Box | None = None) -> np.ndarray:
    """As `composite`, before rounding: premultiplied float32 RGBA (height, width, 4) in 0..1."""
    return np.moveaxis(composite_planes(stack, area or Box(0, 0, *stack.frame)), 0, -1)


def composite_planes(stack: LayerStack, area: Box) -> np.ndarray:
    """As `composite_premultiplied`, as planes (4, height, width): the shape that document writers work in, band by band."""
    check_blend_modes(stack.layers)
    target = np.zeros((4, round(area.height), round(area.width)), np.float32)
    _draw(target, stack.layers, round(area.x), round(area.y))
    return target


def check_blend_modes(nodes: tuple[Layer | Group, ...]) -> None:
    """Raise MRTError for the first layer or group whose blend mode is not one that can be composited."""
    for node in nodes:
        known = (*BLEND_MODES, PASS_THROUGH) if isinstance(node, Group) else BLEND_MODES
        if node.blend_mode not in known:
            raise MRTError(
                f'Layer "{node.name}" has the blend mode "{node.blend_mode}", which is not known; use one of: '
                f"{', '.join(known)}."
            )
        if isinstance(node, Group):
            check_blend_modes(node.layers)


def _draw(target: np.ndarray, nodes: tuple[Layer | Group, ...], x0: int, y0: int) -> None:
    """Draw `nodes` on `target` (4, h, w), premultiplied, whose top-left corner is (x0, y0) in the frame."""
    for node in nodes:
        if not node.visible or node.opacity <= 0:
            continue
        if isinstance(node, Layer):
            _draw_layer(target, node, x0, y0)
        elif node.blend_mode != PASS_THROUGH:
            inside = np.zeros_like(target)
            _draw(inside, node.layers, x0, y0)
            _draw_planes(target, inside * np.float32(node.opacity), node.blend_mode)
        elif node.opacity >= 1:
            _draw(target, node.layers, x0, y0)
        else:  # pass-through at part opacity: fade from the backdrop alone to the backdrop with the layers
            inside = target.copy()
            _draw(inside, node.layers, x0, y0)
            target += (inside - target) * np.float32(node.opacity)


def _draw_layer(target: np.ndarray, layer: Layer, x0: int, y0: int) -> None:
    """Draw one layer on the part of `target` (4, h, w) that it covers."""
    x, y = layer.x - x0, layer.y - y0
    height, width = layer.pixels.shape[:2]
    left, top = max(x, 0), max(y, 0)
    right, bottom = min(x + width, target.shape[2]), min(y + height, target.shape[1])
    if right <= left or bottom <= top:
        return
    pixels = layer.pixels[top - y : bottom - y, left - x : right - x]
    covered = target[:, top:bottom, left:right]
    alpha = pixels[..., 3].copy()  # contiguous: half the time of what follows
    shown = np.flatnonzero(alpha.max(axis=0))
    if shown.size == 0:
        return
    columns = slice(int(shown[0]), int(shown[-1]) + 1)
    pixels, covered, alpha = pixels[:, columns], covered[..., columns], alpha[:, columns]
    if layer.blend_mode != "normal":
        _draw_planes(covered, np.moveaxis(premultiply(pixels), -1, 0) * np.float32(layer.opacity), layer.blend_mode)
    elif layer.opacity >= 1 and alpha.min() == 255:
        for channel in range(3):
            np.multiply(pixels[..., channel], np.float32(1 / 255), out=covered[channel])
        covered[3] = 1
    else:
        coverage = alpha * np.float32(layer.opacity / 255)  # (h, w)
        remaining = 1 - coverage
        covered *= remaining
        covered[3] += coverage
        coverage *= np.float32(1 / 255)
        for channel in range(3):
            covered[channel] += pixels[..., channel] * coverage


def _draw_planes(target: np.ndarray, source: np.ndarray, mode: str) -> None:
    """Blend premultiplied `source` on premultiplied `target`, both (4, h, w), in place (PDF 1.7, basic compositing)."""
    alpha, backdrop_alpha = source[3], target[3]
    if mode == "normal":
        target *= 1 - alpha
        target += source
        return
    straight = np.divide(source[:3], alpha, out=np.zeros_like(source[:3]), where=alpha > 0)
    backdrop = np.divide(target[:3], backdrop_alpha, out=np.zeros_like(source[:3]), where=backdrop_alpha > 0)
    mixed = blend(mode, backdrop.clip(0, 1), straight.clip(0, 1))
    target[:3] *= 1 - alpha
    target[:3] += source[:3] * (1 - backdrop_alpha) + mixed * (alpha * backdrop_alpha)
    target[3] += alpha * (1 - backdrop_alpha)


def crop_to_content(layer: Layer) -> Layer | None:
    """The layer without its fully transparent margins, or None when all of it is transparent."""
    alpha = layer.pixels[..., 3].copy()  # contiguous: several times faster
    rows, cols = np.flatnonzero(alpha.max(axis=1, initial=0)), np.flatnonzero(alpha.max(axis=0, initial=0))
    if rows.size == 0:
        return None
    top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(cols[0]), int(cols[-1]) + 1
    return replace(layer, pixels=layer.pixels[top:bottom, left:right], x=layer.x + left, y=layer.y + top)
