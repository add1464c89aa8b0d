"""Working at the size that a checkpoint knows: scale a job down, and what it makes back up.

A small checkpoint trained at 128 px makes nothing sensible of 1024 px. Bigger jobs are therefore sampled at a smaller
frame; the layers that were given keep their own pixels, and those that were made are enlarged to their boxes.
"""

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from PIL import Image

from ..geometry import TOKEN_PX, Box, Size
from ..layouts.layout import Layout, Region
from ..stacks.layers import Layer, LayerStack

BUCKET_PX = 32
TOLERATED_GROWTH = 1.6  # times the trained frame area that is still sampled as it is


def resize(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """Straight RGBA uint8 (h, w, 4) resampled to (height, width, 4), with colour weighted by alpha."""
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS))


def working_frame(frame: Size, trained_area: int) -> Size:
    """The frame to sample at: `frame` itself, or of about `trained_area` px where it is much larger."""
    if frame.width * frame.height <= TOLERATED_GROWTH * trained_area:
        return frame
    factor = math.sqrt(trained_area / (frame.width * frame.height))
    return Size(*(max(TOKEN_PX, round(side * factor / TOKEN_PX) * TOKEN_PX) for side in frame))


def bucket_frame(frame: Size, area: int) -> Size:
    """The frame of about `area` px and the aspect ratio of `frame` with sides in multiples of 32, as Qwen-Image-Layered
    takes them (architecture: Qwen-Image-Layered)."""
    ratio = frame.width / frame.height
    width = math.sqrt(area * ratio)
    return Size(*(max(BUCKET_PX, round(side / BUCKET_PX) * BUCKET_PX) for side in (width, width / ratio)))


def scale_box(box: Box, old: Size, new: Size) -> Box:
    """`box` as the frame goes from `old` to `new`, on whole pixels and at least 1 px wide and high."""
    across, down = new.width / old.width, new.height / old.height
    left, top = math.floor(box.x * across), math.floor(box.y * down)
    right, bottom = max(left + 1, math.ceil(box.right * across)), max(top + 1, math.ceil(box.bottom * down))
    return Box(left, top, right - left, bottom - top)


def scale_layout(layout: Layout, frame: Size) -> Layout:
    """The layout with every box scaled to `frame`."""

    def scaled(region: Region) -> Region:
        return replace(region, box=scale_box(region.box, layout.frame, frame))

    regions = tuple(scaled(region) for region in layout.regions)
    return replace(layout, frame=frame, regions=regions, background=scaled(layout.background_region))


def scale_layer(layer: Layer, old: Size, new: Size) -> Layer:
    """One layer as the frame goes from `old` to `new`."""
    box = scale_box(layer.box, old, new)
    return replace(layer, pixels=resize(layer.pixels, int(box.width), int(box.height)), x=int(box.x), y=int(box.y))


def scale_stack(stack: LayerStack, frame: Size) -> LayerStack:
    """A stack without groups, scaled to `frame`."""
    return replace(stack, frame=frame, layers=tuple(scale_layer(layer, stack.frame, frame) for layer in stack.layers))


def scale_assets(assets: Mapping[int, np.ndarray], layout: Layout) -> dict[int, np.ndarray]:
    """Assets resized to their regions' boxes in a scaled layout."""
    boxes = {index: layout.regions[index].box for index in assets}
    return {
        index: resize(pixels, int(boxes[index].width), int(boxes[index].height)) for index, pixels in assets.items()
    }


def enlarge(layer: Layer, box: Box) -> Layer:
    """A layer that was made small, resized to `box` (whole pixels) of the job's own frame."""
    return replace(layer, pixels=resize(layer.pixels, int(box.width), int(box.height)), x=int(box.x), y=int(box.y))
