"""The Masked Region Transformer as a first-class ComfyUI MODEL.

LATENT is nested: stream i is slot i, each (B, 16, 1, h, w). Which slots they are, and what each text token stands
beside, travels in the conditioning under SLOTS and ANCHORS: a model sees nothing else of the LATENT that a sampler
gets. Slots that are clean stay as they are through the noise mask, and are modulated as noise level 0.
"""

import logging
import math
from dataclasses import replace
from pathlib import Path

import comfy.conds
import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.patcher_extension
import comfy.supported_models
import comfy.utils
import torch
import torch.nn.functional as F
from comfy.ldm.modules.attention import optimized_attention
from torch import Tensor

from ..mrt_core.checkpoints.checkpoint import CheckpointParts, read_parts
from ..mrt_core.checkpoints.info import CheckpointInfo
from ..mrt_core.errors import MRTError
from ..mrt_core.models.configs import AutoencoderConfig, TransformerConfig
from ..mrt_core.models.sequence import (
    PackedBatch,
    SlotLayout,
    TextAnchors,
    pack_samples,
    patchify,
    slot_latent_shape,
    unpatchify,
)
from ..mrt_core.models.transformer import MaskedRegionTransformer
from ..mrt_core.models.unfilled import UNFILLED
from ..mrt_core.sampling.schedule import BASE_TOKENS
from .quantised_weights import MIXED_OPERATIONS, UnpackingOperations, mixed_state, needs_unpacking, unpacked_state

log = logging.getLogger(__name__)

SLOTS, ANCHORS = "mrt_slots", "mrt_anchors"  # keys of a conditioning's options
ACTIVATIONS_PER_TOKEN = 24  # values of the transformer's width that one token needs at the widest place, in fp32


class RegionDiffusionModel(MaskedRegionTransformer):
    """The transformer as ComfyUI calls a diffusion model: the latents of all slots in, their velocities out."""

    def __init__(self, transformer: TransformerConfig, dtype=None, device=None, operations=None, **_):
        super().__init__(transformer, dtype, device, operations)
        self.dtype = dtype
        self._packed: tuple[tuple, PackedBatch] | None = (
            None  # of the last step: nothing in it changes from step to step
        )

    def forward(self, x: list[Tensor], timestep: Tensor, context: Tensor, transformer_options: dict, **kwargs):
        """`x` holds a latent (B, 16, 1, h, w) per slot, `timestep` (B,) noise levels, `context` (B, T, width) text states."""
        wrappers = comfy.patcher_extension.get_all_wrappers(
            comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, transformer_options
        )
        executor = comfy.patcher_extension.WrapperExecutor.new_class_executor(self._forward, self, wrappers)
        return executor.execute(x, timestep, context, transformer_options, **kwargs)

    def _forward(
        self, x, timestep, context, transformer_options, mrt_slots=None, mrt_anchors=None, denoise_mask=None, **_
    ) -> list[Tensor]:
        tokens = torch.cat([patchify(latent[:, :, 0]) for latent in x], dim=1)  # (B, N, 64)
        batch = self._pack(mrt_slots, mrt_anchors, context)
        if denoise_mask is not None:
            batch = replace(batch, clean=batch.clean | _kept(denoise_mask, x))

        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # (1, heads, S, dim)
            if q.device.type == "cpu":
                return F.scaled_dot_product_attention(q, k, v)
            options = {"skip_reshape": True, "skip_output_reshape": True, "transformer_options": transformer_options}
            return optimized_attention(q, k, v, q.shape[1], **options)

        velocity = super().forward(tokens.flatten(0, 1), timestep, batch, attend).unflatten(0, tokens.shape[:2])
        slots = mrt_slots.slots
        pieces = velocity.split([slot.box.count for slot in slots], dim=1)
        return [
            unpatchify(piece, slot.box.rows, slot.box.cols).unsqueeze(2)
            for piece, slot in zip(pieces, slots, strict=True)
        ]

    def _pack(self, sample: SlotLayout, anchors: TextAnchors | None, context: Tensor) -> PackedBatch:
        """The packed batch of one layout repeated for every sample, remembered from the step before."""
        key = (sample, anchors, context.shape, context.device)
        if self._packed is None or self._packed[0] != key:
            each = None if anchors is None else [TextAnchors(*map(torch.tensor, anchors))] * len(context)
            self._packed = key, pack_samples([sample] * len(context), list(context), each)
        return replace(self._packed[1], text=context.flatten(0, 1))


