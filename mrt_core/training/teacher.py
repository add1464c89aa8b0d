"""Masked flow matching: train the transformer and its small text encoder on encoded samples of all tasks.

x_sigma = (1 - sigma) x0 + sigma eps on the noisy slots, x0 on the clean ones; the network predicts eps - x0 and the mean
squared error counts noisy tokens alone (paper section 3.2, equations 1 and 2).
"""

import logging
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.utils.checkpoint import checkpoint

from ..errors import MRTError
from ..schedule import shift_linear
from ..sequence import Role, SampleLayout, pack_samples
from ..tasks import Task
from ..text import SmallTextConfig, SmallTextEncoder, TextEncoder
from ..transformer import MaskedRegionTransformer, TransformerConfig
from .muon import muon_for
from .samples import TrainingSample, read_shard
from .state import TrainingState, warmup_stable_decay

log = logging.getLogger(__name__)

# How far the noise levels of a task lean to 1. What a text says counts where nothing can be seen yet: with even levels, a
# small model did not learn to follow text at all (docs/results.md).
NOISE_SHIFT: Mapping[Task, float] = {
    Task.TEXT_TO_LAYERS: 4.0, Task.IMAGE_TO_LAYERS: 3.0, Task.ADD_LAYERS: 4.0, Task.RESTYLE_LAYERS: 3.0,
}  # fmt: skip

TASK_SHARES: Mapping[Task, float] = {
    Task.TEXT_TO_LAYERS: 0.4, Task.IMAGE_TO_LAYERS: 0.3, Task.ADD_LAYERS: 0.15, Task.RESTYLE_LAYERS: 0.15,
}  # fmt: skip

# How much a token counts in the loss. Layers are what the model is for and have the fewest tokens; a composite that is made
# beside them is not looked at afterwards.
TOKEN_WEIGHT: Mapping[Role, float] = {Role.COMPOSITE: 0.5, Role.BACKGROUND: 1.0, Role.LAYER: 2.0, Role.CONDITION: 0.0}


BATCHES_PER_LOOK = 100  # after which new samples in the pool count


@dataclass(frozen=True)
class TeacherTraining:
    """Settings of a run; `batch` counts samples per device."""

    steps: int = 20_000
    batch: int = 32
    matrix_learning_rate: float = 0.02
    learning_rate: float = 1e-3
    warmup: int = 100
    decay_share: float = 0.25
    ema_decay: float = 0.998
    prompt_dropout: float = 0.1
    save_every: int = 200
    reload_every: int = 200  # steps after which new shards are picked up
    seed: int = 0
    shares: Mapping[Task, float] = field(default_factory=lambda: TASK_SHARES)
    matrices: bool = True  # Muon for the matrices inside the blocks; False: AdamW for everything
    train_text: bool = False  # a warmed-up encoder forgets its words when it is trained on (docs/results.md)
    sharded: bool = False  # under torchrun: FSDP2 in place of averaged gradients


class TrainingOperations:
    """torch.nn's layers, with norms that compute in their weight's precision under autocast."""

    Linear, Embedding, LayerNorm = nn.Linear, nn.Embedding, nn.LayerNorm

    class RMSNorm(nn.RMSNorm):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.to(self.weight.dtype))


class ConditionedModel(nn.Module):
    """A transformer with the text encoder that reads its prompts: what `train` takes.

    With `recompute`, activations inside the blocks are not kept for the backward pass but computed again there.
    """

    def __init__(self, transformer: MaskedRegionTransformer, text_encoder: TextEncoder, recompute: bool = False):
        super().__init__()
        self.transformer, self.text_encoder, self.recompute = transformer, text_encoder, recompute

    @property
    def trained(self) -> nn.Module:
        """The module whose parameters are optimised, averaged over time and kept in the run's state."""
        return self

    def forward(
        self, tokens: Tensor, sigma: Tensor, layouts: list[SampleLayout], prompts: list[str]
    ) -> tuple[Tensor, Tensor]:
        """Velocity (N, 64) of every token, and which of them are noisy (N,)."""
        text = [states.to(tokens) for states in self.text_encoder.encode_prompts(prompts)]
        batch = pack_samples(layouts, text, self.text_encoder.caption_indices(prompts))
        attend = F.scaled_dot_product_attention if tokens.is_cuda else plain_attention
        blocks = self.transformer.transformer_blocks
        if self.recompute:
            blocks = [partial(checkpoint, block, use_reentrant=False, preserve_rng_state=False) for block in blocks]
        return self.transformer(tokens, sigma, batch, attend, blocks=blocks), ~batch.clean


