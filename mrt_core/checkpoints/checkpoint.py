"""Checkpoints: one `.safetensors` file with the transformer and, optionally, an autoencoder and a text encoder.

They are written in this one form and read in many more: shards, diffusers folders, GGUF, quantised weights (`weights`).
Transformer keys are bare and exactly Qwen-Image's, plus `cond_token_embed.weight`; the other modules are prefixed with
`vae.` and `text_encoder.`. Metadata key `mrt` holds a `CheckpointInfo` as JSON, key `tokenizer` the tokenizer's JSON.
Public Qwen-Image files load too. They have no condition-token embedding and none is made up for them: the transformer
then treats condition slots like any other clean slot.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from ..errors import MRTError
from ..models.autoencoder import Autoencoder
from ..models.text import TextEmbeddings
from ..models.transformer import MaskedRegionTransformer
from ..models.unfilled import UNFILLED
from ..weights import WeightSource, open_weights
from ..weights.keys import AUTOENCODER_PREFIX, INFO_KEY, TEXT_PREFIX, TOKENIZER_KEY, ZERO_TIMESTEP_MARKER
from ..weights.packed_linear import is_quantised, pack_linears
from ..weights.plain import as_scale, dequantise
from ..weights.quantisation import LayerFormat, our_name
from ..weights.reading import read_weights
from ..weights.safetensors_file import save_atomically
from .autoencoder_keys import canonical_autoencoder_state
from .detection import inspect_checkpoint, inspect_weights, split_names
from .info import CheckpointInfo, Sampling
from .report import CheckpointReport, Family, require_loadable

__all__ = [
    "Checkpoint",
    "CheckpointInfo",
    "CheckpointParts",
    "CheckpointReport",
    "Family",
    "Sampling",
    "inspect_checkpoint",
    "load_checkpoint",
    "read_parts",
    "save_checkpoint",
]

Module = TypeVar("Module", bound=nn.Module)


@dataclass
class Checkpoint:
    """A transformer, what is bundled with it, and what is known about it."""

    transformer: MaskedRegionTransformer
    autoencoder: Autoencoder | None
    text_encoder: TextEmbeddings | None
    info: CheckpointInfo


def save_checkpoint(path: Path | str, checkpoint: Checkpoint, dtype: torch.dtype = torch.bfloat16) -> None:
    """Write a checkpoint, or nothing; weights are stored as `dtype`. Raises MRTError when modules and info disagree."""
    info, text_encoder = checkpoint.info, checkpoint.text_encoder
    modules = {"": checkpoint.transformer, AUTOENCODER_PREFIX: checkpoint.autoencoder, TEXT_PREFIX: text_encoder}
    configs = {"": info.transformer, AUTOENCODER_PREFIX: info.autoencoder, TEXT_PREFIX: info.text_encoder}
    tensors: dict[str, Tensor] = {}
    for prefix, module in modules.items():
        if module is None:
            continue
        if is_quantised(module):
            raise MRTError(
                "the transformer's weights are quantised, but a checkpoint is saved with plain ones; load its bf16 version to "
                "save it"
            )
        if module.config != configs[prefix]:
            raise MRTError(
                f"the checkpoint's info describes {configs[prefix]}, but its module is {module.config}; make the info from "
                "the modules' configs"
            )
        tensors |= {prefix + name: tensor.to(dtype) for name, tensor in module.state_dict().items()}
    if info.text_encoder is not None and text_encoder is None:
        raise MRTError(
            "the checkpoint's info describes a text encoder, but there is none; give one, or None in the info"
        )
    metadata = {"format": "pt", INFO_KEY: info.to_json()}
    if text_encoder is not None:
        metadata[TOKENIZER_KEY] = text_encoder.tokenizer.to_str()
    save_atomically(tensors, Path(path), metadata)


def load_checkpoint(
    path: Path | str, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> Checkpoint:
    """Load an MRT or Qwen-Image file or folder; tensors are read one at a time, so that memory holds them once.

    Plain weights are cast to `dtype`; quantised ones stay as they are and compute in it, since that is their input's.

    Raises MRTError, in one sentence, for a file that is not such a checkpoint or whose tensors do not fit exactly.
    """
    parts = read_parts(Path(path), device, dtype)
    info = parts.info
    meta = {"device": "meta", "operations": UNFILLED}
    transformer = MaskedRegionTransformer(info.transformer, **meta)
    pack_linears(transformer, parts.packed)
    unused = {f"{layer}.input_scale" for layer in parts.packed}  # for multiplication in fp8
    _assign(transformer, {name: tensor for name, tensor in parts.transformer.items() if name not in unused})
    autoencoder = text_encoder = None
    if parts.autoencoder:
        autoencoder = _assign(Autoencoder(info.autoencoder, device="meta"), parts.autoencoder)
    if info.text_encoder is not None:
        text_encoder = _assign(TextEmbeddings(info.text_encoder, parts.tokenizer, **meta), parts.text_encoder)
    return Checkpoint(transformer, autoencoder, text_encoder, info)


class CheckpointParts(NamedTuple):
    """State dicts of a file's parts in our names, each without its prefix and empty where the part is absent.

    The layers of `packed` have a quantised `weight` of their format, for numbers of 8 bit a `weight_scale`, () or (rows, 1),
    and perhaps an `input_scale` ().
    """

    info: CheckpointInfo
    transformer: dict[str, Tensor]
    autoencoder: dict[str, Tensor]
    text_encoder: dict[str, Tensor]
    tokenizer: Tokenizer | None
    packed: Mapping[str, LayerFormat]


def read_parts(path: Path, device: str | torch.device = "cpu", dtype: torch.dtype | None = None) -> CheckpointParts:
    """All weights of a checkpoint; plain ones are cast to `dtype` one by one, or stay as they are stored with None.

    Raises MRTError, in one sentence, for a file that is not such a checkpoint or whose tensors do not fit exactly.
    """
    source = open_weights(path)
    report = inspect_weights(path, source)
    info = require_loadable(report)
    names = split_names(source.tensors, report.prefix)

    unused = set(report.unexpected)

    def read(prefix: str) -> dict[str, Tensor]:
        tensors = read_weights(source, [name for name in names[prefix] if name not in unused], device)
        return {name.removeprefix(prefix): tensor.to(dtype or tensor.dtype) for name, tensor in tensors}

    stored = [name for name in names[report.prefix] if name not in unused]
    transformer = _read_transformer(source, report, stored, device, dtype)
    canonical = canonical_autoencoder_state(read(AUTOENCODER_PREFIX))
    autoencoder = {name: tensor.contiguous() for name, tensor in canonical.items()}
    text_encoder = read(TEXT_PREFIX) if info.text_encoder else {}
    return CheckpointParts(info, transformer, autoencoder, text_encoder, report.tokenizer, report.packed)


def _read_transformer(
    source: WeightSource,
    report: CheckpointReport,
    names: list[str],
    device: str | torch.device,
    dtype: torch.dtype | None,
) -> dict[str, Tensor]:
    """The transformer's weights, of which only those of linear layers stay quantised."""
    layers = report.quantisation.layers if report.quantisation else {}
    packed = {f"{layer}.weight" for layer in layers}
    state = {}
    for stored, tensor in read_weights(source, names, device):
        name = our_name(stored.removeprefix(report.prefix))
        if name is None:
            continue
        if name.endswith((".weight_scale", ".input_scale")):
            state[name] = as_scale(tensor)
        else:
            state[name] = tensor if name in packed else tensor.to(dtype or tensor.dtype)
    for layer in layers.keys() - report.packed.keys():
        shape = source.tensors[f"{report.prefix}{layer}.weight"].shape
        scale = state.pop(f"{layer}.weight_scale", None)
        state.pop(f"{layer}.input_scale", None)
        plain = dequantise(state[f"{layer}.weight"], layers[layer], scale, shape, dtype or torch.float32)
        state[f"{layer}.weight"] = plain
    state.pop(ZERO_TIMESTEP_MARKER, None)
    return state


def _assign(module: Module, state: dict[str, Tensor]) -> Module:
    module.load_state_dict(state, strict=True, assign=True)  # no second copy of the weights
    return module
