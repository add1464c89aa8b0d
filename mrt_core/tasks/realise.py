"""From a job to latents and back: what its clean slots show is encoded, what was made is decoded and becomes a layer stack."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..geometry import token_box_pixels, whole_pixels
from ..layouts.layout import Layout, Region
from ..models.sequence import Role, Slot, slot_latent_shape
from ..stacks.layers import Layer, LayerStack
from ..unmixing.refinement import SLACK, match_image
from .job import Job
from .region_codec import RegionCodec, canvas_regions, slot_pixels
from .request import Request
from .scaling import enlarge
from .slots import Task


def clean_pixels(job: Job) -> dict[int, np.ndarray]:
    """For each clean slot's number, what it shows: straight RGBA (height, width, 4) uint8."""
    request = job.sampled
    return {
        number: slot_pixels(slot, request.layout, request.stack, request.targets, dict(request.assets))
        for number, slot in enumerate(job.slot_layout.slots)
        if slot.clean
    }


def encode_clean_slots(job: Job, codec: RegionCodec) -> list[Tensor]:
    """A latent (16, 2 * rows, 2 * cols) per slot: what clean slots show, and zeros where something is to be made."""
    layout, pixels = job.slot_layout, clean_pixels(job)
    regions = canvas_regions(layout, [layout.slots[number] for number in pixels])
    latents = dict(zip(pixels, codec.encode(list(pixels.values()), regions), strict=True))
    return [
        latents[number].float() if number in latents else torch.zeros(slot_latent_shape(slot))
        for number, slot in enumerate(layout.slots)
    ]


def decode_layers(job: Job, latents: Sequence[Tensor], codec: RegionCodec) -> dict[int, Layer]:
    """The layers that were made, decoded and cropped to their boxes, by their place in the stack (0: background).

    `latents` has one (16, 2 * rows, 2 * cols) per slot.
    """
    layout, slots = job.sampled.layout, job.slot_layout.slots
    made = [n for n, slot in enumerate(slots) if not slot.clean and slot.role is not Role.COMPOSITE]
    images = codec.decode([latents[n] for n in made], canvas_regions(job.slot_layout, [slots[n] for n in made]))
    regions = [layout.background_region, *layout.regions]
    return {
        slots[n].layer_index - 1: _cut_out(image, slots[n], layout, regions[slots[n].layer_index - 1])
        for n, image in zip(made, images, strict=True)
    }


def assemble(request: Request, made: Mapping[int, Layer], seed: int | None = None) -> LayerStack:
    """The stack of a request: layers that were given as they were, layers that were made at the size of their boxes."""
    layers = dict(enumerate(request.stack.layers)) if request.targets else {}
    regions = [request.layout.background_region, *request.layout.regions]
    for index, layer in made.items():
        box = whole_pixels(regions[index].box)
        layer = layer if layer.box == box else enlarge(layer, box)
        if request.task is Task.RESTYLE_LAYERS:  # the old layer's opacity, mode and visibility hold for its new picture
            layer = replace(layers[index], pixels=layer.pixels, x=layer.x, y=layer.y)
        layers[index] = layer
    metadata = {"task": str(request.task), "prompt": request.prompt}
    metadata |= {} if seed is None else {"seed": seed}
    return LayerStack(request.layout.frame, tuple(layers[index] for index in range(len(regions))), metadata)


def matched(request: Request, stack: LayerStack, slack: float = SLACK) -> LayerStack:
    """The layers of an image made to show that image together (see `unmixing`); those of other tasks as they are."""
    if request.task is not Task.IMAGE_TO_LAYERS:
        return stack
    return match_image(stack, request.stack.layers[0].pixels, slack)


def _cut_out(image: np.ndarray, slot: Slot, layout: Layout, region: Region) -> Layer:
    """A decoded slot (16 * rows, 16 * cols, 4) cropped from the token grid to its region's box."""
    area, box = token_box_pixels(slot.box, layout.canvas), whole_pixels(region.box)
    x, y = round(box.x - area.x), round(box.y - area.y)
    pixels = image[y : y + round(box.height), x : x + round(box.width)].copy()
    pixels[pixels[..., 3] == 0] = 0
    return Layer(pixels, round(box.x), round(box.y), region.name, region.caption)
