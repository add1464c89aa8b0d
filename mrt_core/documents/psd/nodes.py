"""The tree of layers and groups in a PSD, from psd-tools' objects to ours."""

from dataclasses import replace
from typing import Any

import numpy as np
from psd_tools import PSDImage
from psd_tools.api.adjustments import AdjustmentLayer
from psd_tools.api.layers import Group as PSDGroup
from psd_tools.api.layers import Layer as PSDLayer
from psd_tools.constants import Clipping, SectionDivider, Tag
from psd_tools.psd.tagged_blocks import SectionDividerSetting

from ...errors import MRTError
from ...geometry import Box
from ...stacks.layers import PASS_THROUGH, Group, Layer, crop_to_content
from ..folding import covered_by, fold
from ..wording import reason
from .fill import HARD_MIX, SPECIAL_MODES, can_hold_fill, with_fill
from .losses import deed_without_pixels, warn_of_losses
from .pixels import apply_mask, rendered_pixels, stored_pixels
from .reading import Reading, is_over_budget
from .values import BLEND_NAMES, NEAREST_MODES

_RASTER_KINDS = ("pixel", "type", "smartobject")  # their stored pixels are what the layer shows
_DRAWN_BYTES = 48  # what drawing takes for a pixel, in psd-tools' floats


def read_nodes(
    parent: PSDImage | PSDGroup, reading: Reading, masking: tuple[PSDGroup, ...]
) -> tuple[Layer | Group, ...]:
    """The children of `parent` bottom to top; `masking` are the groups around them whose masks they take over."""
    nodes: list[Layer | Group] = []
    siblings = list(parent)
    index = 0
    while index < len(siblings):
        base, index = siblings[index], index + 1
        clipped = []
        while index < len(siblings) and siblings[index]._record.clipping == Clipping.NON_BASE:
            clipped.append(siblings[index])
            index += 1
        nodes += _read_run(base, clipped, reading, masking)
    return tuple(nodes)


def _read_run(
    base: PSDLayer, clipped: list[PSDLayer], reading: Reading, masking: tuple[PSDGroup, ...]
) -> list[Layer | Group]:
    """A layer or group and what is clipped to it."""
    shown = [other for other in clipped if other.visible]
    if _left_out(base, reading):
        return [node for other in clipped for node in _read_run(other, [], reading, masking)]
    if not any(isinstance(other, PSDGroup) for other in (base, *shown)) and _can_be_drawn(base):
        merged = [other for other in shown if isinstance(other, AdjustmentLayer) or not _left_out(other, reading)]
        hidden = [other for other in clipped if not other.visible]
        node = _read_node(base, merged, clipped, reading, masking)
        return [node, *(above for other in hidden for above in _read_run(other, [], reading, masking))]
    node = _read_node(base, [], clipped, reading, masking)
    above = [above for other in clipped for above in _read_run(other, [], reading, masking)]
    if not above:
        return [node]
    names = ", ".join(f'"{other.name}"' for other in above)
    reading.warn(base.name, f"what is clipped to it was cut to its shape: {names}")
    return _clipped(node, above)


def _can_be_drawn(layer: PSDLayer) -> bool:
    """Whether psd-tools may take the memory to draw the layer and what is clipped to it."""
    return layer.width * layer.height * _DRAWN_BYTES <= layer._psd.max_alloc_bytes


def _clipped(base: Layer | Group, above: list[Layer | Group]) -> list[Layer | Group]:
    """`base` and the nodes `above` it cut to its shape; in a group where its mode or opacity acts on all of them."""
    plain = replace(base, opacity=1.0, visible=True)
    if base.blend_mode not in ("normal", PASS_THROUGH):
        plain = replace(plain, blend_mode="normal")
    cut = [fold(node, covered_by((plain,))) for node in above]
    if plain.blend_mode == base.blend_mode and base.opacity == 1:
        return [base, *(replace(node, visible=node.visible and base.visible) for node in cut)]
    mode = "normal" if base.blend_mode == PASS_THROUGH else base.blend_mode
    return [Group((plain, *cut), base.name, base.opacity, mode, base.visible)]


def _left_out(layer: PSDLayer, reading: Reading) -> bool:
    """Whether the layer only changes others, which is then said."""
    deed = "an adjustment layer" if isinstance(layer, AdjustmentLayer) else deed_without_pixels(layer)
    if deed is None:
        return False
    stored = (
        "the stored preview shows its effect" if reading.has_preview() else "no preview is stored that would show it"
    )
    if not isinstance(layer, AdjustmentLayer):
        deed = deed if deed.startswith("a ") else f"a layer {deed}"
    reading.warn(layer.name, f"it is {deed} and was left out; {stored}")
    return True


def _read_node(
    layer: PSDLayer,
    clipped: list[PSDLayer],
    around: list[PSDLayer],
    reading: Reading,
    masking: tuple[PSDGroup, ...],
) -> Layer | Group:
    """One layer with what is `clipped` to it drawn in, or one group; `around` is all that is clipped to it in the file."""
    extra = reading.extras.get(str(layer.layer_id))
    extra = extra if isinstance(extra, dict) else {}
    attributes = _attributes(layer, extra)
    warn_of_losses(layer, around, reading)
    if isinstance(layer, PSDGroup):
        _join_fill(layer, attributes, reading)
        if _has_active_mask(layer):
            reading.warn(layer.name, "the group's mask was applied to each of its layers")
            masking = (*masking, layer)
        return Group(read_nodes(layer, reading, masking), closed=_is_closed(layer, reading), **attributes)
    if clipped:
        names = ", ".join(f'"{other.name}"' for other in clipped)
        reading.warn(layer.name, f"what is clipped to it was merged into it: {names}")
    if attributes["blend_mode"] == PASS_THROUGH:
        attributes["blend_mode"] = "normal"
    with reading.decoding(layer.name):
        pixels, x, y = _read_pixels(layer, clipped, [other for other in around if other not in clipped], reading)
        for group in masking:
            pixels = apply_mask(pixels, group, x, y, reading.budget)
    if not layer.has_effects():  # under effects it is rendered: they do not fade with it
        pixels = _filled(layer, pixels, attributes, reading)
    return Layer(pixels, x, y, caption=str(extra.get("caption", "")), **attributes)


