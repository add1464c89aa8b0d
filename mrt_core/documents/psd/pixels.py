"""The pixels of one PSD layer as 8-bit straight sRGB RGBA, with its mask and what is clipped to it rendered in."""

import numpy as np
from psd_tools import PSDImage
from psd_tools.api.layers import Layer as PSDLayer
from psd_tools.composite import composite
from psd_tools.constants import ChannelID, ColorMode, Resource

from ...geometry import Box
from ..budget import PixelBudget
from .alpha_channels import alpha_channels
from .color_profile import is_srgb, planes_to_srgb, to_levels, to_srgb

_COLOR_CHANNELS = {ColorMode.RGB: 3, ColorMode.CMYK: 4, ColorMode.LAB: 3}  # the others are read as gray


def stored_pixels(layer: PSDLayer, budget: PixelBudget) -> np.ndarray:
    """The layer's own pixels (height, width, 4), without mask, effects or what is clipped to it."""
    height, width, document = layer.height, layer.width, layer._psd
    budget.spend(layer.name, width, height)
    count = _COLOR_CHANNELS.get(document.color_mode, 1)
    linear = document.depth == 32
    planes = {}
    for info, data in zip(layer._record.channel_info, layer._channels, strict=False):
        if (info.id == ChannelID.TRANSPARENCY_MASK or 0 <= info.id < count) and data.data:
            stored = data.get_data(width, height, document.depth, document.version)
            planes[int(info.id)] = _levels(stored, document.depth, linear and info.id >= 0).reshape(height, width)
    pixels = np.full((height, width, 4), 255, np.uint8)
    alpha = planes.pop(int(ChannelID.TRANSPARENCY_MASK), None)
    if alpha is not None:
        pixels[..., 3] = alpha
    profile = None if linear else _profile(document)
    if document.color_mode == ColorMode.RGB and is_srgb(profile):
        for channel, plane in planes.items():
            pixels[..., channel] = plane
        if document.depth == 8:
            return pixels
    elif planes:
        white = np.full((height, width), 255, np.uint8)
        stored_planes = [planes.get(channel, white) for channel in range(count)]
        pixels[..., :3] = planes_to_srgb(stored_planes, document.color_mode, profile)
    pixels[pixels[..., 3] == 0] = 0
    return pixels


def rendered_pixels(
    layer: PSDLayer, clipped: list[PSDLayer], left_out: list[PSDLayer], area: Box, budget: PixelBudget
) -> np.ndarray:
    """The layer drawn with everything psd-tools knows, on a transparent `area`, at full opacity: (height, width, 4).

    What is `clipped` to it is drawn too, and the layers `left_out` are not.
    """
    budget.spend(layer.name, int(area.width), int(area.height))
    shown, hidden = {id(layer), *(id(other) for other in clipped)}, {id(other) for other in left_out}
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
            layer_filter=lambda other: id(other) in shown or (id(other) not in hidden and other.visible),
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
    """The stored merged image of a document (height, width, 4), its transparency where it has one."""
    budget.spend("merged image", document.width, document.height)
    height, width, linear = document.height, document.width, document.depth == 32
    planes = document._record.image_data.get_data(document._record.header)
    if document.depth == 1:
        rows = np.frombuffer(planes[0], np.uint8).reshape(height, -1)
        planes = [255 * (1 - np.unpackbits(rows, axis=1, count=width))]  # a set bit is black
    count = _COLOR_CHANNELS.get(document.color_mode, 1)
    levels = [
        _levels(plane, max(document.depth, 8), linear and index < count).reshape(height, width)
        for index, plane in enumerate(planes)
    ]
    pixels = np.full((height, width, 4), 255, np.uint8)
    profile = None if linear else _profile(document)
    clear = alpha_channels(document).transparency and len(levels) > count
    if clear and document.color_mode in (ColorMode.RGB, ColorMode.GRAYSCALE):
        levels[:count] = [_without_white(plane, levels[count]) for plane in levels[:count]]
    if document.color_mode == ColorMode.INDEXED:
        table = np.frombuffer(document._record.color_mode_data.value[:768].ljust(768, b"\0"), np.uint8)
        colors = table.reshape(3, 256)[:, levels[0]]
        pixels[..., :3] = planes_to_srgb(list(colors), ColorMode.RGB, profile)
    else:
        pixels[..., :3] = planes_to_srgb(levels[:count], document.color_mode, profile)
    if clear:
        pixels[..., 3] = levels[count]
        pixels[pixels[..., 3] == 0] = 0
    return pixels


def _without_white(plane: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """A colour channel that is stored over white, without it; both uint8 (height, width)."""
    alpha = np.maximum(alpha, 1).astype(np.float32)
    return np.rint((255 - (255 - plane) * (255 / alpha)).clip(0, 255)).astype(np.uint8)


def _levels(data: bytes, depth: int, linear: bool) -> np.ndarray:
    """A channel's samples of `depth` bits as uint8 levels; `linear`: they are linear light."""
    if depth == 8:
        return np.frombuffer(data, np.uint8)
    if depth == 16:
        return np.rint(np.frombuffer(data, ">u2") / np.float32(257)).astype(np.uint8)
    return to_levels(np.nan_to_num(np.frombuffer(data, ">f4").astype(np.float32)), linear)


def _density(layer: PSDLayer) -> float:
    """How strongly the layer's mask acts: 0..1."""
    parameters = layer.mask.parameters
    values = (parameters.user_mask_density, parameters.vector_mask_density) if parameters else ()
    return next((value / 255 for value in values if value is not None), 1.0)


def _profile(document: PSDImage) -> bytes | None:
    return document.image_resources.get_data(Resource.ICC_PROFILE)


def _to_rgba(color: np.ndarray, alpha: np.ndarray | None, document: PSDImage) -> np.ndarray:
    """Colour (h, w, c) and alpha (h, w, 1) floats, alpha perhaps absent, to 8-bit RGBA; colour is 0 where alpha is 0."""
    pixels = np.full((*color.shape[:2], 4), 255, np.uint8)
    pixels[..., :3] = to_srgb(color, document.color_mode, document.depth == 32, _profile(document))
    if alpha is not None:
        pixels[..., 3] = np.rint(alpha[..., 0].clip(0, 1) * 255)
        pixels[pixels[..., 3] == 0] = 0
    return pixels
