"""Text, Image and Layers to Region Latents: a task's slots as a nested LATENT, and as conditioning that knows them."""

from collections.abc import Mapping

import comfy.nested_tensor
import node_helpers
import numpy as np
import torch
from comfy_api.latest import io
from torch import Tensor

from ..mrt_core.checkpoints.info import CheckpointInfo
from ..mrt_core.errors import MRTError
from ..mrt_core.geometry import Size
from ..mrt_core.layouts.layout import MAX_LAYERS, Layout, Region, full_frame_layout
from ..mrt_core.models.sequence import slot_latent_shape
from ..mrt_core.stacks.layers import LayerStack
from ..mrt_core.tasks.job import Job, job_for
from ..mrt_core.tasks.realise import encode_clean_slots
from ..mrt_core.tasks.request import (
    Request,
    add_layers_request,
    image_to_layers_request,
    restyle_layers_request,
    text_to_layers_request,
    with_background,
)
from ..mrt_core.tasks.scaling import resize
from .autoencoder import layer_codec
from .convert import LayoutType, image_to_pixels, layers_to_stack
from .diffusion_model import SLOTS, MRTModel

JOB = "mrt_job"  # the LATENT's key under which a Job travels to the sampler and the splitter
MODES = ("add", "restyle")
RUN = "mrt_run"  # the key under which the sampler leaves seed, steps and cfg for the document's metadata


POSITIVE = io.Conditioning.Input("positive", tooltip="The prompt, from CLIP Text Encode with the clip of the model.")
NEGATIVE = io.Conditioning.Input("negative", tooltip="The negative prompt; it counts where cfg is above 1.")
VAE = io.Vae.Input(
    "vae", tooltip="The VAE of Load MRT Model, or another one with alpha, such as qwen_image_layered_vae."
)
MODEL = io.Model.Input(
    "model",
    optional=True,
    tooltip="When connected, a frame much larger than what the model was trained on is sampled at the model's size, and "
    "the layers are enlarged afterwards.",
)


def _outputs() -> list[io.Output]:
    return [
        io.Conditioning.Output(display_name="positive", tooltip="The positive conditioning, with the layout's slots."),
        io.Conditioning.Output(display_name="negative", tooltip="The negative conditioning, with the layout's slots."),
        io.Latent.Output(display_name="latent", tooltip="One latent per slot: composite, background, then the layers."),
    ]


class TextToRegionLatents(io.ComfyNode):
    """Everything is to be made: composite, background and every layer."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MRTTextToRegionLatents",
            display_name="Text to Region Latents",
            category="MRT",
            description="Empty latents for every layer of a layout, to be made from text.",
            search_aliases=["text to layers", "empty region latents"],
            inputs=[
                POSITIVE,
                NEGATIVE,
                LayoutType.Input("layout", tooltip="From MRT Layout Builder."),
                io.Int.Input("batch_size", default=1, min=1, max=64, tooltip="How many designs to make at once."),
                MODEL,
            ],
            outputs=_outputs(),
        )

    @classmethod
    def execute(cls, positive, negative, layout: Layout, batch_size: int = 1, model=None) -> io.NodeOutput:
        request = text_to_layers_request(layout)
        job = _job(request, model)
        latents = [torch.zeros(slot_latent_shape(slot)) for slot in job.slot_layout.slots]
        return _node_output(job, latents, positive, negative, batch_size)


class ImageToRegionLatents(io.ComfyNode):
    """The picture is given, and the layers that it is made of are to be found."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MRTImageToRegionLatents",
            display_name="Image to Region Latents",
            category="MRT",
            description="Latents to take a picture apart into the layers of a layout.",
            search_aliases=["image to layers", "decompose image", "layer separation"],
            inputs=[
                POSITIVE,
                NEGATIVE,
                VAE,
                LayoutType.Input(
                    "layout",
                    optional=True,
                    tooltip="From MRT Layout Builder, with a frame of the image's size; nothing: layers as large as the image.",
                ),
                io.Image.Input("image", tooltip="The picture to take apart, of the size of the layout's frame."),
                MODEL,
                io.Int.Input(
                    "layers",
                    default=4,
                    min=1,
                    max=MAX_LAYERS,
                    tooltip="How many layers to make without a layout, the background among them.",
                ),
            ],
            outputs=_outputs(),
        )

    @classmethod
    def execute(
        cls, positive, negative, vae, image: Tensor, layout: Layout | None = None, model=None, layers: int = 4
    ) -> io.NodeOutput:
        pixels = image_to_pixels(image, "image")
        layout = layout or full_frame_layout(Size(pixels.shape[1], pixels.shape[0]), layers)
        request = image_to_layers_request(pixels, layout)
        return _encoded(request, vae, positive, negative, model)


