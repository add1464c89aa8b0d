"""Weights as plain numbers, one tensor at a time, however they are stored."""

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor

from .gguf_blocks import unpack_blocks
from .gguf_file import GGUFFile
from .quantisation import LayerFormat, Quantisation, our_name
from .reading import read_weights
from .safetensors_file import TORCH_DTYPES
from .safetensors_header import TensorEntry
from .source import WeightSource

WIDE_DTYPES = {"F64", "F32", "F16", "BF16"}


def stored_dtype(entry: TensorEntry) -> torch.dtype:
    """The dtype of a tensor that is stored as plain numbers of at least 16 bit; bf16 for all others, which are unpacked."""
    return TORCH_DTYPES[entry.dtype] if entry.dtype in WIDE_DTYPES else torch.bfloat16


def read_plain(
    source: WeightSource, prefix: str, quantisation: Quantisation | None, dtypes: Mapping[str, torch.dtype]
) -> Iterator[tuple[str, Tensor]]:
    """The transformer's tensors named in `dtypes`, without their `prefix`, each in its dtype; packed ones are unpacked.

    Memory holds one of them, whatever the size of the file.
    Raises MRTError for a damaged file.
    """
    layers = {f"{name}.weight": layer for name, layer in quantisation.layers.items()} if quantisation else {}
    scales = _read_scales(source, prefix, quantisation) if quantisation else {}
    for stored, tensor in _read_unmapped(source, [prefix + name for name in dtypes]):
        name = stored.removeprefix(prefix)
        if name in layers:
            shape = source.tensors[stored].shape
            yield name, dequantise(tensor, layers[name], scales.get(f"{name}_scale"), shape, dtypes[name])
        else:
            yield name, tensor.to(dtypes[name])


def _read_unmapped(source: WeightSource, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
    """As `read_weights`, which maps a whole safetensors file and so fails where that is larger than the memory."""
    if isinstance(source, GGUFFile):
        yield from read_weights(source, names)
        return
    for name, data in source.peek(names):
        dtype, shape = source.tensors[name]
        yield name, torch.frombuffer(bytearray(data), dtype=TORCH_DTYPES[dtype]).reshape(shape)


def _read_scales(source: WeightSource, prefix: str, quantisation: Quantisation) -> dict[str, Tensor]:
    """The scales, () or (rows, 1), of packed weights, by our names."""
    names = [prefix + name for name in quantisation.sidecars if (our_name(name) or "").endswith(".weight_scale")]
    return {our_name(name.removeprefix(prefix)): as_scale(scale) for name, scale in read_weights(source, names)}


def as_scale(stored: Tensor) -> Tensor:
    """A scale in fp32: () where it is one number, (rows, 1) where every row has its own."""
    return stored.float().reshape(()) if stored.numel() == 1 else stored.float().reshape(-1, 1)


def dequantise(
    weight: Tensor, layer: LayerFormat, scale: Tensor | None, shape: tuple[int, ...], dtype: torch.dtype
) -> Tensor:
    """The plain weight (`shape`) of a packed one, computed in fp32; `scale`, () or (rows, 1), is that of
    numbers of 8 bit."""
    plain = weight.float() * scale if layer.dtype else unpack_blocks(weight, layer.name)
    return plain.reshape(shape).to(dtype)
