"""Which tensors of a LoRA file belong to which layer of a model, told and checked from the file's header alone."""

from dataclasses import dataclass, field, replace
from math import prod

from ..checkpoints.parameter_shapes import ParameterGroup
from ..errors import MRTError
from ..models.configs import TransformerConfig
from ..weights.safetensors_header import SafetensorsHeader, TensorEntry
from .factors import Kind, fits, kinds_of, missing_parts, rank_of
from .names import (
    Part,
    Spelling,
    TensorName,
    block_count,
    is_of_text_encoder,
    model_layers,
    other_kind,
    other_model,
    split_name,
)

FLOATS = {"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"}
SCALARS = FLOATS | {"I64", "I32"}  # of alpha, which some programs write as a whole number
EXTRA_TIMESTEP = "addition_t_embedding"  # a layer that Qwen-Image-Layered has and Qwen-Image has not


@dataclass(frozen=True)
class ResolvedNames:
    """The tensors of a LoRA file by the layer and part that they belong to; names are as in the file."""

    tensors: dict[tuple[str, Part], str] = field(default_factory=dict)
    kinds: dict[str, Kind] = field(default_factory=dict)  # of each layer that has factors
    ranks: dict[str, int] = field(default_factory=dict)  # of those among them whose scale is alpha / rank
    prefixes: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()
    text_encoder: tuple[str, ...] = ()  # names of the half that changes a text encoder, which is not used
    misfits: tuple[str, ...] = ()  # layers whose LoHa or LoKr is left out, in the words of an error


def resolve_tensors(file: str, header: SafetensorsHeader, config: TransformerConfig) -> ResolvedNames:
    """Find the layer of every tensor of `file` and check that their shapes fit; raises MRTError.

    A LoHa or LoKr whose factors do not make its layer's weight, as some programs write them, is left out where others fit.
    """
    match = resolve_names(file, header, config)
    layers = model_layers(config).layers
    parts: dict[str, dict[Part, TensorEntry]] = {}
    for (layer, part), name in match.tensors.items():
        entry = header.tensors[name]
        _check_dtype(file, name, entry, part)
        parts.setdefault(layer, {})[part] = entry
        if part in (Part.WEIGHT, Part.BIAS):
            _check_difference(file, layers[layer], part, entry)
    misfits = {}
    for layer, kind in match.kinds.items():
        problem = _problem(layers[layer], kind, parts[layer])
        if problem and (kind is Kind.LORA or not layers[layer].linear):
            raise MRTError(f"{file} has {problem}; use a LoRA made for this model")
        if problem:
            misfits[layer] = problem
    if misfits and len(misfits) == len(match.kinds):
        raise MRTError(f"{file} has {next(iter(misfits.values()))}; use a LoRA made for this model")
    return _without(match, misfits) if misfits else match


def _without(match: ResolvedNames, misfits: dict[str, str]) -> ResolvedNames:
    whole = (Part.WEIGHT, Part.BIAS)
    return replace(
        match,
        tensors={key: name for key, name in match.tensors.items() if key[0] not in misfits or key[1] in whole},
        kinds={layer: kind for layer, kind in match.kinds.items() if layer not in misfits},
        ranks={layer: rank for layer, rank in match.ranks.items() if layer not in misfits},
        misfits=tuple(misfits.values()),
    )


@dataclass(frozen=True)
class FileNames:
    """The tensors of a file by whose they are: the transformer's, with their layers; a text encoder's; and all others."""

    own: dict[str, tuple[Spelling, TensorName]]
    text_encoder: tuple[str, ...]
    strangers: list[str]


def split_file(header: SafetensorsHeader, config: TransformerConfig) -> FileNames:
    """Whose the tensors of a LoRA file are; a text encoder's count as strangers where there is nothing else."""
    layers, own, others = model_layers(config), {}, []
    for name in header.tensors:
        parsed = split_name(name)
        spelling = layers.find(parsed.owner) if parsed else None
        if spelling is None:
            others.append(name)
        else:
            own[name] = spelling, parsed
    text = tuple(filter(is_of_text_encoder, others)) if own else ()
    return FileNames(own, text, [name for name in others if name not in set(text)])


