"""The pixels of one PSD layer as 8-bit straight sRGB RGBA, with its mask and what is clipped to it rendered in."""

import numpy as np
from psd_tools import PSDImage
from psd_tools.api.layers import Layer as PSDLayer
from psd_tools.composite import composite
from psd_tools.constants import ChannelID, ColorMode, Resource

from ...geometry import Box
from ..budget import PixelBudget
from .color_profile import is_srgb, to_srgb

_RGBA = (ChannelID.CHANNEL_0, ChannelID.CHANNEL_1, ChannelID.CHANNEL_2, ChannelID.TRANSPARENCY_MASK)


def stored_pixels(layer: PSDLayer, budget: PixelBudget) -> np.ndarray:
    """The layer's own pixels (height, width, 4), without mask, effects or what is clipped to it."""
    height, width, document = layer.height, layer.width, layer._psd
    budget.spend(layer.name, width, height)
    if document.color_mode != ColorMode.RGB or document.depth != 8 or not is_srgb(_profile(document)):
        return _to_rgba(layer.numpy("color"), layer.numpy("shape"), document)
    planes = {}
    for info, data in zip(layer._record.channel_info, layer._channels, strict=False):
        if info.id in _RGBA and data.data:
            planes[info.id] = np.frombuffer(data.get_data(width, height, 8, document.version), np.uint8)
    pixels = np.full((height, width, 4), 255, np.uint8)
    for index, channel in enumerate(_RGBA):
        if channel in planes:
            pixels[..., index] = planes[channel].reshape(height, width)
    return pixels


def rendered_pixels(layer: PSDLayer, clipped: list[PSDLayer], area: Box, budget: PixelBudget) -> np.ndarray:
    """The layer drawn with everything psd-tools knows, on a transparent `area`, at full opacity: (height, width, 4)."""
    budget.spend(layer.name, int(area.width), int(area.height))
    shown = {id(layer), *(id(other) for other in clipped)}
    opacity, fill = layer._record.opacity, layer.fill_opacity
    layer._record.opacity = 255  # the layer stack keeps it apart
    if not layer.has_effects():
        layer.fill_opacity = 255
    # Photoshop stores a raster copy of a vector mask; where another program did not, psd-tools has to be told to draw it.
    path_alone = layer.kind == "pixel" and layer.mask is None and layer.has_vector_mask()
    try:
        color, _, alpha = composite(
            layer,
            viewport=(int(area.x), int(area.y), int(area.right), int(area.bottom)),
            layer_filter=lambda other: id(other) in shown or (other is not layer and other.visible),
            force=path_alone,
            as_layer=True,
        )
    finally:
        layer._record.opacity = opacity
        layer.fill_opacity = fill
    return _to_rgba(color, alpha, layer._psd)


def apply_mask(pixels: np.ndarray, layer: PSDLayer, x: int, y: int, budget: PixelBudget) -> np.ndarray:
    """`pixels` (height, width, 4), whose corner is (x, y), with alpha multiplied by the raster mask of `layer`."""
    mask = layer.mask
    budget.spend(layer.name, mask.width, mask.height)
    coverage = np.full(pixels.shape[:2], mask.background_color / 255, np.float32)
    stored = layer.numpy("mask") if mask.width > 0 and mask.height > 0 else None
    if stored is not None:
        left, top = max(mask.left, x), max(mask.top, y)
        right, bottom = min(mask.right, x + pixels.shape[1]), min(mask.bottom, y + pixels.shape[0])
        if right > left and bottom > top:
            inside = stored[top - mask.top : bottom - mask.top, left - mask.left : right - mask.left, 0]
            coverage[top - y : bottom - y, left - x : right - x] = inside
    density = _density(layer)
    coverage = coverage * density + (1 - density)
    masked = pixels.copy()
    masked[..., 3] = np.rint(pixels[..., 3] * coverage)
    return masked


def merged_pixels(document: PSDImage, budget: PixelBudget) -> np.ndarray:
    """The stored merged image of a document (height, width, 4)."""
    budget.spend("merged image", document.width, document.height)
    color = document.numpy("color")
    rgb = color[..., :3] if document.color_mode == ColorMode.INDEXED else color
    return _to_rgba(rgb, document.numpy("shape"), document, palette=document.color_mode == ColorMode.INDEXED)


def _density(layer: PSDLayer) -> float:
    """How strongly the layer's mask acts: 0..1."""
    parameters = layer.mask.parameters
    values = (parameters.user_mask_density, parameters.vector_mask_density) if parameters else ()
    return next((value / 255 for value in values if value is not None), 1.0)


def _profile(document: PSDImage) -> bytes | None:
    return document.image_resources.get_data(Resource.ICC_PROFILE)


def _to_rgba(
    color: np.ndarray | None, alpha: np.ndarray | None, document: PSDImage, palette: bool = False
) -> np.ndarray:
    """Colour (h, w, c) and alpha (h, w, 1) floats, either absent, to 8-bit RGBA; colour is 0 where alpha is 0."""
    if color is None:
        color = np.zeros((*alpha.shape[:2], 1), np.float32)
    mode = ColorMode.RGB if palette else document.color_mode
    pixels = np.full((*color.shape[:2], 4), 255, np.uint8)
    pixels[..., :3] = to_srgb(color, mode, document.depth == 32, _profile(document))
    if alpha is not None:
        pixels[..., 3] = np.rint(alpha[..., 0].clip(0, 1) * 255)
        pixels[pixels[..., 3] == 0] = 0
    return pixels
