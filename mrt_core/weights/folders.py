"""Weights in several files: shards with or without an index, and diffusers folders (architecture: weight files)."""

import re
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

from ..errors import MRTError
from .keys import AUTOENCODER_PREFIX
from .safetensors_header import HEADER_LIMIT
from .settings import NO_SETTINGS, FolderSettings, autoencoder_settings, read_json, transformer_settings
from .source import JoinedWeights, SafetensorsFile, TensorLocation, join

INDEX_SUFFIX = ".safetensors.index.json"
PIPELINE_FILE = "model_index.json"
SHARD = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.safetensors")


def open_folder(folder: Path) -> JoinedWeights:
    """The weights of a diffusers folder, of its transformer folder, or of a folder of shards.

    Of a whole diffusers folder the transformer is read, and the autoencoder behind `vae.`. Raises MRTError.
    """
    if not (folder / PIPELINE_FILE).is_file():
        return _open_model(folder, transformer_settings(folder / "config.json"))
    transformer, autoencoder = folder / "transformer", folder / "vae"
    if not transformer.is_dir():
        raise MRTError(
            f"{folder} has a {PIPELINE_FILE} but no folder `transformer`, which holds the weights; download the whole folder"
        )
    pipeline = read_json(folder / PIPELINE_FILE).get("_class_name")
    settings = {"pipeline": pipeline if isinstance(pipeline, str) else None}
    settings |= transformer_settings(transformer / "config.json")
    parts = [("", _open_model(transformer, {}))]
    if autoencoder.is_dir():
        settings |= autoencoder_settings(autoencoder / "config.json")
        parts.append((AUTOENCODER_PREFIX, _open_model(autoencoder, {})))
    return join(parts, FolderSettings(**settings))


def _open_model(folder: Path, settings: dict) -> JoinedWeights:
    """One model's weights: those of the folder's index, its shards, or its only file."""
    indices = sorted(folder.glob(f"*{INDEX_SUFFIX}"))
    opened = _open_shards_of_index(indices[0]) if len(indices) == 1 else _open_files(folder, indices)
    return replace(opened, settings=FolderSettings(**settings))


def open_index(path: Path) -> JoinedWeights:
    """The shards that an index names, with the settings of the config.json beside it; raises MRTError."""
    settings = FolderSettings(**transformer_settings(path.with_name("config.json")))
    return replace(_open_shards_of_index(path), settings=settings)


def _open_shards_of_index(path: Path) -> JoinedWeights:
    """The tensors of an index from the shards it names, which lie in its own folder."""
    weight_map = read_json(path, HEADER_LIMIT).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise MRTError(f"{path.name} has no `weight_map`, which names the shard of every tensor; download it again")
    names: dict[str, list[str]] = defaultdict(list)
    for tensor, shard in weight_map.items():
        if not isinstance(shard, str) or Path(shard).name != shard or not shard.endswith(".safetensors"):
            raise MRTError(
                f"{path.name} says that {tensor} is in {str(shard)[:80]!r}, but shards are .safetensors files beside it; "
                "use the model's own index"
            )
        names[shard].append(tensor)
    missing = [shard for shard in names if not path.with_name(shard).is_file()]
    if missing:
        raise MRTError(
            f"{path.name} names {len(names)} shards, but {missing[0]} is missing"
            f"{f' and {len(missing) - 1} more' if missing[1:] else ''}; download the missing ones into the same folder"
        )
    files, places = [], {}
    for number, (shard, tensors) in enumerate(names.items()):
        file = SafetensorsFile.open(path.with_name(shard))
        lost = next((tensor for tensor in tensors if tensor not in file.tensors), None)
        if lost is not None:
            raise MRTError(f"{path.name} says that {lost} is in {shard}, but it is not there; download {shard} again")
        files.append(file)
        places |= {tensor: TensorLocation(number, tensor) for tensor in tensors}
    return JoinedWeights(tuple(files), places)


def _open_files(folder: Path, indices: list[Path]) -> JoinedWeights:
    """A folder without an index: its only file, or shards of which none is missing."""
    paths = sorted(path for path in folder.glob("*.safetensors") if path.is_file())
    shards = [SHARD.fullmatch(path.name) for path in paths]
    if indices or not paths or (len(paths) > 1 and not all(shards)):
        found = ", ".join(path.name for path in (*indices, *paths)[:3]) or "none"
        raise MRTError(
            f"{folder} is a folder with {len(indices)} indices and {len(paths)} .safetensors files ({found}), but one model, "
            "whole or in shards, was expected; give the path of the file or of the index"
        )
    if all(shards):
        stems = {(shard["stem"], int(shard["count"])) for shard in shards}
        numbers = {int(shard["number"]) for shard in shards}
        count = max(count for _, count in stems)
        if len(stems) > 1 or numbers != set(range(1, count + 1)):
            raise MRTError(
                f"{folder} has the shards {_shorten(sorted(numbers))} of {count}, but all of one model are needed; download the "
                "missing ones into the same folder"
            )
    files = [SafetensorsFile.open(path) for path in paths]
    owners: dict[str, str] = {}
    for path, file in zip(paths, files, strict=True):
        twice = next((name for name in file.tensors if name in owners), None)
        if twice is not None:
            raise MRTError(f"{twice} is in {owners[twice]} and in {path.name}; keep one set of shards in the folder")
        owners |= dict.fromkeys(file.tensors, path.name)
    return join((("", file) for file in files), NO_SETTINGS)


def _shorten(numbers: list[int], limit: int = 4) -> str:
    return ", ".join(map(str, numbers[:limit])) + (", ..." if len(numbers) > limit else "")
