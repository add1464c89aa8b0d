"""Tensors that FSDP2 has sharded over processes. Every function here also takes a plain tensor, and then does nothing to it."""

import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate


def is_first_process() -> bool:
    """Whether this process is the one that writes files."""
    return not dist.is_initialized() or dist.get_rank() == 0


def local(tensor: Tensor) -> Tensor:
    """This process's part of a tensor; changing it changes the tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def gather(tensor: Tensor) -> Tensor:
    """The whole tensor; all processes must call this together."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def place_like(whole: Tensor, like: Tensor) -> Tensor:
    """`whole`, the same on all processes, moved to the device of `like` and sharded as it is."""
    whole = whole.to(like.device)
    if not isinstance(like, DTensor):
        return whole
    mesh = like.device_mesh
    replicated = DTensor.from_local(whole, mesh, [Replicate()] * mesh.ndim, run_check=False)
    return replicated.redistribute(mesh, like.placements)
