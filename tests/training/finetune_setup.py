"""A small checkpoint and samples of its own, which the tests of fine-tuning and their worker share."""

from pathlib import Path

import torch
from tiny_checkpoints import tiny_checkpoint
from torch import Tensor, nn

from mrt_core.checkpoints.checkpoint import save_checkpoint
from mrt_core.designs.generator import DesignSettings, generate_design
from mrt_core.tasks.region_codec import RegionCodec
from mrt_core.tasks.slots import Task, slot_layout
from mrt_core.training.finetune import Finetuning, build_model, open_checkpoint
from mrt_core.training.low_rank import LowRankTraining
from mrt_core.training.samples import Example, TrainingSample, write_shard
from mrt_core.training.teacher import TeacherTraining, flow_matching_loss

CPU = torch.device("cpu")
SHARES = {Task.TEXT_TO_LAYERS: 0.5, Task.RESTYLE_LAYERS: 0.5}
TRAINING = TeacherTraining(
    steps=8, batch=2, learning_rate=1e-2, warmup=1, decay_share=0, ema_decay=0.5, shares=SHARES, matrices=False
)
PAIRS = LowRankTraining(rank=4, alpha=8.0)


def save_small(path: Path, text_encoder: bool = True) -> None:
    """A random checkpoint in fp32, with something to see in every weight."""
    checkpoint = tiny_checkpoint()
    with torch.no_grad():
        for parameter in checkpoint.transformer.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    if not text_encoder:
        checkpoint.text_encoder = None
        checkpoint.info = type(checkpoint.info)(checkpoint.info.transformer, checkpoint.info.autoencoder)
    save_checkpoint(path, checkpoint, torch.float32)


def write_samples(folder: Path, autoencoder) -> None:
    """One sample to make and one to restyle, of the same design."""
    design = generate_design(0, DesignSettings(frame_area=48 * 48))
    drawn = [
        Example(design, task, targets, slot_layout(task, design.layout, targets), ("a red cat", "a blue boat")).drawn()
        for task, targets in ((Task.TEXT_TO_LAYERS, ()), (Task.RESTYLE_LAYERS, (0,)))
    ]
    write_shard(folder / "samples-0000-00000.safetensors", drawn, RegionCodec(autoencoder))


class Exact(nn.Module):
    """A model in its weights' own precision, whatever autocast says."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, *inputs):
        with torch.autocast("cpu", enabled=False):
            return self.model(*inputs)


def small_model(checkpoint: Path, samples: Path, low_rank: LowRankTraining | None, training=TRAINING, recompute=False):
    settings = Finetuning(training, low_rank, torch.float32, recompute)
    return build_model(open_checkpoint(checkpoint), samples, settings, CPU)


def exact_loss(model: nn.Module, sample: TrainingSample, seed: int) -> Tensor:
    """The loss of one sample under noise that follows from `seed`."""
    torch.manual_seed(seed)
    return flow_matching_loss(Exact(model), [sample], ["a cat"], CPU)