def _kept(mask: Tensor, latents: list[Tensor]) -> Tensor:
    """The tokens (B * N,) that a packed noise mask (B, 1, all values) keeps: none of their values is to change."""
    parts = comfy.utils.unpack_latents(mask, [latent.shape for latent in latents])
    tokens = torch.cat([patchify(part[:, :, 0]) for part in parts], dim=1)  # (B, N, 64)
    return tokens.amax(-1).flatten() == 0


class MRTLatentFormat(comfy.latent_formats.Wan21):
    """The latent space of a checkpoint: the Wan shape, with its own mean, deviation and colours for previews."""

    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        self.latents_mean = torch.tensor(config.latent_mean).view(1, -1, 1, 1, 1)
        self.latents_std = torch.tensor(config.latent_std).view(1, -1, 1, 1, 1)
        if config.latent_mean != AutoencoderConfig().latent_mean:
            self.taesd_decoder_name = None  # one for Wan's latents shows nothing of these

    def set_preview_colors(self, factors: Tensor, bias: Tensor) -> None:
        """Linear colours for previews: (16, 3) and (3,)."""
        self.latent_rgb_factors, self.latent_rgb_factors_bias = factors.tolist(), bias.tolist()


class MRTModelConfig(comfy.supported_models.QwenImage):
    """ComfyUI's description of the model, made from the checkpoint's own."""

    def __init__(self, info: CheckpointInfo):
        super().__init__({"image_model": "mrt", "transformer": info.transformer})
        self.mrt_info = info
        self.latent_format = MRTLatentFormat(info.autoencoder)
        shift = info.sampling.shift or math.sqrt(info.frame_area / info.grid**2 / BASE_TOKENS)
        self.sampling_settings = {"multiplier": 1.0, "shift": math.log(shift)}  # Flux counts its shift as a logarithm


class MRTModel(comfy.model_base.QwenImage):
    """ComfyUI's wrapper of the diffusion model: what samplers, patchers and memory planning ask for."""

    def __init__(self, model_config: MRTModelConfig, device=None):
        super().__init__(model_config, device=device, unet_model=RegionDiffusionModel)
        self.mrt_info = model_config.mrt_info

    def extra_conds(self, **kwargs) -> dict:
        """What a conditioning brings to the diffusion model; raises MRTError without the slots of this very latent."""
        out = super().extra_conds(**kwargs)
        slots, shapes = kwargs.get(SLOTS), kwargs.get("latent_shapes")
        _check_slots(slots, shapes)
        _check_text(kwargs.get("cross_attn"), self.mrt_info.transformer.text_dim)
        out["latent_shapes"] = comfy.conds.CONDConstant(shapes)
        out[SLOTS] = comfy.conds.CONDConstant(slots)
        out[ANCHORS] = comfy.conds.CONDConstant(kwargs.get(ANCHORS))
        if kwargs.get("denoise_mask") is not None:
            out["denoise_mask"] = comfy.conds.CONDRegular(kwargs["denoise_mask"])
        return out

    def process_latent_in(self, latent):
        """Raw latents to normalised ones: packed (B, 1, all values), nested, or one (B, 16, T, h, w)."""
        return self._each_stream(latent, super().process_latent_in)

    def process_latent_out(self, latent):
        """Normalised latents to raw ones, in the same forms."""
        return self._each_stream(latent, super().process_latent_out)

    def _each_stream(self, latent, process):
        if getattr(latent, "is_nested", False):
            return latent.apply_operation(None, lambda stream, _: process(stream))
        if latent.ndim == 5:
            return process(latent)
        streams = comfy.utils.unpack_latents(latent, self.latent_shapes)
        return comfy.utils.pack_latents([process(stream) for stream in streams])[0]

    def scale_latent_inpaint(self, sigma, noise, latent_image, **kwargs):
        """Clean slots are conditions: they enter every step without noise."""
        return latent_image

    def memory_required(self, input_shape, cond_shapes=None) -> float:
        """Bytes that a step takes, from the number of tokens."""
        config = self.mrt_info.transformer
        tokens = math.prod(input_shape) / config.in_channels
        size = comfy.model_management.dtype_size(self.get_dtype_inference())
        return tokens * config.width * ACTIVATIONS_PER_TOKEN * max(size, 2)


