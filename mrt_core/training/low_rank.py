"""LoRA training: the base stays as it is, and every linear layer of the blocks gets a low-rank change of its own.

Attention, MLPs and modulations are changed, each weight by alpha / rank * up @ down (Hu et al., 2021). MRT's condition
embedding, a single row, is trained whole.
"""

from dataclasses import dataclass
from math import sqrt
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..lora.file import Lora, LowRank, save_lora
from ..models.transformer import MaskedRegionTransformer, TransformerBlock
from .sharding import place_like
from .state import averaged_weights

PAIR = "trained_pair"  # the name of a pair among its layer's modules
CONDITION = "cond_token_embed"
SEPARATOR = "/"  # between the parts of a layer's name, where a dot would make it a module inside another


@dataclass(frozen=True)
class LowRankTraining:
    """Rank of the changes, and alpha, which scales them by alpha / rank."""

    rank: int
    alpha: float

    @property
    def scale(self) -> float:
        return self.alpha / self.rank


class TrainedPair(nn.Module):
    """The change of one linear layer, in fp32: `down` (rank, in) and `up` (out, rank)."""

    def __init__(self, layer: nn.Linear, settings: LowRankTraining):
        super().__init__()
        factory = {"dtype": torch.float32, "device": layer.weight.device}
        self.scale = settings.scale
        self.down = nn.Parameter(torch.empty(settings.rank, layer.in_features, **factory))
        self.up = nn.Parameter(torch.empty(layer.out_features, settings.rank, **factory))

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Start as no change at all: `down` random, `up` zero; the same on all processes."""
        bound = 1 / sqrt(self.down.shape[1])
        whole = torch.empty(self.down.shape).uniform_(-bound, bound, generator=generator)
        self.down.copy_(place_like(whole, self.down))
        self.up.zero_()

    def forward(self, x: Tensor) -> Tensor:  # (..., in) -> (..., out)
        return F.linear(F.linear(x, self.down.to(x)), self.up.to(x)) * self.scale


def _add_pair(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return output + getattr(layer, PAIR)(inputs[0]).to(output.dtype)


def add_pairs(transformer: MaskedRegionTransformer, settings: LowRankTraining) -> None:
    """Freeze a transformer and give its layers pairs to train, not yet filled; layers that nobody reads get none."""
    transformer.requires_grad_(False)
    for block in transformer.transformer_blocks:
        linears = [(name, module) for name, module in block.named_modules() if isinstance(module, nn.Linear)]
        for name, layer in linears:
            if not (block.is_last and f"{name}.".startswith(TransformerBlock.CONTEXT_PRE_ONLY)):
                layer.add_module(PAIR, TrainedPair(layer, settings))
                layer.register_forward_hook(_add_pair)
    if transformer.config.condition_embedding:
        transformer.cond_token_embed.float().requires_grad_(True)


def initialise_pairs(transformer: MaskedRegionTransformer, seed: int) -> None:
    """Fill all pairs."""
    generator = torch.Generator().manual_seed(seed)
    for module in transformer.modules():
        if isinstance(module, TrainedPair):
            module.initialise(generator)


def trained_parts(transformer: MaskedRegionTransformer) -> nn.ModuleDict:
    """What is trained of a transformer with pairs, by the layers' names."""
    parts = {
        name.removesuffix(f".{PAIR}").replace(".", SEPARATOR): module
        for name, module in transformer.named_modules()
        if isinstance(module, TrainedPair)
    }
    if transformer.config.condition_embedding:
        parts[CONDITION] = transformer.cond_token_embed
    return nn.ModuleDict(parts)


def export_lora(
    state: Path, output: Path, settings: LowRankTraining, condition: Tensor | None, dtype: torch.dtype
) -> None:
    """Write the averaged weights of a training state as a LoRA file; `condition` (1, width) is the base's embedding."""
    weights = averaged_weights(state)
    differences = {}
    if condition is not None:
        name = f"{CONDITION}.weight"
        differences[name] = (weights.pop(name) - condition.float()).to(dtype)
    layers = {name.rpartition(".")[0] for name in weights}
    pairs = {
        layer.replace(SEPARATOR, "."): LowRank(
            weights[f"{layer}.up"].to(dtype), weights[f"{layer}.down"].to(dtype), settings.scale
        )
        for layer in sorted(layers)
    }
    save_lora(output, Lora(pairs, differences))
