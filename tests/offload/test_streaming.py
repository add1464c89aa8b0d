"""Blocks that pass through a few buffers: the same numbers, and never more of them on the device than buffers."""

import copy
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from conftest import TRANSFORMER
from test_modulation import add_branch, random_batch
from torch import nn

from mrt_core.models.modulation import modulation_table
from mrt_core.models.transformer import MaskedRegionTransformer
from mrt_core.models.weight_copies import weights_of
from mrt_core.offload.plan import BUFFERS
from mrt_core.offload.streaming import BlockStream, PackedBlock, spread, unneeded

BLOCKS = 5
LEVELS = (1.0, 0.6, 0.2)
CPU = torch.device("cpu")


class ByteLinear(nn.Module):
    """A linear layer that keeps its weights as bytes in a buffer, and its scale as fp8 in a parameter of one number."""

    def __init__(self, in_features: int, out_features: int, dtype=None, device=None):
        super().__init__()
        self.register_buffer("codes", torch.randint(0, 256, (out_features, in_features), dtype=torch.uint8))
        self.scale = nn.Parameter(torch.tensor(2.0**-9).to(torch.float8_e4m3fn), requires_grad=False)
        self.bias = nn.Parameter(torch.randn(out_features, dtype=torch.float64) / 9)

    def forward(self, x):
        weight = (self.codes.to(x.dtype) - 127.5) * self.scale.to(x.dtype)
        return F.linear(x, weight, self.bias.to(x.dtype))


def quantised_transformer() -> MaskedRegionTransformer:
    torch.manual_seed(1)
    config = replace(TRANSFORMER, num_layers=BLOCKS)
    operations = SimpleNamespace(Linear=ByteLinear, Embedding=nn.Embedding, RMSNorm=nn.RMSNorm)
    return MaskedRegionTransformer(config, operations=operations).requires_grad_(False)


def branched_transformer(make) -> MaskedRegionTransformer:
    model = make(num_layers=BLOCKS)
    for block in model.transformer_blocks:
        add_branch(block.attn.to_v)
        add_branch(block.img_mod[1])
    return model


@pytest.fixture(params=["plain", "quantised", "with LoRA"])
def model(request, make_transformer) -> MaskedRegionTransformer:
    if request.param == "quantised":
        return quantised_transformer()
    return (
        branched_transformer(make_transformer) if request.param == "with LoRA" else make_transformer(num_layers=BLOCKS)
    )


class Run:
    """Three steps of a model, with its blocks or a stream of them."""

    def __init__(self, model, device=CPU):
        self.model = model
        self.tokens, self.batch = random_batch(2)
        self.table = modulation_table(model, LEVELS, torch.float32, device)

    def steps(self, blocks=None) -> list[torch.Tensor]:
        return [self.step(level, blocks) for level in LEVELS]

    def step(self, level: float, blocks) -> torch.Tensor:
        return self.model(
            self.tokens, torch.tensor([level]), self.batch, modulations=self.table.at(level), blocks=blocks
        )


def stream_of(model, streamed, buffers=BUFFERS, device=CPU) -> BlockStream:
    blocks = model.transformer_blocks
    return BlockStream(
        blocks, {number: PackedBlock(blocks[number], pinned=False) for number in streamed}, buffers, device
    )


def watch(model) -> list[tuple[int, int]]:
    """Notes the number of every block that runs and where the weights are that it runs with."""
    seen = []
    for block in model.transformer_blocks:
        norm = block.attn.norm_k
        norm.register_forward_pre_hook(lambda norm, _, n=block.number: seen.append((n, norm.weight.data_ptr())))
    return seen


@pytest.mark.parametrize("buffers", [1, 2, 3])
@pytest.mark.parametrize("streamed", [(), (2,), (0, 4), (1, 2, 3), tuple(range(BLOCKS))])
@torch.inference_mode()
def test_same_output_bit_for_bit(model, streamed, buffers):
    run = Run(model)
    expected = run.steps()
    stream = stream_of(model, streamed, buffers)
    for velocity, other in zip(run.steps(stream), expected, strict=True):
        assert torch.equal(velocity, other)
    assert all(torch.equal(*pair) for pair in zip(run.steps(), expected, strict=True))  # nor are its own weights harmed


@pytest.mark.parametrize("buffers", [1, 2, 3])
@torch.inference_mode()
def test_no_more_blocks_on_the_device_than_buffers(make_transformer, buffers):
    model = make_transformer(num_layers=BLOCKS)
    run, seen = Run(model), watch(model)
    stream = stream_of(model, range(BLOCKS), buffers)
    run.steps(stream)
    assert [number for number, _ in seen] == [*range(BLOCKS)] * len(LEVELS)
    inside = [
        next(n for n, memory in enumerate(starts) if memory <= place < memory + len(stream.buffers[0].memory))
        for starts in [sorted(buffer.memory.data_ptr() for buffer in stream.buffers)]
        for _, place in seen
    ]
    assert len(stream.buffers) == len(set(inside)) == buffers
    assert all(a != b for a, b in pairwise(inside)) == (buffers > 1)  # one is filled beside it
    assert len({buffer.holds for buffer in stream.buffers}) == buffers


