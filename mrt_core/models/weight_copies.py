"""A module computing with copies of its weights that lie elsewhere; its own stay where they are."""

from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call


def weights_of(module: nn.Module, without: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """A module's parameters and buffers of any kind by name, but those whose name starts with one of `without`."""
    tensors = chain(module.named_parameters(), module.named_buffers())
    return {name: tensor for name, tensor in tensors if not name.startswith(without)}


def with_weights(module: nn.Module, weights: Mapping[str, Tensor]) -> Callable[..., Any]:
    """The module as a function that computes with `weights` in the place of its own of these names."""
    return lambda *arguments: functional_call(module, dict(weights), arguments)


def on_device(module: nn.Module, device: torch.device, without: tuple[str, ...] = ()) -> Callable[..., Any]:
    """The module as a function that computes on `device`; copies of its weights lie there as long as the function lives."""
    weights = weights_of(module, without)
    return with_weights(module, {name: tensor.to(device) for name, tensor in weights.items()})