def resolve_names(file: str, header: SafetensorsHeader, config: TransformerConfig) -> ResolvedNames:
    """Find the layer of every tensor by its name; raises MRTError for a file that is no LoRA for such a model."""
    names = split_file(header, config)
    if names.strangers:
        raise _stranger(file, names.strangers, header, config)
    if not names.own:
        raise MRTError(f"{file} holds no tensors, but a LoRA was expected; download it again")
    tensors: dict[tuple[str, Part], str] = {}
    for name, (spelling, parsed) in names.own.items():
        key = spelling.layer, parsed.part
        if key in tensors:
            raise MRTError(
                f"{file} has two tensors for {key[1]} of the layer {key[0]}, {tensors[key]} and {name}, but one was "
                "expected; give each of two LoRAs a file of its own"
            )
        tensors[key] = name
    kinds, ranks = _kinds(file, header, tensors)
    firsts = {parsed.suffix for _, parsed in names.own.values() if parsed.part in SHOWN_PARTS}
    prefixes = {spelling.prefix for spelling, _ in names.own.values()}
    return ResolvedNames(tensors, kinds, ranks, tuple(sorted(prefixes)), tuple(sorted(firsts)), names.text_encoder)


SHOWN_PARTS = {Part.DOWN, Part.HADA_W1_A, Part.LOKR_W1, Part.LOKR_W1_A}  # one of each change, for its suffix


def _kinds(
    file: str, header: SafetensorsHeader, tensors: dict[tuple[str, Part], str]
) -> tuple[dict[str, Kind], dict[str, int]]:
    """The kind and the rank of every layer's change; raises MRTError for a part without those that belong to it."""
    layers: dict[str, dict[Part, str]] = {}
    for (layer, part), name in tensors.items():
        layers.setdefault(layer, {})[part] = name
    found, ranks = {}, {}
    for layer, parts in layers.items():
        kinds = kinds_of(parts)
        if len(kinds) > 1:
            raise MRTError(
                f"{file} has {' and '.join(kinds)} for the layer {layer}, but one change of each layer was expected; give each "
                "a file of its own"
            )
        kind = kinds[0] if kinds else Kind.LORA
        alone = [name for part, name in parts.items() if part not in (Part.WEIGHT, Part.BIAS)]
        missing = missing_parts(kind, parts)
        if missing and alone:
            raise MRTError(
                f"{file} has {alone[0]}, but not the matrix {' and '.join(missing)} that belongs to it for the layer {layer}; "
                "download the file again"
            )
        if not kinds:
            continue
        found[layer] = kind
        rank = rank_of(kind, {part: header.tensors[name] for part, name in parts.items()})
        if rank is not None:
            ranks[layer] = rank
    return found, ranks


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
            f"{file} is of the kind {kind[0]} ({kind[1]}), but LoRA, LoHa, LoKr or DoRA was expected; merge it into a "
            "checkpoint with the program that made it, or use one of these kinds"
        )
    if any(EXTRA_TIMESTEP in name for name in strangers):
        return MRTError(
            f"{file} is a LoRA for Qwen-Image-Layered, whose {EXTRA_TIMESTEP} it changes, but this model has none; use it with "
            "a Qwen-Image-Layered checkpoint"
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


def _problem(layer: ParameterGroup, kind: Kind, entries: dict[Part, TensorEntry]) -> str:
    """Why the factors of a change are none for this layer, in words; empty where they are."""
    if not layer.linear:
        return f"a low-rank pair for {layer.name}, but that is no linear layer"
    rows, columns = layer.shapes["weight"]
    if not fits(kind, entries, rows, columns):
        if kind is Kind.LORA:
            up, down = (list(entries[part].shape) for part in (Part.UP, Part.DOWN))
            return (
                f"a pair up {up} and down {down} for the layer {layer.name}, but [{rows}, rank] and [rank, {columns}] were "
                "expected"
            )
        shapes = ", ".join(f"{part} {list(entry.shape)}" for part, entry in entries.items() if part is not Part.ALPHA)
        return f"a {kind} of {shapes} for the layer {layer.name}, but factors of a matrix [{rows}, {columns}] were expected"
    magnitude = entries.get(Part.MAGNITUDE)
    if magnitude is not None and magnitude.shape not in ((rows,), (rows, 1), (1, columns), (columns,)):
        return (
            f"a DoRA magnitude {list(magnitude.shape)} for the layer {layer.name}, but [{rows}, 1] or [1, {columns}] was "
            "expected"
        )
    return ""


def _check_difference(file: str, layer: ParameterGroup, part: Part, entry: TensorEntry) -> None:
    expected = layer.shapes.get(part)
    if entry.shape != expected:
        shown = "none" if expected is None else list(expected)
        raise MRTError(
            f"{file} has a difference {list(entry.shape)} for the {part} of {layer.name}, but {shown} was expected; "
            "use a LoRA made for this model"
        )
