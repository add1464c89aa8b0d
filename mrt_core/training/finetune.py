"""Fine-tuning of a checkpoint of any size: all its weights, or a LoRA beside them; on one device or sharded over several.

The model is built without memory, sharded, and only then filled from the file, tensor by tensor, so that no process ever
holds more than its own part.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..checkpoints.detection import inspect_weights, split_names
from ..checkpoints.info import CheckpointInfo
from ..checkpoints.report import CheckpointReport, Family, require_loadable
from ..errors import MRTError
from ..models.text import TextEmbeddings, TextEncoder
from ..models.transformer import MaskedRegionTransformer
from ..models.unfilled import UNFILLED
from ..weights import WeightSource, open_weights
from ..weights.keys import AUTOENCODER_PREFIX, INFO_KEY, TEXT_PREFIX, TOKENIZER_KEY
from ..weights.plain import read_plain, stored_dtype
from ..weights.safetensors_file import DTYPE_NAMES, save_streamed
from ..weights.safetensors_header import TensorEntry, read_header
from ..weights.source import SafetensorsFile
from .low_rank import CONDITION, LowRankTraining, add_pairs, export_lora, initialise_pairs, trained_parts
from .processes import start_device
from .prompts import CachedText
from .sharding import is_first_process, place_like
from .teacher import ConditionedModel, TeacherTraining, TrainingOperations, shard_blocks, train

log = logging.getLogger(__name__)

STATE_FILE = "state.safetensors"  # in a run folder
BYTES_PER_TRAINED_WEIGHT = 5 * 4  # itself, its gradient, moving average and Adam's two moments, in fp32


class UnfilledOperations(TrainingOperations):
    """The same layers, left as they are: their weights come later."""

    Embedding = UNFILLED.Embedding


@dataclass(frozen=True)
class Finetuning:
    """How a checkpoint is trained on: a LoRA beside frozen weights of `base_dtype`, or, without one, all weights in fp32.

    With `recompute`, activations are not kept for the backward pass.
    """

    training: TeacherTraining
    low_rank: LowRankTraining | None = None
    base_dtype: torch.dtype = torch.bfloat16
    recompute: bool = False


class OpenCheckpoint(NamedTuple):
    """An MRT checkpoint of which the header has been read."""

    path: Path
    source: WeightSource
    report: CheckpointReport
    info: CheckpointInfo


class WholeModel(ConditionedModel):
    """A checkpoint's transformer that is trained as a whole; its text encoder stays as it is."""

    @property
    def trained(self) -> nn.Module:
        return self.transformer


class LowRankModel(ConditionedModel):
    """A checkpoint's transformer that stays as it is, with pairs that are trained."""

    @property
    def trained(self) -> nn.Module:
        return trained_parts(self.transformer)


def finetune(
    checkpoint: Path,
    samples: Path,
    folder: Path,
    output: Path,
    settings: Finetuning,
    dtype: torch.dtype | None = None,
) -> None:
    """Train a checkpoint on the shards in `samples`, resuming from `folder`, and write the averaged weights to `output`.

    The output is a checkpoint, or a LoRA for the one that was given, in `dtype`; by default a checkpoint is as precise as
    the given one and a LoRA bf16. Under torchrun every process does a part of the work. Raises MRTError for anything but an
    MRT teacher, and for a folder with the state of another kind of run.
    """
    opened = open_checkpoint(checkpoint)
    _, device = start_device()
    model = build_model(opened, samples, settings, device)
    state = folder / STATE_FILE
    if state.exists():
        _require_same_run(state, model.trained)
    log.info("weights, gradients and optimiser take %.1f GB in all", static_bytes(model) / 1e9)
    train(folder, samples, model, settings.training, device)
    if not is_first_process():
        return
    if settings.low_rank:
        export_lora(state, output, settings.low_rank, _condition_embedding(opened), dtype or torch.bfloat16)
    else:
        export_checkpoint(opened, state, output, dtype)


def open_checkpoint(path: Path) -> OpenCheckpoint:
    """Read the header of an MRT teacher; raises MRTError, in one sentence, for anything else."""
    source = open_weights(path)
    report = inspect_weights(path, source)
    info = require_loadable(report)
    if report.family is not Family.TEACHER:
        remedy = "give its teacher" if report.family is Family.STUDENT else "make one of it with `mrt init`"
        raise MRTError(f"{path.name} is {report.what}, but an MRT teacher was expected to train on; {remedy}")
    return OpenCheckpoint(path, source, report, info)


