"""Training in several processes that torchrun started: where each one works, and what they share."""

import os

import torch
import torch.distributed as dist
from torch import nn


def start_device() -> tuple[int, torch.device]:
    """This process's rank and device; joins the process group when torchrun started it."""
    if "LOCAL_RANK" not in os.environ:
        return 0, torch.device("cuda" if torch.cuda.is_available() else "cpu")
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    device, backend = place_process(int(os.environ["LOCAL_RANK"]), processes, torch.cuda.device_count())
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        dist.init_process_group(backend)
    return dist.get_rank(), device


def place_process(number: int, processes: int, gpus: int) -> tuple[torch.device, str]:
    """The device and the backend of one process of several on a machine.

    Where there are more processes than GPUs they share them, which a small model needs: what packs its batches is the
    processor. NCCL allows one process per GPU, so that these talk through gloo.
    """
    if not gpus:
        return torch.device("cpu"), "gloo"
    return torch.device("cuda", number % gpus), "nccl" if processes <= gpus else "gloo"


def share_weights(model: nn.Module) -> None:
    """Give every process the first one's weights."""
    if dist.is_initialized():
        for parameter in model.parameters():
            dist.broadcast(parameter.data, 0)


def average_gradients(model: nn.Module) -> None:
    """Replace every gradient by its mean over the processes, in one transfer; one that is missing here counts as 0."""
    if not dist.is_initialized():
        return
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for parameter, mean in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        parameter.grad = mean.view_as(parameter)
