"""The student: distil the teacher with its guidance into a network of few steps, by DMD2 (paper section 3.3).

One network serves a number of steps and twice that number, in turn in training: with one shift, the noise levels of the
smaller number are among those of the larger. Clean slots keep their latents at t = 0 in all three networks, so that images
that are taken apart need no treatment of their own but a guidance of 1, as the teacher has there.
"""

import copy
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..checkpoints.info import Sampling
from ..errors import MRTError
from ..models.sequence import PackedBatch
from ..models.transformer import MaskedRegionTransformer
from ..sampling.samplers import guided
from ..sampling.schedule import shifted_sigmas
from ..tasks.slots import EMPTY_PROMPT, Task
from .distribution_matching import distribution_matching_loss, predict_clean, simulate
from .flow_matching import LatentBatch, Velocity, attention_on, latent_batch, velocity_loss
from .muon import muon_for
from .processes import average_gradients, start_device
from .samples import TrainingSample
from .state import OptimisedModule, TrainingState, state_metadata, warmup_stable_decay
from .teacher import TASK_SHARES, SamplePool, TeacherModel

log = logging.getLogger(__name__)

UNGUIDED = (Task.IMAGE_TO_LAYERS,)
ROUNDS_PER_LOG = 10


@dataclass(frozen=True)
class StudentTraining:
    """Settings of a run; a step is one update of the student, and `batch` counts samples per device."""

    steps: int = 1000
    batch: int = 16
    fake_updates: int = 5  # of the fake score per update of the student
    cfg: float = 2.0  # the teacher's guidance, in all tasks but image to layers
    student_steps: int = 8  # sampling steps; twice as many are trained too
    shift: float = 3.0  # of the sampling schedule
    learning_rate: float = 1e-4
    fake_learning_rate: float = 2e-4
    warmup: int = 20
    decay_share: float = 0.25
    ema_decay: float = 0.99
    prompt_dropout: float = 0.1
    save_every: int = 20
    seed: int = 0
    shares: Mapping[Task, float] = field(default_factory=lambda: TASK_SHARES)

    @property
    def sampling(self) -> Sampling:
        """How the student is meant to be sampled."""
        return Sampling(steps=self.student_steps, cfg=1.0, shift=self.shift, solver="renoise")

    def sigmas(self, step: int) -> Tensor:
        """The schedule of one training step: the student's number of steps and twice that number, in turn."""
        return shifted_sigmas(self.student_steps * (1 + step % 2), self.shift)


@dataclass(frozen=True)
class Distillation:
    """One batch under its prompts, and without them, as the teacher's guidance compares the two."""

    batch: LatentBatch
    prompted: PackedBatch
    unprompted: PackedBatch
    guidance: Tensor  # (M, 1)

    def velocity(self, transformer: MaskedRegionTransformer) -> Velocity:
        """A network's velocity of the noisy tokens under the prompts."""
        return self._velocity(transformer, self.prompted)

    def guided_velocity(self, transformer: MaskedRegionTransformer) -> Velocity:
        """The velocity as the teacher is sampled with: guided, every token as long as without guidance."""
        conditional, negative = (self._velocity(transformer, packed) for packed in (self.prompted, self.unprompted))
        return guided(conditional, negative, self.guidance)

    def _velocity(self, transformer: MaskedRegionTransformer, packed: PackedBatch) -> Velocity:
        def velocity(x: Tensor, sigma: Tensor) -> Tensor:
            with torch.autocast(x.device.type, torch.bfloat16):
                tokens = transformer(self.batch.fill(x), sigma, packed, attention_on(x.device))
            return tokens[self.batch.noisy].float()

        return velocity


class Networks(NamedTuple):
    """The three networks of DMD2: the frozen teacher, the student, and the score of what the student makes."""

    teacher: TeacherModel
    student: TrainingState
    fake: OptimisedModule


@torch.no_grad()
def distillation(
    teacher: TeacherModel, samples: list[TrainingSample], prompts: list[str], cfg: float, device: torch.device
) -> Distillation:
    """Pack samples with the text states of their prompts and of empty ones."""
    batch = latent_batch(samples, device)
    with torch.autocast(device.type, torch.bfloat16):
        prompted, unprompted = (
            teacher.pack(batch.layouts, texts) for texts in (prompts, [EMPTY_PROMPT] * len(prompts))
        )
    scales = torch.tensor([1.0 if sample.task in UNGUIDED else cfg for sample in samples], device=device)
    return Distillation(batch, prompted, unprompted, batch.tokens.spread(scales))


