"""What each of two processes does in `test_fsdp.py`: train sharded, and compare everything with the unsharded model.

Started by torchrun as `fsdp_worker.py FOLDER`; FOLDER holds the samples and receives the training states.
"""

import sys
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import load_file
from tiny_teacher import make_teacher
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from mrt_core.tasks.slots import Task
from mrt_core.training.muon import muon_for, orthogonalise, orthogonalised
from mrt_core.training.processes import average_gradients
from mrt_core.training.samples import read_shard
from mrt_core.training.sharding import gather, place_like
from mrt_core.training.state import TrainingState
from mrt_core.training.student import StudentTraining, train_student
from mrt_core.training.teacher import TeacherTraining, _hidden_matrices, flow_matching_loss, train_teacher

SHARES = {Task.TEXT_TO_LAYERS: 0.5, Task.RESTYLE_LAYERS: 0.5}
SETTINGS = TeacherTraining(steps=2, batch=2, warmup=1, save_every=1, reload_every=1, shares=SHARES, sharded=True)
AVERAGED = replace(SETTINGS, sharded=False)


def training_state(model):
    return TrainingState(model, muon_for(model, _hidden_matrices(model), 0.01, 1e-3, 0.01), ema_decay=0.9)


def sharded(model):
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for block in model.transformer.transformer_blocks:
        fully_shard(block, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def whole(model):
    return {name: gather(parameter).detach() for name, parameter in model.named_parameters()}


def check_gradients(samples):
    """Each process has a sample of its own, only one of them with condition tokens; the gradient is the mean of both."""
    alone, shared = make_teacher(1), sharded(make_teacher(1))

    def loss(model, number):
        torch.manual_seed(number)
        return flow_matching_loss(model, [samples[number]], ["a cat"], torch.device("cpu"))

    (loss(alone, 0) / 2 + loss(alone, 1) / 2).backward()
    loss(shared, dist.get_rank()).backward()
    for (name, expected), parameter in zip(alone.named_parameters(), shared.parameters(), strict=True):
        assert (expected.grad is None) == (parameter.grad is None), name
        if expected.grad is not None:
            error = (gather(parameter.grad) - expected.grad).norm() / expected.grad.norm().clamp_min(1e-6)
            assert error < 0.02, (name, float(error))  # bfloat16 sums, in another order
    assert gather(shared.transformer.cond_token_embed.weight.grad).norm() > 0


def check_shared_work():
    """Matrices that two processes make orthogonal together are those that one makes alone."""
    torch.manual_seed(3)
    gradients = [torch.randn(shape) for shape in ((8, 8), (4, 12), (12, 4), (2, 3, 5, 5), (6, 6))]
    for gradient, update in zip(gradients, orthogonalised(gradients), strict=True):
        alone = orthogonalise(gradient.flatten(1))
        assert update.shape == alone.shape and torch.equal(update, alone.bfloat16().float())


def check_updates():
    """Two steps with given gradients, so large that they are clipped, change a sharded model as they change a whole one."""
    start = dict(make_teacher(2).named_parameters())
    alone, shared = training_state(make_teacher(2)), training_state(sharded(make_teacher(2)))
    for step in range(2):
        torch.manual_seed(step)
        for plain, part in zip(alone.module.parameters(), shared.module.parameters(), strict=True):
            plain.grad = torch.randn_like(plain)
            part.grad = place_like(plain.grad.clone(), part)
        norms = alone.apply_gradients(0.5), shared.apply_gradients(0.5)
        assert abs(norms[0] - norms[1]) < 1e-4 * norms[0], norms
    parameters = whole(shared.module)
    for name, expected in alone.module.named_parameters():
        moved = (expected - start[name]).norm()
        assert moved > 0, name
        assert (parameters[name] - expected).norm() < 0.02 * moved, name
        assert (gather(shared.ema.average[name]) - alone.ema.average[name]).norm() < 0.02 * moved, name


def check_resuming(path, folder):
    """A sharded model takes over a whole state, and gives the same one back."""
    model = sharded(make_teacher(3))
    state = training_state(model)
    assert state.resume(path) == {}
    assert state.step == SETTINGS.steps
    assert all(isinstance(parameter, DTensor) for parameter in model.parameters())
    stored = load_file(path)
    for name, parameter in whole(model).items():
        assert torch.equal(parameter, stored[f"model.{name}"]), name
    state.save(folder / "again.safetensors", {})
    dist.barrier()
    again = load_file(folder / "again.safetensors")
    assert again.keys() == stored.keys()
    assert all(torch.equal(again[name], stored[name]) for name in stored)
    for parameter in model.parameters():  # the moments are usable, not only stored
        parameter.grad = torch.ones_like(parameter)
    state.apply_gradients(1.0)
    assert all(bool(parameter.isfinite().all()) for parameter in whole(model).values())


def check_averaging():
    """Without sharding, the gradients of all processes are averaged, those that are missing on one counting as zero."""
    model, alone = make_teacher(1), make_teacher(1)
    layer = model.transformer.proj_out
    rank = dist.get_rank()
    if rank == 0:
        layer.weight.grad = torch.full_like(layer.weight, 2.0)
    average_gradients(model)
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert torch.equal(layer.weight.grad, torch.ones_like(layer.weight)) and not layer.bias.grad.any()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), alone.parameters(), strict=True))


def check_averaged_training(folder: Path):
    """Processes that start from different weights end with the same ones, since the first one's are taken."""
    model = make_teacher(dist.get_rank())
    train_teacher(folder / "averaged", folder / "samples", model, AVERAGED)
    for parameter in model.parameters():
        highest = parameter.detach().clone()
        dist.all_reduce(highest, dist.ReduceOp.MAX)
        assert torch.equal(highest, parameter)


def check_students(folder: Path):
    """Processes that distil on noise and batches of their own have the same student and the same fake score afterwards."""
    teacher, shown = make_teacher(1), {}

    def remember(network, inputs):
        shown.setdefault(network, inputs[0])

    teacher.transformer.register_forward_pre_hook(remember)
    settings = StudentTraining(steps=1, batch=1, fake_updates=1, student_steps=2, warmup=1, shares=SHARES)
    train_student(folder / "student", folder / "samples", teacher, settings)
    assert len(shown) == 3
    for network, tokens in shown.items():
        assert network is teacher.transformer or not torch.equal(
            network.proj_out.weight, teacher.transformer.proj_out.weight
        )
        for value, is_shared in [*((parameter, True) for parameter in network.parameters()), (tokens.sum(), False)]:
            highest = value.detach().clone()
            dist.all_reduce(highest, dist.ReduceOp.MAX)
            lowest = value.detach().clone()
            dist.all_reduce(lowest, dist.ReduceOp.MIN)
            assert torch.equal(highest, lowest) == is_shared


def main(folder: Path) -> None:
    train_teacher(folder / "teacher", folder / "samples", make_teacher(0), SETTINGS)
    check_averaged_training(folder)
    assert dist.get_world_size() == 2
    samples = read_shard(folder / "samples" / "samples-0000-00000.safetensors")
    dist.barrier()
    check_gradients(samples)
    check_shared_work()
    check_updates()
    check_averaging()
    check_students(folder)
    check_resuming(folder / "teacher" / "state.safetensors", folder)
    dist.barrier()
    if dist.get_rank() == 0:
        (folder / "done").touch()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