class TeacherModel(ConditionedModel):
    """An untrained transformer with the small text encoder that it is trained with."""

    def __init__(self, config: TransformerConfig, text_config: SmallTextConfig, tokenizer: Tokenizer):
        transformer = MaskedRegionTransformer(config, operations=TrainingOperations)
        super().__init__(transformer, SmallTextEncoder(text_config, tokenizer))
        initialise(self.transformer)


def plain_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention as two matrix products in the keys' autocast precision: on a CPU a training step takes 0.84 of the time
    that it takes with `scaled_dot_product_attention`, whose backward pass is slow there (docs/results.md)."""
    precision = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else q.dtype
    q, k, v = (x.to(precision) for x in (q, k, v))  # (1, heads, S, dim)
    with torch.autocast("cpu", enabled=False):
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        return torch.softmax(scores, -1, dtype=torch.float32).to(precision) @ v


@torch.no_grad()
def initialise(transformer: MaskedRegionTransformer) -> None:
    """Xavier weights, zero biases, closed modulations and a zero output: every block starts as the identity."""
    for module in transformer.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    for block in transformer.transformer_blocks:
        nn.init.zeros_(block.img_mod[1].weight)
        nn.init.zeros_(block.txt_mod[1].weight)
    for module in (transformer.norm_out.linear, transformer.proj_out):
        nn.init.zeros_(module.weight)
    if transformer.config.condition_embedding:
        nn.init.zeros_(transformer.cond_token_embed.weight)


class SamplePool:
    """All samples of the shards in a folder, drawn at random; `reload` picks up shards that have come since."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.samples: list[TrainingSample] = []
        self._read: set[Path] = set()

    def reload(self) -> None:
        for path in sorted(self.folder.glob("samples-*.safetensors")):
            if path not in self._read:
                self._read.add(path)
                self.samples += read_shard(path)

    def batches(
        self, rng: np.random.Generator, size: int, shares: Mapping[Task, float]
    ) -> Iterator[list[TrainingSample]]:
        """Endless random batches with tasks in given shares, which add up to 1; image-to-layers samples also serve as text
        to layers, without their image. Raises MRTError for a task that no sample serves."""
        while True:
            candidates = {task: self._serving(task) for task, share in shares.items() if share > 0}
            for _ in range(BATCHES_PER_LOOK):
                numbers = rng.choice(len(shares), size=size, p=list(shares.values()))
                yield [_draw(rng, task, candidates[task]) for task in (list(shares)[number] for number in numbers)]

    def _serving(self, task: Task) -> list[TrainingSample]:
        tasks = {task, Task.IMAGE_TO_LAYERS} if task is Task.TEXT_TO_LAYERS else {task}
        samples = [sample for sample in self.samples if sample.task in tasks]
        if not samples:
            raise MRTError(
                f"{self.folder} holds no samples for {task}, which has a share of the training; draw more with "
                "`mrt train samples`, or set its share to 0"
            )
        return samples


def _draw(rng: np.random.Generator, task: Task, candidates: list[TrainingSample]) -> TrainingSample:
    sample = candidates[int(rng.integers(len(candidates)))]
    return sample if sample.task is task else sample.without_image()


def flow_matching_loss(
    model: nn.Module, samples: list[TrainingSample], prompts: list[str], device: torch.device
) -> Tensor:
    """Weighted mean squared velocity error over the noisy tokens of a batch, at one random noise level per sample."""
    clean_latents = torch.cat([sample.tokens for sample in samples]).to(device, torch.float32)  # (N, 64)
    shift = torch.tensor([NOISE_SHIFT[sample.task] for sample in samples], device=device)
    sigma = shift_linear(torch.rand(len(samples), device=device), shift)
    noise = torch.randn_like(clean_latents)
    layouts = [sample.sample for sample in samples]
    lengths = torch.tensor([layout.token_count for layout in layouts], device=device)
    noisy = torch.cat([layout.expand([not slot.clean for slot in layout.slots]) for layout in layouts]).to(device)
    level = (sigma.repeat_interleave(lengths) * noisy)[:, None]  # (N, 1), 0 on clean tokens
    with torch.autocast(device.type, torch.bfloat16, cache_enabled=False):  # or it would keep a copy of every weight
        velocity, _ = model((1 - level) * clean_latents + level * noise, sigma, layouts, prompts)
    roles = [[TOKEN_WEIGHT[slot.role] for slot in layout.slots] for layout in layouts]
    weight = torch.cat([layout.expand(role) for layout, role in zip(layouts, roles, strict=True)]).to(device)[noisy]
    error = (velocity.float() - (noise - clean_latents))[noisy].square().mean(-1)  # (noisy tokens,)
    return (weight * error).sum() / weight.sum()


