"""A request: one task on one layout with what is known, turned into latents per slot, and back into a layer stack."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from ..checkpoints.info import CheckpointInfo
from ..errors import MRTError
from ..geometry import Box, covers, frame_box, token_box_pixels
from ..layouts.layout import Layout, Region
from ..models.configs import LATENT_CHANNELS
from ..models.sequence import Role, SampleLayout, Slot
from ..stacks.layers import Layer, LayerStack
from ..unmixing.refinement import match_image
from .region_codec import RegionCodec, places, slot_pixels
from .scaling import bucket_frame, enlarge, scale_assets, scale_layout, scale_stack, working_frame
from .slots import Arrangement, Task, default_prompt, plan

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """One task on one layout: which slots there are, what the clean ones show, and the prompt.

    Raises MRTError for targets that the layout does not have.
    """

    task: Task
    layout: Layout
    stack: LayerStack  # what is known: background and layers in the layout's order (targets may be blank)
    prompt: str
    targets: tuple[int, ...] = ()
    assets: Mapping[int, np.ndarray] = field(default_factory=dict)
    arrangement: Arrangement = Arrangement.MRT

    def __post_init__(self):
        plan(self.task, self.layout, self.targets)

    @property
    def sample(self) -> SampleLayout:
        return plan(self.task, self.layout, self.targets, self.arrangement)

    def clean_pixels(self) -> dict[int, np.ndarray]:
        """For each clean slot's number, what it shows."""
        slots = enumerate(self.sample.slots)
        return {
            number: slot_pixels(slot, self.layout, self.stack, self.targets, dict(self.assets))
            for number, slot in slots
            if slot.clean
        }


def text_to_layers_request(layout: Layout, prompt: str | None = None) -> Request:
    """Make every layer of `layout` and its background from text."""
    prompt = default_prompt(Task.TEXT_TO_LAYERS, layout) if prompt is None else prompt
    return Request(Task.TEXT_TO_LAYERS, layout, LayerStack(layout.frame, ()), prompt)


def image_to_layers_request(
    image: np.ndarray, layout: Layout, prompt: str | None = None, arrangement: Arrangement = Arrangement.MRT
) -> Request:
    """Take an image (height, width, 3 or 4) uint8 of the frame's size apart; raises MRTError for another size."""
    height, width = image.shape[:2]
    if (width, height) != tuple(layout.frame):
        raise MRTError(
            f"the image is {width} x {height} px, but the layout's frame is {layout.frame.width} x {layout.frame.height} px; "
            "give both the same size"
        )
    opaque = np.full((height, width, 1), 255, np.uint8)
    pixels = image if image.shape[2] == 4 else np.concatenate([image, opaque], axis=2)
    stack = LayerStack(layout.frame, (Layer(pixels, 0, 0, "Image"),))
    if prompt is None:
        prompt = default_prompt(Task.IMAGE_TO_LAYERS, layout, arrangement=arrangement)
    return Request(Task.IMAGE_TO_LAYERS, layout, stack, prompt, arrangement=arrangement)


def add_layers_request(stack: LayerStack, additions: Mapping[int, Region], prompt: str | None = None) -> Request:
    """Add layers to a stack; `additions` maps the place among the final foreground layers (0: lowest) to a region."""
    known, layout = insert_regions(with_background(stack), additions)
    targets = tuple(sorted(additions))
    prompt = default_prompt(Task.ADD_LAYERS, layout, targets) if prompt is None else prompt
    return Request(Task.ADD_LAYERS, layout, known, prompt, targets)


def restyle_layers_request(stack: LayerStack, assets: Mapping[int, np.ndarray], prompt: str | None = None) -> Request:
    """Redraw foreground layers; `assets` maps a layer's place (0: lowest) to an RGBA image of that layer's size."""
    base = with_background(stack)
    layout = layout_of(base)
    for index, pixels in assets.items():
        if 0 <= index < len(layout.regions) and pixels.shape != base.layers[1 + index].pixels.shape:
            raise MRTError(
                f"the asset for layer {index} is {pixels.shape[1]} x {pixels.shape[0]} px, but that layer's box is "
                f"{layout.regions[index].box.width} x {layout.regions[index].box.height} px; scale the asset to the box"
            )
    prompt = default_prompt(Task.RESTYLE_LAYERS, layout) if prompt is None else prompt
    return Request(Task.RESTYLE_LAYERS, layout, base, prompt, tuple(sorted(assets)), assets)


