"""A LoRA from the difference of two transformers."""

import copy

import pytest
import torch
from tiny_checkpoints import TINY

from mrt_core.errors import MRTError
from mrt_core.lora.apply import apply_loras
from mrt_core.lora.extract import extract_lora
from mrt_core.lora.file import read_lora, save_lora
from mrt_core.models.configs import TransformerConfig
from mrt_core.models.transformer import MaskedRegionTransformer

WIDEST = 128  # at least the shorter side of every matrix


@pytest.fixture(scope="module")
def base() -> MaskedRegionTransformer:
    torch.manual_seed(0)
    return MaskedRegionTransformer(TINY)


@pytest.fixture(scope="module")
def changed(base) -> MaskedRegionTransformer:
    """Every parameter changed, but one."""
    torch.manual_seed(1)
    model = copy.deepcopy(base)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name != "img_in.weight":
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model


def test_full_rank_gives_the_changed_model_back(base, changed, tmp_path):
    lora, error = extract_lora(base, changed, WIDEST)
    assert error < 1e-5
    save_lora(tmp_path / "full.safetensors", lora)
    model = copy.deepcopy(base)
    apply_loras(model, [(read_lora(tmp_path / "full.safetensors", TINY), 1.0)])
    expected = dict(changed.named_parameters())
    for name, parameter in model.named_parameters():
        assert torch.allclose(parameter, expected[name], atol=1e-5), name
    assert {"img_in.bias", "cond_token_embed.weight", "txt_norm.weight"} <= lora.differences.keys()
    assert "img_in" not in lora.low_rank and "proj_out" in lora.low_rank


def test_the_error_is_that_of_the_best_approximation(base):
    """Eckart and Young: what is missed of a matrix are its smallest singular values."""
    changed = copy.deepcopy(base)
    difference = torch.randn(changed.proj_out.weight.shape, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        changed.proj_out.weight.add_(difference)
    values = torch.linalg.svdvals(difference)
    for rank in (1, 4, 16):
        lora, error = extract_lora(base, changed, rank)
        assert lora.low_rank.keys() == {"proj_out"} and lora.low_rank["proj_out"].down.shape == (rank, TINY.width)
        assert error == pytest.approx(float(values[rank:].norm() / values.norm()), rel=1e-3)


def test_stored_precision_counts_in_the_error(base, changed):
    lora, error = extract_lora(base, changed, WIDEST, torch.bfloat16)
    assert lora.low_rank["proj_out"].up.dtype == lora.differences["img_in.bias"].dtype == torch.bfloat16
    assert 1e-4 < error < 5e-3


def test_equal_models_have_nothing_between_them(base):
    lora, error = extract_lora(base, base, 4)
    assert not lora.low_rank and not lora.differences and error == 0


def test_what_cannot_be_extracted_is_one_sentence(base):
    with pytest.raises(MRTError, match="rank is 0, but it must be at least 1"):
        extract_lora(base, base, 0)
    config = TransformerConfig(num_layers=1, num_heads=2, head_dim=16, text_dim=16, rope_axes=(4, 6, 6))
    with pytest.raises(MRTError, match="a LoRA stands between equal ones"):
        extract_lora(base, MaskedRegionTransformer(config), 4)