def train_teacher(folder: Path, shards: Path, model: TeacherModel, settings: TeacherTraining) -> None:
    """Train `model` on the shards, resuming from `folder`/state.safetensors; see `train`."""
    device = start_device()
    torch.manual_seed(settings.seed)
    model.to(device)
    model.text_encoder.requires_grad_(settings.train_text)
    if dist.is_initialized() and settings.sharded:
        shard_blocks(model, device)
    train(folder, shards, model, settings, device)


def shard_blocks(model: ConditionedModel, device: torch.device) -> None:
    """Shard a model over all processes, block by block (FSDP2), for models that one device does not hold."""
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for block in model.transformer.transformer_blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)


def train(folder: Path, shards: Path, model: ConditionedModel, settings: TeacherTraining, device: torch.device) -> None:
    """Train a model that lies on its device already, resuming from `folder`/state.safetensors.

    Under torchrun every process draws batches of its own; the model is the same everywhere and gradients are averaged, or
    it has been sharded over the devices.
    """
    rank = dist.get_rank() if dist.is_initialized() else 0
    trained = model.trained
    averaged = dist.is_initialized() and not settings.sharded
    if averaged:
        for parameter in trained.parameters():
            dist.broadcast(parameter.data, 0)
    matrices = _hidden_matrices(model) if settings.matrices else set()
    optimizer = muon_for(trained, matrices, settings.matrix_learning_rate, settings.learning_rate, 0.01)
    state = TrainingState(trained, optimizer, settings.ema_decay)
    path = folder / "state.safetensors"
    if path.exists():
        state.resume(path)
        log.info("resumed at step %d", state.step)
    pool = SamplePool(shards)
    pool.reload()
    rng = np.random.default_rng((settings.seed, rank, state.step))
    torch.manual_seed(hash((settings.seed, rank, state.step)) % 2**31)
    batches = pool.batches(rng, settings.batch, settings.shares)
    started, first, losses = time.monotonic(), state.step, []
    while state.step < settings.steps:
        samples = next(batches)
        prompts = [sample.pick_prompt(rng, settings.prompt_dropout) for sample in samples]
        loss = flow_matching_loss(model, samples, prompts, device)
        loss.backward()
        if averaged:
            average_gradients(model)
        factor = warmup_stable_decay(state.step, settings.steps, settings.warmup, settings.decay_share)
        state.apply_gradients(factor)
        losses.append(loss.detach())
        if state.step % 50 == 0:
            rate = (state.step - first) / (time.monotonic() - started)
            mean = float(torch.stack(losses).mean())
            losses.clear()
            log.info("step %d loss %.4f steps/s %.3f pool %d", state.step, mean, rate, len(pool.samples))
        if state.step % settings.reload_every == 0:
            pool.reload()
        if state.step % settings.save_every == 0 or state.step == settings.steps:
            state.save(path, {})


def average_gradients(model: nn.Module) -> None:
    """Replace every gradient by its mean over the processes, in one transfer; one that is missing here counts as 0."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for parameter, mean in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        parameter.grad = mean.view_as(parameter)


def start_device() -> torch.device:
    """This process's device; joins the process group when torchrun started it."""
    if "LOCAL_RANK" not in os.environ:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    local = int(os.environ["LOCAL_RANK"])
    device = torch.device("cuda", local) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return device


def _hidden_matrices(model: nn.Module) -> set[str]:
    """The matrices inside the blocks; inputs, outputs, embeddings, modulations and norms are left to AdamW."""
    inside = ("transformer.transformer_blocks.", "text_encoder.blocks.")
    return {
        name
        for name, parameter in model.named_parameters()
        if parameter.ndim == 2 and name.startswith(inside) and "_mod." not in name
    }
