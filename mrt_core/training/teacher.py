"""The teacher: train the transformer and its text embeddings on encoded samples of all tasks by masked flow matching."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.utils.checkpoint import checkpoint

from ..errors import MRTError
from ..models.configs import TextConfig, TransformerConfig
from ..models.sequence import PackedBatch, SlotLayout, pack_samples
from ..models.text import TextEmbeddings, TextEncoder
from ..models.transformer import MaskedRegionTransformer
from ..tasks.slots import Task
from .flow_matching import NOISE_SHIFT, attention_on, latent_batch, velocity_loss
from .muon import muon_for
from .processes import average_gradients, share_weights, start_device
from .samples import BLANK_CAPTION_SHARE, TrainingSample, any_sample, read_shard
from .state import TrainingState, warmup_stable_decay

log = logging.getLogger(__name__)

TASK_SHARES: Mapping[Task, float] = {
    Task.TEXT_TO_LAYERS: 0.4, Task.IMAGE_TO_LAYERS: 0.3, Task.ADD_LAYERS: 0.15, Task.RESTYLE_LAYERS: 0.15,
}  # fmt: skip

POSITION_DEVIATION = 0.5  # of untrained positions in a caption, where tokens' is 1: a word counts more than its place
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
    image_prompt_dropout: float = BLANK_CAPTION_SHARE  # of image to layers
    save_every: int = 200
    reload_every: int = 200  # steps after which new shards are picked up
    seed: int = 0
    shares: Mapping[Task, float] = field(default_factory=lambda: TASK_SHARES)
    noise_shift: Mapping[Task, float] = field(default_factory=lambda: NOISE_SHIFT)
    accept: Callable[[TrainingSample], bool] = any_sample  # which samples of the shards are trained on
    matrices: bool = True  # Muon for the matrices inside the blocks; False: Adam for everything
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
        self, tokens: Tensor, sigma: Tensor, layouts: list[SlotLayout], prompts: list[str]
    ) -> tuple[Tensor, Tensor]:
        """Velocity (N, 64) of every token, and which of them are noisy (N,)."""
        batch = self.pack(layouts, prompts)
        blocks = self.transformer.transformer_blocks
        if self.recompute:
            blocks = [partial(checkpoint, block, use_reentrant=False, preserve_rng_state=False) for block in blocks]
        return self.transformer(tokens, sigma, batch, attention_on(tokens.device), blocks=blocks), ~batch.clean

    def pack(self, layouts: list[SlotLayout], prompts: list[str]) -> PackedBatch:
        """The samples with the states of their prompts, in fp32."""
        text = [
            states.to(next(self.transformer.parameters()).device).float()
            for states in self.text_encoder.encode_prompts(prompts)
        ]
        return pack_samples(layouts, text, self.text_encoder.anchors(prompts))


class TeacherModel(ConditionedModel):
    """An untrained transformer with the text embeddings that are trained with it."""

    def __init__(self, config: TransformerConfig, text_config: TextConfig, tokenizer: Tokenizer):
        transformer = MaskedRegionTransformer(config, operations=TrainingOperations)
        super().__init__(transformer, TextEmbeddings(text_config, tokenizer))
        initialise(self.transformer)
        nn.init.normal_(self.text_encoder.tokens.weight)
        nn.init.normal_(self.text_encoder.positions.weight, std=POSITION_DEVIATION)


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
    """The accepted samples of the shards in a folder, drawn at random; `reload` picks up shards that have come since."""

    def __init__(self, folder: Path, accept: Callable[[TrainingSample], bool] = any_sample):
        self.folder, self.accept = folder, accept
        self.samples: list[TrainingSample] = []
        self._read: set[Path] = set()

    def reload(self) -> None:
        for path in sorted(self.folder.glob("samples-*.safetensors")):
            if path not in self._read:
                self._read.add(path)
                self.samples += filter(self.accept, read_shard(path))

    def batches(
        self, rng: np.random.Generator, size: int, shares: Mapping[Task, float]
    ) -> Iterator[list[TrainingSample]]:
        """Endless random batches with tasks in given shares, which add up to 1; image-to-layers samples also serve as text
        to layers, without their image. Raises MRTError for a task that no sample serves."""
        while True:
            candidates = {task: self.serving(task) for task, share in shares.items() if share > 0}
            for _ in range(BATCHES_PER_LOOK):
                numbers = rng.choice(len(shares), size=size, p=list(shares.values()))
                yield [_draw(rng, task, candidates[task]) for task in (list(shares)[number] for number in numbers)]

    def serving(self, task: Task) -> list[TrainingSample]:
        """What batches draw from for a task; raises MRTError where there is none."""
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
    model: nn.Module,
    samples: list[TrainingSample],
    prompts: list[str],
    device: torch.device,
    noise_shift: Mapping[Task, float] = NOISE_SHIFT,
) -> Tensor:
    """Weighted mean squared velocity error over the noisy tokens of a batch, at one random noise level per sample, which
    leans to 1 by its task's shift."""
    batch = latent_batch(samples, device)

    def velocity(x: Tensor, sigma: Tensor) -> Tensor:
        with torch.autocast(
            device.type, torch.bfloat16, cache_enabled=False
        ):  # or it would keep a copy of every weight
            return model(batch.fill(x), sigma, batch.layouts, prompts)[0][batch.noisy].float()

    return velocity_loss(velocity, batch.latents[batch.noisy], batch.random_levels(noise_shift), batch.tokens)


def train_teacher(folder: Path, shards: Path, model: TeacherModel, settings: TeacherTraining) -> None:
    """Train `model` on the shards, resuming from `folder`/state.safetensors; see `train`."""
    _, device = start_device()
    torch.manual_seed(settings.seed)
    model.to(device)
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
        share_weights(trained)
    matrices = _hidden_matrices(model) if settings.matrices else set()
    optimizer = muon_for(trained, matrices, settings.matrix_learning_rate, settings.learning_rate, 0.01)
    state = TrainingState(trained, optimizer, settings.ema_decay)
    path = folder / "state.safetensors"
    if path.exists():
        state.resume(path)
        log.info("resumed at step %d", state.step)
    pool = SamplePool(shards, settings.accept)
    pool.reload()
    rng = np.random.default_rng((settings.seed, rank, state.step))
    torch.manual_seed(hash((settings.seed, rank, state.step)) % 2**31)
    batches = pool.batches(rng, settings.batch, settings.shares)
    started, first, losses = time.monotonic(), state.step, []
    while state.step < settings.steps:
        samples = next(batches)
        prompts = [
            sample.pick_prompt(rng, settings.prompt_dropout, settings.image_prompt_dropout) for sample in samples
        ]
        loss = flow_matching_loss(model, samples, prompts, device, settings.noise_shift)
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


def _hidden_matrices(model: nn.Module) -> set[str]:
    """The matrices inside the blocks; inputs, outputs, embeddings, modulations and norms are left to Adam."""
    inside = "transformer.transformer_blocks."
    return {
        name
        for name, parameter in model.named_parameters()
        if parameter.ndim == 2 and name.startswith(inside) and "_mod." not in name
    }
