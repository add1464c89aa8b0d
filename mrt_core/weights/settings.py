"""What the config files of a diffusers folder say that the shapes of its tensors cannot
(architecture: Qwen-Image, latents)."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import MRTError
from ..models.configs import LATENT_CHANNELS

CONFIG_LIMIT = 1_000_000  # bytes; real ones have a few thousand


@dataclass(frozen=True)
class FolderSettings:
    """Settings of the config files beside the weights; None where they are silent or there are none."""

    pipeline: str | None = None  # class name in model_index.json
    zero_cond_t: bool | None = None
    additional_t_cond: bool | None = None
    head_dim: int | None = None
    rope_axes: tuple[int, int, int] | None = None
    quantisation: str | None = None  # the method by which other software quantised the transformer
    latent_mean: tuple[float, ...] | None = None
    latent_std: tuple[float, ...] | None = None


NO_SETTINGS = FolderSettings()


def read_json(path: Path, limit: int = CONFIG_LIMIT) -> dict[str, Any]:
    """The object of a JSON file of at most `limit` bytes; raises MRTError for anything else."""
    try:
        size = path.stat().st_size
        values = json.loads(path.read_bytes()) if size <= limit else None
    except OSError as error:
        raise MRTError(f"{path} cannot be read ({error.strerror}); check the path and its permissions") from error
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise MRTError(f"{path} ({size} bytes) is no JSON object of at most {limit} bytes; download the file again")
    return values


def transformer_settings(path: Path) -> dict[str, Any]:
    """Fields of FolderSettings from a transformer's config.json; empty when there is none."""
    if not path.is_file():
        return {}
    values = read_json(path)
    boolean, count = _typed(bool, "true or false"), _typed(int, "a whole number")
    found = {
        "zero_cond_t": _field(path, values, "zero_cond_t", boolean),
        "additional_t_cond": _field(path, values, "use_additional_t_cond", boolean),
        "head_dim": _field(path, values, "attention_head_dim", count),
        "rope_axes": _field(path, values, "axes_dims_rope", _numbers(int, 3)),
    }
    quantised = values.get("quantization_config")
    if quantised is not None:
        method = quantised.get("quant_method") if isinstance(quantised, dict) else None
        found["quantisation"] = str(method or "an unknown format")[:40]
    return found


def autoencoder_settings(path: Path) -> dict[str, Any]:
    """Fields of FolderSettings from an autoencoder's config.json; empty when there is none."""
    if not path.is_file():
        return {}
    values = read_json(path)
    channels = _numbers(float, LATENT_CHANNELS)
    return {f"latent_{name}": _field(path, values, f"latents_{name}", channels) for name in ("mean", "std")}


Check = tuple[str, Callable[[Any], bool], Callable[[Any], Any]]  # the rule in words, whether it holds, the value read


def _typed(kind: type, rule: str) -> Check:
    return rule, lambda value: type(value) is kind, lambda value: value


def _numbers(kind: type, count: int) -> Check:
    kinds = (int,) if kind is int else (int, float)
    return (
        f"a list of {count} {'whole numbers' if kind is int else 'numbers'}",
        lambda value: isinstance(value, list) and len(value) == count and all(type(item) in kinds for item in value),
        lambda value: tuple(kind(item) for item in value),
    )


def _field(path: Path, values: Mapping[str, Any], name: str, check: Check) -> Any:
    value, (rule, holds, read) = values.get(name), check
    if value is None:
        return None
    if not holds(value):
        shown = repr(value)[:60]
        raise MRTError(
            f"{name} in {path.parent.name}/{path.name} is {shown}, but it must be {rule}; download the file again"
        )
    return read(value)
