"""The transformer against diffusers' QwenImageTransformer2DModel, the public implementation
(architecture: forward pass)."""

import pytest
import torch

from mrt_core.geometry import TokenBox
from mrt_core.models.configs import TransformerConfig
from mrt_core.models.sequence import Role, Slot, SlotLayout, pack_samples
from mrt_core.models.transformer import MaskedRegionTransformer

diffusers = pytest.importorskip("diffusers", reason="parity tests need diffusers: pip install -e .[dev]")

TINY = dict(num_layers=2, num_heads=2, head_dim=32, text_dim=48, rope_axes=(8, 12, 12))
TEXT_TOKENS = 7


def reference_model(**options):
    torch.manual_seed(0)
    model = diffusers.QwenImageTransformer2DModel(
        patch_size=2, in_channels=64, out_channels=16, num_layers=TINY["num_layers"],
        attention_head_dim=TINY["head_dim"], num_attention_heads=TINY["num_heads"],
        joint_attention_dim=TINY["text_dim"], axes_dims_rope=TINY["rope_axes"], **options,
    )  # fmt: skip
    for parameter in model.parameters():  # norms and biases too, so that every tensor matters
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model.eval()


def our_model(reference, **options):
    config = TransformerConfig(**TINY, condition_embedding=False, **options)
    model = MaskedRegionTransformer(config)
    model.load_state_dict(reference.state_dict(), strict=True)
    return model.eval()


def full_slots(shapes, layer_indices, clean):
    """One slot per image, each over a canvas of its own size; the first image's canvas is the sample's."""
    return tuple(
        Slot(Role.LAYER, index, TokenBox(0, 0, *shape), is_clean)
        for shape, index, is_clean in zip(shapes, layer_indices, clean, strict=True)
    )


CASES = {
    "even": dict(shapes=[(4, 6)]),
    "odd": dict(shapes=[(5, 3)]),
    "text mask": dict(shapes=[(4, 4)], kept_text=4),
    "edit references": dict(shapes=[(4, 4), (4, 4)]),
    "zero_cond_t": dict(shapes=[(6, 6), (6, 6), (6, 6)], zero_cond_t=True),
    "layer3d small": dict(shapes=[(4, 4)] * 4, layered=True),
    "layer3d large": dict(shapes=[(2, 4)] * 8, layered=True),
}


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_equals_diffusers(name):
    case = {"kept_text": TEXT_TOKENS, "zero_cond_t": False, "layered": False} | CASES[name]
    shapes, layered, zero = case["shapes"], case["layered"], case["zero_cond_t"]
    reference = reference_model(zero_cond_t=zero, use_additional_t_cond=layered, use_layer3d_rope=layered)
    model = our_model(reference, additional_t_cond=layered, clean_timestep="zero" if zero else "shared")

    count = sum(rows * cols for rows, cols in shapes)
    tokens, text, t = torch.randn(1, count, 64), torch.randn(1, TEXT_TOKENS, TINY["text_dim"]), torch.tensor([0.37])
    mask = torch.arange(TEXT_TOKENS)[None] < case["kept_text"]
    expected = reference(
        hidden_states=tokens, timestep=t, encoder_hidden_states=text,
        encoder_hidden_states_mask=None if mask.all() else mask,
        img_shapes=[[(1, *shape) for shape in shapes]],
        additional_t_cond=torch.zeros(1, dtype=torch.long) if layered else None, return_dict=False,
    )[0]  # fmt: skip

    indices = [*range(len(shapes) - 1), -1] if layered else list(range(len(shapes)))
    clean = [False] + [zero] * (len(shapes) - 1)
    sample = SlotLayout(full_slots(shapes, indices, clean), *shapes[0])
    batch = pack_samples([sample], [text[0, : case["kept_text"]]])
    actual = model(tokens[0], t, batch)
    assert (actual - expected[0]).abs().max() < 1e-5
