"""What a checkpoint is, told from its headers alone: family, parts, and what is missing or does not belong.

Weights without our metadata are recognised by their tensors' names and shapes, and by the config files beside them
(architecture: parameter names, weight files).
"""

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import Tokenizer

from ..errors import MRTError
from ..models.configs import AutoencoderConfig, TransformerConfig
from ..models.modes import Arrangement, Task
from ..models.tokenizer import read_tokenizer
from ..weights import WeightSource, open_weights
from ..weights.folders import SHARD
from ..weights.keys import (
    AUTOENCODER_PREFIX,
    FOREIGN_TEXT_PREFIX,
    INFO_KEY,
    TEXT_PREFIX,
    TOKENIZER_KEY,
    ZERO_TIMESTEP_MARKER,
)
from ..weights.quantisation import PLAIN_DTYPES, LayerFormat, Quantisation, belongs_to_packed, find_quantisation
from ..weights.safetensors_header import TensorEntry
from ..weights.settings import FolderSettings
from .autoencoder_names import autoencoder_config_of_shapes, canonical_shapes
from .comparison import Comparison
from .foreign_files import ART_MODEL, describe_foreign, is_control_network, is_mage_flow
from .info import CheckpointInfo, Sampling
from .parameter_shapes import ParameterGroup, autoencoder_layers, tensor_shapes, text_encoder_layers, transformer_layers
from .report import QWEN_HEAD_DIM, CheckpointReport, Family

log = logging.getLogger(__name__)

TRANSFORMER_PREFIXES = (
    "",
    "model.diffusion_model.",
    "diffusion_model.",
    "transformer.",
    "model.model.",
    "net.",
    "model.",
)
PART_WORDS = {
    AUTOENCODER_PREFIX: "autoencoder", TEXT_PREFIX: "text encoder", FOREIGN_TEXT_PREFIX: "another program's text encoder",
}  # fmt: skip
LAYER_LIMIT = 1000  # far above real models, far below what takes long to list
SHAPE_SOURCES = {"img_in.weight": 2, "txt_norm.weight": 1, "transformer_blocks.0.attn.norm_q.weight": 1}  # name: rank

Entries = Mapping[str, TensorEntry]


def inspect_checkpoint(path: Path | str) -> CheckpointReport:
    """Tell what a file, an index of shards or a folder is from its headers; no weights are read.

    Raises MRTError for one that is neither safetensors nor GGUF, or whose metadata or autoencoder cannot be ours.
    """
    path = Path(path)
    return inspect_weights(path, open_weights(path))


def inspect_weights(path: Path, source: WeightSource) -> CheckpointReport:
    """The report of weights that are open already; raises MRTError as `inspect_checkpoint` does."""
    tensors = source.tensors
    facts = {
        "path": path,
        "dtypes": tuple(sorted({entry.dtype for entry in tensors.values()})),
        "tensor_count": len(tensors),
        "size": source.size,
    }
    prefix = _transformer_prefix(tensors, source.metadata)
    if prefix is None:
        what, remedy = describe_foreign(tensors, source.metadata)
        family = Family.ART if what == ART_MODEL else Family.OTHER
        return CheckpointReport(family=family, what=what, remedy=remedy, **facts)
    try:
        return _inspect_transformer(source, _split_parts(tensors, prefix, source.settings), facts)
    except MRTError as error:
        raise MRTError(f"{path.name}: {error}") from error


def _transformer_prefix(tensors: Entries, metadata: Mapping[str, str]) -> str | None:
    """What stands before the names of a Qwen-Image transformer; None when there is none."""
    if "training" in metadata or is_control_network(tensors):
        return None
    for prefix in TRANSFORMER_PREFIXES:
        if f"{prefix}txt_norm.weight" in tensors and any(
            name.startswith(f"{prefix}transformer_blocks.") for name in tensors
        ):
            return None if is_mage_flow(tensors, prefix) else prefix
    return None


class _Parts(NamedTuple):
    """Each module's tensors, by their names in the module, and the names that belong to none."""

    prefix: str
    transformer: dict[str, TensorEntry]
    autoencoder: dict[str, TensorEntry]
    text: dict[str, TensorEntry]
    names: tuple[str, ...]  # in words
    rest: tuple[str, ...]
    zero_timestep: bool  # whether references are modulated with t = 0


def split_names(names: Iterable[str], prefix: str) -> dict[str | None, list[str]]:
    """The names in a file by the prefix of their module, the transformer's being `prefix`; the key None has the rest."""
    modules: dict[str | None, list[str]] = {start: [] for start in (*PART_WORDS, prefix, None)}
    for name in names:
        owner = next((start for start in modules if start is not None and name.startswith(start)), None)
        modules[owner].append(name)
    return modules


