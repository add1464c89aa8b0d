"""LoRA files: one `.safetensors` with a pair of matrices per layer, read in any naming and written in one."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ..checkpoints.info import Sampling
from ..errors import MRTError
from ..models.configs import TransformerConfig
from ..weights.keys import INFO_KEY
from ..weights.safetensors_file import read_tensors, save_atomically
from ..weights.safetensors_header import read_header
from .adapters import Adapter, Decomposed, Hadamard, Kronecker, LowRank
from .factors import LOHA_PARTS, LOKR_SIDES, Kind
from .names import ALPHA_SUFFIX, DIFFERENCE_SUFFIXES, SAVED_PREFIX, SAVED_SUFFIXES, Part, model_layers
from .resolution import resolve_tensors
from .scale import read_scales
from .student import read_student_sampling, sampling_to_json

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Lora:
    """What a LoRA file changes, by the names of the model's layers and parameters; a student also says how to sample."""

    low_rank: Mapping[str, LowRank]  # by layer
    differences: Mapping[str, Tensor]  # by parameter, of its shape
    sampling: Sampling | None = None
    adapters: Mapping[str, Adapter] = field(default_factory=dict)  # changes of other kinds, by layer


def read_lora(path: Path | str, config: TransformerConfig) -> Lora:
    """Read a LoRA for a transformer of these sizes, in any naming; factors keep the precision they are stored in.

    Raises MRTError, in one sentence, for a file that is no plain LoRA or does not fit the transformer
    (architecture: LoRA names).
    """
    path = Path(path)
    header = read_header(path)
    match = resolve_tensors(path.name, header, config)
    if match.text_encoder:
        log.warning(
            "%s has a half for a text encoder too, %d tensors such as %s, which is not used",
            path.name, len(match.text_encoder), match.text_encoder[0],
        )  # fmt: skip
    for misfit in match.misfits:
        log.warning("%s has %s; this layer is left out", path.name, misfit)
    found_scales = read_scales(path, header, match)
    names = {name: key for key, name in match.tensors.items() if key[1] is not Part.ALPHA}
    layers: dict[str, dict[Part, Tensor]] = {}
    for name, tensor in read_tensors(path, names):
        layer, part = names[name]
        layers.setdefault(layer, {})[part] = _at_least_16_bit(tensor)
    low_rank, adapters, differences = {}, {}, {}
    for layer, parts in layers.items():
        differences |= {f"{layer}.{part}": parts[part] for part in (Part.WEIGHT, Part.BIAS) if part in parts}
        if layer not in match.kinds:
            continue
        change = _change(match.kinds[layer], parts, found_scales.get(layer, 1.0))
        if Part.MAGNITUDE in parts:
            rows = model_layers(config).layers[layer].shapes["weight"][0]
            adapters[layer] = Decomposed(change, _magnitude(parts[Part.MAGNITUDE], rows))
        elif isinstance(change, LowRank):
            low_rank[layer] = change
        else:
            adapters[layer] = change
    return Lora(low_rank, differences, read_student_sampling(path, header.metadata), adapters)


def _change(kind: Kind, parts: Mapping[Part, Tensor], scale: float) -> LowRank | Hadamard | Kronecker:
    """The change of one layer from its factors, whose shapes fit."""
    if kind is Kind.LORA:
        return LowRank(parts[Part.UP], parts[Part.DOWN], scale)
    if kind is Kind.LOHA:
        factors = []
        for a, b, core in zip(LOHA_PARTS[::2], LOHA_PARTS[1::2], (Part.HADA_T1, Part.HADA_T2), strict=True):
            factors += [_rows(parts[a], parts.get(core)), parts[b]]
        return Hadamard(*factors, scale)
    left, right = (
        parts[whole].flatten(1) if whole in parts else _rows(parts[a], parts.get(core)).float() @ parts[b].float()
        for (whole, a, b), core in zip(LOKR_SIDES, (None, Part.LOKR_T2), strict=True)
    )
    return Kronecker(left, right, scale)


def _rows(factor: Tensor, core: Tensor | None) -> Tensor:
    """The first factor (out, rank) of a product; with a Tucker core (r, s, 1, ...) it is stored as (r, out)."""
    return factor if core is None else factor.float().T @ core.float().reshape(core.shape[:2])


def _magnitude(stored: Tensor, rows: int) -> Tensor:
    """DoRA's magnitude as (out, 1) or (1, in); PEFT stores one number per row."""
    if stored.ndim == 2:
        return stored
    return stored[:, None] if len(stored) == rows else stored[None]


def _at_least_16_bit(tensor: Tensor) -> Tensor:
    """The tensor, in bf16 if it was fp8, which nothing can be computed with; bf16 holds every fp8 value."""
    return tensor if tensor.element_size() > 1 else tensor.bfloat16()


def save_lora(path: Path | str, lora: Lora) -> None:
    """Write a LoRA, or nothing, with an alpha per layer; with a sampling it is a student's. Raises MRTError."""
    if lora.adapters:
        raise MRTError(
            f"the LoRA changes {len(lora.adapters)} layers by LoHa, LoKr or DoRA, but only low-rank pairs are written; extract a "
            "plain LoRA from the merged model instead"
        )
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
