"""Between ComfyUI's tensors and the library's types."""

import numpy as np
import torch
from comfy_api.latest import io
from torch import Tensor

from ..mrt_core.documents.native_layers import from_native, to_native
from ..mrt_core.errors import MRTError
from ..mrt_core.stacks.layers import LayerStack

LayoutType = io.Custom("MRT_LAYOUT")  # a mrt_core.layouts.layout.Layout
METADATA = (
    "mrt_metadata"  # on the lowest item of a LAYERS document, since unknown keys of the document itself are dropped
)


def image_to_pixels(image: Tensor, what: str) -> np.ndarray:
    """One IMAGE (1, h, w, 3 or 4) in 0..1 as uint8 (h, w, 3 or 4); raises MRTError for a batch or another shape."""
    if image.ndim != 4 or image.shape[0] != 1 or image.shape[-1] not in (3, 4):
        raise MRTError(
            f"the {what} has the shape {tuple(image.shape)}, but one image of 3 or 4 channels is needed; pick one of the batch"
        )
    return (image[0].detach().float().cpu().clamp(0, 1) * 255).round().to(torch.uint8).numpy()


def pixels_to_image(pixels: np.ndarray) -> Tensor:
    """uint8 (h, w, C) as one IMAGE (1, h, w, C) in 0..1."""
    return torch.from_numpy(pixels.astype(np.float32) / 255)[None]


def stack_to_layers(stack: LayerStack) -> dict:
    """A LAYERS document; the stack's metadata rides on the lowest item."""
    document = to_native(stack)
    if document["layers"]:
        document["layers"][0][METADATA] = stack.metadata
    return document


def layers_to_stack(document: dict) -> LayerStack:
    """The layer stack of a LAYERS document, with the metadata that `stack_to_layers` left on it."""
    stack = from_native(document)
    metadata = next((item[METADATA] for item in document.get("layers") or [] if METADATA in item), {})
    return LayerStack(stack.frame, stack.layers, dict(metadata), stack.warnings)
