"""Modulations computed once for a schedule, and the text that nobody reads after the last block."""

import copy
import weakref

import pytest
import torch
import torch.nn.functional as F
from conftest import TRANSFORMER
from torch import nn

import mrt_core.models.modulation
from mrt_core.geometry import TokenBox
from mrt_core.models.modulation import modulation_table
from mrt_core.models.sequence import PackedBatch, Role, Slot, SlotLayout, pack_samples
from mrt_core.models.transformer import TransformerBlock

LEVELS = (1.0, 0.9333333373069763, 0.5, 0.07)
CPU = torch.device("cpu")
WIDTH = TRANSFORMER.width


def random_batch(samples: int = 1) -> tuple[torch.Tensor, PackedBatch]:
    """Tokens and batch of samples of different sizes, each with clean, noisy and condition slots."""
    torch.manual_seed(samples)
    layouts = []
    for number in range(samples):
        boxes = [TokenBox(0, 0, 4, 5), TokenBox(0, 0, 4, 4), TokenBox(1, 1, 2, 1 + number)]
        slots = [Slot(role, n, box, n == 0) for n, (role, box) in enumerate(zip(list(Role)[:3], boxes, strict=True))]
        layouts.append(SlotLayout((*slots, slots[-1]._replace(role=Role.CONDITION, clean=True)), 4, 5))
    text = [torch.randn(3 + number, TRANSFORMER.text_dim) for number in range(samples)]
    return torch.randn(sum(layout.token_count for layout in layouts), 64), pack_samples(layouts, text)


class Branch(nn.Module):
    """A low-rank change beside a layer, as a LoRA puts it there."""

    def __init__(self, layer: nn.Linear, rank: int = 3):
        super().__init__()
        self.register_buffer("down", 0.2 * torch.randn(rank, layer.in_features), persistent=False)
        self.register_buffer("up", 0.2 * torch.randn(layer.out_features, rank), persistent=False)


def add_branch(layer: nn.Linear) -> None:
    layer.add_module("branch", Branch(layer))
    layer.register_forward_hook(lambda layer, x, y: y + F.linear(F.linear(x[0], layer.branch.down), layer.branch.up))


def with_lora(model, kind: str):
    """A copy of the model with random changes in all layers that make modulations."""
    model = copy.deepcopy(model)
    layers = [model.norm_out.linear, model.time_text_embed.timestep_embedder.linear_2]
    layers += [mod[1] for block in model.transformer_blocks for mod in (block.img_mod, block.txt_mod)]
    for layer in layers if kind != "none" else []:
        if kind == "merged":
            layer.weight.data += 0.1 * torch.randn_like(layer.weight)
        else:
            add_branch(layer)
    return model


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("clean", ["zero", "shared"])
@pytest.mark.parametrize("lora", ["none", "merged", "beside"])
@torch.inference_mode()
def test_the_table_equals_computing_in_every_step_bit_for_bit(make_transformer, lora, clean, samples):
    plain = make_transformer(clean_timestep=clean, additional_t_cond=clean == "shared")
    model = with_lora(plain, lora)
    tokens, batch = random_batch(samples)
    table = modulation_table(model, LEVELS, torch.float32, CPU)
    for level in LEVELS:
        timestep = torch.tensor([level])
        expected = model(tokens, timestep, batch)
        assert torch.equal(model(tokens, timestep, batch, modulations=table.at(level)), expected)
        each = model(tokens, timestep.expand(samples), batch)  # a row per sample is rounded otherwise
        assert (each - expected).abs().max() < 1e-5 * expected.abs().max()
        assert ((plain(tokens, timestep, batch) - expected).abs().max() > 1e-2) == (lora != "none")


@torch.inference_mode()
def test_a_step_with_the_table_reads_no_modulation_weights(make_transformer):
    model = make_transformer()
    tokens, batch = random_batch()
    table = modulation_table(model, LEVELS, torch.float32, CPU)
    expected = [model(tokens, torch.tensor([level]), batch) for level in LEVELS]
    for module in (
        model.norm_out,
        model.time_text_embed,
        *(m for b in model.transformer_blocks for m in (b.img_mod, b.txt_mod)),
    ):
        module.to("meta")
    for level, velocity in zip(LEVELS, expected, strict=True):
        assert torch.equal(model(tokens, torch.tensor([level]), batch, modulations=table.at(level)), velocity)


def test_one_layer_at_a_time_is_copied_to_the_device(make_transformer, monkeypatch):
    model, alive, most = make_transformer(num_layers=3), [], []
    original = mrt_core.models.modulation.on_device

    def on_device(*arguments):
        compute = original(*arguments)
        alive.append(weakref.ref(compute))
        most.append(sum(each() is not None for each in alive))
        return compute

    monkeypatch.setattr(mrt_core.models.modulation, "on_device", on_device)
    modulation_table(model, LEVELS, torch.float32, CPU)
    assert len(most) == 1 + 2 * 3 + 1
    assert max(most) == 2  # the time embedding and one layer


def test_size_and_order_of_the_table(make_transformer):
    table = modulation_table(make_transformer(), [*LEVELS, LEVELS[0]], torch.float32, CPU)
    rows = len(LEVELS) + 1  # a level that comes twice has one row
    assert table.stored.image.shape == table.stored.text.shape == (2, rows, 6 * WIDTH)
    assert table.stored.output.shape == (rows, 2 * WIDTH)
    assert torch.equal(table.at(0.5).image[:, 0], table.stored.image[:, 2])
    assert torch.equal(table.at(0.5).text[:, 1], table.stored.text[:, 4])


@torch.inference_mode()
def test_unread_weights_of_the_last_block_do_not_matter(make_transformer):
    model = make_transformer()
    tokens, batch = random_batch(2)
    timestep = torch.tensor([0.7, 0.2])
    expected = model(tokens, timestep, batch)
    last = model.transformer_blocks[-1]
    unread = [tensor for name, tensor in last.named_parameters() if name.startswith(TransformerBlock.CONTEXT_PRE_ONLY)]
    assert len(unread) == 2 + 1 + 2 + 4
    for tensor in unread:
        tensor.fill_(torch.nan)
    last.txt_mod[1].weight[2 * WIDTH :] = torch.nan  # all but shift and scale of the attention
    assert torch.equal(model(tokens, timestep, batch), expected)
    last.txt_mod[1].weight[: 2 * WIDTH] = torch.nan
    assert model(tokens, timestep, batch).isnan().all()


@torch.inference_mode()
def test_computing_the_unread_text_changes_nothing(make_transformer):
    model = make_transformer(num_layers=3)
    tokens, batch = random_batch(2)
    timestep = torch.tensor([0.7, 0.2])
    expected = model(tokens, timestep, batch)
    model.transformer_blocks[-1].is_last = False
    assert (model(tokens, timestep, batch) - expected).abs().max() < 1e-6 * expected.abs().max()


def test_gradients_reach_exactly_what_is_read(make_transformer):
    model = make_transformer().requires_grad_(True)
    tokens, batch = random_batch(2)
    model(tokens, torch.tensor([0.7, 0.2]), batch).square().sum().backward()
    without = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    starts = tuple("transformer_blocks.1." + name for name in TransformerBlock.CONTEXT_PRE_ONLY)
    assert without == {name for name, _ in model.named_parameters() if name.startswith(starts)}
