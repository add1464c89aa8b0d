"""LoRA files as programs really write them: names, settings and halves that public reports led to."""

import json
from dataclasses import replace

import pytest
import torch
from lora_files import SUFFIXES, lora_state, random_pairs
from tiny_checkpoints import TINY

from mrt_core.cli import main
from mrt_core.errors import MRTError
from mrt_core.lora.file import read_lora
from mrt_core.lora.report import inspect_lora
from mrt_core.models.configs import TransformerConfig

FULL_SIZE = {
    "transformer_blocks.0.attn.to_q": (3072, 3072),
    "transformer_blocks.0.attn.to_out.0": (3072, 3072),
    "transformer_blocks.0.img_mlp.net.0.proj": (12288, 3072),
    "transformer_blocks.59.img_mod.1": (18432, 3072),
}
QWEN = TransformerConfig(condition_embedding=False)
KOHYA, PEFT = SUFFIXES[:2]


def full_size(prefix: str, suffixes: tuple[str, str], flat: bool = False, alpha: bool = False) -> dict:
    """A LoRA of rank 4 for four layers of the public model, of zeros."""
    state = {}
    for layer, (rows, columns) in FULL_SIZE.items():
        name = prefix + (layer.replace(".", "_") if flat else layer)
        state |= {name + suffixes[0]: torch.zeros(4, columns), name + suffixes[1]: torch.zeros(rows, 4)}
        if alpha:
            state[f"{name}.alpha"] = torch.tensor(2.0)
    return {name: tensor.bfloat16() for name, tensor in state.items()}


NAMED = (".lora_A.my_style.weight", ".lora_B.my_style.weight")
PUBLIC = {
    "DiffSynth": (full_size("pipe.dit.", SUFFIXES[2]), "pipe.dit.... .lora_A.default.weight", "alpha 4"),
    "OneTrainer": (
        full_size("lora_transformer_", KOHYA, flat=True, alpha=True), "lora_transformer_... .lora_down.weight", "alpha 2",
    ),
    "an adapter with a name": (full_size("base_model.model.", NAMED), "base_model.model.... .lora_A.my_style.weight", "alpha 4"),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLIC)
def test_public_namings_load_and_are_inspected(write, name):
    state, naming, alpha = PUBLIC[name]
    path = write(state)
    lora = read_lora(path, QWEN)
    assert lora.low_rank.keys() == FULL_SIZE.keys()
    assert str(inspect_lora(path)).startswith(
        f"style.safetensors: a LoRA, named {naming}, 4 layers, rank 4, {alpha}, BF16, "
    )
    assert inspect_lora(path).fits == ("Qwen-Image and models of its size",)


DOTTED = (
    "pipe.dit.", "pipe.transformer.", "dit.", "unet.", "module.", "module.module.", "_orig_mod.", "model._orig_mod.module.",
    "transformer.transformer.", "base_model.model.base_model.model.", "base_model.model.pipe.dit.", "model.diffusion_model.net.",
)  # fmt: skip
FLAT = ("lora_transformer_", "lora_dit_", "lora_unet_transformer_", "lycoris_transformer_", "lora_unet__orig_mod_", "")


@pytest.mark.parametrize("prefix", DOTTED)
def test_prefixes_are_told_by_their_structure(write, pairs, prefix):
    lora = read_lora(write(lora_state(pairs, prefix)), TINY)
    assert lora.low_rank.keys() == pairs.keys()


@pytest.mark.parametrize("prefix", FLAT)
def test_prefixes_before_underscores_too(write, pairs, prefix):
    state = lora_state({name.replace(".", "_"): pair for name, pair in pairs.items()}, prefix, KOHYA)
    lora = read_lora(write(state), TINY)
    assert lora.low_rank.keys() == pairs.keys()
    assert torch.equal(lora.low_rank["proj_out"].up, pairs["proj_out"].up)


