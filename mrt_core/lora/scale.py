"""How strong a LoRA is by its own account: alpha / rank, from the file or from PEFT's settings
(architecture: LoRA names).

The settings of a file and of the folder it lies in are untrusted input.
"""

import json
import math
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import MRTError
from ..weights.safetensors_header import SafetensorsHeader, read_bytes
from ..weights.scalars import decode_scalar
from .names import Part
from .resolution import ResolvedNames

PEFT_METADATA = "lora_adapter_metadata"  # of the file: PEFT's settings as diffusers stores them, in JSON
PEFT_FILE = "adapter_config.json"  # beside the file: PEFT's settings as PEFT stores them
PEFT_CONTAINER = "transformer."  # before the settings' names where a file holds those of several models
LARGEST_FILE = 2**20  # bytes


# What of a regular expression can take forever, even on a short name.
REPEATED_GROUP = re.compile(r"\)[*+{]")
MOST_REPEATS = 4  # in one pattern
PLAIN_NAME = re.compile(r"[\w.]+")


class PeftSettings(NamedTuple):
    """What PEFT says of a LoRA; the patterns give other values for layers whose names end in a match of theirs."""

    source: str
    alpha: float
    rank: float | None
    alpha_pattern: Mapping[str, float]
    rank_pattern: Mapping[str, float]
    by_root: bool  # scaled by alpha / sqrt(rank)

    def scale(self, layer: str, rank: int) -> float:
        """The scale of one layer; raises MRTError where the settings belong to a LoRA of another rank."""
        stated = self._of_layer(self.rank_pattern, layer, self.rank)
        if stated is not None and stated != rank:
            raise MRTError(
                f"{self.source} says rank {stated:g} for the layer {layer}, but its matrices have rank {rank}; use the "
                "settings that belong to the file, or remove them"
            )
        alpha = self._of_layer(self.alpha_pattern, layer, self.alpha)
        return alpha / math.sqrt(rank) if self.by_root else alpha / rank

    def _of_layer(self, patterns: Mapping[str, float], layer: str, default: float | None) -> float | None:
        """The value of the first pattern that matches, as in PEFT, or of none."""
        return next((value for pattern, value in patterns.items() if _matches(pattern, layer, self.source)), default)


def _matches(pattern: str, layer: str, source: str) -> bool:
    """Whether PEFT applies a pattern to a layer: it is a regular expression of the end of the layer's name."""
    if PLAIN_NAME.fullmatch(pattern):
        return f".{layer}".endswith(f".{pattern}")
    compiled = _compile(pattern, source)
    return any(compiled.match(name) for name in (layer, PEFT_CONTAINER + layer))


@lru_cache(maxsize=4096)
def _compile(pattern: str, source: str) -> re.Pattern:
    """The pattern as PEFT reads it; raises MRTError for one that is wrong, or could take forever."""
    if REPEATED_GROUP.search(pattern) or len(re.findall(r"(?<!\\)[*+]", pattern)) > MOST_REPEATS:
        raise MRTError(
            f"{source} has the pattern {pattern[:80]!r}, but at most {MOST_REPEATS} repetitions are read, none of them of a "
            "group; write the layers' names instead"
        )
    try:
        return re.compile(rf"(.*\.)?({pattern})$")
    except (re.error, RecursionError, OverflowError):
        raise MRTError(
            f"{source} has the pattern {pattern[:80]!r}, but that is no regular expression; download the LoRA again"
        ) from None


def peft_settings(path: Path, metadata: Mapping[str, str]) -> PeftSettings | None:
    """PEFT's settings of a LoRA file, from its metadata or from the folder; None where neither has them."""
    if PEFT_METADATA in metadata:
        values = _parse(metadata[PEFT_METADATA], f"the metadata {PEFT_METADATA} of {path.name}")
        inner = {name.removeprefix(PEFT_CONTAINER): value for name, value in values.items()}
        return _settings(inner, f"the metadata {PEFT_METADATA} of {path.name}")
    if "lora_alpha" in metadata:
        source = f"the metadata of {path.name}"
        numbers = {name: _parse_number(metadata[name], source) for name in ("lora_alpha", "r") if name in metadata}
        return _settings(numbers, source)
    beside = path.parent / PEFT_FILE
    if not beside.is_file():
        return None
    with beside.open("rb") as file:
        text = file.read(LARGEST_FILE).decode("utf-8", "replace")
    source = f"{PEFT_FILE} beside {path.name}"
    return _settings(_parse(text, source), source)


def _parse(text: str, source: str) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise MRTError(f"{source} is not a JSON object of PEFT's settings; download the LoRA again")
    return values


def _parse_number(text: str, source: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise MRTError(f"{source} says {text!r} where a number was expected; download the LoRA again") from None


def _settings(values: Mapping[str, Any], source: str) -> PeftSettings | None:
    """The settings that matter; None where they do not state an alpha, or PEFT does not use it, as with LoKr."""
    key = {"LOHA": "alpha", "LOKR": None}.get(str(values.get("peft_type")).upper(), "lora_alpha")
    if key is None or values.get(key) is None:
        return None

    def number(value: Any, name: str) -> float:
        if type(value) not in (int, float) or not math.isfinite(value):
            raise MRTError(f"{source} says {name} {value!r}, but a number was expected; download the LoRA again")
        return value

    def pattern(name: str) -> dict[str, float]:
        found = values.get(name) or {}
        if not isinstance(found, dict):
            raise MRTError(f"{source} says {name} {found!r}, but a JSON object was expected; download the LoRA again")
        return {layer.removeprefix(PEFT_CONTAINER): number(value, name) for layer, value in found.items()}

    rank = values.get("r")
    return PeftSettings(
        source,
        number(values[key], key),
        None if rank is None else number(rank, "r"),
        pattern("alpha_pattern"),
        pattern("rank_pattern"),
        values.get("use_rslora") is True,
    )


def scales(
    file: str, ranks: Mapping[str, int], alphas: Mapping[str, float], settings: PeftSettings | None
) -> dict[str, float]:
    """The scale of every layer's pair: from its own alpha, else from PEFT's settings, else 1; raises MRTError."""
    found = {}
    for layer, rank in ranks.items():
        if layer in alphas:
            found[layer] = alphas[layer] / rank
        else:
            found[layer] = settings.scale(layer, rank) if settings else 1.0
        if not math.isfinite(found[layer]):
            raise MRTError(f"{file} has an alpha for the layer {layer} that is not a number; download the file again")
    return found


def read_scales(path: Path, header: SafetensorsHeader, match: ResolvedNames) -> dict[str, float]:
    """alpha / rank of every layer that has a pair; raises MRTError."""
    names = {name: layer for (layer, part), name in match.tensors.items() if part is Part.ALPHA}
    alphas = {names[name]: decode_scalar(data, header.tensors[name].dtype) for name, data in read_bytes(path, names)}
    settings = peft_settings(path, header.metadata) if match.ranks.keys() - alphas.keys() else None
    return scales(path.name, match.ranks, alphas, settings)
