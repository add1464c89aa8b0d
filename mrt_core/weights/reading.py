"""The tensors of weights in any of their forms, as they are stored."""

import math
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from .gguf_file import GGUFFile
from .gguf_types import PLAIN_TYPES
from .safetensors_file import TORCH_DTYPES, read_tensors
from .source import JoinedWeights, SafetensorsFile, WeightSource


def read_weights(
    source: WeightSource, names: Iterable[str], device: str | torch.device = "cpu"
) -> Iterator[tuple[str, Tensor]]:
    """The named tensors as they are stored, one after another; raises MRTError for a damaged file.

    GGUF's are plain numbers, or rows of blocks (rows, bytes) in uint8.
    """
    match source:
        case SafetensorsFile():
            yield from read_tensors(source.path, names, device)
        case JoinedWeights():
            for file, logical in source.by_file(names):
                for stored, tensor in read_tensors(file.path, logical, device):
                    yield logical[stored], tensor
        case GGUFFile():
            yield from _read_gguf(source, names, device)


def _read_gguf(source: GGUFFile, names: Iterable[str], device: str | torch.device) -> Iterator[tuple[str, Tensor]]:
    with source.path.open("rb") as file:
        for name in names:
            raw = torch.empty(source.extents[name].length, dtype=torch.uint8)
            source.fill(file, name, raw.numpy().data)
            dtype, shape = source.tensors[name]
            rows = math.prod(source.stored_shapes[name][:-1])
            plain = raw.view(TORCH_DTYPES[dtype]).reshape(shape) if dtype in PLAIN_TYPES else raw.reshape(rows, -1)
            yield name, plain.to(device)
