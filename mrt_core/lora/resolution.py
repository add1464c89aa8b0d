"""Which tensors of a LoRA file belong to which layer of a model, told and checked from the file's header alone."""

from dataclasses import dataclass, field
from math import prod

from ..checkpoints.parameter_shapes import ParameterGroup
from ..errors import MRTError
from ..models.configs import TransformerConfig
from ..weights.safetensors_header import SafetensorsHeader, TensorEntry
from .names import Part, Spelling, TensorName, block_count, model_layers, other_kind, other_model, split_name

FLOATS = {"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"}
SCALARS = FLOATS | {"I64", "I32"}  # of alpha, which some programs write as a whole number


@dataclass(frozen=True)
class ResolvedNames:
    """The tensors of a LoRA file by the layer and part that they belong to; names are as in the file."""

    tensors: dict[tuple[str, Part], str] = field(default_factory=dict)
    ranks: dict[str, int] = field(default_factory=dict)  # of each layer that has a pair
    prefixes: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()


def resolve_tensors(file: str, header: SafetensorsHeader, config: TransformerConfig) -> ResolvedNames:
    """Find the layer of every tensor of `file` and check that their shapes fit; raises MRTError."""
    match = resolve_names(file, header, config)
    layers = model_layers(config).layers
    for (layer, part), name in match.tensors.items():
        _check_dtype(file, name, header.tensors[name], part)
        if part in (Part.WEIGHT, Part.BIAS):
            _check_difference(file, layers[layer], part, header.tensors[name])
    for layer in match.ranks:
        down, up = (header.tensors[match.tensors[layer, part]] for part in (Part.DOWN, Part.UP))
        _check_pair(file, layers[layer], down, up)
    return match


def resolve_names(file: str, header: SafetensorsHeader, config: TransformerConfig) -> ResolvedNames:
    """Find the layer of every tensor by its name; raises MRTError for a file that is no LoRA for such a model."""
    if strangers := find_strangers(header, config):
        raise _stranger(file, strangers, header, config)
    split = {name: split_name(name) for name in header.tensors}
    spellings = model_layers(config).spellings
    if not split:
        raise MRTError(f"{file} holds no tensors, but a LoRA was expected; download it again")
    tensors: dict[tuple[str, Part], str] = {}
    for name, parsed in split.items():
        key = spellings[parsed.owner].layer, parsed.part
        if key in tensors:
            raise MRTError(
                f"{file} has two tensors for {key[1]} of the layer {key[0]}, {tensors[key]} and {name}, but one was "
                "expected; give each of two LoRAs a file of its own"
            )
        tensors[key] = name
    _check_parts(file, tensors)
    ranks = {
        layer: header.tensors[name].shape[0] if header.tensors[name].shape else 0
        for (layer, part), name in tensors.items()
        if part is Part.DOWN
    }
    pairs = [parsed for parsed in split.values() if parsed.part is Part.DOWN]
    return ResolvedNames(tensors, ranks, _prefixes(split.values(), spellings), tuple(sorted({p.suffix for p in pairs})))


def find_strangers(header: SafetensorsHeader, config: TransformerConfig) -> list[str]:
    """The tensors that are no part of a LoRA for any layer of such a model."""
    spellings = model_layers(config).spellings
    split = {name: split_name(name) for name in header.tensors}
    return [name for name, parsed in split.items() if parsed is None or parsed.owner not in spellings]


def _prefixes(names: list[TensorName], spellings: dict[str, Spelling]) -> tuple[str, ...]:
    return tuple(sorted({spellings[name.owner].prefix for name in names}))


def _stranger(file: str, strangers: list[str], header: SafetensorsHeader, config: TransformerConfig) -> MRTError:
    """What to say of a file with tensors that belong to no layer of the model."""
    if not any(map(split_name, header.tensors)) and not other_kind(strangers):
        return MRTError(
            f"{file} is no LoRA: it has tensors such as {strangers[0]}, but names such as "
            "transformer_blocks.0.attn.to_q.lora_A.weight were expected; give it as the checkpoint if it is one"
        )
    if model := other_model(strangers):
        return MRTError(
            f"{file} is a LoRA for another model, {model}, but one for an MRT or Qwen-Image transformer was expected; "
            "use a LoRA made for this model"
        )
    if kind := other_kind(strangers):
        return MRTError(
            f"{file} is of the kind {kind[0]} ({kind[1]}), but plain LoRA of pairs down and up was expected; "
            "merge it into a checkpoint with the program that made it, or use a plain LoRA"
        )
    blocks = block_count(strangers)
    if blocks > config.num_layers:
        return MRTError(
            f"{file} is a LoRA for a model of at least {blocks} transformer blocks, but this one has "
            f"{config.num_layers}; use a LoRA made for this model"
        )
    return MRTError(
        f"{file} has the tensor {strangers[0]}, but this model has no layer of that name; use a LoRA made for this model"
    )


def _check_parts(file: str, tensors: dict[tuple[str, Part], str]) -> None:
    """Raise MRTError for half a pair, or an alpha without one."""
    for (layer, part), name in tensors.items():
        missing = {
            Part.DOWN: [Part.UP],
            Part.UP: [Part.DOWN],
            Part.ALPHA: [Part.DOWN, Part.UP],
        }.get(part, [])
        absent = [other for other in missing if (layer, other) not in tensors]
        if absent:
            raise MRTError(
                f"{file} has {name}, but not the matrix {' and '.join(absent)} that belongs to it for the layer {layer}; "
                "download the file again"
            )


def _check_dtype(file: str, name: str, entry: TensorEntry, part: Part) -> None:
    allowed = SCALARS if part is Part.ALPHA else FLOATS
    if entry.dtype not in allowed:
        raise MRTError(
            f"{file} has {name} as {entry.dtype}, but floating-point numbers were expected; use a LoRA that is not quantised"
        )
    if part is Part.ALPHA and prod(entry.shape) != 1:
        raise MRTError(
            f"{file} has {name} of shape {list(entry.shape)}, but an alpha is one number; download the file again"
        )


def _check_pair(file: str, layer: ParameterGroup, down: TensorEntry, up: TensorEntry) -> None:
    if not layer.linear:
        raise MRTError(
            f"{file} has a low-rank pair for {layer.name}, but that is no linear layer; use a LoRA made for this model"
        )
    rows, columns = layer.shapes["weight"]
    rank = down.shape[0] if down.shape else 0
    if rank < 1 or down.shape != (rank, columns) or up.shape != (rows, rank):
        raise MRTError(
            f"{file} has a pair up {list(up.shape)} and down {list(down.shape)} for the layer {layer.name}, but [{rows}, "
            f"rank] and [rank, {columns}] were expected; use a LoRA made for this model"
        )


def _check_difference(file: str, layer: ParameterGroup, part: Part, entry: TensorEntry) -> None:
    expected = layer.shapes.get(part)
    if entry.shape != expected:
        shown = "none" if expected is None else list(expected)
        raise MRTError(
            f"{file} has a difference {list(entry.shape)} for the {part} of {layer.name}, but {shown} was expected; "
            "use a LoRA made for this model"
        )
