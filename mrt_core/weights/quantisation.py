"""How the weights of a transformer are quantised, and whether we can use them (architecture: weight files).

A scheme marks its layers in a way of its own; here each becomes the same: a format per layer, and the tensors `weight`,
`weight_scale` and `input_scale`, as ComfyUI calls them.
"""

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

from .gguf_file import GGUFFile
from .gguf_types import BLOCK_FORMATS, PLAIN_TYPES
from .safetensors_header import DTYPE_BITS, TensorEntry
from .source import WeightSource

FLOAT8_FORMATS = {"float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2"}  # ours and ComfyUI's name: the file format's
SCALED_FORMATS = {**FLOAT8_FORMATS, "int8": "I8"}  # numbers of 8 bit, times a scale that is stored beside them
PLAIN_DTYPES = {"F64", "F32", "F16", "BF16", *FLOAT8_FORMATS.values()}
SCALED_FP8, SCALED, BY_ROW, COMFYUI, GGUF = "scaled fp8", "scaled", "scaled by row", "ComfyUI's mixed format", "GGUF"
MARKER, METADATA_KEY = "scaled_fp8", "_quantization_metadata"
DESCRIPTION = "comfy_quant"  # a layer's format as JSON in a tensor of bytes
DESCRIPTION_LIMIT = 4096  # bytes
OUR_NAMES = {"scale_weight": "weight_scale", "weight_scale": "weight_scale",
             "scale_input": "input_scale", "input_scale": "input_scale"}  # fmt: skip
# Schemes that only other software reads: what the names of their tensors end in.
OTHER_SOFTWARE = (
    (re.compile(r"\.weight\.(absmax|quant_map|nested_absmax|nested_quant_map|quant_state\..*)$"), "bitsandbytes"),
    (re.compile(r"(^|\.)(wscales|smooth_factor(_orig)?|wcscales|wtscale)$"), "SVDQuant of nunchaku"),
    (re.compile(r"(^|\.)(encoded_exponent|sign_mantissa|output_positions|split_positions)$"), "DFloat11"),
    (re.compile(r"\.(qzeros|g_idx)$"), "GPTQ or AWQ"),
    (re.compile(r"\.qweight$"), "an integer format of other software"),
    (re.compile(r"\.weight\._(data|scale|shift)$"), "optimum-quanto"),
    (re.compile(r"\.(weight_scale_(inv|2)|(weight_)?zero_point|svd_(up|down))$"), "a format of other software"),
)  # fmt: skip
UNKNOWN = "an unknown format"


class LayerFormat(NamedTuple):
    """How the weight of a layer is stored; `full_precision` forbids multiplication in fp8, `per_row` is a scale per row."""

    name: str
    full_precision: bool = False
    per_row: bool = False

    @property
    def dtype(self) -> str | None:
        """The dtype that the weight must have in the file; None where the format alone tells it."""
        return SCALED_FORMATS.get(self.name)


@dataclass(frozen=True)
class Quantisation:
    """The scheme in words, the format of each layer, and the formats among them that we cannot use.

    Layers are named as in the transformer: `<layer>.weight` is packed. `sidecars` are the names of all other tensors that
    belong to the scheme.
    """

    scheme: str
    layers: Mapping[str, LayerFormat]
    sidecars: Collection[str] = ()
    foreign: bool = False  # whether other software alone knows which tensors it takes

    @property
    def formats(self) -> tuple[str, ...]:
        return tuple(sorted({layer.name for layer in self.layers.values()}))

    @property
    def refused(self) -> tuple[str, ...]:
        """The formats that cannot be used, in words."""
        known = SCALED_FORMATS.keys() | BLOCK_FORMATS.keys()
        return tuple(name for name in self.formats if name not in known)

    def __str__(self) -> str:
        formats = "/".join(self.formats)
        return self.scheme if formats in ("", self.scheme) else f"{self.scheme} ({formats})"


def find_quantisation(source: WeightSource, prefix: str, names: Collection[str]) -> Quantisation | None:
    """How the tensors `names`, those of the transformer behind its prefix, are quantised; None for plain numbers."""
    tensors = {name: source.tensors[prefix + name] for name in names}
    described = source.settings.quantisation
    if described:
        return _other_software(tensors, described)
    if isinstance(source, GGUFFile):
        return _packed(GGUF, tensors, PLAIN_TYPES)
    sidecars = [name for name in names if _is_sidecar(name, tensors)]
    described = _described_layers(source, prefix, sidecars)
    if described:
        return Quantisation(COMFYUI, described, sidecars)
    if method := find_other_software(names):
        return _other_software(tensors, method)
    scaled = _scaled_layers(tensors)
    if scaled or MARKER in tensors:
        return Quantisation(_scheme_of(scaled.values()), scaled, sidecars)
    return _packed("packed numbers", tensors, PLAIN_DTYPES)


