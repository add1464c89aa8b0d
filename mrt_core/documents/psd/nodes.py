"""The tree of layers and groups in a PSD, from psd-tools' objects to ours."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from psd_tools import PSDImage
from psd_tools.api.adjustments import AdjustmentLayer
from psd_tools.api.layers import Artboard
from psd_tools.api.layers import Group as PSDGroup
from psd_tools.api.layers import Layer as PSDLayer
from psd_tools.compression import PSDDecompressionWarning

from ...geometry import Box
from ...stacks.layers import PASS_THROUGH, Group, Layer, crop_to_content
from ..budget import PixelBudget
from .pixels import apply_mask, rendered_pixels, stored_pixels
from .values import BLEND_NAMES, NEAREST_MODES

_ALL_LEVELS = [(0, 65535), (0, 65535)]
_RASTER_KINDS = ("pixel", "type", "smartobject")  # their stored pixels are what the layer shows


@dataclass
class Reading:
    """What is collected while one document is read; `extras` are our own notes on its layers, by layer id."""

    budget: PixelBudget
    extras: dict[str, Any]
    warnings: list[str] = field(default_factory=list)

    def warn(self, name: str, text: str) -> None:
        """Say where the layer `name` is not exact."""
        self.warnings.append(f'Layer "{name}": {text}.')

    @contextmanager
    def decoding(self, name: str) -> Iterator[None]:
        """Turn psd-tools' warning of a channel that it replaced by black into ours."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
        if any(issubclass(warning.category, PSDDecompressionWarning) for warning in caught):
            self.warn(name, "a part of it could not be decoded and is black")


def read_nodes(
    parent: PSDImage | PSDGroup, reading: Reading, masking: tuple[PSDGroup, ...]
) -> tuple[Layer | Group, ...]:
    """The children of `parent` bottom to top; `masking` are the groups around them whose masks they take over."""
    nodes = []
    merged: set[int] = set()
    for layer in parent:
        if id(layer) in merged:
            continue
        if isinstance(layer, AdjustmentLayer):
            reading.warn(layer.name, "it is an adjustment layer and was left out; the stored preview shows its effect")
            continue
        clipped = [other for other in layer.clip_layers if other.visible]
        merged |= {id(other) for other in clipped}
        nodes.append(_read_node(layer, clipped, reading, masking))
    return tuple(nodes)


def _read_node(
    layer: PSDLayer, clipped: list[PSDLayer], reading: Reading, masking: tuple[PSDGroup, ...]
) -> Layer | Group:
    extra = reading.extras.get(str(layer.layer_id))
    extra = extra if isinstance(extra, dict) else {}
    attributes = _attributes(layer, extra)
    _warn_of_losses(layer, reading)
    if isinstance(layer, PSDGroup) and not clipped:
        if _has_active_mask(layer):
            reading.warn(layer.name, "the group's mask was applied to each of its layers")
            masking = (*masking, layer)
        return Group(read_nodes(layer, reading, masking), closed=not layer.open_folder, **attributes)
    if clipped:
        names = ", ".join(f'"{other.name}"' for other in clipped)
        reading.warn(layer.name, f"what is clipped to it was merged into it: {names}")
    if attributes["blend_mode"] == PASS_THROUGH:
        attributes["blend_mode"] = "normal"
    with reading.decoding(layer.name):
        pixels, x, y = _read_pixels(layer, clipped, reading)
        for group in masking:
            pixels = apply_mask(pixels, group, x, y, reading.budget)
    return Layer(pixels, x, y, caption=str(extra.get("caption", "")), **attributes)


def _attributes(layer: PSDLayer, extra: dict[str, Any]) -> dict[str, Any]:
    mode, exact = BLEND_NAMES[layer.blend_mode], extra.get("blend_mode")
    fill = 255 if layer.has_effects() else layer.fill_opacity  # under effects it is rendered: they do not fade with it
    return {
        "name": layer.name,
        "opacity": layer.opacity / 255 if fill == 255 else layer.opacity * fill / 255**2,
        "blend_mode": exact if isinstance(exact, str) and NEAREST_MODES.get(exact) == mode else mode,
        "visible": layer.visible,
    }


def _read_pixels(layer: PSDLayer, clipped: list[PSDLayer], reading: Reading) -> tuple[np.ndarray, int, int]:
    """The layer's pixels and the position of their top-left corner; one transparent pixel for an empty layer."""
    empty = np.zeros((1, 1, 4), np.uint8), layer.left, layer.top
    if layer.width < 1 or layer.height < 1:
        return empty
    if _must_be_rendered(layer, clipped):
        area = _drawn_area(layer)
        try:
            pixels = rendered_pixels(layer, clipped, [], area, reading.budget)
        except ImportError as error:
            package = error.name or "psd-tools[composite]"
            reading.warn(layer.name, f'drawing it needs the package "{package}", so only its stored pixels were read')
            if not layer.has_pixels():
                return empty
        else:
            drawn = crop_to_content(Layer(pixels, int(area.x), int(area.y), layer.name))
            return (drawn.pixels, drawn.x, drawn.y) if drawn else empty
    pixels = stored_pixels(layer, reading.budget)
    if _has_active_mask(layer) and layer.kind in _RASTER_KINDS:
        pixels = apply_mask(pixels, layer, layer.left, layer.top, reading.budget)
    return pixels, layer.left, layer.top


def _must_be_rendered(layer: PSDLayer, clipped: list[PSDLayer]) -> bool:
    if clipped or isinstance(layer, PSDGroup) or not layer.has_pixels() or layer.has_effects():
        return True
    if _has_active_mask(layer) and layer.kind not in _RASTER_KINDS:
        return True
    path = layer.vector_mask
    return path is not None and not path.disabled and not (layer.mask is not None and layer.mask.has_real())


def _drawn_area(layer: PSDLayer) -> Box:
    """The layer's box with room for a stroke around it."""
    strokes = layer.effects.find("stroke") if layer.has_effects() else ()
    margin = max((int(stroke.size) for stroke in strokes), default=0)
    left, top, right, bottom = layer.bbox
    return Box(left - margin, top - margin, right - left + 2 * margin, bottom - top + 2 * margin)


def _has_active_mask(layer: PSDLayer) -> bool:
    return layer.mask is not None and not layer.mask.disabled


def _warn_of_losses(layer: PSDLayer, reading: Reading) -> None:
    if isinstance(layer, Artboard):
        reading.warn(layer.name, "it is an artboard and was read as a group, without its background")
    if layer.has_effects():
        names = ", ".join(sorted({type(effect).__name__ for effect in layer.effects if effect.enabled}))
        reading.warn(layer.name, f"its effects are drawn approximately or not at all: {names}")
    if _has_active_mask(layer) and layer.mask.parameters and layer.mask.parameters.user_mask_feather:
        reading.warn(layer.name, "its mask's feather was left out")
    ranges = layer._record.blending_ranges
    if any(
        list(pair) != _ALL_LEVELS for pair in [ranges.composite_ranges or _ALL_LEVELS, *(ranges.channel_ranges or [])]
    ):
        reading.warn(layer.name, 'its "Blend If" ranges were left out')
