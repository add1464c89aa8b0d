"""Modulation: shift, scale and gate by noise level; computed in every pass, or once for a whole schedule.

The layers that make them hold a third of Qwen-Image's weights and see nothing but the noise level
(architecture: parameter budget). A sampler, whose noise levels are known beforehand, needs those weights but once, one
block after another.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .weight_copies import on_device


class Modulation:
    """Shift, scale and gate per token: rows (R, 3 * width) of a modulation vector, and each token's row (S,)."""

    def __init__(self, rows: Tensor, index: Tensor):
        self.shift, self.scale, self.gate = rows.chunk(3, dim=-1)
        self.index = index

    def modulate(self, x: Tensor) -> Tensor:  # (S, width) -> (S, width)
        normed = F.layer_norm(x, x.shape[-1:], eps=1e-6)
        return normed * (1 + self.scale).index_select(0, self.index) + self.shift.index_select(0, self.index)

    def gated(self, x: Tensor, residual: Tensor) -> Tensor:  # residual + gate * x
        gate = self.gate.index_select(0, self.index)
        return torch.addcmul(residual, gate.to(residual.dtype), x.to(residual.dtype))


class Modulations(Protocol):
    """Where a pass through the network takes its R modulation rows from; the last row is that of noise level 0."""

    @property
    def rows(self) -> int:
        """R: the noise levels and one more."""

    def of_block(self, block: nn.Module) -> tuple[Tensor, Tensor]:
        """A block's rows for image and for text, each (R, 6 * width)."""

    def of_output(self, norm: nn.Module) -> Tensor:
        """The rows (R, 2 * width) of the output norm."""


@dataclass(frozen=True)
class ComputedModulations:
    """Rows that the layers compute from the time vectors (R, width) when they are asked for."""

    time: Tensor

    @property
    def rows(self) -> int:
        return len(self.time)

    def of_block(self, block: nn.Module) -> tuple[Tensor, Tensor]:
        return block.img_mod(self.time), block.txt_mod(self.time)

    def of_output(self, norm: nn.Module) -> Tensor:
        return norm.linear(F.silu(self.time))


@dataclass(frozen=True)
class StoredModulations:
    """Rows that were computed before: image and text (blocks, R, 6 * width), output (R, 2 * width)."""

    image: Tensor
    text: Tensor
    output: Tensor

    @property
    def rows(self) -> int:
        return len(self.output)

    def of_block(self, block: nn.Module) -> tuple[Tensor, Tensor]:
        return self.image[block.number], self.text[block.number]

    def of_output(self, norm: nn.Module) -> Tensor:
        return self.output


@dataclass(frozen=True)
class ModulationTable:
    """The rows of all noise levels of a schedule; `places` says which row is whose."""

    places: Mapping[float, int]
    stored: StoredModulations

    def at(self, level: float) -> StoredModulations:
        """The rows of one noise level of the schedule, for all samples, and those of noise level 0."""
        rows = [self.places[level], -1]
        return StoredModulations(self.stored.image[:, rows], self.stored.text[:, rows], self.stored.output[rows])


def modulation_table(
    transformer: nn.Module, levels: Sequence[float], dtype: torch.dtype, device: torch.device
) -> ModulationTable:
    """Compute the modulations of `levels` on `device`, where the weights of one layer at a time are copied.

    Every level is computed together with noise level 0 alone, as `forward` does for one level: a product of more rows
    would round otherwise.
    """
    levels = list(dict.fromkeys(levels))
    embed = on_device(transformer.time_text_embed, device)
    times = [embed(torch.tensor([level, 0.0], device=device), dtype) for level in levels]  # (2, width) each

    def rows(layer: nn.Module, activate: bool = False) -> Tensor:  # (levels + 1, channels)
        compute = on_device(layer, device)
        pairs = torch.stack([compute(F.silu(time) if activate else time) for time in times])  # (levels, 2, channels)
        return torch.cat([pairs[:, 0], pairs[-1:, 1]])

    blocks = transformer.transformer_blocks
    image = torch.stack([rows(block.img_mod) for block in blocks])  # (blocks, levels + 1, 6 * width)
    text = torch.stack([rows(block.txt_mod) for block in blocks])
    stored = StoredModulations(image, text, rows(transformer.norm_out.linear, activate=True))
    return ModulationTable({level: place for place, level in enumerate(levels)}, stored)
