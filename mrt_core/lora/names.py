"""How LoRA files name a model's layers: prefix, layer, suffix (architecture: LoRA names).

A name is read from its end: the suffix says which part of a change the tensor is, the longest end of the rest that is a layer of
the model is the layer, with dots or with underscores for them, and what remains is a prefix. Any prefix will do, however programs
nest their wrappers, as long as it does not say that the layer is another model's.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

from ..checkpoints.parameter_shapes import ParameterGroup, transformer_layers
from ..models.configs import TransformerConfig

SAVED_PREFIX, SAVED_SUFFIXES = "transformer.", (".lora_A.weight", ".lora_B.weight")  # known to diffusers and to ComfyUI
ALPHA_SUFFIX = ".alpha"


class Part(StrEnum):
    """What a tensor of a LoRA file holds."""

    DOWN = "down"
    UP = "up"
    ALPHA = "alpha"
    MAGNITUDE = "magnitude"  # of DoRA
    WEIGHT = "weight"  # a difference of the whole weight
    BIAS = "bias"  # a difference of the bias
    HADA_W1_A = "hada_w1_a"
    HADA_W1_B = "hada_w1_b"
    HADA_W2_A = "hada_w2_a"
    HADA_W2_B = "hada_w2_b"
    HADA_T1 = "hada_t1"
    HADA_T2 = "hada_t2"
    LOKR_W1 = "lokr_w1"
    LOKR_W1_A = "lokr_w1_a"
    LOKR_W1_B = "lokr_w1_b"
    LOKR_W2 = "lokr_w2"
    LOKR_W2_A = "lokr_w2_a"
    LOKR_W2_B = "lokr_w2_b"
    LOKR_T2 = "lokr_t2"


DIFFERENCE_SUFFIXES = {Part.WEIGHT: ".diff", Part.BIAS: ".diff_b"}
SIDES = {"A": Part.DOWN, "down": Part.DOWN, "B": Part.UP, "up": Part.UP}

# Suffixes; PEFT puts the adapter's name, which may be anything without a dot, before the last `.weight`.
NAMED = r"(?:\.(?!(?:weight|bias)$)[^.]+)??(?:\.weight)?$"
PAIR = re.compile(rf"(?:\.lora_|[._]lora\.|\.lora_linear_layer\.)(?P<side>A|B|down|up){NAMED}")
LYCORIS = re.compile(rf"\.(?P<part>hada_(?:w[12]_[ab]|t[12])|lokr_(?:w[12](?:_[ab])?|t2)){NAMED}")
MAGNITUDE = re.compile(rf"\.(?:dora_scale|lora_magnitude_vector){NAMED}")
PLAIN = re.compile(r"\.(?P<part>alpha|diff|diff_b)$")
PLAIN_PARTS = {"alpha": Part.ALPHA, "diff": Part.WEIGHT, "diff_b": Part.BIAS}

# Tensors of kinds of adapters that are not read.
OTHER_KINDS = (
    (re.compile(r"\.(a1|a2|b1|b2)\.weight$"), "GLoRA"),
    (re.compile(r"\.(oft_\w+|boft_\w+|rescale)(\.|$)"), "OFT or BOFT"),
    (re.compile(r"\.lora_mid\.weight$"), "Tucker-decomposed LoRA"),
    (re.compile(r"\.(set_weight|reshape_weight)$"), "weight-replacing LoRA"),
    (re.compile(r"\.(w_norm|b_norm)$"), "LyCORIS norm"),
    (re.compile(r"\.lora_(B|up)(\.[^.]+)?\.bias$"), "LoRA with biases"),
    (re.compile(r"\.(ia3_l\.?\w*|vera_lambda_\w+|lora_embedding_[AB])(\.|$)"), "IA3, VeRA or LoRA of embeddings"),
)

# LoRA files for other models: what gives them away.
TEXT_ENCODER = re.compile(
    r"(^|[._])(te\d?|text_encoders?|text_model|clip(_[lg])?|t5(xxl)?|qwen2\w*|llm|language_model|visual|vision_model)[._]"
    r"|(^|[._])layers[._]\d+[._](self_attn|mlp)[._]"
)
OTHER_MODELS = (
    (re.compile(r"controlnet"), "a ControlNet"),
    (re.compile(r"single_transformer_blocks|(double|single)_blocks"), "FLUX or HunyuanVideo"),
    (re.compile(r"joint_blocks"), "Stable Diffusion 3"),
    (re.compile(r"(input|output|middle|down|up|mid)_blocks?[._]"), "Stable Diffusion"),
    (re.compile(r"transformer_blocks[._]\d+[._](ff|norm1)"), "FLUX or Stable Diffusion 3"),
    (re.compile(r"(?<!transformer_)(?<![a-z])blocks[._]\d+[._]"), "Wan or Cosmos"),
    (re.compile(r"(^|[._])layers[._]\d+[._]"), "Lumina, Z-Image or a language model"),
)  # fmt: skip

# What wrappers of PyTorch, PEFT and diffusers put into the middle of a name.
WRAPPERS = {
    "_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "base_layer", "original_module", "processor",
}  # fmt: skip
FLAT_WRAPPERS = re.compile(r"_(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)(?=_)")
# A word in a prefix that makes what follows another module than the transformer's own.
FOREIGN_WORD = re.compile(
    r"\d+|single|double|joint|dual|context|refiner|control|controlnet|vae|encoders?|decoder|text|te\d*|clip|t5|llm|language|"
    r"vision|visual|adapter|embedder|blocks?|layers?"
)
LAST_OF_LIST = ".to_out.0"  # of attention, which some write without the number


class Spelling(NamedTuple):
    """A layer as a file spells it: the layer's own name, and what stands before it in the file."""

    layer: str
    prefix: str


