"""GGUF's block formats, unpacked with a few tensor operations: Q8_0, Q4_K, Q5_K and Q6_K.

The layouts are those of ggml, the library behind GGUF (ggml-common.h: block_q8_0, block_q4_K, block_q5_K, block_q6_K).
"""

import torch
from torch import Tensor

from .gguf_types import BLOCK_FORMATS


def _half(raw: Tensor) -> Tensor:
    """Half-precision numbers (n, bytes / 2) in fp32 from their bytes (n, bytes)."""
    return raw.contiguous().view(torch.float16).float()


def _nibbles(raw: Tensor, run: int) -> Tensor:
    """Low halves, then high halves of every `run` bytes: (n, bytes) to (n, bytes * 2)."""
    raw = raw.unflatten(1, (-1, 1, run))
    return torch.cat([raw & 15, raw >> 4], dim=2).flatten(1)


def _bits(raw: Tensor, run: int, width: int) -> Tensor:
    """Numbers of `width` bits, lowest first, from every `run` bytes: (n, bytes) to (n, bytes * 8 / width)."""
    shifts = torch.arange(0, 8, width, dtype=torch.uint8, device=raw.device)[:, None]
    return ((raw.unflatten(1, (-1, 1, run)) >> shifts) & (2**width - 1)).flatten(1)


def _scales_and_minima(raw: Tensor) -> tuple[Tensor, Tensor]:
    """Eight scales and eight minima of six bits each, (n, 8) in fp32, from 12 bytes."""
    low_scales, low_minima, high = raw.split(4, dim=1)
    scales = torch.cat([low_scales & 63, (high & 15) | ((low_scales >> 2) & 48)], dim=1)
    minima = torch.cat([low_minima & 63, (high >> 4) | ((low_minima >> 2) & 48)], dim=1)
    return scales.float(), minima.float()


def _scaled(codes: Tensor, scales: Tensor) -> Tensor:
    """Integers (n, weights) times the scale (n, groups) of their group."""
    return codes.float().unflatten(1, (scales.shape[1], -1)) * scales[:, :, None]  # (n, groups, weights per group)


def _unpack_q8_0(blocks: Tensor) -> Tensor:
    return _scaled(blocks[:, 2:].view(torch.int8), _half(blocks[:, :2])).flatten(1)


def _unpack_with_minima(blocks: Tensor, codes: Tensor) -> Tensor:
    """Q4_K's and Q5_K's weights: codes times scales, less the minimum of each of the eight groups."""
    scale, minimum = _half(blocks[:, :4]).split(1, dim=1)
    scales, minima = _scales_and_minima(blocks[:, 4:16])
    return (_scaled(codes, scale * scales) - (minimum * minima)[:, :, None]).flatten(1)


def _unpack_q4_k(blocks: Tensor) -> Tensor:
    return _unpack_with_minima(blocks, _nibbles(blocks[:, 16:], 32))


def _unpack_q5_k(blocks: Tensor) -> Tensor:
    high, low = blocks[:, 16:48], blocks[:, 48:]
    return _unpack_with_minima(blocks, _nibbles(low, 32) | (_bits(high, 32, 1) << 4))


def _unpack_q6_k(blocks: Tensor) -> Tensor:
    low, high, scales, scale = blocks.split([128, 64, 16, 2], dim=1)
    codes = (_nibbles(low, 64) | (_bits(high, 32, 2) << 4)).view(torch.int8) - 32
    return _scaled(codes, _half(scale) * scales.contiguous().view(torch.int8).float()).flatten(1)


UNPACK = {"Q8_0": _unpack_q8_0, "Q4_K": _unpack_q4_k, "Q5_K": _unpack_q5_k, "Q6_K": _unpack_q6_k}


def unpack_blocks(packed: Tensor, name: str) -> Tensor:
    """Weights (rows, columns) in fp32 from rows of blocks (rows, bytes) in uint8."""
    block = BLOCK_FORMATS[name]
    return UNPACK[name](packed.reshape(-1, block.bytes)).reshape(len(packed), -1)