class LayersToRegionLatents(io.ComfyNode):
    """Layers are given; new ones are to be added, or some of them drawn anew in the style of the rest."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        add = [
            LayoutType.Input("layout", tooltip="The boxes of the new layers; its frame is that of the layers."),
            io.Int.Input(
                "place",
                default=-1,
                min=-1,
                max=49,
                tooltip="Where the lowest new layer goes among the layers above the background: 0 is the lowest place, -1 "
                "puts all new ones on top.",
            ),
        ]
        restyle = [
            io.Image.Input(
                "assets",
                tooltip="What to draw anew, one image per target, with alpha if it has any (Join Image with Alpha); it is "
                "scaled to its layer's box.",
            ),
            io.String.Input(
                "targets",
                default="1",
                tooltip="The layers to draw anew, separated by commas: names, or numbers counted from 1, the lowest above "
                "the background.",
            ),
        ]
        return io.Schema(
            node_id="MRTLayersToRegionLatents",
            display_name="Layers to Region Latents",
            category="MRT",
            description="Latents to add layers to layers, or to draw some of them anew in the style of the others. The "
            "layers that are not targets come back as they were.",
            search_aliases=["add layer", "restyle layer", "layers to layers"],
            inputs=[
                POSITIVE,
                NEGATIVE,
                VAE,
                io.Layers.Input("layers", tooltip="The layers there are: Load Layered PSD, RGBA Layer Splitter, ..."),
                io.DynamicCombo.Input(
                    "mode",
                    options=[
                        io.DynamicCombo.Option(name, ins) for name, ins in zip(MODES, (add, restyle), strict=True)
                    ],
                    tooltip="Add new layers, or restyle some of those there are.",
                ),
                MODEL,
            ],
            outputs=_outputs(),
        )

    @classmethod
    def validate_inputs(cls, mode=None, **_) -> bool | str:
        """Whether the mode exists: ComfyUI passes one that does not over, and it is missing here."""
        return mode is not None or f"the mode must be one of {', '.join(MODES)}; choose one"

    @classmethod
    def execute(cls, positive, negative, vae, layers: dict, mode: Mapping, model=None) -> io.NodeOutput:
        stack = with_background(layers_to_stack(layers))
        if mode["mode"] == "add":
            request = _adding(stack, mode["layout"], mode["place"])
        else:
            request = _restyling(stack, mode["assets"], mode["targets"])
        return _encoded(request, vae, positive, negative, model)


def _adding(stack: LayerStack, layout: Layout, place: int) -> Request:
    if layout.frame != stack.frame:
        raise MRTError(
            f"the layout's frame is {layout.frame.width} x {layout.frame.height} px, but the layers' is {stack.frame.width} "
            f"x {stack.frame.height} px; set the Layout Builder to the size of the layers"
        )
    if not layout.regions:
        raise MRTError(
            "the layout of the new layers has no boxes, but there must be something to add; write at least one"
        )
    existing = len(stack.layers) - 1
    first = existing if place < 0 else place
    if first > existing:
        raise MRTError(
            f"the place of the new layer is {first}, but there are {existing} layers above the background; use 0 to {existing}, "
            "or -1 for the top"
        )
    additions: dict[int, Region] = {first + index: region for index, region in enumerate(layout.regions)}
    return add_layers_request(stack, additions)


def _restyling(stack: LayerStack, assets: Tensor, targets: str) -> Request:
    chosen = [_target_index(stack, word.strip()) for word in targets.split(",") if word.strip()]
    if not chosen or len(chosen) != len(set(chosen)) or len(chosen) != len(assets):
        raise MRTError(
            f"the number of layers named by the targets {targets!r} is {len(set(chosen))} and that of the assets {len(assets)}, "
            "but every target takes one asset; name as many different layers as there are images"
        )
    images = {}
    for index, asset in zip(chosen, assets, strict=True):
        pixels = image_to_pixels(asset[None], "asset")
        if pixels.shape[2] == 3:
            pixels = np.concatenate([pixels, np.full_like(pixels[..., :1], 255)], axis=2)
        height, width = stack.layers[1 + index].pixels.shape[:2]
        images[index] = pixels if pixels.shape[:2] == (height, width) else resize(pixels, width, height)
    return restyle_layers_request(stack, images)


def _target_index(stack: LayerStack, word: str) -> int:
    """The place, from 0, of the foreground layer that a name or a number from 1 means; a name comes first."""
    names = [layer.name for layer in stack.layers[1:]]
    if word in names:
        return names.index(word)
    if word.isdecimal() and 1 <= int(word) <= len(names):
        return int(word) - 1
    raise MRTError(
        f"the target {word!r} is no layer above the background; give a number from 1 to {len(names)} or one of the names: "
        f"{', '.join(names) or 'there are none'}"
    )


def _job(request: Request, model) -> Job:
    """The job of a request, at the size that `model` works at, if one is given."""
    return job_for(request, _info(model))


def _info(model) -> CheckpointInfo | None:
    """What is known of the model, where one is given and is ours."""
    return model.model.mrt_info if model is not None and isinstance(model.model, MRTModel) else None


def _encoded(request: Request, vae, positive, negative, model) -> io.NodeOutput:
    job = _job(request, model)
    canvas = job.sampled.layout.canvas
    codec = layer_codec(vae, job.region_mode, int(canvas.width * canvas.height), _info(model))
    return _node_output(job, encode_clean_slots(job, codec), positive, negative, 1)


def _node_output(job: Job, latents: list[Tensor], positive, negative, batch_size: int) -> io.NodeOutput:
    slots = job.slot_layout
    streams = [latent[None, :, None].repeat(batch_size, 1, 1, 1, 1) for latent in latents]  # (B, 16, 1, h, w)
    masks = [
        torch.full((1, 1, 1, *stream.shape[-2:]), float(not slot.clean))
        for stream, slot in zip(streams, slots.slots, strict=True)
    ]
    nested = comfy.nested_tensor.NestedTensor
    latent = {"samples": nested(streams), "noise_mask": nested(masks), JOB: job}
    conditionings = [node_helpers.conditioning_set_values(c, {SLOTS: slots}) for c in (positive, negative)]
    return io.NodeOutput(*conditionings, latent)
