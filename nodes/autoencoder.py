"""Between ComfyUI's VAE and regions: any Wan-shaped VAE encodes and decodes regions as a 2D network.

The latents are the VAE's own, not normalised, as everywhere in ComfyUI.
"""

import weakref
from dataclasses import replace

import comfy.model_management
import comfy.model_patcher
import comfy.sd
import torch
from torch import Tensor

from ..mrt_core.checkpoints.autoencoder_fit import require_alpha, require_same_channels
from ..mrt_core.checkpoints.autoencoder_keys import (
    autoencoder_config,
    canonical_autoencoder_state,
    wan_autoencoder_state,
)
from ..mrt_core.checkpoints.info import CheckpointInfo
from ..mrt_core.errors import MRTError
from ..mrt_core.models.autoencoder import Autoencoder
from ..mrt_core.models.configs import LATENT_CHANNELS
from ..mrt_core.tasks.region_codec import RegionCodec

VAE_REMEDY = "connect the VAE of Load MRT Model, or Load VAE with qwen_image_layered_vae"
BYTES_PER_PIXEL = 2200  # of working memory, as ComfyUI counts it for this autoencoder, times the size of a value

_patchers: "weakref.WeakKeyDictionary[torch.nn.Module, comfy.model_patcher.ModelPatcher]" = weakref.WeakKeyDictionary()


def load_vae(state: dict[str, Tensor]) -> comfy.sd.VAE:
    """The VAE of a checkpoint's autoencoder weights, in our names, for the stock VAE nodes."""
    return comfy.sd.VAE(sd=wan_autoencoder_state({name: tensor.float() for name, tensor in state.items()}))


def region_codec(vae: comfy.sd.VAE, mode: str, pixels: int) -> RegionCodec:
    """A codec over regions for a VAE, loaded and ready for `pixels` at once; raises MRTError for a VAE of another shape."""
    if vae is None:
        raise MRTError("the VAE is missing, since the loaded file holds none; connect the VAE of Load VAE")
    patcher = _patchers.get(vae.first_stage_model)
    if patcher is None:
        patcher = _patchers[vae.first_stage_model] = _planar_patcher(vae)
    memory = pixels * BYTES_PER_PIXEL * comfy.model_management.dtype_size(vae.vae_dtype)
    comfy.model_management.load_models_gpu([patcher], memory_required=memory, force_full_load=True)
    return RegionCodec(patcher.model, mode)


def layer_codec(vae: comfy.sd.VAE, mode: str, pixels: int, info: CheckpointInfo | None = None) -> RegionCodec:
    """As `region_codec`, for layers; `info` is what is known of the model that they are for.

    Raises MRTError for a VAE without alpha, or with other image channels than the model was trained with.
    """
    codec = region_codec(vae, mode, pixels)
    require_alpha("the VAE", codec.autoencoder.config, VAE_REMEDY)
    if info is not None:
        require_same_channels("the VAE", codec.autoencoder.config, info, "the model", VAE_REMEDY)
    return codec


def _planar_patcher(vae: comfy.sd.VAE) -> comfy.model_patcher.ModelPatcher:
    """The 2D network of a VAE's weights, under ComfyUI's memory management."""
    state = vae.first_stage_model.state_dict()
    try:
        canonical = canonical_autoencoder_state(state)
        config = autoencoder_config(canonical)
    except MRTError as error:
        raise MRTError(
            f"the VAE is a {type(vae.first_stage_model).__name__} with {vae.latent_channels} latent channels, but a Wan 2.1 "
            f"or Qwen-Image one with {LATENT_CHANNELS} is needed; connect the VAE of Load MRT Model, or qwen_image_vae"
        ) from error
    raw = replace(config, latent_mean=(0.0,) * LATENT_CHANNELS, latent_std=(1.0,) * LATENT_CHANNELS)
    model = Autoencoder(raw, device="meta")
    weights = {name: tensor.to(vae.vae_dtype).contiguous() for name, tensor in canonical.items()}
    model.load_state_dict(weights, assign=True)
    model.eval().to(memory_format=torch.channels_last)
    offload = comfy.model_management.vae_offload_device()
    return comfy.model_patcher.ModelPatcher(model, load_device=vae.device, offload_device=offload)
