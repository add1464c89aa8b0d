"""LoRA files: one `.safetensors` with a pair of matrices per layer, read in any naming and written in one."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..checkpoints.info import Sampling
from ..models.configs import TransformerConfig
from ..weights.keys import INFO_KEY
from ..weights.safetensors_file import read_tensors, save_atomically
from ..weights.safetensors_header import read_header
from .names import ALPHA_SUFFIX, DIFFERENCE_SUFFIXES, SAVED_PREFIX, SAVED_SUFFIXES, Part
from .resolution import resolve_tensors
from .scale import read_scales
from .student import read_student_sampling, sampling_to_json


class LowRank(NamedTuple):
    """A change `scale * up @ down` of a weight (out, in): `up` (out, rank), `down` (rank, in), `scale` alpha / rank."""

    up: Tensor
    down: Tensor
    scale: float = 1.0


@dataclass(frozen=True)
class Lora:
    """What a LoRA file changes, by the names of the model's layers and parameters; a student also says how to sample."""

    low_rank: Mapping[str, LowRank]  # by layer
    differences: Mapping[str, Tensor]  # by parameter, of its shape
    sampling: Sampling | None = None


def read_lora(path: Path | str, config: TransformerConfig) -> Lora:
    """Read a LoRA for a transformer of these sizes, in any naming; factors keep the precision they are stored in.

    Raises MRTError, in one sentence, for a file that is no plain LoRA or does not fit the transformer
    (architecture: LoRA names).
    """
    path = Path(path)
    header = read_header(path)
    match = resolve_tensors(path.name, header, config)
    found_scales = read_scales(path, header, match)
    names = {name: key for key, name in match.tensors.items() if key[1] is not Part.ALPHA}
    tensors = {names[name]: _at_least_16_bit(tensor) for name, tensor in read_tensors(path, names)}
    low_rank = {
        layer: LowRank(tensors[layer, Part.UP], tensors[layer, Part.DOWN], found_scales[layer]) for layer in match.ranks
    }
    differences = {
        f"{layer}.{part}": tensor for (layer, part), tensor in tensors.items() if part in (Part.WEIGHT, Part.BIAS)
    }
    return Lora(low_rank, differences, read_student_sampling(path, header.metadata))


def _at_least_16_bit(tensor: Tensor) -> Tensor:
    """The tensor, in bf16 if it was fp8, which nothing can be computed with; bf16 holds every fp8 value."""
    return tensor if tensor.element_size() > 1 else tensor.bfloat16()


def save_lora(path: Path | str, lora: Lora) -> None:
    """Write a LoRA, or nothing, with an alpha per layer; with a sampling it is a student's. Raises MRTError."""
    down, up = SAVED_SUFFIXES
    tensors = {}
    for layer, delta in lora.low_rank.items():
        name = SAVED_PREFIX + layer
        tensors |= {name + down: delta.down, name + up: delta.up}
        tensors[name + ALPHA_SUFFIX] = torch.tensor(delta.scale * len(delta.down))
    for parameter, difference in lora.differences.items():
        layer, _, part = parameter.rpartition(".")
        tensors[SAVED_PREFIX + layer + DIFFERENCE_SUFFIXES[Part(part)]] = difference
    metadata = {"format": "pt"}
    if lora.sampling is not None:
        metadata[INFO_KEY] = sampling_to_json(lora.sampling)
    save_atomically(tensors, Path(path), metadata)
