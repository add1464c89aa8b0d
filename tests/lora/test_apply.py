"""LoRAs in a model: merged into plain weights, beside quantised ones, with the same result."""

import pytest
import torch
from lora_files import LAYERS, lora_state, random_pairs
from lora_models import EIGHT_BIT, changed_weights, plain_twin, tiny_model, velocity
from tiny_checkpoints import TINY

from mrt_core.errors import MRTError
from mrt_core.lora.apply import apply_loras
from mrt_core.lora.file import read_lora

# Merged


@pytest.mark.parametrize("strength", [1.0, 0.8, -0.5])
def test_merged_weights_are_the_sum(write, pairs, strength):
    change = changed_weights(read_lora(write(lora_state(pairs)), TINY), strength)
    for name, difference in change.items():
        layer = name.removesuffix(".weight")
        if layer in pairs:
            up, down, alpha = pairs[layer]
            expected = strength * alpha / 4 * (up.double() @ down.double())
            assert (difference - expected).abs().max() < 1e-5, name
        else:
            assert difference.abs().max() == 0, name


@pytest.mark.parametrize(("alpha", "scale"), [(None, 1.0), (4.0, 1.0), (1.0, 0.25), (16.0, 4.0), (0.0, 0.0)])
def test_alpha_over_rank_is_the_scale(write, shapes, alpha, scale):
    state = lora_state(random_pairs(shapes, alpha=alpha))
    assert {delta.scale for delta in read_lora(write(state), TINY).low_rank.values()} == {scale}


def test_strength_zero_changes_no_bit(write, pairs):
    change = changed_weights(read_lora(write(lora_state(pairs)), TINY), 0.0)
    assert all(difference.abs().max() == 0 for difference in change.values())


def test_several_at_once_add_up(write, pairs, shapes):
    other = random_pairs({name: shapes[name] for name in LAYERS[4:8]}, rank=2, alpha=None, seed=1)
    first, second = (
        read_lora(write(lora_state(pairs)), TINY),
        read_lora(write(lora_state(other), "b.safetensors"), TINY),
    )
    model = tiny_model()
    before = model.transformer_blocks[0].img_mod[1].weight.clone()
    apply_loras(model, [(first, 0.5), (second, -2.0)])
    name = "transformer_blocks.0.img_mod.1"
    expected = 0.25 * pairs[name].up @ pairs[name].down - 2 * other[name].up @ other[name].down
    assert (model.transformer_blocks[0].img_mod[1].weight - before - expected).abs().max() < 1e-5


def test_the_sum_is_rounded_once_in_half_precision(write, pairs):
    model = tiny_model().bfloat16()
    before = model.proj_out.weight.float()
    apply_loras(model, [(read_lora(write(lora_state(pairs)), TINY), 0.7)])
    exact = torch.addmm(before, pairs["proj_out"].up, pairs["proj_out"].down, alpha=0.7 * 0.5)
    assert model.proj_out.weight.dtype == torch.bfloat16
    assert (model.proj_out.weight.float() - exact).abs().max() <= exact.abs().max() * 2**-8


def test_whole_differences_of_weights_and_biases(write):
    state = {
        "diffusion_model.txt_norm.diff": torch.full((16,), 0.5),
        "diffusion_model.proj_out.diff": torch.full((64, 32), 0.25),
        "diffusion_model.img_in.diff_b": torch.full((32,), -1.0),
    }
    change = changed_weights(read_lora(write(state), TINY), 2.0)
    for name, value in {"txt_norm.weight": 1.0, "proj_out.weight": 0.5, "img_in.bias": -2.0}.items():
        assert torch.allclose(change.pop(name), torch.tensor(value), atol=1e-6)
    assert all(difference.abs().max() == 0 for difference in change.values())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_factors_of_every_precision(write, pairs, dtype):
    state = {name: tensor.to(dtype) for name, tensor in lora_state(pairs).items()}
    lora = read_lora(write(state), TINY)
    up = lora.low_rank["proj_out"].up
    assert up.dtype == (torch.bfloat16 if dtype == torch.float8_e4m3fn else dtype)
    assert torch.equal(up.float(), pairs["proj_out"].up.to(dtype).float())
    model = tiny_model()
    apply_loras(model, [(lora, 1.0)])
    assert velocity(model).isfinite().all()


# Beside weights that are not plain


@torch.no_grad()
def test_a_side_branch_equals_merging(write, pairs, shapes):
    quantised = tiny_model(EIGHT_BIT)
    plain, names = plain_twin(quantised), set(quantised.state_dict())
    codes = {name: tensor.clone() for name, tensor in quantised.state_dict().items()}
    untouched = velocity(quantised)
    assert (untouched - velocity(plain)).abs().max() < 1e-5
    loras = [
        (read_lora(write(lora_state(pairs)), TINY), 0.1),
        (read_lora(write(lora_state(random_pairs(shapes, rank=2, alpha=None, seed=1)), "b.safetensors"), TINY), -0.1),
    ]
    apply_loras(quantised, loras)
    apply_loras(plain, loras)
    difference = (velocity(quantised) - velocity(plain)).abs().max()
    assert difference < 1e-4 * velocity(plain).abs().max()
    assert (velocity(plain) - untouched).abs().max() > 0.1  # the LoRAs do something
    assert set(quantised.state_dict()) == names  # a branch is not saved
    assert all(torch.equal(tensor, codes[name]) for name, tensor in quantised.state_dict().items())


@torch.no_grad()
def test_a_second_lora_joins_the_side_branch(write, pairs):
    lora = read_lora(write(lora_state(pairs)), TINY)
    together, in_turn = tiny_model(EIGHT_BIT), tiny_model(EIGHT_BIT)
    apply_loras(together, [(lora, 0.3)])
    apply_loras(in_turn, [(lora, 0.1)])
    apply_loras(in_turn, [(lora, 0.2)])
    assert (velocity(together) - velocity(in_turn)).abs().max() < 1e-4 * velocity(together).abs().max()
    assert len(in_turn.proj_out._forward_hooks) == 1


@torch.no_grad()
def test_biases_of_quantised_layers_are_merged_and_whole_differences_are_refused(write):
    model = tiny_model(EIGHT_BIT)
    bias = model.img_in.bias.clone()
    apply_loras(model, [(read_lora(write({"img_in.diff_b": torch.ones(32)}), TINY), 1.0)])
    assert torch.allclose(model.img_in.bias, bias + 1)
    state = {"img_in.diff": torch.ones(32, 64), "img_in.diff_b": torch.ones(32)}
    lora = read_lora(write(state), TINY)
    with pytest.raises(MRTError, match="whole difference for img_in.weight, but that weight is quantised"):
        apply_loras(model, [(lora, 1.0)])
    assert torch.allclose(model.img_in.bias, bias + 1)  # nothing was changed


def test_a_side_branch_moves_with_its_layer(write, pairs):
    model = tiny_model(EIGHT_BIT)
    apply_loras(model, [(read_lora(write(lora_state(pairs)), TINY), 1.0)])
    model.proj_out.to("meta")
    assert {buffer.device.type for buffer in model.proj_out.lora_branch.buffers()} == {"meta"}