def _attributes(layer: PSDLayer, extra: dict[str, Any]) -> dict[str, Any]:
    divider = _divider(layer) if isinstance(layer, PSDGroup) else None
    key = divider.blend_mode if divider is not None and divider.blend_mode is not None else layer.blend_mode
    mode, exact = BLEND_NAMES[key], extra.get("blend_mode")
    return {
        "name": layer.name,
        "opacity": layer.opacity / 255,
        "blend_mode": exact if isinstance(exact, str) and NEAREST_MODES.get(exact) == mode else mode,
        "visible": layer.visible,
    }


def _join_fill(layer: PSDLayer, attributes: dict[str, Any], reading: Reading) -> None:
    """Multiply the fill opacity of a group into its opacity, with a warning where Photoshop does otherwise."""
    fill, mode = layer.fill_opacity, attributes["blend_mode"]
    if fill == 255:
        return
    attributes["opacity"] = layer.opacity * fill / 255**2
    if mode == PASS_THROUGH or mode in SPECIAL_MODES:
        reading.warn(
            layer.name,
            f'its fill opacity of {fill / 255:.0%} was joined to its opacity, which is not exact in "{mode}"',
        )


def _filled(layer: PSDLayer, pixels: np.ndarray, attributes: dict[str, Any], reading: Reading) -> np.ndarray:
    """The pixels with the layer's fill opacity in its colours where its mode asks for that, else joined to its opacity."""
    fill, mode = layer.fill_opacity, attributes["blend_mode"]
    if fill == 255:
        return pixels
    if can_hold_fill(mode):
        reading.warn(
            layer.name, f'its fill opacity of {fill / 255:.0%} was worked into its colours, as "{mode}" uses it'
        )
        return with_fill(pixels, mode, fill / 255)
    if mode == HARD_MIX:
        reading.warn(
            layer.name,
            f'its fill opacity of {fill / 255:.0%} was joined to its opacity, which is not exact in "{mode}"',
        )
    attributes["opacity"] = layer.opacity * fill / 255**2
    return pixels


def _is_closed(group: PSDGroup, reading: Reading) -> bool:
    divider = _divider(group)
    if divider is None:
        reading.warn(group.name, "whether the group is folded cannot be read, and it was left open")
    return divider is not None and divider.kind == SectionDivider.CLOSED_FOLDER


def _divider(layer: PSDLayer) -> SectionDividerSetting | None:
    """The block that says that a layer is a group; groups deep inside others have one of another name."""
    for tag in (Tag.SECTION_DIVIDER_SETTING, Tag.NESTED_SECTION_DIVIDER_SETTING):
        divider = layer.tagged_blocks.get_data(tag)
        if getattr(divider, "kind", None) in (SectionDivider.OPEN_FOLDER, SectionDivider.CLOSED_FOLDER):
            return divider
    return None


def _read_pixels(
    layer: PSDLayer, clipped: list[PSDLayer], left_out: list[PSDLayer], reading: Reading
) -> tuple[np.ndarray, int, int]:
    """The layer's pixels and the position of their top-left corner; one transparent pixel for an empty layer."""
    empty = np.zeros((1, 1, 4), np.uint8), layer.left, layer.top
    if layer.width < 1 or layer.height < 1:
        return empty
    if _must_be_rendered(layer, clipped):
        area = _drawn_area(layer)
        try:
            pixels = rendered_pixels(layer, clipped, left_out, area, reading.budget)
        except ImportError as error:
            package = error.name or "psd-tools[composite]"
            hindrance = f'drawing it needs the package "{package}"'
        except MRTError:
            raise
        except Exception as error:  # a description that psd-tools cannot follow makes it raise errors of many kinds
            size = f"drawing its {int(area.width)} x {int(area.height)} px takes too much memory"
            hindrance = size if is_over_budget(error) else f"it cannot be drawn ({reason(error)})"
        else:
            if not layer.has_pixels() and (layer.kind != "solidcolorfill" or layer.has_vector_mask()):
                reading.warn(layer.name, f"it is drawn from its description ({layer.kind}), which may not be exact")
            drawn = crop_to_content(Layer(pixels, int(area.x), int(area.y), layer.name))
            return (drawn.pixels, drawn.x, drawn.y) if drawn else empty
        reading.warn(layer.name, f"{hindrance}, so only its stored pixels were read")
        if not layer.has_pixels():
            return empty
    pixels = stored_pixels(layer, reading.budget)
    if _has_active_mask(layer) and layer.kind in _RASTER_KINDS:
        pixels = apply_mask(pixels, layer, layer.left, layer.top, reading.budget)
    return pixels, layer.left, layer.top


def _must_be_rendered(layer: PSDLayer, clipped: list[PSDLayer]) -> bool:
    if clipped or not layer.has_pixels() or layer.has_effects():
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