def build_model(
    opened: OpenCheckpoint, samples: Path, settings: Finetuning, device: torch.device
) -> WholeModel | LowRankModel:
    """The model of a checkpoint, sharded if `settings` say so, filled and on its device.

    Prompts are read by the text encoder in the checkpoint, else by states that were computed before, in `samples`.
    """
    base_dtype = settings.base_dtype if settings.low_rank else torch.float32
    transformer = MaskedRegionTransformer(opened.info.transformer, base_dtype, "meta", UnfilledOperations)
    names = list(transformer.state_dict())
    text_encoder = _text_encoder(opened, samples)
    if settings.low_rank:
        add_pairs(transformer, settings.low_rank)
        model = LowRankModel(transformer, text_encoder, settings.recompute)
    else:
        model = WholeModel(transformer, text_encoder, settings.recompute)
    if dist.is_initialized() and settings.training.sharded:
        shard_blocks(model, device)
    model.to_empty(device=device)
    _fill(opened, opened.report.prefix, transformer, names)
    if isinstance(text_encoder, nn.Module):
        _fill(opened, TEXT_PREFIX, text_encoder, list(text_encoder.state_dict()))
    if settings.low_rank:
        initialise_pairs(transformer, settings.training.seed)
    return model


def static_bytes(model: nn.Module) -> int:
    """The memory in bytes that training takes over all devices but for activations, whatever the samples' size."""
    return sum(
        parameter.numel() * (BYTES_PER_TRAINED_WEIGHT if parameter.requires_grad else parameter.element_size())
        for parameter in model.parameters()
    )


def _text_encoder(opened: OpenCheckpoint, samples: Path) -> TextEncoder:
    info = opened.info
    if info.text_encoder is None:
        return CachedText(samples, info.transformer.text_dim)
    encoder = TextEmbeddings(info.text_encoder, opened.report.tokenizer, torch.float32, "meta", UNFILLED)
    return encoder.requires_grad_(False)


@torch.no_grad()
def _fill(opened: OpenCheckpoint, prefix: str, module: nn.Module, names: list[str]) -> None:
    """Copy the checkpoint's tensors behind `prefix` into the parameters `names` of a module, of which each may be sharded."""
    parameters = dict(module.named_parameters())
    dtypes = {name: parameters[name].dtype for name in names}
    for name, tensor in _read(opened, prefix, dtypes):
        parameters[name].copy_(place_like(tensor, parameters[name]))


def _read(opened: OpenCheckpoint, prefix: str, dtypes: dict[str, torch.dtype]) -> Iterator[tuple[str, Tensor]]:
    quantisation = opened.report.quantisation if prefix == opened.report.prefix else None
    return read_plain(opened.source, prefix, quantisation, dtypes)


def _require_same_run(state: Path, trained: nn.Module) -> None:
    """Raise MRTError where a state is not of these parameters."""
    found = {name: entry.shape for name, entry in read_header(state).tensors.items() if name.startswith("model.")}
    if found != {f"model.{name}": tuple(parameter.shape) for name, parameter in trained.named_parameters()}:
        raise MRTError(
            f"{state} is the state of a run with other weights, such as another rank or checkpoint; give the same options as "
            "before, or another run folder with --run"
        )


def _condition_embedding(opened: OpenCheckpoint) -> Tensor | None:
    """The checkpoint's condition embedding (1, width) in fp32, which a LoRA holds the difference to."""
    if not opened.info.transformer.condition_embedding:
        return None
    return next(_read(opened, opened.report.prefix, {f"{CONDITION}.weight": torch.float32}))[1]


def export_checkpoint(opened: OpenCheckpoint, state: Path, output: Path, dtype: torch.dtype | None = None) -> None:
    """Write a checkpoint with the averaged transformer of a training state, and all else as in `opened`.

    The transformer is stored in `dtype`, or as precise as it was.
    """
    trained = SafetensorsFile.open(state)
    names = split_names(opened.source.tensors, opened.report.prefix)
    entries, parts = {}, []
    for prefix in (AUTOENCODER_PREFIX, TEXT_PREFIX):
        dtypes = {name.removeprefix(prefix): stored_dtype(opened.source.tensors[name]) for name in names[prefix]}
        entries |= {
            name: TensorEntry(DTYPE_NAMES[dtypes[name.removeprefix(prefix)]], opened.source.tensors[name].shape)
            for name in names[prefix]
        }
        parts.append((prefix, _read(opened, prefix, dtypes)))
    averages = {name.removeprefix("ema."): entry for name, entry in trained.tensors.items() if name.startswith("ema.")}
    before = opened.source.tensors
    dtypes = {name: dtype or stored_dtype(before[opened.report.prefix + name]) for name in averages}
    entries |= {name: TensorEntry(DTYPE_NAMES[dtypes[name]], entry.shape) for name, entry in averages.items()}
    parts.append(("", read_plain(trained, "ema.", None, dtypes)))
    metadata = {"format": "pt", INFO_KEY: opened.info.to_json()}
    if TOKENIZER_KEY in opened.source.metadata:
        metadata[TOKENIZER_KEY] = opened.source.metadata[TOKENIZER_KEY]
    save_streamed(output, entries, ((prefix + name, t) for prefix, part in parts for name, t in part), metadata)
