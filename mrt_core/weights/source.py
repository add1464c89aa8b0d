"""What all forms of weights have in common: named tensors that can be looked at without being read."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Protocol

from .safetensors_header import TensorEntry, read_bytes, read_header
from .settings import NO_SETTINGS, FolderSettings


class WeightSource(Protocol):
    """Tensors by name, the file's metadata, the size in bytes, and what config files beside the weights say.

    `reading.read_weights` makes tensors of them.
    """

    @property
    def tensors(self) -> Mapping[str, TensorEntry]: ...

    @property
    def metadata(self) -> Mapping[str, str]: ...

    @property
    def size(self) -> int: ...

    @property
    def settings(self) -> FolderSettings: ...

    def peek(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """The bytes of a few small tensors, cheaply even where all of the weights do not fit into memory."""
        ...


@dataclass(frozen=True)
class SafetensorsFile:
    """One safetensors file."""

    path: Path
    tensors: Mapping[str, TensorEntry]
    metadata: Mapping[str, str]
    size: int
    settings: FolderSettings = NO_SETTINGS

    @classmethod
    def open(cls, path: Path) -> "SafetensorsFile":
        """The file with its header read; raises MRTError when it is no whole safetensors file."""
        return cls(path, *read_header(path))

    def peek(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        return read_bytes(self.path, names)


class TensorLocation(NamedTuple):
    """Where a tensor of joined weights is: the number of its file, and its name there."""

    file: int
    name: str


@dataclass(frozen=True)
class JoinedWeights:
    """Several files as one: the shards of a model, and the models of a folder, each under a prefix of its own."""

    files: tuple[SafetensorsFile, ...]
    places: Mapping[str, TensorLocation]
    settings: FolderSettings = NO_SETTINGS

    @cached_property
    def tensors(self) -> Mapping[str, TensorEntry]:
        return {name: self.files[place.file].tensors[place.name] for name, place in self.places.items()}

    @property
    def metadata(self) -> Mapping[str, str]:
        return self.files[0].metadata

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)

    def peek(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        for file, logical in self.by_file(names):
            for stored, data in file.peek(logical):
                yield logical[stored], data

    def by_file(self, names: Iterable[str]) -> Iterator[tuple[SafetensorsFile, dict[str, str]]]:
        """Each file that is needed, once, with the names in it and what they are called here."""
        wanted: dict[int, dict[str, str]] = {}
        for name in names:
            file, stored = self.places[name]
            wanted.setdefault(file, {})[stored] = name
        for file, logical in wanted.items():
            yield self.files[file], logical


def join(parts: Iterable[tuple[str, "SafetensorsFile | JoinedWeights"]], settings: FolderSettings) -> JoinedWeights:
    """The weights of several sources as one, the names of each behind its prefix."""
    files: list[SafetensorsFile] = []
    places: dict[str, TensorLocation] = {}
    for prefix, part in parts:
        first = len(files)
        if isinstance(part, SafetensorsFile):
            files.append(part)
            places |= {prefix + name: TensorLocation(first, name) for name in part.tensors}
        else:
            files += part.files
            places |= {
                prefix + name: TensorLocation(first + file, stored) for name, (file, stored) in part.places.items()
            }
    return JoinedWeights(tuple(files), places, settings)