def _split_parts(tensors: Entries, prefix: str, settings: FolderSettings) -> _Parts:
    names = split_names(tensors, prefix)

    def entries(start: str) -> dict[str, TensorEntry]:
        return {name.removeprefix(start): tensors[name] for name in names[start]}

    transformer = entries(prefix)
    marked = transformer.pop(ZERO_TIMESTEP_MARKER, None) is not None
    words = tuple(word for start, word in PART_WORDS.items() if names[start])
    parts = transformer, entries(AUTOENCODER_PREFIX), entries(TEXT_PREFIX)
    return _Parts(prefix, *parts, words, tuple(names[None]), marked or settings.zero_cond_t is True)


def _inspect_transformer(source: WeightSource, parts: _Parts, facts: dict[str, Any]) -> CheckpointReport:
    metadata, settings, prefix = source.metadata, source.settings, parts.prefix
    info = CheckpointInfo.from_json(metadata[INFO_KEY]) if INFO_KEY in metadata else None
    config = info.transformer if info else _config_from_shapes(parts, settings)
    family = _family(info, parts, settings)
    quantisation = find_quantisation(source, prefix, parts.transformer)
    comparison, packed = Comparison(unexpected=list(parts.rest)), {}
    if config is None:
        comparison.missing += [prefix + name for name in SHAPE_SOURCES if not _is_usable(parts.transformer, name)]
    else:
        _require_tensors(facts, config.num_layers)
        layers = transformer_layers(config)
        comparison.add(tensor_shapes(layers), parts.transformer, prefix, quantisation)
        packed = _packed_linears(layers, quantisation)
    if quantisation and not quantisation.refused:
        comparison.add_scales(parts.transformer, prefix, quantisation)
    autoencoder = info.autoencoder if info else AutoencoderConfig()
    if parts.autoencoder:
        autoencoder = _compare_autoencoder(parts.autoencoder, info, settings, comparison, facts["path"])
    tokenizer = None
    if parts.text or (info and info.text_encoder):
        tokenizer = _compare_text_encoder(metadata, parts.text, info, comparison, facts)
    if info is None and config is not None and (config.head_dim == QWEN_HEAD_DIM or settings.rope_axes):
        info = _public_info(family, config, autoencoder, bundled=bool(parts.autoencoder))
    misleading = {
        name for name in comparison.unexpected if _misleads(name.removeprefix(prefix), parts.transformer, config)
    }
    return CheckpointReport(
        family=family,
        what="Qwen-Image" if settings.pipeline == "QwenImagePipeline" and family is Family.QWEN_IMAGE else str(family),
        parts=parts.names,
        missing=tuple(comparison.missing),
        unexpected=tuple(name for name in comparison.unexpected if name not in misleading),
        misleading=tuple(name for name in comparison.unexpected if name in misleading),
        misshapen=tuple(comparison.misshapen),
        quantisation=quantisation,
        packed=packed,
        remedy=_remedy(facts["path"]),
        info=info,
        prefix=prefix,
        tokenizer=tokenizer,
        **facts,
    )


def _misleads(name: str, tensors: Entries, config: TransformerConfig | None) -> bool:
    """Whether the model would not be the file's own without this tensor: it is of one more block, or belongs to a weight of
    8 bit or less, which it may scale."""
    block = re.match(r"transformer_blocks\.(\d{1,6})\.", name)
    if block and config is not None and int(block[1]) >= config.num_layers:
        return True
    return belongs_to_packed(name, tensors)


def _packed_linears(layers: Mapping[str, ParameterGroup], quantisation: Quantisation | None) -> dict[str, LayerFormat]:
    """The quantised layers that multiply; the weights of others are small and made plain when they are loaded."""
    formats = quantisation.layers if quantisation else {}
    return {name: form for name, form in formats.items() if name in layers and layers[name].linear}


def _is_usable(tensors: Entries, name: str) -> bool:
    return name in tensors and len(tensors[name].shape) == SHAPE_SOURCES[name] and min(tensors[name].shape) > 0