@dataclass(frozen=True)
class ModelLayers:
    """The layers of a transformer by their names, and what each is called with dots and with underscores."""

    layers: Mapping[str, ParameterGroup]
    dotted: Mapping[str, str]
    flattened: Mapping[str, str]

    def find(self, owner: str) -> Spelling | None:
        """The layer that a name in a file ends in; None where there is none or the prefix is another module's."""
        found = self._find_dotted(owner) or self._find_flattened(owner)
        return None if found is None or _is_foreign(found.prefix) else found

    def _find_dotted(self, owner: str) -> Spelling | None:
        words = [word for word in owner.split(".") if word not in WRAPPERS]
        for first in range(len(words)):
            name = ".".join(words[first:])
            if name in self.dotted:
                whole = owner.endswith(name)  # no wrapper inside
                return Spelling(
                    self.dotted[name], owner.removesuffix(name) if whole else ".".join([*words[:first], ""])
                )
        return None

    def _find_flattened(self, owner: str) -> Spelling | None:
        name = FLAT_WRAPPERS.sub("", owner)
        starts = [0, *(match.end() for match in re.finditer(r"[._]", name))]
        start = next((start for start in starts if name[start:] in self.flattened), None)
        return None if start is None else Spelling(self.flattened[name[start:]], name[:start])


def _is_foreign(prefix: str) -> bool:
    return any(FOREIGN_WORD.fullmatch(word) for word in re.split(r"[._]", prefix))


@lru_cache(maxsize=8)
def model_layers(config: TransformerConfig) -> ModelLayers:
    """The layers of a transformer of these sizes."""
    layers = transformer_layers(config)
    dotted = {name: name for name in layers}
    dotted |= {name.removesuffix(".0"): name for name in layers if name.endswith(LAST_OF_LIST)}
    return ModelLayers(layers, dotted, {name.replace(".", "_"): layer for name, layer in dotted.items()})


class TensorName(NamedTuple):
    """A tensor's name in a LoRA file: the layer as spelled there, with its prefix, and the suffix that says which part."""

    owner: str
    suffix: str
    part: Part


def split_name(name: str) -> TensorName | None:
    """A tensor's name, split; None where it ends like no tensor of a LoRA."""
    if match := PAIR.search(name):
        part = SIDES[match["side"]]
    elif match := LYCORIS.search(name):
        part = Part(match["part"])
    elif match := MAGNITUDE.search(name):
        part = Part.MAGNITUDE
    elif match := PLAIN.search(name):
        part = PLAIN_PARTS[match["part"]]
    else:
        return None
    return TensorName(name[: match.start()], name[match.start() :], part)


def other_kind(names: Iterable[str]) -> tuple[str, str] | None:
    """Which kind of adapter that is not read, and the name that gives it away."""
    return next(((kind, name) for name in names for pattern, kind in OTHER_KINDS if pattern.search(name)), None)


def other_model(names: Iterable[str]) -> str | None:
    """Which other model the names belong to, where they show it."""
    names = list(names)
    if names and all(map(is_of_text_encoder, names)):
        return "a text encoder"
    return next((model for pattern, model in OTHER_MODELS if any(map(pattern.search, names))), None)


def is_of_text_encoder(name: str) -> bool:
    """Whether a tensor changes a text encoder."""
    return TEXT_ENCODER.search(name) is not None


def block_count(names: Iterable[str]) -> int:
    """How many transformer blocks a model must have to have all these layers."""
    found = (re.search(r"(?<!single_)transformer_blocks[._](\d{1,4})[._]", name) for name in names)
    return max((int(match[1]) + 1 for match in found if match), default=0)
