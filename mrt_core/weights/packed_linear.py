"""Linear layers whose weights stay quantised in memory and are made plain for each multiplication."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .gguf_types import packed_columns
from .plain import dequantise
from .quantisation import LayerFormat


class PackedLinear(nn.Module):
    """A linear layer with a quantised `weight`, a `weight_scale`, () or (rows, 1), for numbers of 8 bit, and a plain `bias`.

    It computes in the precision of its input. Neither weight nor scale can be trained.
    """

    def __init__(
        self, in_features: int, out_features: int, layer: LayerFormat, bias: bool = True, dtype=None, device=None
    ):
        super().__init__()
        self.in_features, self.out_features, self.format = in_features, out_features, layer
        if layer.dtype:
            shape = (out_features, 1) if layer.per_row else ()
            stored = torch.empty(out_features, in_features, dtype=getattr(torch, layer.name), device=device)
            scale = nn.Parameter(torch.empty(shape, dtype=torch.float32, device=device), requires_grad=False)
        else:
            columns = packed_columns(layer.name, in_features)
            stored, scale = torch.empty(out_features, columns, dtype=torch.uint8, device=device), None
        self.weight = nn.Parameter(stored, requires_grad=False)
        self.register_parameter("weight_scale", scale)
        self.register_parameter(
            "bias", nn.Parameter(torch.empty(out_features, dtype=dtype, device=device)) if bias else None
        )

    def plain_weight(self, dtype: torch.dtype) -> Tensor:
        """The weight (out_features, in_features) as plain numbers."""
        shape = self.out_features, self.in_features
        return dequantise(self.weight, self.format, self.weight_scale, shape, dtype)

    def forward(self, x: Tensor) -> Tensor:  # (..., in_features) -> (..., out_features)
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.linear(x, self.plain_weight(x.dtype), bias)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, {self.format.name}"


def pack_linears(model: nn.Module, formats: Mapping[str, LayerFormat]) -> None:
    """Put a PackedLinear without weights in the place of each named linear layer."""
    for name, layer in formats.items():
        plain = model.get_submodule(name)
        factory = {"dtype": plain.weight.dtype, "device": plain.weight.device}
        packed = PackedLinear(plain.in_features, plain.out_features, layer, plain.bias is not None, **factory)
        model.set_submodule(name, packed)


def is_quantised(model: nn.Module) -> bool:
    """Whether any layer of a model keeps its weights quantised."""
    return any(isinstance(module, PackedLinear) for module in model.modules())