@torch.inference_mode()
def test_every_block_is_copied_once_per_step_and_before_its_turn(make_transformer, monkeypatch):
    model = make_transformer(num_layers=BLOCKS)
    run, stream = Run(model), stream_of(model, (0, 2, 4))
    events, seen = [], watch(model)
    original = BlockStream._fetch

    def fetch(self, number):
        held = any(buffer.holds == number for buffer in self.buffers)
        original(self, number)
        if not held:
            events.append((number, len(seen)))

    monkeypatch.setattr(BlockStream, "_fetch", fetch)
    run.steps(stream)
    # (block, how many blocks had run): 2 is fetched before 0 runs, 4 before 2 runs, and 0 of the next step before 4 runs
    first = [(0, 0), (2, 0), (4, 2), (0, 4)]
    assert events[:4] == first
    assert events[4:7] == [(2, 5), (4, 7), (0, 9)]
    assert len(events) == 1 + 3 * len(LEVELS)


@torch.inference_mode()
def test_an_interrupted_pass_leaves_the_stream_usable(make_transformer):
    model = make_transformer(num_layers=BLOCKS)
    run = Run(model)
    expected, stream = run.steps(), stream_of(model, (0, 1, 3, 4))
    handle = model.transformer_blocks[3].register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run.steps(stream)
    handle.remove()
    assert all(torch.equal(*pair) for pair in zip(run.steps(stream), expected, strict=True))


def test_packing_keeps_the_state_and_follows_changes_in_place(make_transformer):
    model = make_transformer(num_layers=BLOCKS)
    before = copy.deepcopy(model.state_dict())
    with torch.inference_mode():
        packed = [PackedBlock(block, pinned=False) for block in model.transformer_blocks]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(parameter.is_inference() for parameter in model.parameters())
    with torch.no_grad():
        model.transformer_blocks[1].attn.to_q.weight.add_(1)  # as merging a LoRA does
    place = packed[1].places["attn.to_q.weight"]
    assert torch.equal(place.view(packed[1].host), before["transformer_blocks.1.attn.to_q.weight"] + 1)
    assert packed[1].is_current
    add_branch(model.transformer_blocks[1].attn.to_q)
    add_branch(model.transformer_blocks[2].img_mod[1])  # not among what is packed
    assert [block.is_current for block in packed] == [True, False, True, True, True]


def test_only_what_a_step_reads_is_packed(make_transformer):
    model = make_transformer(num_layers=BLOCKS)
    width, dim = TRANSFORMER.width, TRANSFORMER.head_dim
    linear, mlp = width * width + width, 8 * width * width + 5 * width
    numbers = [sum(t.numel() for t in weights_of(b, unneeded(b)).values()) for b in model.transformer_blocks]
    assert numbers == [8 * linear + 2 * mlp + 4 * dim] * (BLOCKS - 1) + [6 * linear + mlp + 3 * dim]
    packed = PackedBlock(model.transformer_blocks[-1], pinned=False)
    assert 0 <= len(packed.host) - 4 * numbers[-1] < 256 * len(packed.places)


@torch.inference_mode()
def test_closing_gives_the_memory_back(make_transformer):
    stream = stream_of(make_transformer(num_layers=BLOCKS), (1, 3))
    list(stream)
    stream.close()
    assert stream.resident == {} and stream.buffers == []


@pytest.mark.parametrize(("count", "numbers"), [(0, ()), (1, (2,)), (2, (1, 3)), (3, (0, 2, 4)), (5, (0, 1, 2, 3, 4))])
def test_spread(count, numbers):
    assert spread(count, BLOCKS) == numbers


@pytest.mark.parametrize("total", [1, 7, 60])
def test_spread_repeats_nothing(total):
    for count in range(total + 1):
        numbers = spread(count, total)
        assert len(set(numbers)) == count and all(0 <= number < total for number in numbers)
        gaps = {b - a for a, b in pairwise(numbers)}
        assert len(gaps) <= 2 and max(gaps, default=0) - min(gaps, default=0) <= 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("streamed", [(2,), (1, 3), tuple(range(BLOCKS))])
@torch.inference_mode()
def test_on_cuda(make_transformer, streamed):
    device, model = torch.device("cuda"), make_transformer(num_layers=BLOCKS)
    run = Run(model, device)
    run.tokens = run.tokens.to(device)
    fields = {
        name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in vars(run.batch).items()
    }
    run.batch = type(run.batch)(**fields)
    blocks = model.transformer_blocks
    packed = {number: PackedBlock(blocks[number], pinned=True) for number in streamed}
    for edge in model.embedders_and_head():
        edge.to(device)
    found = run.steps(BlockStream(blocks, packed, BUFFERS, device))
    model.to(device)
    assert all(torch.equal(*pair) for pair in zip(found, run.steps(), strict=True))
