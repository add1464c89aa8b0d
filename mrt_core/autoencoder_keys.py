"""The two public namings of the Wan/Qwen autoencoder, read into ours and written back (spec 3.2, 3.3).

Ours are the diffusers names with 2D convolutions. The other naming is Wan's, which ComfyUI reads. Both public forms
hold 5D convolution weights, of which a single frame sees the last temporal tap, and `time_conv`, which it never runs.
"""

import re
from collections.abc import Mapping
from functools import cache

import torch
from torch import Tensor

from .autoencoder import LATENT_CHANNELS, Autoencoder, AutoencoderConfig
from .errors import MRTError

TEMPORAL_TAPS = 3
REMEDY = "use qwen_image_vae or qwen_image_layered_vae"
# What Wan calls each part of a name, in the order in which the replacements must run.
WAN_PARTS = (
    (r"^quant_conv\.", "conv1."),
    (r"^post_quant_conv\.", "conv2."),
    (r"\.down_blocks\.", ".downsamples."),
    (r"\.up_blocks\.(\d+)\.resnets\.(\d+)\.", lambda match: f".upsamples.{4 * int(match[1]) + int(match[2])}."),
    (r"\.up_blocks\.(\d+)\.upsamplers\.0\.", lambda match: f".upsamples.{4 * int(match[1]) + 3}."),
    (r"\.mid_block\.resnets\.(\d+)\.", lambda match: f".middle.{2 * int(match[1])}."),
    (r"\.mid_block\.attentions\.0\.", ".middle.1."),
    (r"\.norm1\.", ".residual.0."),
    (r"\.conv1\.", ".residual.2."),
    (r"\.norm2\.", ".residual.3."),
    (r"\.conv2\.", ".residual.6."),
    (r"\.conv_shortcut\.", ".shortcut."),
    (r"\.conv_in\.", ".conv1."),
    (r"\.norm_out\.", ".head.0."),
    (r"\.conv_out\.", ".head.2."),
)
PLANAR = (".resample.", ".to_qkv.", ".proj.")  # convolutions that are 2D in the public models too
TIME_RESAMPLERS = (
    *(f"encoder.down_blocks.{index}" for index in (5, 8)),
    *(f"decoder.up_blocks.{index}.upsamplers.0" for index in (0, 1)),
)


def wan_name(name: str) -> str:
    """The Wan/ComfyUI name of one of our parameters."""
    for pattern, replacement in WAN_PARTS:
        name = re.sub(pattern, replacement, name)
    return name


@cache
def _our_names() -> dict[str, str]:
    """Wan name to ours; they are the same at every width."""
    return {wan_name(name): name for name in Autoencoder(AutoencoderConfig(), device="meta").state_dict()}


def canonical_autoencoder_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict from one in either public naming, or from ours; weights are views of the given ones.

    Names that belong to neither naming stay as they are, so that strict loading reports them. Raises MRTError for the
    autoencoder of Wan 2.2.
    """
    names = _our_names()
    _refuse_wan22(state)
    canonical = {}
    for name, tensor in state.items():
        if ".time_conv." in name:
            continue
        if name.endswith(".gamma"):
            tensor = tensor.flatten()  # (C,)
        elif tensor.ndim == 5:
            tensor = tensor[:, :, -1]  # (O, I, kh, kw)
        canonical[names.get(name, name)] = tensor
    return canonical


def _refuse_wan22(state: Mapping[str, Tensor]) -> None:
    names = ("decoder.conv_in.weight", "decoder.conv1.weight")
    channels = next((state[name].shape[1] for name in names if name in state and state[name].ndim > 1), LATENT_CHANNELS)
    if channels != LATENT_CHANNELS or "decoder.upsamples.0.upsamples.0.residual.2.weight" in state:
        raise MRTError(
            f"this autoencoder is Wan 2.2's or alike, with {channels} latent channels, but the {LATENT_CHANNELS} of Wan 2.1 and "
            f"Qwen-Image are needed; {REMEDY}"
        )


def autoencoder_config(state: Mapping[str, Tensor]) -> AutoencoderConfig:
    """Base width and image channels of a state dict in any of the namings, with the public latent mean and std.

    Raises MRTError when it is not an autoencoder of the Wan 2.1 / Qwen-Image family.
    """
    state = canonical_autoencoder_state(state)
    first, last = state.get("encoder.conv_in.weight"), state.get("decoder.conv_out.weight")
    if first is None or last is None or first.ndim != 4 or last.ndim != 4:
        raise MRTError(
            "these tensors are no Wan 2.1 / Qwen-Image autoencoder: the first convolution of the encoder or the last of the "
            f"decoder (encoder.conv1 and decoder.head.2 in Wan's naming) is missing or no convolution; {REMEDY}"
        )
    channels = first.shape[1], last.shape[0]
    if not set(channels) <= {3, 4}:
        raise MRTError(
            f"this autoencoder has {channels[0]} image channels in and {channels[1]} out, but 3 (RGB) or 4 (RGBA) are "
            f"needed; {REMEDY}"
        )
    return AutoencoderConfig(first.shape[0], *channels)


def wan_autoencoder_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict in Wan/ComfyUI naming and shapes: 5D weights, zero but in the last tap, and zero `time_conv`."""
    wan = {wan_name(name): _wan_tensor(name, tensor) for name, tensor in state.items()}
    for name in TIME_RESAMPLERS:
        like = state[f"{name}.resample.1.weight"]
        width = like.shape[1]
        outputs = width if name.startswith("encoder") else 2 * width  # the decoder makes two frames of one
        wan[wan_name(f"{name}.time_conv.weight")] = like.new_zeros(outputs, width, TEMPORAL_TAPS, 1, 1)
        wan[wan_name(f"{name}.time_conv.bias")] = like.new_zeros(outputs)
    return wan


def _wan_tensor(name: str, tensor: Tensor) -> Tensor:
    if name.endswith(".gamma"):
        trailing = (1, 1) if ".attentions." in name else (1, 1, 1)
        return tensor.reshape(-1, *trailing)
    if tensor.ndim != 4 or any(part in name for part in PLANAR):
        return tensor
    if tensor.shape[-1] == 1:
        return tensor[:, :, None]  # (O, I, 1, 1, 1)
    before = tensor.new_zeros(*tensor.shape[:2], TEMPORAL_TAPS - 1, *tensor.shape[2:])
    return torch.cat([before, tensor[:, :, None]], 2)  # (O, I, 3, kh, kw)
