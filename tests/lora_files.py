"""LoRA files in every naming, for the tests of the library and of ComfyUI's loader; needs neither of them."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

LAYERS = (  # one of every kind that a LoRA may change
    "img_in",
    "txt_in",
    "time_text_embed.timestep_embedder.linear_1",
    "time_text_embed.timestep_embedder.linear_2",
    "transformer_blocks.0.img_mod.1",
    "transformer_blocks.1.txt_mod.1",
    "transformer_blocks.0.attn.to_q",
    "transformer_blocks.1.attn.to_out.0",
    "transformer_blocks.0.attn.add_k_proj",
    "transformer_blocks.1.attn.to_add_out",
    "transformer_blocks.0.img_mlp.net.0.proj",
    "transformer_blocks.1.txt_mlp.net.2",
    "norm_out.linear",
    "proj_out",
)
DOTTED_PREFIXES = (
    "",
    "diffusion_model.",
    "model.diffusion_model.",
    "transformer.",
    "base_model.model.",
    "base_model.model.transformer.",
    "base_model.model.diffusion_model.",
)
FLATTENED_PREFIXES = ("lora_unet_", "lycoris_")
SUFFIXES = (
    (".lora_down.weight", ".lora_up.weight"),
    (".lora_A.weight", ".lora_B.weight"),
    (".lora_A.default.weight", ".lora_B.default.weight"),
    (".lora.down.weight", ".lora.up.weight"),
    ("_lora.down.weight", "_lora.up.weight"),
    (".lora_A", ".lora_B"),
    (".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight"),
)
NAMINGS = tuple((prefix, pair) for prefix in DOTTED_PREFIXES + FLATTENED_PREFIXES for pair in SUFFIXES)


class Pair(NamedTuple):
    """Up (out, rank), down (rank, in), and alpha, None where the file has none."""

    up: Tensor
    down: Tensor
    alpha: float | None


def random_pairs(
    shapes: Mapping[str, tuple[int, int]], rank: int = 4, alpha: float | None = 2.0, seed: int = 0
) -> dict[str, Pair]:
    """A pair for each layer, of its weight's shape; a product has values of about 1."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: Pair(
            torch.randn(rows, rank, generator=generator),
            torch.randn(rank, columns, generator=generator) / rank**0.5,
            alpha,
        )
        for name, (rows, columns) in shapes.items()
    }


def lora_state(
    pairs: Mapping[str, Pair], prefix: str = "", suffixes: tuple[str, str] = SUFFIXES[1]
) -> dict[str, Tensor]:
    """The tensors of a LoRA file in one naming."""
    down, up = suffixes
    state = {}
    for layer, pair in pairs.items():
        name = prefix + (layer.replace(".", "_") if prefix in FLATTENED_PREFIXES else layer)
        state |= {name + down: pair.down, name + up: pair.up}
        if pair.alpha is not None:
            state[name + ".alpha"] = torch.tensor(pair.alpha)
    return state
