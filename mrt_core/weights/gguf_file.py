"""GGUF files: the header, and the bytes of tensors by name.

A file is untrusted input: counts, lengths and offsets are checked against the file before anything of their size is
read. The format is ggml's (docs/gguf.md there), versions 2 and 3, little-endian.
"""

import math
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from ..errors import MRTError
from .gguf_types import BLOCK_FORMATS, PLAIN_TYPES, TYPE_NAMES
from .safetensors_header import DTYPE_BITS, ELEMENT_LIMIT, TensorEntry
from .settings import NO_SETTINGS, FolderSettings

MAGIC = b"GGUF"
VERSIONS = (2, 3)
HEADER_LIMIT = 64 * 2**20  # bytes; a diffusion model's header has about 200,000
COUNT_LIMIT = 2**20  # of tensors, of fields, and of the strings in one field
DIMENSION_LIMIT = 4  # the format's own
ALIGNMENT = "general.alignment"
ORIGINAL_SHAPE = "comfy.gguf.orig_shape."  # before the name of a tensor that the converter reshaped

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}  # type: struct's
STRING, ARRAY = 8, 9


class _Info(NamedTuple):
    """A tensor as the header describes it: sides as in PyTorch, rows first, and the offset in the data section."""

    dtype: str
    shape: tuple[int, ...]
    offset: int


class _Extent(NamedTuple):
    """Where a tensor is in the file, in bytes; a length of 0 where its format is unknown."""

    start: int
    length: int


