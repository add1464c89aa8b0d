"""How LoRA files name a model's layers: prefix, layer, suffix (architecture: LoRA names).

A name is looked up among all spellings of the model's own layers, so that nothing is guessed from underscores.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

from ..checkpoints.parameter_shapes import ParameterGroup, transformer_layers
from ..models.configs import TransformerConfig

PREFIXES = tuple(
    peft + container
    for peft in ("", "base_model.model.")
    for container in ("", "diffusion_model.", "model.diffusion_model.", "transformer.")
)
FLATTENED_PREFIXES = ("lora_unet_", "lycoris_")  # before names whose dots are underscores

PAIR_SUFFIXES = (  # of the first matrix, down, and of the second, up
    (".lora_down.weight", ".lora_up.weight"),
    (".lora_A.weight", ".lora_B.weight"),
    (".lora_A.default.weight", ".lora_B.default.weight"),
    (".lora.down.weight", ".lora.up.weight"),
    ("_lora.down.weight", "_lora.up.weight"),
    (".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight"),
    (".lora_A", ".lora_B"),
)
SAVED_PREFIX, SAVED_SUFFIXES = "transformer.", PAIR_SUFFIXES[1]  # known to diffusers and to ComfyUI
ALPHA_SUFFIX = ".alpha"

# Tensors of other kinds of adapters, which change a weight by another formula.
OTHER_KINDS = (
    (re.compile(r"\.hada_\w+$"), "LoHa"),
    (re.compile(r"\.lokr_\w+$"), "LoKr"),
    (re.compile(r"\.(a1|a2|b1|b2)\.weight$"), "GLoRA"),
    (re.compile(r"\.(oft_\w+|boft_\w+|rescale)(\.|$)"), "OFT or BOFT"),
    (re.compile(r"\.(dora_scale|lora_magnitude_vector(\.default)?(\.weight)?)$"), "DoRA"),
    (re.compile(r"\.lora_mid\.weight$"), "Tucker-decomposed LoRA"),
    (re.compile(r"\.(set_weight|reshape_weight)$"), "weight-replacing LoRA"),
    (re.compile(r"\.(w_norm|b_norm)$"), "LyCORIS norm"),
    (re.compile(r"\.lora_(B(\.default)?|up)\.bias$"), "LoRA with biases"),
)

# LoRA files for other models: what gives them away.
OTHER_MODELS = (
    (re.compile(r"^lora_te\d?_|^text_encoders?[._]"), "a text encoder"),
    (re.compile(r"single_transformer_blocks|(double|single)_blocks"), "FLUX or HunyuanVideo"),
    (re.compile(r"joint_blocks"), "Stable Diffusion 3"),
    (re.compile(r"(input|output|middle|down|up|mid)_blocks?[._]"), "Stable Diffusion"),
    (re.compile(r"transformer_blocks[._]\d+[._](ff|norm1)"), "FLUX or Stable Diffusion 3"),
    (re.compile(r"(?<!transformer_)(?<![a-z])blocks[._]\d+[._]"), "Wan or Cosmos"),
    (re.compile(r"(^|[._])layers[._]\d+[._]"), "Lumina, Z-Image or a language model"),
)  # fmt: skip


class Part(StrEnum):
    """What a tensor of a LoRA file holds."""

    DOWN = "down"
    UP = "up"
    ALPHA = "alpha"
    WEIGHT = "weight"  # a difference of the whole weight
    BIAS = "bias"  # a difference of the bias


DIFFERENCE_SUFFIXES = {Part.WEIGHT: ".diff", Part.BIAS: ".diff_b"}
PART_OF_SUFFIX = {
    **{down: Part.DOWN for down, _ in PAIR_SUFFIXES},
    **{up: Part.UP for _, up in PAIR_SUFFIXES},
    ALPHA_SUFFIX: Part.ALPHA,
    **{suffix: part for part, suffix in DIFFERENCE_SUFFIXES.items()},
}


class Spelling(NamedTuple):
    """A layer as a file spells it: the layer's own name, and what stands before it in the file."""

    layer: str
    prefix: str


@dataclass(frozen=True)
class ModelLayers:
    """The layers of a transformer by their names, and every spelling of each."""

    layers: Mapping[str, ParameterGroup]
    spellings: Mapping[str, Spelling]


@lru_cache(maxsize=8)
def model_layers(config: TransformerConfig) -> ModelLayers:
    """The layers of a transformer of these sizes."""
    layers = transformer_layers(config)
    spellings = {prefix + name: Spelling(name, prefix) for name in layers for prefix in PREFIXES}
    for prefix in FLATTENED_PREFIXES:
        spellings |= {prefix + name.replace(".", "_"): Spelling(name, prefix) for name in layers}
    return ModelLayers(layers, spellings)


class TensorName(NamedTuple):
    """A tensor's name in a LoRA file: the layer as spelled there, with its prefix, and the suffix that says which part."""

    owner: str
    suffix: str

    @property
    def part(self) -> Part:
        return PART_OF_SUFFIX[self.suffix]


def split_name(name: str) -> TensorName | None:
    """A tensor's name, split; None where it ends like no tensor of a LoRA."""
    suffix = max((suffix for suffix in PART_OF_SUFFIX if name.endswith(suffix)), key=len, default=None)
    return None if suffix is None else TensorName(name.removesuffix(suffix), suffix)


def other_kind(names: Iterable[str]) -> tuple[str, str] | None:
    """Which kind of adapter that is not a plain LoRA, and the name that gives it away."""
    return next(((kind, name) for name in names for pattern, kind in OTHER_KINDS if pattern.search(name)), None)


def other_model(names: Iterable[str]) -> str | None:
    """Which other model the names belong to, where they show it."""
    names = list(names)
    return next((model for pattern, model in OTHER_MODELS if any(map(pattern.search, names))), None)


def block_count(names: Iterable[str]) -> int:
    """How many transformer blocks a model must have to have all these layers."""
    found = (re.search(r"transformer_blocks[._](\d{1,4})[._]", name) for name in names)
    return max((int(match[1]) + 1 for match in found if match), default=0)
