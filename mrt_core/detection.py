"""What a checkpoint file is, told from its header alone: family, parts, and what is missing or does not belong.

Files without our metadata are recognised by their tensors' names and shapes (spec 1.2, 7).
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import torch
from tokenizers import Tokenizer
from torch import nn

from .autoencoder import Autoencoder, AutoencoderConfig
from .autoencoder_keys import autoencoder_config, canonical_autoencoder_state
from .checkpoint_info import CheckpointInfo, Sampling
from .errors import MRTError
from .files import SafetensorsHeader, read_header
from .foreign_files import ZERO_TIMESTEP_MARKER, describe_foreign, is_mage_flow, is_quantisation_tensor, quantisation
from .tasks import Task
from .text import END, SmallTextConfig, SmallTextEncoder
from .transformer import MaskedRegionTransformer, TransformerConfig

Shapes = dict[str, tuple[int, ...]]

INFO_KEY, TOKENIZER_KEY = "mrt", "tokenizer"  # of the file's metadata
AUTOENCODER_PREFIX, TEXT_PREFIX = "vae.", "text_encoder."
FOREIGN_TEXT_PREFIX = "text_encoders."  # of ComfyUI's all-in-one files; their text encoder is not ours to load
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
QWEN_HEAD_DIM = 128  # the one whose rotary axes are known without metadata
SHAPE_SOURCES = {"img_in.weight": 2, "txt_norm.weight": 1, "transformer_blocks.0.attn.norm_q.weight": 1}  # name: rank


class _Embedding(nn.Embedding):
    def reset_parameters(self) -> None:
        """Leave the weights alone: filling them on the meta device would import sympy, for more than a second."""


UNFILLED = SimpleNamespace(**{**vars(nn), "Embedding": _Embedding})  # operations for modules whose weights come later


class Family(StrEnum):
    """What kind of checkpoint a file is; Qwen-Image and the first Qwen-Image-Edit models have the same tensors."""

    TEACHER = "MRT teacher"
    STUDENT = "MRT student"
    QWEN_IMAGE = "Qwen-Image or Qwen-Image-Edit"
    QWEN_IMAGE_EDIT_2511 = "Qwen-Image-Edit-2511"
    QWEN_IMAGE_LAYERED = "Qwen-Image-Layered"
    OTHER = "other"


@dataclass(frozen=True)
class CheckpointReport:
    """What `inspect_checkpoint` found; `str` says it in one line. Names are as in the file."""

    path: Path
    family: Family
    what: str  # the family, or what the file is if it is none of ours
    dtypes: tuple[str, ...]  # in the format's spelling, such as BF16
    tensor_count: int
    size: int  # bytes
    parts: tuple[str, ...] = ()  # besides the transformer
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    misshapen: tuple[str, ...] = ()
    quantised: str | None = None  # the format, where the weights are not plain numbers
    remedy: str = ""  # where the file cannot be loaded
    info: CheckpointInfo | None = None
    prefix: str = ""  # of the transformer's tensors
    tokenizer: Tokenizer | None = field(default=None, repr=False, compare=False)

    @property
    def differences(self) -> str:
        """Missing, unexpected and misshapen tensors in words; empty for a complete file."""
        groups = ((self.missing, "missing"), (self.unexpected, "unexpected"), (self.misshapen, "of another shape"))
        return ", ".join(f"{len(names)} {word} ({_shorten(names)})" for names, word in groups if names)

    def __str__(self) -> str:
        unit, scale = ("GiB", 2**30) if self.size >= 2**30 else ("MiB", 2**20)
        facts = [
            f"{self.path.name}: {self.what}",
            f"{self.tensor_count} tensors",
            "/".join(self.dtypes),
            f"{self.size / scale:.1f} {unit}",
            *([f"with {' and '.join(self.parts)}"] if self.parts else []),
            *([f"quantised as {self.quantised}"] if self.quantised else []),
            *([self.differences or "complete"] if self.family is not Family.OTHER else []),
        ]
        return ", ".join(facts)


def _shorten(names: tuple[str, ...], limit: int = 3) -> str:
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")


def inspect_checkpoint(path: Path | str) -> CheckpointReport:
    """Tell what a file is from its header; no weights are read.

    Raises MRTError for a file that is not safetensors, or whose metadata or autoencoder cannot be ours.
    """
    path = Path(path)
    header = read_header(path)
    facts = {
        "path": path,
        "dtypes": tuple(sorted({entry.dtype for entry in header.tensors.values()})),
        "tensor_count": len(header.tensors),
        "size": header.size,
    }
    prefix = _transformer_prefix(header)
    if prefix is None:
        what, remedy = describe_foreign(header)
        return CheckpointReport(family=Family.OTHER, what=what, remedy=remedy, **facts)
    try:
        return _inspect_transformer(header, _split_parts(header, prefix), facts)
    except MRTError as error:
        raise MRTError(f"{path.name}: {error}") from error


def require_loadable(report: CheckpointReport) -> CheckpointInfo:
    """What a checkpoint says about itself; raises MRTError, in one sentence, when its weights cannot be used."""
    name, what = report.path.name, report.what
    if report.family is Family.OTHER:
        raise MRTError(
            f"{name} is {what}, but one .safetensors file with an MRT or Qwen-Image transformer was expected; {report.remedy}"
        )
    if report.quantised:
        raise MRTError(
            f"{name} is {what} quantised as {report.quantised}, but plain bf16, fp16, fp32 or fp8 weights were expected; "
            "use the bf16 version of the file"
        )
    if report.differences:
        raise MRTError(f"{name} is {what}, but its tensors do not fit: {report.differences}; {report.remedy}")
    if report.info is None:
        raise MRTError(
            f"{name} is {what} of an unknown size: without metadata only heads of {QWEN_HEAD_DIM} channels are known; "
            "use a file that carries the metadata `mrt`"
        )
    return report.info


def _transformer_prefix(header: SafetensorsHeader) -> str | None:
    """What stands before the names of a Qwen-Image transformer; None when there is none."""
    if "training" in header.metadata:
        return None
    for prefix in TRANSFORMER_PREFIXES:
        if f"{prefix}txt_norm.weight" in header.tensors and any(
            name.startswith(f"{prefix}transformer_blocks.") for name in header.tensors
        ):
            return None if is_mage_flow(header, prefix) else prefix
    return None


class _Parts(NamedTuple):
    """The shapes of each module's tensors, by their names in the module, and the names that belong to none."""

    prefix: str
    transformer: Shapes
    autoencoder: Shapes
    text: Shapes
    names: tuple[str, ...]  # in words
    rest: tuple[str, ...]
    marked_zero_timestep: bool


