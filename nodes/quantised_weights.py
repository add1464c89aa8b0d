"""Quantised weights in ComfyUI: its own operations compute with fp8, and one of ours unpacks GGUF's blocks.

Both keep the weights packed in ComfyUI's own `QuantizedTensor`, so that its memory management and LoRA patches see them.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import comfy.ops
import torch
import torch.nn.functional as F
from comfy.quant_ops import QuantizedLayout, QuantizedTensor, register_layout_class
from comfy_kitchen.tensor import BaseLayoutParams
from torch import Tensor, nn

from ..mrt_core.errors import MRTError
from ..mrt_core.weights.gguf_blocks import unpack_blocks
from ..mrt_core.weights.gguf_types import BLOCK_FORMATS
from ..mrt_core.weights.quantisation import LayerFormat

GGUF_LAYOUT = "MRTBlocksLayout"
MIXED_OPERATIONS = {"mixed_ops": True}  # what ComfyUI notes of a model with formats per layer


class BlocksLayout(QuantizedLayout):
    """How ComfyUI unpacks rows of GGUF blocks; it never packs any."""

    @dataclass(frozen=True)
    class Params(BaseLayoutParams):
        """The block format, beside what every layout has; `scale` is unused, since blocks hold their own."""

        block_format: str = ""

    @classmethod
    def quantize(cls, tensor: Tensor, **kwargs):
        raise MRTError(
            f"a weight of shape {tuple(tensor.shape)} was to be packed into GGUF blocks, which are only read here; keep the "
            "weight plain, or use an fp8 checkpoint"
        )

    @classmethod
    def dequantize(cls, qdata: Tensor, params: Params) -> Tensor:
        return unpack_blocks(qdata, params.block_format).reshape(params.orig_shape).to(params.orig_dtype)

    @classmethod
    def get_plain_tensors(cls, qtensor: QuantizedTensor) -> tuple[Tensor, ...]:
        return (qtensor._qdata,)

    @classmethod
    def state_dict_tensors(cls, qdata: Tensor, params: Params) -> dict[str, Tensor]:
        return {"": qdata}


register_layout_class(GGUF_LAYOUT, BlocksLayout)


class GGUFOperations(comfy.ops.manual_cast):
    """ComfyUI's casting operations, with linear layers that may hold GGUF blocks."""

    class Linear(comfy.ops.manual_cast.Linear):
        """Takes its tensors from the state dict as they are, and unpacks the weight for each multiplication."""

        def __init__(self, in_features: int, out_features: int, bias: bool = True, device=None, dtype=None):
            super().__init__(
                in_features, out_features, bias, device="meta", dtype=dtype
            )  # no memory before there are weights

        def _load_from_state_dict(
            self, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        ):
            for name in ("weight", "bias"):
                tensor = state_dict.get(prefix + name)
                if tensor is None:
                    missing_keys.append(prefix + name)
                else:
                    setattr(self, name, nn.Parameter(tensor, requires_grad=False))

        def _apply(self, fn, recurse=True):
            for name, parameter in self._parameters.items():
                self._parameters[name] = nn.Parameter(fn(parameter), requires_grad=False)
            return self

        def forward_comfy_cast_weights(self, input: Tensor) -> Tensor:
            with comfy.ops.CastBiasWeightContext(self, input, offloadable=True) as (weight, bias):
                return F.linear(input, _plain(weight), bias)

        def convert_weight(self, weight: Tensor, inplace: bool = False, **_) -> Tensor:
            """The plain weight, for patches such as LoRAs."""
            return _plain(weight)

        def set_weight(
            self, weight: Tensor, inplace_update=False, seed=None, return_weight=False, **_
        ) -> Tensor | None:
            """Keep a patched weight, which is plain in the precision of the computation until it is unpatched."""
            weight = weight.to(self.weight.dtype)
            if return_weight:
                return weight
            self.weight = nn.Parameter(weight, requires_grad=False)
            return None


def _plain(weight: Tensor) -> Tensor:
    return weight.dequantize() if isinstance(weight, QuantizedTensor) else weight


def is_gguf(packed: Mapping[str, LayerFormat]) -> bool:
    """Whether layers are packed in GGUF's blocks."""
    return any(layer.name in BLOCK_FORMATS for layer in packed.values())


def gguf_state(
    state: dict[str, Tensor],
    packed: Mapping[str, LayerFormat],
    shapes: Mapping[str, tuple[int, ...]],
    dtype: torch.dtype,
) -> dict[str, Tensor]:
    """A state dict for GGUFOperations that computes in `dtype`; `shapes` are those of the layers' plain weights."""
    state = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    for layer, form in packed.items():
        name = f"{layer}.weight"
        params = BlocksLayout.Params(torch.ones(()), dtype, shapes[name], form.name)
        state[name] = QuantizedTensor(state[name], GGUF_LAYOUT, params)
    return state


def mixed_state(state: dict[str, Tensor], packed: Mapping[str, LayerFormat]) -> dict[str, Tensor]:
    """A state dict for ComfyUI's mixed-precision operations, in which every packed layer describes its format."""
    state = dict(state)
    for layer, form in packed.items():
        description = {"format": form.name} | ({"full_precision_matrix_mult": True} if form.full_precision else {})
        state[f"{layer}.comfy_quant"] = torch.tensor(list(json.dumps(description).encode()), dtype=torch.uint8)
        scale = state.get(f"{layer}.input_scale")
        if scale is not None and float(scale) == 1:  # stands for none: ComfyUI then measures each input
            del state[f"{layer}.input_scale"]
    return state
