"""Quantised checkpoints for tests, made by quantisers of their own: GGUF blocks, scaled fp8, ComfyUI's formats."""

import json
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import torch
from safetensors.torch import save_file
from tiny_checkpoints import PUBLIC
from torch import Tensor

from mrt_core.geometry import TokenBox
from mrt_core.models.sequence import Role, Slot, SlotLayout, pack_samples
from mrt_core.models.transformer import MaskedRegionTransformer

WIDE = replace(PUBLIC, num_heads=2, text_dim=256)  # rows of 256 weights, which the K formats need
FLOAT8 = {"float8_e4m3fn": torch.float8_e4m3fn, "float8_e5m2": torch.float8_e5m2}
TINY = np.float32(1e-12)  # instead of a division by zero
BIAS_AND_NORMS = 1  # rank of tensors that stay plain


def wide_state(layered: bool = False) -> dict[str, Tensor]:
    """The weights of a public model whose rows are long enough for every format, spread like real ones."""
    torch.manual_seed(0)
    state = MaskedRegionTransformer(replace(WIDE, additional_t_cond=layered)).state_dict()
    for name, tensor in state.items():
        if name.endswith("weight") and tensor.ndim > BIAS_AND_NORMS:
            tensor.normal_(std=tensor.shape[-1] ** -0.5)
    return state


def velocity(model: MaskedRegionTransformer, dtype: torch.dtype = torch.float32) -> Tensor:
    """The model's answer (12, 64) to a fixed batch of two slots."""
    generator = torch.Generator().manual_seed(1)
    slots = (Slot(Role.COMPOSITE, 0, TokenBox(0, 0, 2, 3), True), Slot(Role.LAYER, 1, TokenBox(0, 0, 2, 3), False))
    text = torch.randn(5, model.config.text_dim, generator=generator).to(dtype)
    tokens = torch.randn(12, 64, generator=generator).to(dtype)
    batch = pack_samples([SlotLayout(slots, 2, 3)], [text])
    with torch.no_grad():
        return model(tokens, torch.tensor([0.6], dtype=dtype), batch)


# GGUF


def _affine_groups(x: np.ndarray, levels: int) -> tuple[np.ndarray, ...]:
    """Scales and minima of super-blocks (n, 8, 32): d, dmin (n, 1) halves, six-bit codes (n, 8), and weights' codes."""
    low, high = np.minimum(x.min(-1), 0), x.max(-1)
    scale, minimum = (high - low) / levels, -low  # (n, 8)
    d, dmin = ((part.max(-1, keepdims=True) / 63).astype(np.float16) for part in (scale, minimum))
    codes = [
        np.rint(part / np.maximum(unit, TINY)).clip(0, 63).astype(np.uint8)
        for part, unit in ((scale, d), (minimum, dmin))
    ]
    step, base = d.astype(np.float32) * codes[0], dmin.astype(np.float32) * codes[1]
    q = np.rint((x + base[..., None]) / np.maximum(step, TINY)[..., None]).clip(0, levels).astype(np.uint8)
    return d, dmin, *codes, q


def _pack_scales(scales: np.ndarray, minima: np.ndarray) -> np.ndarray:
    """Eight six-bit scales and minima in 12 bytes."""
    high = (scales[:, 4:] & 15) | ((minima[:, 4:] & 15) << 4)
    low = [part[:, :4] | ((part[:, 4:] >> 4) << 6) for part in (scales, minima)]
    return np.concatenate([*low, high], 1)


def _with_minima(x: np.ndarray, bits: int) -> np.ndarray:
    d, dmin, scales, minima, q = _affine_groups(x.reshape(-1, 8, 32), 2**bits - 1)
    pairs = (q & 15).reshape(-1, 4, 2, 32)
    nibbles = (pairs[:, :, 0] | pairs[:, :, 1] << 4).reshape(len(q), -1)
    high = [] if bits == 4 else [np.bitwise_or.reduce((q >> 4) << np.arange(8, dtype=np.uint8)[:, None], 1)]
    return np.concatenate([d.view(np.uint8), dmin.view(np.uint8), _pack_scales(scales, minima), *high, nibbles], 1)


def _q6_k(x: np.ndarray) -> np.ndarray:
    x = x.reshape(-1, 16, 16)
    scale = np.abs(x).max(-1) / 31
    d = (scale.max(-1, keepdims=True) / 127).astype(np.float16)
    codes = np.rint(scale / np.maximum(d, TINY)).clip(1, 127).astype(np.int8)
    step = d.astype(np.float32) * codes
    q = (np.rint(x / np.maximum(step, TINY)[..., None]).clip(-32, 31) + 32).astype(np.uint8).reshape(-1, 2, 4, 32)
    low = (q[:, :, :2] & 15) | (q[:, :, 2:] & 15) << 4
    high = np.bitwise_or.reduce((q >> 4) << np.array([0, 2, 4, 6], np.uint8)[:, None], 2)
    n = len(x)
    return np.concatenate([low.reshape(n, -1), high.reshape(n, -1), codes.view(np.uint8), d.view(np.uint8)], 1)