def split_names(names: Iterable[str], prefix: str) -> dict[str | None, list[str]]:
    """The names in a file by the prefix of their module, the transformer's being `prefix`; the key None has the rest."""
    modules: dict[str | None, list[str]] = {start: [] for start in (*PART_WORDS, prefix, None)}
    for name in names:
        owner = next((start for start in modules if start is not None and name.startswith(start)), None)
        modules[owner].append(name)
    return modules


def _split_parts(header: SafetensorsHeader, prefix: str) -> _Parts:
    names = split_names(header.tensors, prefix)

    def shapes(start: str) -> Shapes:
        return {name.removeprefix(start): header.tensors[name].shape for name in names[start]}

    transformer = shapes(prefix)
    marked = transformer.pop(ZERO_TIMESTEP_MARKER, None) is not None
    words = tuple(word for start, word in PART_WORDS.items() if names[start])
    return _Parts(
        prefix, transformer, shapes(AUTOENCODER_PREFIX), shapes(TEXT_PREFIX), words, tuple(names[None]), marked
    )


def _inspect_transformer(header: SafetensorsHeader, parts: _Parts, facts: dict) -> CheckpointReport:
    info = CheckpointInfo.from_json(header.metadata[INFO_KEY]) if INFO_KEY in header.metadata else None
    config = info.transformer if info else _config_from_shapes(parts)
    family = _family(info, parts)
    quantised = quantisation(header)
    comparison = _Comparison(unexpected=[name for name in parts.rest if not is_quantisation_tensor(name)])
    if config is None:
        comparison.missing += [parts.prefix + name for name in SHAPE_SOURCES if not _is_usable(parts.transformer, name)]
    else:
        _require_tensors(facts, config.num_layers)
        module = MaskedRegionTransformer(config, device="meta", operations=UNFILLED)
        plain = {name: shape for name, shape in parts.transformer.items() if not is_quantisation_tensor(name)}
        comparison.add(module, plain, parts.prefix)
    autoencoder = info.autoencoder if info else AutoencoderConfig()
    if parts.autoencoder:
        autoencoder = _compare_autoencoder(parts.autoencoder, info, comparison)
    tokenizer = None
    if parts.text or (info and info.text_encoder):
        tokenizer = _compare_text_encoder(header, parts.text, info, comparison, facts)
    if info is None and config is not None and config.head_dim == QWEN_HEAD_DIM:
        info = _public_info(family, config, autoencoder, bundled=bool(parts.autoencoder))
    return CheckpointReport(
        family=family,
        what=str(family),
        parts=parts.names,
        missing=tuple(comparison.missing),
        unexpected=tuple(comparison.unexpected),
        misshapen=tuple(comparison.misshapen),
        quantised=quantised,
        remedy=_remedy(facts["path"]),
        info=info,
        prefix=parts.prefix,
        tokenizer=tokenizer,
        **facts,
    )