def _config_from_shapes(parts: _Parts, settings: FolderSettings) -> TransformerConfig | None:
    """The sizes that shapes and config files tell; None when the tensors that tell them are missing."""
    tensors = parts.transformer
    if not all(_is_usable(tensors, name) for name in SHAPE_SOURCES):
        return None
    (width, in_channels), (text_dim,), (head_dim,) = (tensors[name].shape for name in SHAPE_SOURCES)
    head_dim = head_dim if settings.head_dim is None else settings.head_dim
    if settings.head_dim is not None and (head_dim < 1 or width % head_dim):
        raise MRTError(
            f"config.json says heads of {head_dim} channels, but they must divide the transformer, which is {width} wide; "
            "download both again"
        )
    blocks = {name.split(".")[1] for name in tensors if name.startswith("transformer_blocks.")}
    has_condition = "cond_token_embed.weight" in tensors
    embedded = "time_text_embed.addition_t_embedding.weight" in tensors
    return TransformerConfig(
        num_layers=len(blocks),
        num_heads=max(1, width // head_dim),
        head_dim=head_dim,
        text_dim=text_dim,
        in_channels=in_channels,
        rope_axes=settings.rope_axes or TransformerConfig.rope_axes,
        additional_t_cond=embedded if settings.additional_t_cond is None else settings.additional_t_cond,
        condition_embedding=has_condition,
        clean_timestep="zero" if has_condition or parts.zero_timestep else "shared",
    )


def _family(info: CheckpointInfo | None, parts: _Parts, settings: FolderSettings) -> Family:
    if info is not None or "cond_token_embed.weight" in parts.transformer:
        return Family.STUDENT if info and info.student else Family.TEACHER
    if "time_text_embed.addition_t_embedding.weight" in parts.transformer or settings.additional_t_cond:
        return Family.QWEN_IMAGE_LAYERED
    if parts.zero_timestep:
        return Family.QWEN_IMAGE_EDIT_2511
    return Family.QWEN_IMAGE_EDIT if (settings.pipeline or "").startswith("QwenImageEdit") else Family.QWEN_IMAGE


def _public_info(
    family: Family, config: TransformerConfig, autoencoder: AutoencoderConfig, bundled: bool
) -> CheckpointInfo:
    """The public defaults of a file that does not state its own (architecture: sampling, Qwen-Image-Layered)."""
    if family is Family.TEACHER:
        return CheckpointInfo(config, autoencoder)
    if family is Family.QWEN_IMAGE_LAYERED:
        tasks = (Task.IMAGE_TO_LAYERS,)
        preset = {"frame_area": 640 * 640, "region_mode": "full", "arrangement": Arrangement.QWEN_IMAGE_LAYERED}
        return CheckpointInfo(config, autoencoder, tasks=tasks, **preset)
    rgb = autoencoder if bundled else AutoencoderConfig(in_channels=3, out_channels=3)
    return CheckpointInfo(config, rgb, tasks=(), region_mode="full", sampling=Sampling(steps=20, shift=3.1))


def _require_tensors(facts: dict, layers: int) -> None:
    """Raise MRTError for more layers than the tensors are enough for, before that many are listed."""
    if layers > min(facts["tensor_count"], LAYER_LIMIT):
        raise MRTError(
            f"the file promises {layers} layers, but has {facts['tensor_count']} tensors, and at most {LAYER_LIMIT} layers are "
            "read; download the file again"
        )


def _compare_autoencoder(
    entries: Entries, info: CheckpointInfo | None, settings: FolderSettings, comparison: Comparison, path: Path
) -> AutoencoderConfig:
    canonical = canonical_shapes({name: entry.shape for name, entry in entries.items()})
    config = info.autoencoder if info else autoencoder_config_of_shapes(canonical)
    if info is None:
        told = {
            name: value
            for name, value in (("latent_mean", settings.latent_mean), ("latent_std", settings.latent_std))
            if value
        }
        config = replace(config, **told)
        log.info(
            "%s: latent mean and deviation are %s", path.name, "its vae/config.json's" if told else "the public ones"
        )
    found = {name: TensorEntry("F32", shape) for name, shape in canonical.items()}
    comparison.add(tensor_shapes(autoencoder_layers(config)), found, AUTOENCODER_PREFIX)
    odd = {name: entry.dtype for name, entry in entries.items() if entry.dtype not in PLAIN_DTYPES}
    comparison.misshapen += [
        f"{AUTOENCODER_PREFIX}{name} in {dtype} instead of plain numbers" for name, dtype in odd.items()
    ]
    return config


def _compare_text_encoder(
    metadata: Mapping[str, str],
    entries: Entries,
    info: CheckpointInfo | None,
    comparison: Comparison,
    facts: dict[str, Any],
) -> Tokenizer | None:
    config = info.text_encoder if info else None
    if config is None:  # a text encoder that no metadata describes
        comparison.unexpected += [TEXT_PREFIX + name for name in entries]
        return None
    tokenizer = read_tokenizer(metadata.get(TOKENIZER_KEY), config)
    comparison.add(tensor_shapes(text_encoder_layers(config)), entries, TEXT_PREFIX)
    return tokenizer


def _remedy(path: Path) -> str:
    if SHARD.fullmatch(path.name):
        return "it is one of several shards: give their folder or the index beside them"
    return "use the file that belongs to this version, or download it again"
