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


def gguf_blocks(weight: Tensor, name: str) -> np.ndarray:
    """The rows of blocks (rows, bytes) of a weight (rows, columns)."""
    x = weight.numpy().astype(np.float32)
    if name == "Q8_0":
        return gguf.quants.quantize(x, gguf.GGMLQuantizationType.Q8_0)
    blocks = _q6_k(x) if name == "Q6_K" else _with_minima(x, int(name[1]))
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


def json_tensor(values: object) -> Tensor:
    """JSON as ComfyUI stores it: bytes in a tensor."""
    return torch.tensor(list(json.dumps(values).encode()), dtype=torch.uint8)
