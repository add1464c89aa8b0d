"""Namings: every spelling of a layer is the same layer (architecture: LoRA names)."""

import pytest
import torch
from lora_files import LAYERS, NAMINGS, lora_state
from tiny_checkpoints import TINY

from mrt_core.lora.file import read_lora
from mrt_core.lora.names import model_layers
from mrt_core.models.configs import TransformerConfig


@pytest.mark.parametrize(("prefix", "suffixes"), NAMINGS, ids=[prefix + "*" + down for prefix, (down, _) in NAMINGS])
def test_every_naming_gives_the_same_change(write, pairs, prefix, suffixes):
    lora = read_lora(write(lora_state(pairs, prefix, suffixes)), TINY)
    assert set(lora.low_rank) == set(LAYERS)
    for name, (up, down, alpha) in pairs.items():
        assert torch.equal(lora.low_rank[name].up, up) and torch.equal(lora.low_rank[name].down, down)
        assert lora.low_rank[name].scale == alpha / 4


def test_the_full_size_model_has_846_layers_and_their_spellings():
    known = model_layers(TransformerConfig())
    assert sum(layer.linear for layer in known.layers.values()) == 846
    examples = {
        "lora_unet_transformer_blocks_0_attn_to_out_0": "transformer_blocks.0.attn.to_out.0",
        "lycoris_transformer_blocks_59_img_mlp_net_0_proj": "transformer_blocks.59.img_mlp.net.0.proj",
        "lora_unet_transformer_blocks_7_img_mod_1": "transformer_blocks.7.img_mod.1",
        "lora_unet_norm_out_linear": "norm_out.linear",
    }
    assert {spelling: known.find(spelling).layer for spelling in examples} == examples
