"""Between pixels and slots: what each slot shows, and how regions are encoded and decoded.

A region can be coded in three ways (architecture: region codec): `crop` sees the region alone; `halo` adds a rim of
transparent context; `full` places it on the whole transparent canvas, as if the layer were an image of its own. Cost
grows from the first to the last; docs/results.md holds the measurement behind the default.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..geometry import LATENT_PX, TokenBox, token_box_pixels
from ..layouts.layout import Layout
from ..models.autoencoder import Autoencoder
from ..models.sequence import Role, Slot, SlotLayout
from ..stacks.layers import Layer, LayerStack, composite
from .slots import FIRST_LAYER, REFERENCE_INDEX

GREY = 0.5  # what transparency becomes for an autoencoder with three image channels (paper section 5.9)
MAX_BATCH_PIXELS = 2**18  # pixels that go through the autoencoder at once, so that memory stays bounded


def slot_pixels(
    slot: Slot,
    layout: Layout,
    stack: LayerStack,
    hidden: Collection[int] = (),
    assets: dict[int, np.ndarray] | None = None,
) -> np.ndarray:
    """What a slot shows: straight RGBA (height, width, 4) uint8 over the pixels of its token box.

    `stack.layers` holds the background and then a layer per region of `layout`. Layers whose region index is in `hidden`
    are left out of the composite; `assets` maps a region's index to the image of its condition slot, of the region's size.
    """
    area = token_box_pixels(slot.box, layout.canvas)
    if slot.role is Role.COMPOSITE or slot.layer_index == REFERENCE_INDEX:
        shown = tuple(layer for index, layer in enumerate(stack.layers, start=-1) if index not in hidden)
    elif slot.role is Role.CONDITION:
        index = slot.layer_index - FIRST_LAYER
        box = layout.regions[index].box
        shown = (Layer(assets[index], round(box.x), round(box.y), "asset"),)
    else:
        layer = stack.layers[slot.layer_index - 1]
        shown = (replace(layer, opacity=1.0, blend_mode="normal", visible=True),)
    return composite(LayerStack(stack.frame, shown), area)


class CanvasRegion(NamedTuple):
    """Where a region lies on a canvas of rows x cols tokens."""

    box: TokenBox
    canvas_rows: int
    canvas_cols: int


def canvas_regions(sample: SlotLayout, slots: Sequence[Slot]) -> list[CanvasRegion]:
    """The places of some of a sample's slots."""
    return [CanvasRegion(slot.box, sample.canvas_rows, sample.canvas_cols) for slot in slots]


class Margins(NamedTuple):
    """Context around a region, in latent pixels."""

    top: int
    bottom: int
    left: int
    right: int

    def pad(self, image: np.ndarray) -> np.ndarray:
        """The image (h, w, 4) with this much transparency around it."""
        if not any(self):
            return image
        top, bottom, left, right = (side * LATENT_PX for side in self)
        return np.pad(image, ((top, bottom), (left, right), (0, 0)))

    def trim(self, x: Tensor, scale: int = 1) -> Tensor:
        """The region alone from a padded (C, h, w)."""
        height, width = x.shape[1:]
        rows = slice(self.top * scale, height - self.bottom * scale)
        return x[:, rows, self.left * scale : width - self.right * scale]