SPELLINGS = {
    "transformer_blocks.1.attn.to_out": "transformer_blocks.1.attn.to_out.0",
    "lora_unet_transformer_blocks_1_attn_to_out": "transformer_blocks.1.attn.to_out.0",
    "transformer_blocks.1.attn.processor.to_out": "transformer_blocks.1.attn.to_out.0",
    "transformer.transformer_blocks.0._orig_mod.attn.to_q": "transformer_blocks.0.attn.to_q",
    "transformer_blocks.0._checkpoint_wrapped_module.attn.to_q": "transformer_blocks.0.attn.to_q",
    "lora_unet_transformer_blocks_0__orig_mod_attn_to_q": "transformer_blocks.0.attn.to_q",
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_what_wrappers_put_into_a_name_and_what_programs_leave_out(write, spelling):
    state = lora_state(random_pairs({spelling: (32, 32)}))
    assert read_lora(write(state), TINY).low_rank.keys() == {SPELLINGS[spelling]}


FOREIGN = [
    "single_transformer_blocks.0.proj_out",
    "lora_unet_single_transformer_blocks_0_attn_to_q",
    "lora_unet_single_transformer_blocks_0_proj_out",
    "lora_unet_down_blocks_0_attentions_0_proj_in_proj_out",
    "controlnet.transformer_blocks.0.attn.to_q",
    "refiner.0.proj_out",
    "vae.decoder.proj_out",
]


@pytest.mark.parametrize("owner", FOREIGN)
def test_a_layer_of_another_model_is_not_taken_for_ours(write, pairs, owner):
    state = lora_state(random_pairs({owner: (32, 32)}), suffixes=KOHYA)
    with pytest.raises(MRTError, match="style.safetensors"):
        read_lora(write(state), TINY)
    assert str(inspect_lora(write(state))).endswith("nor the bundled model")


# A half for a text encoder


TEXT_LAYERS = (
    "lora_te1_model_layers_0_self_attn_q_proj",
    "lora_te_text_model_encoder_layers_0_mlp_fc1",
    "text_encoder.model.layers.0.self_attn.q_proj",
    "text_encoders.qwen25_7b.transformer.model.layers.0.mlp.up_proj",
    "base_model.model.model.language_model.layers.3.mlp.up_proj",
)


@pytest.mark.parametrize("name", TEXT_LAYERS)
def test_the_half_for_a_text_encoder_is_named_and_the_other_loads(write, pairs, caplog, capsys, name):
    text = lora_state(random_pairs({name: (64, 64)}), suffixes=KOHYA)
    path = write(lora_state(pairs) | text)
    lora = read_lora(path, TINY)
    assert lora.low_rank.keys() == pairs.keys()
    assert "style.safetensors has a half for a text encoder too, 3 tensors such as " in caplog.text
    assert main(["inspect", str(path)]) in (0, None)
    assert "3 tensors for a text encoder that are not used" in capsys.readouterr().out
    with pytest.raises(MRTError, match="is a LoRA for another model, a text encoder"):
        read_lora(write(text), TINY)


# Qwen-Image-Layered's own layer


def test_a_lora_for_the_layered_model_says_so(write):
    state = full_size("transformer.", PEFT)
    state["transformer.time_text_embed.addition_t_embedding.diff"] = torch.zeros(2, 3072)
    path = write(state)
    report = inspect_lora(path)
    assert report.fits == ("Qwen-Image-Layered",) and report.differences == 1
    assert read_lora(path, replace(QWEN, additional_t_cond=True)).differences.keys() == {
        "time_text_embed.addition_t_embedding.weight"
    }
    with pytest.raises(
        MRTError, match="is a LoRA for Qwen-Image-Layered, .* use it with a Qwen-Image-Layered checkpoint"
    ):
        read_lora(path, QWEN)


# PEFT's patterns


def scale_of(write, layer="transformer_blocks.0.attn.to_q", **settings) -> float:
    state = lora_state(random_pairs({layer: (32, 32)}, rank=4, alpha=None))
    return read_lora(write(state, lora_adapter_metadata=json.dumps(settings)), TINY).low_rank[layer].scale


@pytest.mark.parametrize(
    "pattern",
    [
        r"^transformer_blocks\.\d+\.(attn|img_mlp|img_mod).*",
        r".*\.to_q",
        r"attn.to_q",
        r"to_q",
        r"transformer_blocks\.[0-3]\.attn\.to_(q|k|v)",
        r"transformer.transformer_blocks.0.attn.to_q",
        r"^transformer\.transformer_blocks\.0\..*",
    ],
)
def test_patterns_are_regular_expressions_of_a_names_end(write, pattern):
    assert scale_of(write, r=8, lora_alpha=8, rank_pattern={pattern: 4}) == 2
    assert scale_of(write, r=4, lora_alpha=8, alpha_pattern={pattern: 2}) == 0.5


@pytest.mark.parametrize("pattern", [r"^attn\..*", r"o_q", r"to_", r"blocks\.1\..*"])
def test_patterns_of_other_layers_do_not_count(write, pattern):
    assert scale_of(write, r=4, lora_alpha=8, alpha_pattern={pattern: 2}) == 2


def test_the_first_pattern_that_matches_counts(write):
    assert scale_of(write, r=4, lora_alpha=8, alpha_pattern={r".*to_k": 1, r".*to_q": 4, r"attn.to_q": 16}) == 1


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(a+)+b|(", "at most 4 repetitions are read, none of them of a group"),
        (".*" * 9 + "x", "at most 4 repetitions are read"),
        ("to_q(", "that is no regular expression"),
    ],
)
def test_patterns_that_are_wrong_or_take_forever_are_refused(write, pattern, message):
    with pytest.raises(
        MRTError, match=f"the metadata lora_adapter_metadata of style.safetensors has the pattern .*{message}"
    ):
        scale_of(write, r=4, lora_alpha=8, rank_pattern={pattern: 4})
