"""Masked flow matching: what teacher, student and fake score have in common, over the noisy tokens of a packed batch.

x_sigma = (1 - sigma) x0 + sigma eps on the noisy slots, x0 on the clean ones; a network predicts eps - x0 and the mean
squared error counts noisy tokens alone (paper section 3.2, equations 1 and 2).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..models.sequence import Role, SlotLayout
from ..models.transformer import Attention
from ..sampling.schedule import shift_linear
from ..tasks.slots import Task
from .samples import TrainingSample

Velocity = Callable[[Tensor, Tensor], Tensor]  # noisy tokens (M, 64), noise levels (B,) -> eps - x0 (M, 64)

# How far the noise levels of a task lean to 1. What a text says counts where nothing can be seen yet: with even levels, a
# small model did not learn to follow text at all (docs/notes.md).
NOISE_SHIFT: Mapping[Task, float] = {
    Task.TEXT_TO_LAYERS: 4.0, Task.IMAGE_TO_LAYERS: 3.0, Task.ADD_LAYERS: 4.0, Task.RESTYLE_LAYERS: 3.0,
}  # fmt: skip

# How much a token counts in the loss. Layers are what the model is for and have the fewest tokens; a composite that is made
# beside them is not looked at afterwards.
TOKEN_WEIGHT: Mapping[Role, float] = {Role.COMPOSITE: 0.5, Role.BACKGROUND: 1.0, Role.LAYER: 2.0, Role.CONDITION: 0.0}


class NoisyTokens(NamedTuple):
    """The sample (M,) that each noisy token belongs to, counted from 0, and how much the token counts (M,)."""

    sample: Tensor
    weight: Tensor

    def spread(self, values: Tensor) -> Tensor:
        """One value per sample (B,) to one per token (M, 1)."""
        return values[self.sample][:, None]

    def mean(self, values: Tensor) -> Tensor:
        """The weighted mean of one value per token (M,)."""
        return (self.weight * values).sum() / self.weight.sum()

    def sample_means(self, values: Tensor) -> Tensor:
        """The unweighted mean (B,) over each sample's tokens of one value per token (M,)."""
        counts = torch.bincount(self.sample)
        return values.new_zeros(len(counts)).index_add(0, self.sample, values) / counts


@dataclass(frozen=True)
class LatentBatch:
    """Encoded samples of any tasks, packed: N tokens, of which M are noisy."""

    tasks: tuple[Task, ...]
    layouts: list[SlotLayout]
    latents: Tensor  # (N, 64)
    noisy: Tensor  # (N,) bool
    tokens: NoisyTokens

    def fill(self, x: Tensor) -> Tensor:
        """All tokens (N, 64): `x` (M, 64) on the noisy ones, the encoded latents on the clean ones."""
        return self.latents.masked_scatter(self.noisy[:, None], x)

    def random_levels(self, noise_shift: Mapping[Task, float] = NOISE_SHIFT) -> Tensor:
        """One random noise level per sample (B,), leaning to 1 as its task's do."""
        shift = torch.tensor([noise_shift[task] for task in self.tasks], device=self.latents.device)
        return shift_linear(torch.rand_like(shift), shift)


def latent_batch(samples: Sequence[TrainingSample], device: torch.device) -> LatentBatch:
    """Pack encoded samples onto a device."""
    layouts = [sample.sample for sample in samples]
    noisy = torch.cat([layout.expand([not slot.clean for slot in layout.slots]) for layout in layouts])
    weight = torch.cat([layout.expand([TOKEN_WEIGHT[slot.role] for slot in layout.slots]) for layout in layouts])
    lengths = torch.tensor([layout.token_count for layout in layouts])
    sample = torch.arange(len(layouts)).repeat_interleave(lengths)
    return LatentBatch(
        tuple(sample.task for sample in samples),
        layouts,
        torch.cat([sample.tokens for sample in samples]).to(device, torch.float32),
        noisy.to(device),
        NoisyTokens(sample[noisy].to(device), weight[noisy].to(device)),
    )


def add_noise(x0: Tensor, noise: Tensor, level: Tensor) -> Tensor:
    """x_sigma (M, 64) at noise levels (M, 1)."""
    return (1 - level) * x0 + level * noise


def velocity_loss(velocity: Velocity, x0: Tensor, sigma: Tensor, tokens: NoisyTokens) -> Tensor:
    """Weighted mean squared error of the velocity from x0 (M, 64) to fresh noise, at noise levels (B,)."""
    noise = torch.randn_like(x0)
    predicted = velocity(add_noise(x0, noise, tokens.spread(sigma)), sigma)
    return tokens.mean((predicted - (noise - x0)).square().mean(-1))


def attention_on(device: torch.device) -> Attention:
    """The attention function that trains fastest on a device."""
    return plain_attention if device.type == "cpu" else F.scaled_dot_product_attention


def plain_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention as two matrix products in the keys' autocast precision: on a CPU a training step takes 0.84 of the time
    that it takes with `scaled_dot_product_attention`, whose backward pass is slow there (docs/notes.md)."""
    precision = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else q.dtype
    q, k, v = (x.to(precision) for x in (q, k, v))  # (1, heads, S, dim)
    with torch.autocast("cpu", enabled=False):
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        return torch.softmax(scores, -1, dtype=torch.float32).to(precision) @ v
