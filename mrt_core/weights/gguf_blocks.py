"""GGUF's block formats, unpacked with a few tensor operations: those of 32 weights, the K formats and two of the IQ formats.

The layouts are those of ggml, the library behind GGUF (ggml-common.h: block_q4_0 to block_iq4_xs).
"""

import torch
from torch import Tensor

from .gguf_types import BLOCK_FORMATS

# What the sixteen codes of IQ4_NL and IQ4_XS stand for (ggml-common.h: kvalues_iq4nl).
IQ4_VALUES = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)


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


def _unpack_q4_0(blocks: Tensor) -> Tensor:
    return _scaled(_nibbles(blocks[:, 2:], 16).view(torch.int8) - 8, _half(blocks[:, :2])).flatten(1)


def _unpack_q4_1(blocks: Tensor) -> Tensor:
    scale, minimum = _half(blocks[:, :4]).split(1, dim=1)
    return _nibbles(blocks[:, 4:], 16).float() * scale + minimum


def _five_bits(high: Tensor, low: Tensor) -> Tensor:
    """The 32 codes of a block from four bytes of fifth bits, one after another, and 16 of halves."""
    return _nibbles(low, 16) | (_bits(high, 1, 1) << 4)


def _unpack_q5_0(blocks: Tensor) -> Tensor:
    codes = _five_bits(blocks[:, 2:6], blocks[:, 6:]).view(torch.int8) - 16
    return _scaled(codes, _half(blocks[:, :2])).flatten(1)


def _unpack_q5_1(blocks: Tensor) -> Tensor:
    scale, minimum = _half(blocks[:, :4]).split(1, dim=1)
    return _five_bits(blocks[:, 4:8], blocks[:, 8:]).float() * scale + minimum


def _unpack_q2_k(blocks: Tensor) -> Tensor:
    packed, low, unit = blocks.split([16, 64, 4], dim=1)
    scale, minimum = _half(unit).split(1, dim=1)
    weights = _scaled(_bits(low, 32, 2), scale * (packed & 15).float())  # (n, 16, 16)
    return (weights - (minimum * (packed >> 4).float())[:, :, None]).flatten(1)


def _unpack_q3_k(blocks: Tensor) -> Tensor:
    high, low, packed, unit = blocks.split([32, 64, 12, 2], dim=1)
    scales = (_nibbles(packed[:, :8], 8) | (_bits(packed[:, 8:], 4, 2) << 4)).view(torch.int8) - 32  # (n, 16)
    codes = (_bits(low, 32, 2) | (_bits(high, 32, 1) << 2)).view(
        torch.int8
    ) - 4  # a third bit that is set takes nothing off
    return _scaled(codes, _half(unit) * scales.float()).flatten(1)


def _iq4_values(codes: Tensor) -> Tensor:
    return torch.tensor(IQ4_VALUES, dtype=torch.float32, device=codes.device)[codes.long()]


def _unpack_iq4_nl(blocks: Tensor) -> Tensor:
    return _iq4_values(_nibbles(blocks[:, 2:], 16)) * _half(blocks[:, :2])


def _unpack_iq4_xs(blocks: Tensor) -> Tensor:
    unit, high, low, codes = blocks.split([2, 2, 4, 128], dim=1)
    scales = (_nibbles(low, 1) | (_bits(high, 1, 2) << 4)).view(torch.int8) - 32  # (n, 8)
    return _scaled(_iq4_values(_nibbles(codes, 16)), _half(unit) * scales.float()).flatten(1)


UNPACK = {
    "Q4_0": _unpack_q4_0, "Q4_1": _unpack_q4_1, "Q5_0": _unpack_q5_0, "Q5_1": _unpack_q5_1, "Q8_0": _unpack_q8_0,
    "Q2_K": _unpack_q2_k, "Q3_K": _unpack_q3_k, "Q4_K": _unpack_q4_k, "Q5_K": _unpack_q5_k, "Q6_K": _unpack_q6_k,
    "IQ4_NL": _unpack_iq4_nl, "IQ4_XS": _unpack_iq4_xs,
}  # fmt: skip


def unpack_blocks(packed: Tensor, name: str) -> Tensor:
    """Weights (rows, columns) in fp32 from rows of blocks (rows, bytes) in uint8."""
    block = BLOCK_FORMATS[name]
    return UNPACK[name](packed.reshape(-1, block.bytes)).reshape(len(packed), -1)
