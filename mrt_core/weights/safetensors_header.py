"""The header of a safetensors file: read, with errors that say what a file is, and laid out.

A file is untrusted input: its header is checked against the file's size before anything of that size is allocated.
"""

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from ..errors import MRTError

HEADER_LIMIT = 100_000_000  # bytes; the safetensors format's own limit
ELEMENT_LIMIT = 2**60  # elements; what a stride can count with room to spare
DTYPE_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "U16": 16, "I16": 16, "F16": 16, "BF16": 16,
    "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64, "C64": 64,
}  # fmt: skip

# How the usual wrong files begin, what they are, and what to do.
OTHER_FORMATS = (
    (b"PK\x03\x04", "a PyTorch pickle or a zip archive", "use the model's .safetensors file, since pickles can run code"),
    (b"\x80", "a Python pickle", "use the model's .safetensors file, since pickles can run code"),
    (b"GGUF", "a GGUF file", "use the model's .safetensors file"),
    (b"version https://git-lfs", "a Git LFS pointer, not the weights", "run `git lfs pull` to get the file"),
    (b"{", "a JSON file", "give the .safetensors file, or the index of its shards, *.safetensors.index.json"),
    (b"<", "a web page", "download the file itself, not the page about it"),
)  # fmt: skip


class TensorEntry(NamedTuple):
    """A tensor as the header describes it; `dtype` in the format's spelling, such as BF16."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes, of a dtype in DTYPE_BITS."""
        return math.prod(self.shape) * DTYPE_BITS[self.dtype] // 8


class SafetensorsHeader(NamedTuple):
    """What a safetensors file says about itself; `size` is the whole file's, in bytes."""

    tensors: dict[str, TensorEntry]
    metadata: dict[str, str]
    size: int


def read_header(path: Path) -> SafetensorsHeader:
    """The header of a safetensors file, checked against the file's size; raises MRTError for any other file."""
    header, size, data_start = _load_header(path)
    return _check_header(path, header, size, size - data_start)


def _load_header(path: Path) -> tuple[object, int, int]:
    """The header's JSON, the size of the file and where its data begins."""
    if path.is_dir():
        raise MRTError(f"{path} is a folder, but one .safetensors file was expected; give the path of the file")
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(32)
            length = int.from_bytes(start[:8], "little")
            plausible = len(start) >= 8 and 2 <= length <= min(HEADER_LIMIT, size - 8)
            if plausible:
                file.seek(8)
                start = file.read(length)
    except FileNotFoundError:
        raise MRTError(f"{path} does not exist, but a .safetensors file was expected; check the path") from None
    except OSError as error:
        raise MRTError(f"{path} cannot be read ({error.strerror}); check its permissions") from error
    if not plausible:
        raise _not_safetensors(path, start, size)
    try:
        header = json.loads(start)
    except (ValueError, RecursionError):
        raise _not_safetensors(path, length.to_bytes(8, "little") + start, size) from None
    return header, size, 8 + length


def _not_safetensors(path: Path, start: bytes, size: int) -> MRTError:
    for magic, what, remedy in OTHER_FORMATS:
        if start.startswith(magic):
            return MRTError(f"{path.name} is {what}, but a .safetensors file was expected; {remedy}")
    return MRTError(
        f"{path.name} ({size} bytes) is not a whole .safetensors file: its header is damaged or cut short; "
        "download it again"
    )


def _check_header(path: Path, header: object, size: int, data_size: int) -> SafetensorsHeader:
    damaged = MRTError(f"{path.name} has a damaged .safetensors header; download the file again")
    if not isinstance(header, dict):
        raise damaged
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise damaged
    tensors, end = {}, 0
    for name, entry in header.items():
        tensors[name], last = _check_entry(entry, damaged)
        end = max(end, last)
    if end > data_size:
        raise MRTError(
            f"{path.name} is cut short: its header promises {end} bytes of tensors and {data_size} are there; "
            "download it again"
        )
    return SafetensorsHeader(tensors, metadata, size)


def _check_entry(entry: object, damaged: MRTError) -> tuple[TensorEntry, int]:
    """The entry of one tensor and the offset of its end."""
    if not isinstance(entry, dict):
        raise damaged
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    numbers = [*shape, *offsets] if isinstance(shape, list) and isinstance(offsets, list) else [None]
    if not isinstance(dtype, str) or not all(type(number) is int and number >= 0 for number in numbers):
        raise damaged
    if len(offsets) != 2 or offsets[0] > offsets[1] or math.prod(max(side, 1) for side in shape) > ELEMENT_LIMIT:
        raise damaged
    if dtype in DTYPE_BITS and math.prod(shape) * DTYPE_BITS[dtype] != 8 * (offsets[1] - offsets[0]):
        raise damaged
    return TensorEntry(dtype, tuple(shape)), offsets[1]


def read_bytes(path: Path, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """The bytes of small tensors, without mapping the file, which may be larger than the memory; raises MRTError."""
    header, size, data_start = _load_header(path)
    _check_header(path, dict(header), size, size - data_start)
    with path.open("rb") as file:
        for name in names:
            start, end = header[name]["data_offsets"]
            file.seek(data_start + start)
            yield name, file.read(end - start)


def lay_out(entries: Mapping[str, TensorEntry], metadata: Mapping[str, str]) -> tuple[bytes, dict[str, int]]:
    """A file's header and where each tensor begins; wide numbers come first, so that every one is aligned."""
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    offset, offsets = 0, {}
    for name, entry in sorted(entries.items(), key=lambda item: (-DTYPE_BITS[item[1].dtype], item[0])):
        end = offset + entry.size
        header[name] = {"dtype": entry.dtype, "shape": list(entry.shape), "data_offsets": [offset, end]}
        offset, offsets[name] = end, offset
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    start = 8 + len(text)
    return len(text).to_bytes(8, "little") + text, {name: start + offset for name, offset in offsets.items()}
