"""Quantised weights in ComfyUI: its own operations compute with fp8, and one of ours unpacks GGUF's blocks and whatever else
ComfyUI does not: int8, and scales per row.

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
from ..mrt_core.weights.plain import dequantise
from ..mrt_core.weights.quantisation import FLOAT8_FORMATS, LayerFormat

UNPACKED_LAYOUT = "MRTBlocksLayout"
MIXED_OPERATIONS = {"mixed_ops": True}  # what ComfyUI notes of a model with formats per layer


class BlocksLayout(QuantizedLayout):
    """How ComfyUI unpacks rows of GGUF blocks, or of 8-bit numbers with scales; it never packs any."""

    @dataclass(frozen=True)
    class Params(BaseLayoutParams):
        """The layer's format, beside what every layout has; `scale` is unused for blocks, which hold their own."""

        layer: LayerFormat | None = None

    @classmethod
    def quantize(cls, tensor: Tensor, **kwargs):
        raise MRTError(
            f"a weight of shape {tuple(tensor.shape)} was to be packed in a format that is only read here; keep the "
            "weight plain, or use an fp8 checkpoint"
        )

    @classmethod
    def dequantize(cls, qdata: Tensor, params: Params) -> Tensor:
        return dequantise(qdata, params.layer, params.scale, params.orig_shape, params.orig_dtype)

    @classmethod
    def get_plain_tensors(cls, qtensor: QuantizedTensor) -> tuple[Tensor, ...]:
        return (qtensor._qdata,)

    @classmethod
    def state_dict_tensors(cls, qdata: Tensor, params: Params) -> dict[str, Tensor]:
        return {"": qdata} | ({"_scale": params.scale} if params.layer.dtype else {})


register_layout_class(UNPACKED_LAYOUT, BlocksLayout)


class UnpackingOperations(comfy.ops.manual_cast):
    """ComfyUI's casting operations, with linear layers that may hold weights in such a form."""

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


def needs_unpacking(packed: Mapping[str, LayerFormat]) -> bool:
    """Whether layers are packed in a form that ComfyUI's own operations do not read."""
    return any(layer.name not in FLOAT8_FORMATS or layer.per_row for layer in packed.values())


def unpacked_state(
    state: dict[str, Tensor],
    packed: Mapping[str, LayerFormat],
    shapes: Mapping[str, tuple[int, ...]],
    dtype: torch.dtype,
) -> dict[str, Tensor]:
    """A state dict for UnpackingOperations that computes in `dtype`; `shapes` are those of the layers' plain weights."""
    weights = {f"{layer}.weight": (layer, form) for layer, form in packed.items()}
    unused = {f"{layer}.{scale}" for layer in packed for scale in ("weight_scale", "input_scale")}
    plain = {name: tensor for name, tensor in state.items() if name not in weights and name not in unused}
    result = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in plain.items()}
    for name, (layer, form) in weights.items():
        scale = state.get(f"{layer}.weight_scale", torch.ones(()))
        params = BlocksLayout.Params(scale, dtype, shapes[name], form)
        result[name] = QuantizedTensor(state[name], UNPACKED_LAYOUT, params)
    return result


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
