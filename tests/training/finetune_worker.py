"""What each of two processes does in `test_finetune.py`: fine-tune sharded, and compare with one process.

Started by torchrun as `finetune_worker.py FOLDER`; FOLDER holds a checkpoint and samples and receives the results.
"""

import sys
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
from finetune_setup import CPU, PAIRS, TRAINING, exact_loss, small_model
from torch.distributed.tensor import DTensor

from mrt_core.training.finetune import Finetuning, finetune
from mrt_core.training.muon import muon_for
from mrt_core.training.processes import start_device
from mrt_core.training.samples import read_shard
from mrt_core.training.sharding import gather
from mrt_core.training.state import TrainingState

SHARDED = replace(TRAINING, steps=2, save_every=1, sharded=True)


def check_same_steps(folder: Path, low_rank) -> None:
    """Two steps of two processes with a sample each, and of one process with both: the same weights."""
    samples = read_shard(folder / "samples" / "samples-0000-00000.safetensors")
    models = [
        small_model(folder / "small.safetensors", folder / "samples", low_rank, training, recompute)
        for training, recompute in ((TRAINING, False), (SHARDED, True))
    ]
    states = [TrainingState(m.trained, muon_for(m.trained, set(), 0.0, 1e-3), ema_decay=0.9) for m in models]
    start = {name: parameter.detach().clone() for name, parameter in models[0].trained.named_parameters()}
    assert all(isinstance(parameter, DTensor) for parameter in models[1].trained.parameters())
    for step in range(2):
        sum(exact_loss(models[0], sample, 10 * step + k) / 2 for k, sample in enumerate(samples)).backward()
        rank = dist.get_rank()
        exact_loss(models[1], samples[rank], 10 * step + rank).backward()
        norms = [state.apply_gradients(1.0) for state in states]
        assert abs(norms[0] - norms[1]) < 1e-4 * norms[0], norms
    sharded = {name: gather(parameter) for name, parameter in models[1].trained.named_parameters()}
    moved = 0
    for name, expected in models[0].trained.named_parameters():
        assert (sharded[name] - expected).abs().max() < 1e-4, name
        moved += int((expected - start[name]).abs().max() > 5e-4)
    assert moved > 0.8 * len(start)
    with torch.no_grad():
        losses = [float(exact_loss(model, samples[0], 99)) for model in models]
    assert abs(losses[0] - losses[1]) < 1e-4, losses


def main(folder: Path) -> None:
    assert start_device()[1] == CPU and dist.get_world_size() == 2
    check_same_steps(folder, None)
    check_same_steps(folder, PAIRS)
    paths = folder / "small.safetensors", folder / "samples"
    for steps in (2, 3):  # the second run goes on where the first one ended
        settings = Finetuning(replace(SHARDED, steps=steps), recompute=True)
        finetune(*paths, folder / "whole", folder / f"whole-{steps}.safetensors", settings)
        dist.barrier()
    finetune(*paths, folder / "pairs", folder / "lora.safetensors", Finetuning(SHARDED, PAIRS))  # bf16 beside fp32
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
