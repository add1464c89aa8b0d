"""Checkpoints: one `.safetensors` file with the transformer and, optionally, an autoencoder and a text encoder.

Transformer keys are bare and exactly Qwen-Image's, plus `cond_token_embed.weight`; the other modules are prefixed with
`vae.` and `text_encoder.`. Metadata key `mrt` holds a `CheckpointInfo` as JSON, key `tokenizer` the tokenizer's JSON.
Public Qwen-Image files load too. They have no condition-token embedding and none is made up for them: the transformer
then treats condition slots like any other clean slot.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from .autoencoder import Autoencoder
from .autoencoder_keys import canonical_autoencoder_state
from .checkpoint_info import CheckpointInfo, Sampling
from .detection import (
    AUTOENCODER_PREFIX,
    INFO_KEY,
    TEXT_PREFIX,
    TOKENIZER_KEY,
    UNFILLED,
    CheckpointReport,
    Family,
    inspect_checkpoint,
    require_loadable,
    split_names,
)
from .errors import MRTError
from .files import read_header, read_tensors, save_atomically
from .foreign_files import ZERO_TIMESTEP_MARKER
from .text import SmallTextEncoder
from .transformer import MaskedRegionTransformer

__all__ = [
    "Checkpoint",
    "CheckpointInfo",
    "CheckpointParts",
    "CheckpointReport",
    "Family",
    "Sampling",
    "bundled_checkpoint",
    "inspect_checkpoint",
    "load_checkpoint",
    "read_parts",
    "save_checkpoint",
]

BUNDLED_NAME = "mrt-tiny.safetensors"

Module = TypeVar("Module", bound=nn.Module)


@dataclass
class Checkpoint:
    """A transformer, what is bundled with it, and what is known about it."""

    transformer: MaskedRegionTransformer
    autoencoder: Autoencoder | None
    text_encoder: SmallTextEncoder | None
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
    """Load an MRT or Qwen-Image file; tensors are read one at a time and cast to `dtype`, so that memory holds them once.

    Raises MRTError, in one sentence, for a file that is not such a checkpoint or whose tensors do not fit exactly.
    """
    parts = read_parts(Path(path), device, dtype)
    info = parts.info
    meta = {"device": "meta", "operations": UNFILLED}
    transformer = _assign(MaskedRegionTransformer(info.transformer, **meta), parts.transformer)
    autoencoder = text_encoder = None
    if parts.autoencoder:
        autoencoder = _assign(Autoencoder(info.autoencoder, device="meta"), parts.autoencoder)
    if info.text_encoder is not None:
        text_encoder = _assign(SmallTextEncoder(info.text_encoder, parts.tokenizer, **meta), parts.text_encoder)
    return Checkpoint(transformer, autoencoder, text_encoder, info)


class CheckpointParts(NamedTuple):
    """State dicts of a file's parts in our names, each without its prefix and empty where the part is absent."""

    info: CheckpointInfo
    transformer: dict[str, Tensor]
    autoencoder: dict[str, Tensor]
    text_encoder: dict[str, Tensor]
    tokenizer: Tokenizer | None


def read_parts(path: Path, device: str | torch.device = "cpu", dtype: torch.dtype | None = None) -> CheckpointParts:
    """All weights of a checkpoint, cast to `dtype` one by one, or as they are stored with None.

    Raises MRTError, in one sentence, for a file that is not such a checkpoint or whose tensors do not fit exactly.
    """
    report = inspect_checkpoint(path)
    info = require_loadable(report)
    names = split_names(read_header(path).tensors, report.prefix)

    def read(prefix: str) -> dict[str, Tensor]:
        tensors = read_tensors(path, names[prefix], device)
        return {name.removeprefix(prefix): tensor.to(dtype or tensor.dtype) for name, tensor in tensors}

    transformer = read(report.prefix)
    transformer.pop(ZERO_TIMESTEP_MARKER, None)
    canonical = canonical_autoencoder_state(read(AUTOENCODER_PREFIX))
    autoencoder = {name: tensor.contiguous() for name, tensor in canonical.items()}
    text_encoder = read(TEXT_PREFIX) if info.text_encoder else {}
    return CheckpointParts(info, transformer, autoencoder, text_encoder, report.tokenizer)


def _assign(module: Module, state: dict[str, Tensor]) -> Module:
    module.load_state_dict(state, strict=True, assign=True)  # no second copy of the weights
    return module


def bundled_checkpoint() -> Path:
    """The path of the small checkpoint that comes with this package; raises MRTError when it is not installed."""
    path = Path(__file__).parent / "data" / BUNDLED_NAME
    if not path.is_file():
        raise MRTError(
            f"the bundled checkpoint {path} is missing; install this package again with its data files, or give the path "
            "of another checkpoint"
        )
    return path
