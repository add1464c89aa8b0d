"""LoRA files that do not fit: one clear sentence each."""

import math

import pytest
import torch
from lora_files import lora_state, random_pairs
from tiny_checkpoints import TINY

from mrt_core.errors import MRTError
from mrt_core.lora.file import read_lora

IMG_IN = {"img_in": (32, 64)}


def broken(change):
    """A LoRA for one layer, with a change to its tensors."""
    state = lora_state(random_pairs(IMG_IN))
    change(state)
    return state


ZEROS = torch.zeros(1)
WRONG = {
    "half a pair": (broken(lambda s: s.pop("img_in.lora_B.weight")), "not the matrix up that belongs to it for the layer"),
    "alpha alone": ({"img_in.alpha": ZEROS}, "not the matrix down and up"),
    "unknown layer": ({"img_out.lora_A.weight": ZEROS}, "img_out.lora_A.weight, but this model has no layer of that name"),
    "more blocks": ({"transformer_blocks.59.attn.to_q.lora_A.weight": ZEROS}, "at least 60 transformer blocks, but this"),
    "wide": (lora_state(random_pairs({"img_in": (3072, 64)})), r"up \[3072, 4\].*layer img_in, but \[32, rank\]"),
    "ranks differ": (
        broken(lambda s: s.update({"img_in.lora_B.weight": torch.zeros(32, 3)})),
        r"up \[32, 3\] and down \[4, 64\] for the layer img_in",
    ),
    "rank 0": (lora_state(random_pairs(IMG_IN, rank=0)), r"\[rank, 64\] were expected"),
    "no linear layer": (lora_state(random_pairs({"cond_token_embed": (1, 32)})), "cond_token_embed, but that is no linear"),
    "twice": (broken(lambda s: s.update({"lora_unet_img_in.lora_up.weight": ZEROS})), "two tensors for up of the layer img_in"),
    "long alpha": (broken(lambda s: s.update({"img_in.alpha": torch.zeros(2)})), r"alpha of shape \[2\], but an alpha is"),
    "alpha nan": (broken(lambda s: s.update({"img_in.alpha": torch.tensor(math.nan)})), "img_in that is not a number"),
    "whole numbers": (broken(lambda s: s.update({"img_in.lora_B.weight": torch.zeros(32, 4, dtype=torch.int8)})), "as I8"),
    "difference": ({"txt_norm.diff": torch.zeros(3)}, r"difference \[3\] for the weight of txt_norm, but \[16\]"),
    "no bias": ({"txt_norm.diff_b": torch.zeros(16)}, "bias of txt_norm, but none was expected"),
    "a checkpoint": ({"img_in.weight": ZEROS}, "no LoRA: it has tensors such as img_in.weight.*give it as the checkpoint"),
    "nothing": ({}, "no tensors"),
    "FLUX": ({"transformer.single_transformer_blocks.0.proj_out.lora_A.weight": ZEROS}, "another model, FLUX"),
    "FLUX, too": ({"lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": ZEROS}, "another model, FLUX"),
    "Wan": ({"diffusion_model.blocks.0.self_attn.q.lora_A.weight": ZEROS}, "another model, Wan"),
    "Stable Diffusion": ({"lora_unet_down_blocks_0_attentions_0.lora_up.weight": ZEROS}, "another model, Stable Diff"),
    "text encoder": ({"lora_te_text_model_encoder_layers_0.lora_up.weight": ZEROS}, "another model, a text encoder"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_files_that_do_not_fit(write, name):
    state, message = WRONG[name]
    with pytest.raises(MRTError, match=f"style.safetensors.*{message}"):
        read_lora(write(state), TINY)


@pytest.mark.parametrize(
    ("suffix", "kind"),
    [
        (".oft_blocks", "OFT or BOFT"),
        (".a1.weight", "GLoRA"),
        (".lora_mid.weight", "Tucker-decomposed LoRA"),
        (".set_weight", "weight-replacing LoRA"),
        (".reshape_weight", "weight-replacing LoRA"),
        (".lora_B.bias", "LoRA with biases"),
    ],
)
def test_other_kinds_of_adapters_are_refused_by_name(write, pairs, suffix, kind):
    state = lora_state(pairs) | {f"proj_out{suffix}": ZEROS}
    with pytest.raises(MRTError, match=rf"is of the kind {kind} \(proj_out{suffix}\), but LoRA, LoHa, LoKr or DoRA"):
        read_lora(write(state), TINY)


def test_a_pickle_is_not_opened(tmp_path, pairs):
    torch.save(lora_state(pairs), tmp_path / "style.pt")
    with pytest.raises(MRTError, match="style.pt is a PyTorch pickle.*since pickles can run code"):
        read_lora(tmp_path / "style.pt", TINY)
