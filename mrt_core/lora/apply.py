"""A LoRA in a transformer: merged into plain weights, beside weights that are stored in another form."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checkpoints.info import CheckpointInfo
from ..errors import MRTError
from .adapters import Adapter, Decomposed, Hadamard, Kronecker, LowRank
from .file import Lora

BRANCH = "lora_branch"  # the name of a side branch among its layer's modules


class KroneckerBranch(nn.Module):
    """The product with a Kronecker product, by its two factors: (a, b) and (c, d) for (..., b * d) to (..., a * c)."""

    def __init__(self, change: Kronecker, strength: float, device: torch.device):
        super().__init__()
        self.register_buffer("left", change.left.to(device), persistent=False)
        self.register_buffer("right", (change.scale * strength * change.right.float()).to(device), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        grouped = F.linear(x.unflatten(-1, (self.left.shape[1], -1)), self.right.to(x))  # (..., b, c)
        return (self.left.to(x) @ grouped).flatten(-2)  # (..., a * c)


class SideBranch(nn.Module):
    """Changes of one layer computed beside it; low-rank ones are one of their summed rank. Not in the state dict."""

    def __init__(self, change: "_Changes", rows: int, columns: int, device: torch.device):
        super().__init__()
        self.register_buffer("up", torch.zeros(rows, 0, device=device), persistent=False)
        self.register_buffer("down", torch.zeros(0, columns, device=device), persistent=False)
        self.register_buffer("scale", torch.zeros(0, device=device), persistent=False)
        self.products = nn.ModuleList()
        self.add(change)

    def add(self, change: "_Changes") -> None:
        """Take in more changes, each with its strength."""
        adapters = change.adapters
        loha = [(delta.as_low_rank(), strength) for delta, strength in adapters if isinstance(delta, Hadamard)]
        low_rank = [*change.low_rank, *loha]
        device = self.scale.device
        if low_rank:
            up, down, scale = _joined(low_rank, device)
            first = not len(self.scale)  # whose precision counts
            self.up = up if first else torch.cat([self.up, up], dim=1)
            self.down = down if first else torch.cat([self.down, down])
            self.scale = scale if first else torch.cat([self.scale, scale])
        lokr = [(delta, strength) for delta, strength in adapters if isinstance(delta, Kronecker)]
        self.products.extend(KroneckerBranch(delta, strength, device) for delta, strength in lokr)

    def forward(self, x: Tensor) -> Tensor:  # (..., in) -> (..., out)
        changed = F.linear(F.linear(x, self.down.to(x)) * self.scale.to(x), self.up.to(x))
        for product in self.products:
            changed = changed + product(x)
        return changed


def _joined(terms: Sequence[tuple[LowRank, float]], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Changes with their strengths as one: up (out, ranks), down (ranks, in), and the scale (ranks,) between them."""
    up = torch.cat([delta.up.to(device) for delta, _ in terms], dim=1)
    down = torch.cat([delta.down.to(device) for delta, _ in terms])
    scale = torch.cat([torch.full((len(delta.down),), delta.scale * strength) for delta, strength in terms])
    return up, down, scale.to(device)


def _add_branch(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return output + getattr(layer, BRANCH)(inputs[0]).to(output.dtype)


class _Changes(NamedTuple):
    """Everything that several LoRAs change in one parameter, each with its strength."""

    low_rank: list[tuple[LowRank, float]]
    differences: list[tuple[Tensor, float]]
    adapters: list[tuple[Adapter, float]]


def apply_loras(transformer: nn.Module, loras: Sequence[tuple[Lora, float]]) -> None:
    """Apply LoRAs, read for this transformer, with their strengths: merged where a layer has plain weights of at least
    16 bit (summed in fp32, then rounded once), else as a side branch. Strength 0 changes nothing, and s takes s times the
    way to the weight of strength 1; DoRA sees the weights as they were before.

    Raises MRTError, before anything is changed, for a whole difference or a DoRA of a weight that is not plain.
    """
    changes = _by_parameter(loras)
    parameters = {name: _parameter(transformer, name) for name in changes}
    for name, change in changes.items():
        if change.differences and not is_plain(parameters[name]):
            raise MRTError(
                f"a LoRA has a whole difference for {name}, but that weight is quantised and only low-rank pairs can stand "
                "beside it; use the bf16 version of the checkpoint"
            )
        if not is_plain(parameters[name]) and any(isinstance(delta, Decomposed) for delta, _ in change.adapters):
            raise MRTError(
                f"a LoRA of the kind DoRA changes the lengths in {name}, but that weight is quantised and they cannot be told "
                "beside it; use the bf16 version of the checkpoint, or a LoRA, LoHa or LoKr"
            )
    for name, change in changes.items():
        if is_plain(parameters[name]):
            _merge(parameters[name], change)
        else:
            _stand_beside(transformer.get_submodule(name.rpartition(".")[0]), change)


def is_plain(weight: object) -> bool:
    """Whether a weight is numbers of at least 16 bit, which a change can be added to; a quantised one is not."""
    return type(weight) is nn.Parameter and weight.is_floating_point() and weight.element_size() >= 2


def _by_parameter(loras: Sequence[tuple[Lora, float]]) -> dict[str, _Changes]:
    changes: dict[str, _Changes] = {}
    for lora, strength in loras:
        if strength == 0:
            continue
        for layer, delta in lora.low_rank.items():
            changes.setdefault(f"{layer}.weight", _Changes([], [], [])).low_rank.append((delta, strength))
        for layer, adapter in lora.adapters.items():
            changes.setdefault(f"{layer}.weight", _Changes([], [], [])).adapters.append((adapter, strength))
        for name, difference in lora.differences.items():
            changes.setdefault(name, _Changes([], [], [])).differences.append((difference, strength))
    return changes


def _parameter(transformer: nn.Module, name: str) -> object:
    """A parameter; None where the layer keeps its weight under other names."""
    layer, _, part = name.rpartition(".")
    return getattr(transformer.get_submodule(layer), part, None)


@torch.no_grad()
def _merge(weight: nn.Parameter, change: _Changes) -> None:
    wide = weight.float().clone()
    for delta, strength in change.low_rank:
        up, down = delta.up.to(wide), delta.down.to(wide)
        wide.addmm_(up, down, alpha=strength * delta.scale)
    for difference, strength in change.differences:
        wide.add_(difference.to(wide), alpha=strength)
    for adapter, strength in change.adapters:
        before = weight.float()
        wide.add_(
            adapter.difference(before) if isinstance(adapter, Decomposed) else adapter.matrix(before), alpha=strength
        )
    weight.copy_(wide)


def _stand_beside(layer: nn.Module, change: _Changes) -> None:
    if hasattr(layer, BRANCH):
        getattr(layer, BRANCH).add(change)
        return
    device = next(chain(layer.parameters(), layer.buffers())).device
    layer.add_module(BRANCH, SideBranch(change, layer.out_features, layer.in_features, device))
    layer.register_forward_hook(_add_branch)


def student_info(info: CheckpointInfo, loras: Sequence[tuple[Lora, float]]) -> CheckpointInfo:
    """What is known of a checkpoint with these LoRAs and strengths applied: a student where one of them is a student's.

    Raises MRTError when two of them say how to sample.
    """
    found = [lora.sampling for lora, strength in loras if lora.sampling is not None and strength != 0]
    if len(found) > 1:
        raise MRTError(f"{len(found)} of the LoRAs say how to sample, but one student at a time was expected; give one")
    if not found:
        return info
    return replace(info, student=True, sampling=found[0], image_sampling=None)