@dataclass
class _Comparison:
    """Collects how a file's tensors differ from those of the modules."""

    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    misshapen: list[str] = field(default_factory=list)

    def add(self, module: nn.Module, shapes: Mapping[str, tuple[int, ...]], prefix: str) -> None:
        expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
        self.missing += [prefix + name for name in expected if name not in shapes]
        self.unexpected += [prefix + name for name in shapes if name not in expected]
        self.misshapen += [
            f"{prefix}{name} {list(shapes[name])} instead of {list(shape)}"
            for name, shape in expected.items()
            if name in shapes and shapes[name] != shape
        ]


def _is_usable(shapes: Shapes, name: str) -> bool:
    return len(shapes.get(name, ())) == SHAPE_SOURCES[name] and min(shapes[name]) > 0


def _config_from_shapes(parts: _Parts) -> TransformerConfig | None:
    """The sizes that the shapes tell; None when the tensors that tell them are missing."""
    shapes = parts.transformer
    if not all(_is_usable(shapes, name) for name in SHAPE_SOURCES):
        return None
    (width, in_channels), (text_dim,), (head_dim,) = (shapes[name] for name in SHAPE_SOURCES)
    blocks = {name.split(".")[1] for name in shapes if name.startswith("transformer_blocks.")}
    has_condition = "cond_token_embed.weight" in shapes
    return TransformerConfig(
        num_layers=len(blocks),
        num_heads=max(1, width // head_dim),
        head_dim=head_dim,
        text_dim=text_dim,
        in_channels=in_channels,
        additional_t_cond="time_text_embed.addition_t_embedding.weight" in shapes,
        condition_embedding=has_condition,
        clean_timestep="zero" if has_condition or parts.marked_zero_timestep else "shared",
    )


def _family(info: CheckpointInfo | None, parts: _Parts) -> Family:
    if info is not None or "cond_token_embed.weight" in parts.transformer:
        return Family.STUDENT if info and info.student else Family.TEACHER
    if "time_text_embed.addition_t_embedding.weight" in parts.transformer:
        return Family.QWEN_IMAGE_LAYERED
    return Family.QWEN_IMAGE_EDIT_2511 if parts.marked_zero_timestep else Family.QWEN_IMAGE


def _public_info(
    family: Family, config: TransformerConfig, autoencoder: AutoencoderConfig, bundled: bool
) -> CheckpointInfo:
    """The public defaults of a file that does not state its own (spec 1.8, 2.4)."""
    if family is Family.TEACHER:
        return CheckpointInfo(config, autoencoder)
    if family is Family.QWEN_IMAGE_LAYERED:
        tasks = (Task.IMAGE_TO_LAYERS,)
        return CheckpointInfo(config, autoencoder, tasks=tasks, frame_area=640 * 640, region_mode="full")
    rgb = autoencoder if bundled else AutoencoderConfig(in_channels=3, out_channels=3)
    return CheckpointInfo(config, rgb, tasks=(), region_mode="full", sampling=Sampling(steps=20, shift=3.1))


def _require_tensors(facts: dict, layers: int) -> None:
    if layers > facts["tensor_count"]:
        raise MRTError(
            f"the metadata promises {layers} layers, but there are {facts['tensor_count']} tensors; download the file again"
        )


def _compare_autoencoder(shapes: Shapes, info: CheckpointInfo | None, comparison: _Comparison) -> AutoencoderConfig:
    state = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    config = info.autoencoder if info else autoencoder_config(state)
    found = {name: tuple(tensor.shape) for name, tensor in canonical_autoencoder_state(state).items()}
    comparison.add(Autoencoder(config, device="meta"), found, AUTOENCODER_PREFIX)
    return config


def _compare_text_encoder(
    header: SafetensorsHeader, shapes: Shapes, info: CheckpointInfo | None, comparison: _Comparison, facts: dict
) -> Tokenizer | None:
    config = info.text_encoder if info else None
    if config is None:  # a text encoder that no metadata describes
        comparison.unexpected += [TEXT_PREFIX + name for name in shapes]
        return None
    _require_tensors(facts, config.num_layers)
    tokenizer = _read_tokenizer(header.metadata.get(TOKENIZER_KEY), config)
    comparison.add(SmallTextEncoder(config, tokenizer, device="meta", operations=UNFILLED), shapes, TEXT_PREFIX)
    return tokenizer


def _read_tokenizer(text: str | None, config: SmallTextConfig) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_str(text or "")
    except Exception as error:  # the library raises nothing more specific
        raise MRTError(
            f"there is a text encoder, but its metadata `{TOKENIZER_KEY}` is missing or damaged; download the file again"
        ) from error
    if tokenizer.token_to_id(END) is None or tokenizer.get_vocab_size() > config.vocabulary:
        raise MRTError(
            f"the tokenizer of {tokenizer.get_vocab_size()} tokens does not fit the text encoder, "
            f"which knows {config.vocabulary} with {END} among them; download the file again"
        )
    return tokenizer


def _remedy(path: Path) -> str:
    if re.search(r"-\d{5}-of-\d{5}", path.name):
        return "it is one of several shards: join them into one .safetensors file, or use the single-file version"
    return "use the file that belongs to this version, or download it again"