@dataclass(frozen=True)
class RegionCodec:
    """Encodes and decodes regions with an autoencoder in one of `modes.REGION_MODES`; `halo` counts latent pixels of context."""

    autoencoder: Autoencoder
    mode: str = "crop"
    halo: int = 2

    def encode(self, images: Sequence[np.ndarray], places: Sequence[CanvasRegion]) -> list[Tensor]:
        """Normalised latents (16, 2 * rows, 2 * cols), one per straight RGBA image (16 * rows, 16 * cols, 4) of a slot."""
        margins = [self._margins(place) for place in places]
        padded = [torch.from_numpy(m.pad(image)).permute(2, 0, 1) for image, m in zip(images, margins, strict=True)]
        latents = _in_batches(padded, self._encode, pixels_per_value=1)
        return [m.trim(latent) for latent, m in zip(latents, margins, strict=True)]

    def decode(self, latents: Sequence[Tensor], places: Sequence[CanvasRegion]) -> list[np.ndarray]:
        """Straight RGBA uint8 (16 * rows, 16 * cols, 4), one per normalised latent (16, 2 * rows, 2 * cols) of a slot."""
        margins = [self._margins(place) for place in places]
        padded = [self._surround(latent, m) for latent, m in zip(latents, margins, strict=True)]
        images = _in_batches(padded, self._decode, pixels_per_value=LATENT_PX**2)
        return [
            m.trim(image, LATENT_PX).permute(1, 2, 0).contiguous().cpu().numpy()
            for image, m in zip(images, margins, strict=True)
        ]

    def _margins(self, place: CanvasRegion) -> Margins:
        if self.mode == "crop":
            return Margins(0, 0, 0, 0)
        if self.mode == "halo":
            return Margins(*[self.halo] * 4)
        box = place.box
        below, right = place.canvas_rows - box.row - box.rows, place.canvas_cols - box.col - box.cols
        return Margins(2 * box.row, 2 * below, 2 * box.col, 2 * right)

    def _surround(self, latent: Tensor, margins: Margins) -> Tensor:
        """The latent inside an encoded transparent image of the padded size."""
        if not any(margins):
            return latent
        blank = margins.pad(np.zeros((latent.shape[1] * LATENT_PX, latent.shape[2] * LATENT_PX, 4), np.uint8))
        around = self._encode(torch.from_numpy(blank).permute(2, 0, 1)[None])[0].to(latent)
        margins.trim(around).copy_(latent)
        return around

    @torch.no_grad()
    def _encode(self, images: Tensor) -> Tensor:  # (B, 4, h, w) uint8 -> (B, 16, h / 8, w / 8)
        weight = self.autoencoder.quant_conv.weight
        pixels = images.to(weight.device).to(weight.dtype) / 255  # as bytes to the device
        if self.autoencoder.config.in_channels == 3:
            pixels = over_grey(pixels)
        return self.autoencoder.encode((2 * pixels - 1).contiguous(memory_format=torch.channels_last))

    @torch.no_grad()
    def _decode(self, latents: Tensor) -> Tensor:  # (B, 16, h, w) -> (B, 4, 8h, 8w) uint8
        weight = self.autoencoder.quant_conv.weight
        pixels = self.autoencoder.decode(latents.to(weight).contiguous(memory_format=torch.channels_last))
        unit = (pixels.float() + 1) / 2
        if self.autoencoder.config.out_channels == 3:
            unit = F.pad(unit, (0, 0, 0, 0, 0, 1), value=1.0)
        return (unit * 255).round().to(torch.uint8)


def over_grey(pixels: Tensor) -> Tensor:
    """Straight RGBA (B, 4, h, w) in 0..1 over grey, as RGB (B, 3, h, w)."""
    return pixels[:, :3] * pixels[:, 3:] + GREY * (1 - pixels[:, 3:])


def _in_batches(items: Sequence[Tensor], run: Callable[[Tensor], Tensor], pixels_per_value: int) -> list[Tensor]:
    """`run` over items (C, h, w) of equal size together, within MAX_BATCH_PIXELS; results in the items' order."""
    groups: dict[torch.Size, list[int]] = defaultdict(list)
    for index, item in enumerate(items):
        groups[item.shape].append(index)
    results: dict[int, Tensor] = {}
    for shape, indices in groups.items():
        size = max(1, MAX_BATCH_PIXELS // (shape[1] * shape[2] * pixels_per_value))
        for start in range(0, len(indices), size):
            chunk = indices[start : start + size]
            results.update(zip(chunk, run(torch.stack([items[i] for i in chunk])), strict=True))
    return [results[index] for index in range(len(items))]