def _largest(x: np.ndarray) -> np.ndarray:
    """The number of each group (..., count) that is farthest from 0, with its sign: (..., 1)."""
    return np.take_along_axis(x, np.abs(x).argmax(-1)[..., None], -1)


def _q2_k(x: np.ndarray) -> np.ndarray:
    x = x.reshape(-1, 16, 16)
    low, high = np.minimum(x.min(-1), 0), x.max(-1)
    scale, minimum = (high - low) / 3, -low  # (n, 16)
    units, codes = [], []
    for part in (scale, minimum):
        unit = (part.max(-1, keepdims=True) / 15).astype(np.float16)
        units.append(unit)
        codes.append(np.rint(part / np.maximum(unit, TINY)).clip(0, 15).astype(np.uint8))
    step, base = (unit.astype(np.float32) * code for unit, code in zip(units, codes, strict=True))
    q = np.rint((x + base[..., None]) / np.maximum(step, TINY)[..., None]).clip(0, 3).astype(np.uint8)
    low_bits = np.bitwise_or.reduce(q.reshape(-1, 2, 4, 32) << np.array([0, 2, 4, 6], np.uint8)[:, None], 2)
    packed = [codes[0] | codes[1] << 4, low_bits.reshape(len(x), -1), *(unit.view(np.uint8) for unit in units)]
    return np.concatenate(packed, 1)


def _q3_k(x: np.ndarray) -> np.ndarray:
    x = x.reshape(-1, 16, 16)
    scale = _largest(x)[..., 0] / -4  # (n, 16)
    d = (np.abs(scale).max(-1, keepdims=True) / 31).astype(np.float16)
    codes = np.rint(scale / np.maximum(d, TINY)).clip(-32, 31).astype(np.int8)
    step = d.astype(np.float32) * codes
    step = np.where(step == 0, TINY, step)[..., None]
    q = (np.rint(x / step).clip(-4, 3) + 4).astype(np.uint8).reshape(-1, 2, 4, 32)
    low = np.bitwise_or.reduce((q & 3) << np.array([0, 2, 4, 6], np.uint8)[:, None], 2).reshape(len(x), -1)
    high = np.bitwise_or.reduce((q.reshape(-1, 8, 32) >> 2) << np.arange(8, dtype=np.uint8)[:, None], 1)
    packed = (codes + 32).astype(np.uint8)
    fours = (packed >> 4).reshape(-1, 4, 4) << np.array([0, 2, 4, 6], np.uint8)[:, None]
    scales = np.concatenate([packed[:, :8] & 15 | (packed[:, 8:] & 15) << 4, np.bitwise_or.reduce(fours, 1)], 1)
    return np.concatenate([high, low, scales, d.view(np.uint8)], 1)


def _iq4_codes(x: np.ndarray, step: np.ndarray) -> np.ndarray:
    """The nearest of the sixteen values for groups (n, count) of a step (n, 1)."""
    values = np.array(gguf.quants.IQ4_NL.kvalues, np.float32)
    scaled = x / np.where(step == 0, 1, step)
    return np.abs(scaled[..., None] - values).argmin(-1).astype(np.uint8)


def _halves(q: np.ndarray) -> np.ndarray:
    """Codes (n, 32) of four bits as bytes (n, 16)."""
    return q[:, :16] | q[:, 16:] << 4


def _iq4_nl(x: np.ndarray) -> np.ndarray:
    x = x.reshape(-1, 32)
    d = (_largest(x) / -127).astype(np.float16)
    return np.concatenate([d.view(np.uint8), _halves(_iq4_codes(x, d.astype(np.float32)))], 1)


def _iq4_xs(x: np.ndarray) -> np.ndarray:
    x = x.reshape(-1, 8, 32)
    scale = _largest(x)[..., 0] / -127  # (n, 8)
    d = (np.abs(scale).max(-1, keepdims=True) / 31).astype(np.float16)
    codes = np.rint(scale / np.maximum(d, TINY)).clip(-32, 31).astype(np.int8)
    step = (d.astype(np.float32) * codes).reshape(-1, 1)
    q = _halves(_iq4_codes(x.reshape(-1, 32), step)).reshape(len(x), -1)
    packed = (codes + 32).astype(np.uint8)
    high = np.bitwise_or.reduce((packed >> 4).astype(np.uint16) << np.arange(0, 16, 2, dtype=np.uint16), 1)
    low = packed[:, ::2] & 15 | (packed[:, 1::2] & 15) << 4
    return np.concatenate([d.view(np.uint8), high[:, None].astype("<u2").view(np.uint8), low, q], 1)