def _check_slots(sample: SlotLayout | None, shapes: list | None) -> None:
    if sample is None:
        raise MRTError(
            "the conditioning carries no layout, but this model makes layers of a layout; connect the sampler to the "
            "positive, negative and latent outputs of one of the Region Latents nodes"
        )
    expected = [slot_latent_shape(slot) for slot in sample.slots]
    found = [(shape[1], *shape[-2:]) for shape in shapes or []]
    if found != expected:
        raise MRTError(
            f"the latent has {len(found)} slots of the shapes {_shorten(found)}, but the conditioning was made for "
            f"{len(expected)} of {_shorten(expected)}; take positive, negative and latent from the same node"
        )


def _check_text(states: Tensor | None, width: int) -> None:
    if states is not None and states.shape[-1] != width:
        raise MRTError(
            f"the text encoder gives states {states.shape[-1]} wide, but the model takes {width}; connect the CLIP that belongs "
            "to it: that of Load MRT Model, or Load CLIP with Qwen2.5-VL and the type qwen_image"
        )


def _shorten(shapes: list[tuple[int, ...]]) -> str:
    words = ["x".join(map(str, shape)) for shape in shapes[:3]]
    return ", ".join(words) + (", ..." if len(shapes) > 3 else "")


def load_diffusion_model(path: Path, parts: CheckpointParts, dtype: torch.dtype | None, disable_dynamic: bool = False):
    """The MODEL of a checkpoint's transformer weights; `dtype` None lets ComfyUI choose the precision.

    Quantised weights stay as they are, and `dtype` is then the precision to compute in.
    """
    management, state, packed = comfy.model_management, parts.transformer, parts.packed
    config = MRTModelConfig(parts.info)
    device, offload = management.get_torch_device(), management.unet_offload_device()
    count = comfy.utils.calculate_parameters(state)
    supported = config.supported_inference_dtypes
    if packed:
        computed = dtype if dtype in supported else None
        if dtype is not computed:
            log.warning(
                "%s is quantised already and cannot compute in %s; ComfyUI chooses the precision", path.name, dtype
            )
        chosen = computed or management.unet_dtype(device, count, supported)
        cast = computed or management.unet_manual_cast(None, device, supported)
        state = _quantised_state(config, parts, cast)
    else:
        stored = comfy.utils.weight_dtype(state)
        chosen = dtype or management.unet_dtype(device, count, supported, weight_dtype=stored)
        cast = management.unet_manual_cast(chosen, device, supported)
    config.set_inference_dtype(chosen, cast)
    model = MRTModel(config, device=management.unet_inital_load_device(count, chosen))
    patchers = comfy.model_patcher
    patcher_class = patchers.ModelPatcher if disable_dynamic else patchers.CoreModelPatcher
    patcher = patcher_class(model, load_device=device, offload_device=offload)
    model.load_model_weights(state, "", assign=patcher.is_dynamic())
    patcher.cached_patcher_init = (_load_again, (path, dtype))
    return patcher


def _quantised_state(config: MRTModelConfig, parts: CheckpointParts, dtype: torch.dtype) -> dict[str, Tensor]:
    """The weights as ComfyUI's operations for them read them, and the model's configuration told which those are."""
    if not needs_unpacking(parts.packed):
        config.quant_config = MIXED_OPERATIONS
        return mixed_state(parts.transformer, parts.packed)
    config.custom_operations = UnpackingOperations
    plain = MaskedRegionTransformer(parts.info.transformer, device="meta", operations=UNFILLED)
    shapes = {name: tuple(tensor.shape) for name, tensor in plain.state_dict().items()}
    return unpacked_state(parts.transformer, parts.packed, shapes, dtype)


def _load_again(path: Path, dtype: torch.dtype | None, disable_dynamic: bool = False):
    """The MODEL of a file, for ComfyUI when it wants the weights anew."""
    return load_diffusion_model(path, read_parts(path), dtype, disable_dynamic)