def train_student(folder: Path, shards: Path, teacher: TeacherModel, settings: StudentTraining) -> None:
    """Distil `teacher` on the prompts and the clean slots of the shards, resuming from `folder`/state.safetensors.

    Under torchrun every process draws batches of its own and gradients are averaged. What a step draws follows from the seed,
    the process and the step's number alone, so that a resumed run ends as an uninterrupted one does. Raises MRTError for a
    state that was trained for another schedule.
    """
    rank, device = start_device()
    teacher.to(device).eval().requires_grad_(False)
    copies = [copy.deepcopy(teacher.transformer).requires_grad_(True) for _ in range(2)]
    rates = settings.learning_rate, settings.fake_learning_rate
    optimizers = [muon_for(network, set(), 0.0, rate) for network, rate in zip(copies, rates, strict=True)]
    student = TrainingState(copies[0], optimizers[0], settings.ema_decay)
    fake = OptimisedModule(copies[1], optimizers[1])
    path = folder / "state.safetensors"
    if path.exists():
        _check_schedule(path, student.resume(path, fake=fake), settings)
        log.info("resumed at step %d", student.step)
    pool = SamplePool(shards)
    pool.reload()
    started, first, losses = time.monotonic(), student.step, []
    while student.step < settings.steps:
        losses.append(_round(Networks(teacher, student, fake), pool, settings, rank, device))
        if student.step % ROUNDS_PER_LOG == 0:
            rate = (student.step - first) / (time.monotonic() - started)
            matching, modelling = np.mean(losses, axis=0)
            losses.clear()
            log.info("step %d matching %.4f fake %.4f steps/s %.3f", student.step, matching, modelling, rate)
        if student.step % settings.save_every == 0 or student.step == settings.steps:
            student.save(path, _schedule(settings), fake=fake)


def _round(
    networks: Networks, pool: SamplePool, settings: StudentTraining, rank: int, device: torch.device
) -> tuple[float, float]:
    """Several updates of the fake score and one of the student, on one simulated batch; the losses of both.

    The steps of one simulation serve all updates of the round: the student does not change before its own.
    """
    teacher, student, fake = networks
    rng = np.random.default_rng((settings.seed, rank, student.step))
    torch.manual_seed(int(rng.integers(2**62)))
    samples = next(pool.batches(rng, settings.batch, settings.shares))
    prompts = [sample.pick_prompt(rng, settings.prompt_dropout) for sample in samples]
    case = distillation(teacher, samples, prompts, settings.cfg, device)
    batch, tokens = case.batch, case.batch.tokens
    student_velocity, fake_velocity = case.velocity(student.module), case.velocity(fake.module)
    noise = torch.randn_like(batch.latents[batch.noisy])
    trajectory = simulate(student_velocity, noise, settings.sigmas(student.step), tokens)

    modelling = []
    for _ in range(settings.fake_updates):
        step = trajectory.random_steps(tokens)
        loss = velocity_loss(fake_velocity, step.outputs, step.comparison_levels(), tokens)
        loss.backward()
        average_gradients(fake.module)
        fake.apply_gradients(1.0)
        modelling.append(loss.item())

    step = trajectory.random_steps(tokens)
    x0 = predict_clean(student_velocity, step.inputs, step.sigma, tokens)
    teacher_velocity = case.guided_velocity(teacher.transformer)
    loss = distribution_matching_loss(x0, step.comparison_levels(), teacher_velocity, fake_velocity, tokens)
    loss.backward()
    average_gradients(student.module)
    student.apply_gradients(warmup_stable_decay(student.step, settings.steps, settings.warmup, settings.decay_share))
    return loss.item(), float(np.mean(modelling))


def _schedule(settings: StudentTraining) -> dict:
    return {"student_steps": settings.student_steps, "shift": settings.shift}


def _check_schedule(path: Path, stored: dict, settings: StudentTraining) -> None:
    if stored != _schedule(settings):
        raise MRTError(
            f"{path} was trained for {stored['student_steps']} steps with shift {stored['shift']:g}, but "
            f"{settings.student_steps} steps with shift {settings.shift:g} were asked for; give the same, or another run folder"
        )


def sampling_of_state(path: Path) -> Sampling:
    """How the student of a training state is meant to be sampled."""
    stored = state_metadata(path)
    return StudentTraining(student_steps=stored["student_steps"], shift=stored["shift"]).sampling