def adapted(request: Request, info: CheckpointInfo, frame_area: int | None = None) -> Request:
    """The request as a checkpoint samples it: at a size that it knows, with the image where it expects it.

    `frame_area` (px) replaces the area that the checkpoint was trained at. MRT keeps the frame's own size unless it is much
    larger; Qwen-Image-Layered always works in one of its buckets.
    """
    request = replace(request, arrangement=info.arrangement)
    area, own = frame_area or info.frame_area, request.layout.frame
    frame = working_frame(own, area) if info.arrangement is Arrangement.MRT else bucket_frame(own, area)
    if frame == own:
        return request
    log.info("sampling at %d x %d px, the size that the checkpoint knows", *frame)
    layout = scale_layout(request.layout, frame)
    stack = scale_stack(request.stack, frame)
    return replace(request, layout=layout, stack=stack, assets=scale_assets(request.assets, layout))


def encode_clean_slots(request: Request, codec: RegionCodec) -> list[Tensor]:
    """A latent (16, 2 * rows, 2 * cols) per slot: what clean slots show, and zeros where something is to be made."""
    sample, pixels = request.sample, request.clean_pixels()
    slots = [sample.slots[number] for number in pixels]
    latents = dict(zip(pixels, codec.encode(list(pixels.values()), places(sample, slots)), strict=True))
    return [
        latents[number].float() if number in latents else torch.zeros(slot_latent_shape(slot))
        for number, slot in enumerate(sample.slots)
    ]


def slot_latent_shape(slot: Slot) -> tuple[int, int, int]:
    """Channels, height and width of a slot's latent."""
    return LATENT_CHANNELS, 2 * slot.box.rows, 2 * slot.box.cols


def decode_layers(request: Request, latents: Sequence[Tensor], codec: RegionCodec) -> dict[int, Layer]:
    """The layers that were made, decoded and cropped to their boxes, by their place in the stack (0: background)."""
    sample, layout = request.sample, request.layout
    made = [n for n, slot in enumerate(sample.slots) if not slot.clean and slot.role is not Role.COMPOSITE]
    slots = [sample.slots[n] for n in made]
    images = codec.decode([latents[n] for n in made], places(sample, slots))
    regions = [layout.background_region, *layout.regions]
    return {
        slot.layer_index - 1: _cut_out(image, slot, layout, regions[slot.layer_index - 1])
        for slot, image in zip(slots, images, strict=True)
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


def matched(request: Request, stack: LayerStack) -> LayerStack:
    """The layers of an image made to show that image together (see `refinement`); those of other tasks as they are."""
    return match_image(stack, request.stack.layers[0].pixels) if request.task is Task.IMAGE_TO_LAYERS else stack


def whole_pixels(box: Box) -> Box:
    """`box` grown outward to whole pixels."""
    left, top = math.floor(box.x), math.floor(box.y)
    return Box(left, top, math.ceil(box.right) - left, math.ceil(box.bottom) - top)


def _cut_out(image: np.ndarray, slot: Slot, layout: Layout, region: Region) -> Layer:
    """A decoded slot (16 * rows, 16 * cols, 4) cropped from the token grid to its region's box."""
    area, box = token_box_pixels(slot.box, layout.canvas), whole_pixels(region.box)
    x, y = round(box.x - area.x), round(box.y - area.y)
    pixels = image[y : y + round(box.height), x : x + round(box.width)].copy()
    pixels[pixels[..., 3] == 0] = 0
    return Layer(pixels, round(box.x), round(box.y), region.name, region.caption)


def with_background(stack: LayerStack) -> LayerStack:
    """The stack without groups, with a background that covers the frame as its lowest layer; a transparent one is put
    in where the lowest layer does not cover it."""
    layers = tuple(stack.flat())
    if layers and covers(layers[0].box, frame_box(stack.frame)):
        return replace(stack, layers=layers)
    blank = np.zeros((stack.frame.height, stack.frame.width, 4), np.uint8)
    return replace(stack, layers=(Layer(blank, 0, 0, "Background"), *layers))


def layout_of(stack: LayerStack) -> Layout:
    """The layout of a stack whose lowest layer is its background."""
    background, *layers = stack.layers
    regions = tuple(Region(layer.name, layer.box, layer.caption) for layer in layers)
    return Layout(stack.frame, regions, "", Region(background.name, background.box, background.caption))


def insert_regions(stack: LayerStack, additions: Mapping[int, Region]) -> tuple[LayerStack, Layout]:
    """A stack and its layout with blank layers for `additions` at their final places among the foreground layers."""
    layers = list(stack.layers[1:])
    final = len(layers) + len(additions)
    if not additions or not all(0 <= place < final for place in additions):
        raise MRTError(
            f"the new layers stand at {sorted(additions)}, but with them there are {final} layers, counted from 0 at the "
            "bottom; give at least one new layer a place among them"
        )
    for place in sorted(additions):
        region = additions[place]
        box = whole_pixels(region.box)
        blank = np.zeros((int(box.height), int(box.width), 4), np.uint8)
        layers.insert(place, Layer(blank, int(box.x), int(box.y), region.name, region.caption))
    known = replace(stack, layers=(stack.layers[0], *layers))
    return known, layout_of(known)
