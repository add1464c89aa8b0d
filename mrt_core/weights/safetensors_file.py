"""Safetensors files: written whole or not at all, and their tensors read."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..atomic import atomic_file
from ..errors import MRTError
from .safetensors_header import TensorEntry, lay_out

DTYPE_NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.uint8: "U8", torch.int8: "I8", torch.bool: "BOOL",
    torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2",
}  # fmt: skip
TORCH_DTYPES = {name: dtype for dtype, name in DTYPE_NAMES.items()}


def save_atomically(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """Write a safetensors file, whole or not at all; one that exists is replaced."""
    entries = {name: TensorEntry(DTYPE_NAMES[tensor.dtype], tuple(tensor.shape)) for name, tensor in tensors.items()}
    save_streamed(path, entries, ((name, tensor.cpu()) for name, tensor in tensors.items()), metadata)


def save_streamed(
    path: Path, entries: Mapping[str, TensorEntry], tensors: Iterable[tuple[str, Tensor]], metadata: Mapping[str, str]
) -> None:
    """As `save_atomically`, but one tensor after another, in any order, so that memory holds one.

    `tensors` are those of `entries`, each once and exactly as described there; ValueError where one never came.
    """
    header, places = lay_out(entries, metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path, overwrite=True) as file:
        file.write(header)
        for name, tensor in tensors:
            file.seek(places.pop(name))
            file.write(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy())
        if places:
            raise ValueError(f"{len(places)} tensors were announced and never came, such as {min(places)}")


def read_tensors(path: Path, names: Iterable[str], device: str | torch.device = "cpu") -> Iterator[tuple[str, Tensor]]:
    """The named tensors of a safetensors file, as stored, read one after another."""
    try:
        with safe_open(path, "pt", device=str(device)) as file:
            for name in names:
                yield name, file.get_tensor(name)
    except SafetensorError as error:
        raise MRTError(f"{path.name} is damaged ({error}); download it again") from error
    except RuntimeError as error:  # of PyTorch, which maps the whole file
        raise MRTError(
            f"{path.name} cannot be read into memory ({error}); use a smaller, quantised version or free memory"
        ) from error
