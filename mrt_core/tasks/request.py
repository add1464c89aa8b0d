"""A request: one task on one layout, with what is known of its layers."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from ..errors import MRTError
from ..geometry import covers, frame_box, whole_pixels
from ..layouts.layout import Layout, Region
from ..stacks.layers import Layer, LayerStack
from .slots import EDITING, Arrangement, Task, check_targets, default_prompt


@dataclass(frozen=True)
class Request:
    """One task on one layout: what there is, what is to be made, and the prompt.

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
        if self.task in EDITING:
            check_targets(self.layout, self.targets)


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
