"""ComfyUI's native LAYERS document to and from a layer stack, with plain tensors.

A LAYERS document is {"version": 1, "canvas": (width, height), "layers": [item, ...]}; an item holds a float image
(batch, height, width, 3 or 4) with straight alpha and its placement. It has no groups. Lossless both ways for what it
can hold, at 8 bits; captions ride along on the items.
"""

import logging
import math
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..errors import MRTError
from ..geometry import Size
from ..stacks.layers import BLEND_MODES, PASS_THROUGH, Group, Layer, LayerStack

log = logging.getLogger(__name__)

VERSION = 1
# Modes of PSD that LAYERS does not know, and the nearest that it does.
_NEAREST = {"dissolve": "normal", "darker-color": "darken", "lighter-color": "lighten"}
MODES = tuple(mode for mode in BLEND_MODES if mode not in _NEAREST)


def to_native(stack: LayerStack) -> dict[str, Any]:
    """The LAYERS document of `stack`, its groups dissolved; warns by name of modes and groups that LAYERS lacks."""
    _warn_of_groups(stack.layers)
    items = []
    for z_index, layer in enumerate(stack.flat()):
        mode = _NEAREST.get(layer.blend_mode, layer.blend_mode)
        if mode != layer.blend_mode:
            log.warning('Layer "%s": LAYERS has no blend mode "%s"; "%s" is used.', layer.name, layer.blend_mode, mode)
        height, width = layer.pixels.shape[:2]
        image = torch.from_numpy(layer.pixels.astype(np.float32) / 255)[None]  # (1, h, w, 4)
        items.append(
            {
                "image": image,
                "type": "raster",
                "z_index": z_index,
                "x": layer.x,
                "y": layer.y,
                "w": width,
                "h": height,
                "name": layer.name,
                "opacity": layer.opacity,
                "blend_mode": mode,
                "visible": layer.visible,
                "caption": layer.caption,
            }
        )
    return {"version": VERSION, "canvas": (stack.frame.width, stack.frame.height), "layers": items}


def _warn_of_groups(nodes: tuple[Layer | Group, ...]) -> None:
    """Log each group that looks different when its layers stand alone with their share of its opacity."""
    for group in nodes:
        if not isinstance(group, Group):
            continue
        faded = group.opacity < 1 and len(group.layers) > 1
        mixed = group.blend_mode == "normal" and any(child.blend_mode != "normal" for child in group.layers)
        if faded or mixed or group.blend_mode not in (PASS_THROUGH, "normal"):
            log.warning('Group "%s": LAYERS has no groups; without it its layers blend differently.', group.name)
        _warn_of_groups(group.layers)


def from_native(document: dict[str, Any]) -> LayerStack:
    """The layer stack of a LAYERS document: masks, scaling, flips and rotation are rendered into the pixels.

    A batch in one item becomes a layer per frame. Without a canvas the frame reaches from the origin to the farthest
    layer. Raises MRTError for a document that is not version 1 or has an item without an image.
    """
    if not isinstance(document, dict) or document.get("version") not in (None, VERSION):
        version = document.get("version") if isinstance(document, dict) else type(document).__name__
        raise MRTError(f"The layers document has version {version}; only version {VERSION} is read.")
    items = list(document.get("layers") or [])
    for index, item in enumerate(items):
        image = item.get("image") if isinstance(item, dict) else None
        if not isinstance(image, torch.Tensor) or image.ndim != 4 or image.shape[-1] not in (3, 4):
            raise MRTError(
                f"Item {index} of the layers document has no image of shape (batch, height, width, 3 or 4); add one."
            )
        mode = item.get("blend_mode", "normal")
        if mode not in MODES:
            raise MRTError(
                f"Item {index} has the blend mode {mode!r}, which is not known; use one of: {', '.join(MODES)}."
            )
    ordered = sorted(items, key=lambda item: int(item.get("z_index") or 0))
    layers = tuple(layer for item in ordered for layer in _frames(item))
    canvas = document.get("canvas")
    if canvas is None:
        canvas = (
            max((layer.box.right for layer in layers), default=1),
            max((layer.box.bottom for layer in layers), default=1),
        )
    return LayerStack(Size(max(int(canvas[0]), 1), max(int(canvas[1]), 1)), layers)


