"""State dicts of the Wan/Qwen autoencoder in either public naming, read into ours and written back
(architecture: autoencoder).

Both public forms hold 5D convolution weights, of which a single frame sees the last temporal tap, and `time_conv`, which
it never runs.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from ..models.configs import AutoencoderConfig
from .autoencoder_names import autoencoder_config_of_shapes, canonical_name, refuse_wan22, wan_name

TEMPORAL_TAPS = 3
PLANAR = (".resample.", ".to_qkv.", ".proj.")  # convolutions that are 2D in the public models too
TIME_RESAMPLERS = (
    *(f"encoder.down_blocks.{index}" for index in (5, 8)),
    *(f"decoder.up_blocks.{index}.upsamplers.0" for index in (0, 1)),
)


def canonical_autoencoder_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict from one in either public naming, or from ours; weights are views of the given ones.

    Names that belong to neither naming stay as they are, so that strict loading reports them. Raises MRTError for the
    autoencoder of Wan 2.2.
    """
    refuse_wan22(_shapes(state))
    ours = {name: canonical_name(name) for name in state}
    return {ours[name]: _canonical_tensor(name, tensor) for name, tensor in state.items() if ours[name] is not None}


def _canonical_tensor(name: str, tensor: Tensor) -> Tensor:
    if name.endswith(".gamma"):
        return tensor.flatten()  # (C,)
    return tensor[:, :, -1] if tensor.ndim == 5 else tensor  # (O, I, kh, kw)


def autoencoder_config(state: Mapping[str, Tensor]) -> AutoencoderConfig:
    """Base width and image channels of a state dict in any of the namings, with the public latent mean and std.

    Raises MRTError when it is not an autoencoder of the Wan 2.1 / Qwen-Image family.
    """
    return autoencoder_config_of_shapes(_shapes(state))


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


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