@dataclass(frozen=True)
class GGUFFile:
    """One GGUF file; `stored_shapes` are those that blocks are counted in, `tensors` have the model's shapes."""

    path: Path
    tensors: Mapping[str, TensorEntry]
    metadata: Mapping[str, str]
    size: int
    stored_shapes: Mapping[str, tuple[int, ...]]
    extents: Mapping[str, _Extent]
    settings: FolderSettings = NO_SETTINGS

    @classmethod
    def open(cls, path: Path) -> "GGUFFile":
        """The file with its header read; raises MRTError when it is no whole GGUF file of a version we know."""
        size = path.stat().st_size
        with path.open("rb") as file, mmap(file.fileno(), min(size, HEADER_LIMIT), access=ACCESS_READ) as data:
            return cls._parse(_Reader(data, path), size)

    @classmethod
    def _parse(cls, reader: "_Reader", size: int) -> "GGUFFile":
        path = reader.path
        tensor_count, field_count = _read_start(reader)
        fields = dict(reader.field() for _ in range(field_count))
        infos = [reader.tensor_info() for _ in range(tensor_count)]
        stored = dict(infos)
        if len(stored) < tensor_count:
            raise reader.damaged()
        alignment = fields.get(ALIGNMENT, 32)
        if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
            raise reader.damaged()
        start = -(-reader.position // alignment) * alignment
        extents = {name: _Extent(start + info.offset, _length(reader, name, info)) for name, info in stored.items()}
        _require_extents(path, extents, size)
        tensors = {name: TensorEntry(info.dtype, _shape(fields, name, info)) for name, info in stored.items()}
        metadata = {name: value for name, value in fields.items() if isinstance(value, str)}
        return cls(path, tensors, metadata, size, {name: info.shape for name, info in stored.items()}, extents)

    def peek(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        with self.path.open("rb") as file:
            for name in names:
                data = bytearray(self.extents[name].length)
                self.fill(file, name, data)
                yield name, bytes(data)

    def fill(self, file: BinaryIO, name: str, data: bytearray | memoryview) -> None:
        """Read a tensor as it is stored into a buffer of its length; raises MRTError where the file has become shorter."""
        start, length = self.extents[name]
        file.seek(start)
        if file.readinto(data) != length:
            raise MRTError(f"{self.path.name} is cut short at {name}; download it again")


def _read_start(reader: "_Reader") -> tuple[int, int]:
    """How many tensors and how many fields the header lists."""
    magic, version = reader.numbers("4sI")
    if magic != MAGIC or version not in VERSIONS:
        raise MRTError(
            f"{reader.path.name} is a GGUF file of version {version}, but little-endian files of version 2 and 3 can be read; "
            "use another conversion of the model"
        )
    counts = reader.numbers("QQ")
    if max(counts) > COUNT_LIMIT:
        raise reader.damaged()
    return counts


def _length(reader: "_Reader", name: str, info: _Info) -> int:
    elements, columns = math.prod(info.shape), info.shape[-1] if info.shape else 1
    if info.dtype in PLAIN_TYPES:
        return elements * DTYPE_BITS[info.dtype] // 8
    if info.dtype not in BLOCK_FORMATS:
        return 0
    block = BLOCK_FORMATS[info.dtype]
    if columns % block.weights:
        raise MRTError(
            f"{reader.path.name} stores {name} as {info.dtype} in rows of {columns} weights, but they come in blocks of "
            f"{block.weights}; download the file again"
        )
    return elements // block.weights * block.bytes


def _require_extents(path: Path, extents: Mapping[str, _Extent], size: int) -> None:
    """Raise MRTError unless all tensors are within the file and no two share a byte."""
    end = max((extent.start + extent.length for extent in extents.values()), default=0)
    if end > size:
        raise MRTError(
            f"{path.name} is cut short: its header promises {end} bytes and {size} are there; download it again"
        )
    used = sorted(extent for extent in extents.values() if extent.length)
    if any(first.start + first.length > second.start for first, second in pairwise(used)):
        raise MRTError(f"{path.name} has a damaged GGUF header: tensors overlap; download the file again")


def _shape(fields: Mapping[str, Any], name: str, info: _Info) -> tuple[int, ...]:
    """The tensor's shape in the model, which the converter notes where it had to change it."""
    original = fields.get(ORIGINAL_SHAPE + name)
    fits = isinstance(original, tuple) and math.prod(original) == math.prod(info.shape)
    return original if fits and all(type(side) is int and side >= 0 for side in original) else info.shape


class _Reader:
    """Reads a header from its first bytes to its last; raises MRTError where it ends too early or makes no sense."""

    def __init__(self, data: mmap, path: Path):
        self.data, self.path, self.position = data, path, 0

    def damaged(self) -> MRTError:
        return MRTError(f"{self.path.name} has a damaged or cut-off GGUF header; download the file again")

    def _skip(self, length: int) -> int:
        """Go `length` bytes on; the position before."""
        position = self.position
        if length > len(self.data) - position:
            raise self.damaged()
        self.position += length
        return position

    def numbers(self, form: str) -> tuple:
        form = "<" + form
        return struct.unpack_from(form, self.data, self._skip(struct.calcsize(form)))

    def string(self) -> str:
        (length,) = self.numbers("Q")
        start = self._skip(length)
        return self.data[start : start + length].decode("utf-8", "replace")

    def field(self) -> tuple[str, Any]:
        """A field's name and its value: a number, a string, a short tuple of numbers, or None for a longer one."""
        name, (kind,) = self.string(), self.numbers("I")
        if kind == STRING:
            return name, self.string()
        if kind in SCALARS:
            return name, self.numbers(SCALARS[kind])[0]
        if kind != ARRAY:
            raise self.damaged()
        return name, self._array()

    def _array(self) -> tuple | None:
        kind, count = self.numbers("IQ")
        if kind in SCALARS and count <= 2 * DIMENSION_LIMIT:
            return self.numbers(f"{count}{SCALARS[kind]}")
        if kind in SCALARS:
            self._skip(count * struct.calcsize("<" + SCALARS[kind]))
        elif kind == STRING and count <= COUNT_LIMIT:
            for _ in range(count):
                self._skip(self.numbers("Q")[0])
        else:
            raise self.damaged()
        return None

    def tensor_info(self) -> tuple[str, _Info]:
        name, (rank,) = self.string(), self.numbers("I")
        if rank > DIMENSION_LIMIT:
            raise self.damaged()
        shape = self.numbers(f"{rank}Q")[::-1]  # stored with the fastest side first
        kind, offset = self.numbers("IQ")
        if math.prod(max(side, 1) for side in shape) > ELEMENT_LIMIT:
            raise self.damaged()
        return name, _Info(TYPE_NAMES.get(kind, f"type {kind}"), shape, offset)