def _frames(item: dict[str, Any]) -> list[Layer]:
    """One layer per frame of the item's batch."""
    frames = item["image"]  # (b, h, w, 3 | 4)
    masks = item.get("mask")  # (b | 1, h, w), 1 = transparent
    name = item.get("name") or "Layer"
    layers = []
    for index in range(frames.shape[0]):
        pixels = _rgba(frames[index])
        if isinstance(masks, torch.Tensor) and (masks.shape[0] == 1 or index < masks.shape[0]):
            pixels = _masked(pixels, masks[0 if masks.shape[0] == 1 else index])
        pixels, x, y = _placed(pixels, item)
        layers.append(
            Layer(
                pixels,
                x,
                y,
                name if frames.shape[0] == 1 else f"{name} {index + 1}",
                str(item.get("caption") or ""),
                min(max(float(item.get("opacity", 1.0)), 0.0), 1.0),
                item.get("blend_mode", "normal"),
                bool(item.get("visible", True)),
            )
        )
    return layers


def _rgba(frame: torch.Tensor) -> np.ndarray:
    """A float frame (h, w, 3 or 4) in 0..1 to uint8 RGBA (h, w, 4)."""
    levels = (frame.detach().float().cpu().clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    if levels.shape[-1] == 4:
        return levels
    return np.concatenate([levels, np.full_like(levels[..., :1], 255)], -1)


def _masked(pixels: np.ndarray, mask: torch.Tensor) -> np.ndarray:
    """`pixels` (h, w, 4) with alpha times one minus `mask`, which is scaled to fit."""
    mask = mask.detach().float().cpu()[None, None]  # (1, 1, mh, mw)
    if mask.shape[2:] != pixels.shape[:2]:
        mask = torch.nn.functional.interpolate(mask, size=pixels.shape[:2], mode="bilinear")
    coverage = (1 - mask[0, 0]).clamp(0, 1).numpy()
    result = pixels.copy()
    result[..., 3] = np.rint(pixels[..., 3] * coverage)
    return result


def _placed(pixels: np.ndarray, item: dict[str, Any]) -> tuple[np.ndarray, int, int]:
    """The pixels flipped, scaled and rotated as the item says, and the position of their top-left corner."""
    x, y = int(item.get("x") or 0), int(item.get("y") or 0)
    width, height = int(item.get("w") or 0), int(item.get("h") or 0)
    height, width = (height if height > 0 else pixels.shape[0]), (width if width > 0 else pixels.shape[1])
    pixels = pixels[:, ::-1] if item.get("flip_h") else pixels
    pixels = pixels[::-1] if item.get("flip_v") else pixels
    rotation = float(item.get("rotation") or 0.0)
    if pixels.shape[:2] == (height, width) and rotation == 0:
        return np.ascontiguousarray(pixels), x, y
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    if rotation:
        image = image.rotate(-math.degrees(rotation), Image.Resampling.BICUBIC, expand=True)
        cos, sin = abs(math.cos(rotation)), abs(math.sin(rotation))
        x = _centered(x, width, width * cos + height * sin, image.width)
        y = _centered(y, height, width * sin + height * cos, image.height)
    return np.asarray(image), x, y


def _centered(start: int, side: int, rotated_side: float, image_side: int) -> int:
    """Where a rotated image starts on one axis, rounded as ComfyUI's compositor does it."""
    center = start + side / 2
    first = math.floor(center - rotated_side / 2)
    bounds = max(1, math.ceil(center + rotated_side / 2) - first)
    return first + (bounds - image_side) // 2