QUANTISERS = {"Q2_K": _q2_k, "Q3_K": _q3_k, "Q6_K": _q6_k, "IQ4_NL": _iq4_nl, "IQ4_XS": _iq4_xs}


def gguf_blocks(weight: Tensor, name: str) -> np.ndarray:
    """The rows of blocks (rows, bytes) of a weight (rows, columns)."""
    x = weight.numpy().astype(np.float32)
    if name.endswith(("_0", "_1")):
        return gguf.quants.quantize(x, gguf.GGMLQuantizationType[name])
    blocks = QUANTISERS[name](x) if name in QUANTISERS else _with_minima(x, int(name[1]))
    return blocks.reshape(len(x), -1)


def gguf_plain(blocks: np.ndarray, name: str) -> Tensor:
    """What the reference library makes of blocks."""
    return torch.from_numpy(gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType[name]))


def save_gguf(
    path: Path, state: dict[str, Tensor], name: str, plain: str = "F32", prefix: str = ""
) -> dict[str, Tensor]:
    """Write a GGUF file with the matrices in one format, Q8_0 where their rows are too short; the state it stands for."""
    writer, stands_for = gguf.GGUFWriter(path, "qwen_image"), {}
    for key, tensor in state.items():
        kind = name if tensor.shape[-1] % 256 == 0 else "Q8_0"
        if tensor.ndim == BIAS_AND_NORMS:
            raw = (
                tensor.numpy() if plain == "F32" else tensor.to(getattr(torch, PLAIN[plain])).view(torch.int16).numpy()
            )
            writer.add_tensor(prefix + key, raw.view(np.uint8) if plain == "BF16" else raw.view(PLAIN[plain]),
                              raw_dtype=gguf.GGMLQuantizationType[plain])  # fmt: skip
            stands_for[key] = tensor.to(getattr(torch, PLAIN[plain])).float()
        else:
            blocks = gguf_blocks(tensor, kind)
            writer.add_tensor(prefix + key, blocks, raw_dtype=gguf.GGMLQuantizationType[kind])
            stands_for[key] = gguf_plain(blocks, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return stands_for


PLAIN = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


# fp8


def save_fp8(path: Path, state: dict[str, Tensor], scheme: str, name: str = "float8_e4m3fn", prefix: str = ""):
    """Write an fp8 file whose matrices have scales, in the scheme "scaled", "layers" or "metadata"; what it stands for."""
    stored, stands_for, layers = {}, {}, {}
    for key, tensor in state.items():
        layer, _, last = key.rpartition(".")
        if last != "weight" or tensor.ndim == BIAS_AND_NORMS:
            stored[prefix + key] = stands_for[key] = tensor
            continue
        scale = tensor.abs().max() / torch.finfo(FLOAT8[name]).max
        stored[prefix + key] = packed = (tensor / scale).to(FLOAT8[name])
        stands_for[key] = packed.float() * scale
        stored[f"{prefix}{layer}.{'scale_weight' if scheme == 'scaled' else 'weight_scale'}"] = scale
        layers[prefix + layer] = {"format": name}
        if scheme == "scaled":
            stored[f"{prefix}{layer}.scale_input"] = torch.ones(())
        elif scheme == "layers":
            stored[f"{prefix}{layer}.comfy_quant"] = json_tensor(layers[prefix + layer])
    metadata = {}
    if scheme == "scaled":
        stored[prefix + "scaled_fp8"] = torch.empty(0, dtype=FLOAT8[name])
    elif scheme == "metadata":
        metadata["_quantization_metadata"] = json.dumps({"format_version": "1.0", "layers": layers})
    save_file(stored, path, metadata)
    return stands_for


def save_by_row(
    path: Path, state: dict[str, Tensor], name: str = "float8_e4m3fn", flat: bool = False, prefix: str = ""
):
    """Write a file whose matrices are 8-bit numbers with a scale per row, (rows, 1) or flat, as `weight_scale` and without any
    description; what it stands for."""
    stored, stands_for = {}, {}
    for key, tensor in state.items():
        if not key.endswith(".weight") or tensor.ndim == BIAS_AND_NORMS:
            stored[prefix + key] = stands_for[key] = tensor
            continue
        dtype = {**FLOAT8, "int8": torch.int8}[name]
        limits = torch.iinfo(dtype) if name == "int8" else torch.finfo(dtype)
        scale = tensor.abs().amax(1, keepdim=True) / limits.max  # (rows, 1)
        scaled = tensor / scale
        packed = (scaled.round() if name == "int8" else scaled).to(dtype)
        stored[prefix + key], stored[f"{prefix}{key}_scale"] = packed, scale.flatten() if flat else scale
        stands_for[key] = packed.float() * scale
    save_file(stored, path)
    return stands_for


def json_tensor(values: object) -> Tensor:
    """JSON as ComfyUI stores it: bytes in a tensor."""
    return torch.tensor(list(json.dumps(values).encode()), dtype=torch.uint8)