def _packed(scheme: str, tensors: Mapping[str, TensorEntry], plain: Collection[str]) -> Quantisation | None:
    """A scheme that marks its layers with nothing but the dtype of their weights."""
    weights = {name: entry.dtype for name, entry in tensors.items() if name.endswith(".weight")}
    packed = {name.removesuffix(".weight"): LayerFormat(dtype) for name, dtype in weights.items() if dtype not in plain}
    return Quantisation(scheme, packed) if packed else None


def _is_sidecar(name: str, tensors: Mapping[str, TensorEntry]) -> bool:
    """Whether a tensor belongs to the scheme of a weight that is there, or marks the whole file."""
    layer, _, last = name.rpartition(".")
    return name == MARKER or ((last in OUR_NAMES or last == DESCRIPTION) and f"{layer}.weight" in tensors)


def find_other_software(names: Collection[str]) -> str | None:
    """The scheme that only other software reads, where the names of the tensors show one."""
    return next((method for mark, method in OTHER_SOFTWARE if any(map(mark.search, names))), None)


def _other_software(tensors: Mapping[str, TensorEntry], method: str) -> Quantisation:
    """A scheme that other software reads; which of the layers it packed matters to nobody here."""
    weights = [name for name in tensors if name.endswith(".weight")] or ["all.weight"]
    layers = {name.removesuffix(".weight"): LayerFormat(method) for name in weights}
    return Quantisation(method, layers, foreign=True)


def _scaled_layers(tensors: Mapping[str, TensorEntry]) -> dict[str, LayerFormat]:
    """The layers that have a scale and no description. A marker of two elements forbids multiplication in fp8."""
    full_precision = MARKER in tensors and tensors[MARKER].shape == (2,)
    known = {dtype: name for name, dtype in SCALED_FORMATS.items()}
    layers = {}
    for name, scale in tensors.items():
        layer, _, last = name.rpartition(".")
        weight = tensors.get(f"{layer}.weight")
        if last not in ("scale_weight", "weight_scale") or weight is None or weight.dtype not in PLAIN_DTYPES | {"I8"}:
            continue
        per_row = prod(scale.shape) == weight.shape[0] != 1 if weight.shape else False
        layers[layer] = LayerFormat(known.get(weight.dtype, "float8_e4m3fn"), full_precision, per_row)
    return layers


def _scheme_of(layers: Collection[LayerFormat]) -> str:
    if any(layer.per_row for layer in layers):
        return BY_ROW
    return SCALED_FP8 if all(layer.name in FLOAT8_FORMATS for layer in layers) else SCALED


def _described_layers(source: WeightSource, prefix: str, sidecars: Collection[str]) -> dict[str, LayerFormat]:
    """The layers of ComfyUI's scheme, described in the metadata or in a tensor of each layer."""
    layers = {}
    if METADATA_KEY in source.metadata:
        described = _parse(source.metadata[METADATA_KEY]).get("layers")
        for name, description in (described if isinstance(described, dict) else {}).items():
            layers[name.removeprefix(prefix)] = _layer_format(description)
    entries = {name: source.tensors[prefix + name] for name in sidecars if name.endswith(f".{DESCRIPTION}")}
    small = [name for name, entry in entries.items() if entry.dtype == "U8" and sum(entry.shape) <= DESCRIPTION_LIMIT]
    layers |= {name.removesuffix(f".{DESCRIPTION}"): LayerFormat(UNKNOWN) for name in entries}
    for name, data in source.peek([prefix + name for name in small]):
        layer = name.removeprefix(prefix).removesuffix(f".{DESCRIPTION}")
        layers[layer] = _layer_format(_parse(data))
    return layers


def belongs_to_packed(name: str, tensors: Mapping[str, TensorEntry]) -> bool:
    """Whether a tensor that no scheme knows stands beside a weight of 8 bit or less, which it may scale."""
    layer = name.rpartition(".")[0]
    owners = (tensors.get(owner) for owner in (f"{layer}.weight", layer, name.removesuffix("_scale")) if owner != name)
    return any(owner is not None and DTYPE_BITS.get(owner.dtype, 0) <= 8 for owner in owners)


def _parse(text: str | bytes) -> dict[str, Any]:
    """A JSON object; empty for anything else, which then describes an unknown format."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def _layer_format(description: Any) -> LayerFormat:
    values = description if isinstance(description, dict) else {}
    name = values.get("format")
    name = name[:40] if isinstance(name, str) and name.isprintable() and name else UNKNOWN
    return LayerFormat(name, values.get("full_precision_matrix_mult") is True)


def our_name(name: str) -> str | None:
    """What we call a tensor of a quantised file; None for marks, which the layers' formats replace."""
    layer, _, last = name.rpartition(".")
    if name == MARKER or last == DESCRIPTION:
        return None
    return f"{layer}.{OUR_NAMES[last]}" if last in OUR_NAMES else name
