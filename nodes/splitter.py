"""RGBA Layer Splitter."""

import logging
from dataclasses import replace

import numpy as np
import torch
from comfy_api.latest import UI, io
from torch import Tensor

from ..mrt_core.errors import MRTError
from ..mrt_core.geometry import frame_box
from ..mrt_core.models.modes import REGION_MODES
from ..mrt_core.stacks.layers import Layer, LayerStack, composite, crop_to_content, paste, unpremultiply
from ..mrt_core.tasks.job import Job
from ..mrt_core.tasks.realise import assemble, decode_layers, matched
from .autoencoder import layer_codec
from .convert import pixels_to_image, stack_to_layers
from .region_latents import RUN
from .sampler import region_job

log = logging.getLogger(__name__)

AUTO = "auto"
BLANK_ALPHA = 8  # of 255: a layer that is nowhere more opaque shows nothing


class LayerSplitter(io.ComfyNode):
    """Sampled region latents as layers."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MRTLayerSplitter",
            display_name="RGBA Layer Splitter",
            category="MRT",
            description="Decodes region latents to transparent layers: as LAYERS with names, places and order, as images on "
            "the frame, and flattened.",
            search_aliases=["decode layers", "layers to images"],
            inputs=[
                io.Latent.Input("latent", tooltip="From MRT Masked-Region Sampler, or from KSampler."),
                io.Vae.Input(
                    "vae",
                    tooltip="The VAE of Load MRT Model, or another one with alpha, such as qwen_image_layered_vae.",
                ),
                io.Int.Input(
                    "batch_index", default=0, min=0, max=63, tooltip="Which design of a batch, counted from 0."
                ),
                io.Boolean.Input(
                    "crop_to_content",
                    default=False,
                    tooltip="Cut each layer to the pixels that show something; blank layers stay as they are.",
                ),
                io.Combo.Input(
                    "region_mode",
                    options=[AUTO, *REGION_MODES],
                    default=AUTO,
                    advanced=True,
                    tooltip="How much around a region the VAE sees: crop is fastest; full treats each layer as a whole image; "
                    "auto: the checkpoint's own, if the model was connected to the Region Latents node, otherwise crop.",
                ),
                io.Boolean.Input(
                    "match_image",
                    default=True,
                    tooltip="For a picture taken apart: outlines and colours become the picture's, so that together the layers "
                    "show it.",
                ),
            ],
            outputs=[
                io.Layers.Output(display_name="layers", tooltip="Background and layers, bottom to top."),
                io.Image.Output(
                    display_name="images", tooltip="The same layers as RGBA images of the frame's size, bottom to top."
                ),
                io.Mask.Output(
                    display_name="masks",
                    tooltip="For each image, 1 where it is transparent, as Load Image gives masks.",
                ),
                io.Image.Output(display_name="composite", tooltip="All layers flattened, RGBA, of the frame's size."),
            ],
        )

    @classmethod
    def execute(
        cls, latent, vae, batch_index: int = 0, crop_to_content=False, region_mode=AUTO, match_image=True
    ) -> io.NodeOutput:
        job = region_job(latent)
        stack = split(latent, job, vae, batch_index, region_mode)
        if match_image:
            stack = matched(job.asked, stack)
        blank = blank_layers(stack)
        if blank:
            log.warning("Blank layers: %s", ", ".join(blank))
        if crop_to_content:
            stack = replace(stack, layers=tuple(cropped(layer) for layer in stack.layers))
        images = torch.cat([pixels_to_image(on_frame(layer, stack)) for layer in stack.layers])  # (L, H, W, 4)
        report = f"Blank layers: {', '.join(blank)}" if blank else f"{len(stack.layers)} layers, none of them blank"
        flattened = pixels_to_image(composite(stack))
        return io.NodeOutput(stack_to_layers(stack), images, 1 - images[..., 3], flattened, ui=UI.PreviewText(report))


def split(latent: dict, job: Job, vae, batch_index: int, mode: str) -> LayerStack:
    """The layer stack of one sample of a LATENT."""
    streams: list[Tensor] = latent["samples"].unbind()  # (B, 16, 1, h, w) each
    if batch_index >= len(streams[0]):
        raise MRTError(
            f"the batch index is {batch_index}, but the latent's last design is number {len(streams[0]) - 1}; use a lower one"
        )
    canvas = job.sampled.layout.canvas
    codec = layer_codec(vae, job.region_mode if mode == AUTO else mode, pixels=int(canvas.width * canvas.height))
    latents = [stream[batch_index, :, 0].float() for stream in streams]
    made = decode_layers(job, latents, codec)
    stack = assemble(job.asked, made)
    return replace(stack, metadata={"task": str(job.asked.task), **latent.get(RUN, {})})


def blank_layers(stack: LayerStack) -> list[str]:
    """The names of the foreground layers that show nothing."""
    return [layer.name for layer in stack.layers[1:] if layer.pixels[..., 3].max(initial=0) <= BLANK_ALPHA]


def cropped(layer: Layer) -> Layer:
    """The layer cut to its content; one without content as it is."""
    return crop_to_content(layer) or layer


def on_frame(layer: Layer, stack: LayerStack) -> np.ndarray:
    """What of a layer lies inside the frame, on its own: straight RGBA uint8 (H, W, 4)."""
    return unpremultiply(paste(layer, frame_box(stack.frame)))
