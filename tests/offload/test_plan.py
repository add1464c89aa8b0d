"""The memory plan: its sizes against real tensors, what it decides, and that a planned run makes the same pictures."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import TRANSFORMER, random_transformer
from live_bytes import LiveBytes

from mrt_core.checkpoints.checkpoint import Checkpoint, CheckpointInfo, save_checkpoint
from mrt_core.cli import main
from mrt_core.documents import load, save
from mrt_core.errors import MRTError
from mrt_core.geometry import TokenBox
from mrt_core.models.autoencoder import Autoencoder
from mrt_core.models.configs import AutoencoderConfig, TransformerConfig
from mrt_core.models.modulation import modulation_table
from mrt_core.models.sequence import Role, Slot, SlotLayout, pack_samples
from mrt_core.models.transformer import MaskedRegionTransformer
from mrt_core.models.weight_copies import weights_of
from mrt_core.offload.placement import Placement
from mrt_core.offload.plan import (
    BUFFERS,
    GIB,
    RESERVE,
    WeightSizes,
    Workload,
    activation_bytes,
    expected_weights,
    measure_weights,
    plan_memory,
    read_size,
    workload,
)
from mrt_core.offload.streaming import PackedBlock
from mrt_core.pipeline import Pipeline, SamplingOptions
from mrt_core.tasks.region_codec import CanvasRegion, RegionCodec
from mrt_core.tasks.request import text_to_layers_request

FULL = CheckpointInfo(TransformerConfig(), AutoencoderConfig())
PARAMETERS = 20_430_401_088 + 3072  # Qwen-Image's (architecture: parameter budget) and the condition embedding
CPU = torch.device("cpu")


def square(side: int, slots: int = 1) -> SlotLayout:
    box = TokenBox(0, 0, side, side)
    return SlotLayout(tuple(Slot(Role.LAYER, n, box, False) for n in range(slots)), side, side)


# Sizes


def test_weights_of_the_full_model():
    sizes = expected_weights(FULL, torch.bfloat16, text_encoder=5)
    # a block's and a stream's (architecture: parameter budget)
    attention, mlp, modulation = 37_761_280, 75_512_832, 56_641_536
    linear = 3072 * 3072 + 3072
    unread = 2 * linear + 128 + mlp
    assert sizes.blocks == (4 * (attention + mlp),) * 59 + (4 * (attention + mlp) - 2 * unread,)
    assert sizes.unread == 2 * unread
    assert sizes.modulation == 2 * (120 * modulation + 18_880_512 + 10_229_760)
    assert sizes.embedders_and_head == 2 * (11_013_120 + 199_680 + 196_672 + 3584 + 3072)
    assert (sizes.transformer, sizes.text_encoder, sizes.unpacking) == (2 * PARAMETERS, 5, 0)
    packed = expected_weights(FULL, torch.float8_e4m3fn)
    assert packed.transformer == PARAMETERS
    assert packed.unpacking == 12 * 3072 * 12288
    assert (
        packed.autoencoder
        == sizes.autoencoder
        == 2 * sum(p.numel() for p in Autoencoder(FULL.autoencoder, device="meta").parameters())
    )


def test_weights_as_they_are(make_transformer, autoencoder):
    model = make_transformer(num_layers=3)
    sizes = measure_weights(model, model.txt_in, autoencoder)
    assert sizes.transformer == 4 * sum(p.numel() for p in model.parameters())
    assert sizes.text_encoder == 4 * (48 * 64 + 64)
    packed = [len(PackedBlock(block, pinned=False).host) for block in model.transformer_blocks]
    assert all(0 <= real - planned < 256 * 40 for real, planned in zip(packed, sizes.blocks, strict=True))


def test_size_of_the_table_and_of_several_samples(make_transformer):
    info = CheckpointInfo(TRANSFORMER, AutoencoderConfig(8))
    work = workload(info, square(4, 3), 2, 4, torch.float32)
    stored = modulation_table(make_transformer(), [1.0, 0.7, 0.4, 0.2], torch.float32, CPU).stored
    assert work.table == sum(tensor.nbytes for tensor in vars(stored).values())
    assert work.activations == activation_bytes(TRANSFORMER, 2 * 48, 2 * 1024, 4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("side", "slots", "text"), [(16, 4, 64), (16, 2, 512), (24, 2, 16), (8, 1, 200)])
@torch.inference_mode()
def test_activations_against_live_tensors(dtype, side, slots, text):
    config = TransformerConfig(num_layers=3, num_heads=3, text_dim=256)
    torch.manual_seed(0)
    model = MaskedRegionTransformer(config, dtype)
    sample = square(side, slots)
    batch = pack_samples([sample], [torch.randn(text, 256, dtype=dtype)])
    tokens, timestep = torch.randn(sample.token_count, 64, dtype=dtype), torch.tensor([0.5])
    modulations = modulation_table(model, [0.5], dtype, CPU).at(0.5)
    model(tokens, timestep, batch, modulations=modulations)
    with LiveBytes() as counted:
        model(tokens, timestep, batch, modulations=modulations)
    planned = activation_bytes(config, sample.token_count, text, dtype.itemsize)
    assert 0.97 < planned / counted.peak < 1.05
    assert counted.live < 0.01 * counted.peak  # nothing is forgotten


@pytest.mark.parametrize("mode", ["crop", "halo", "full"])
@torch.inference_mode()
def test_decoding_against_live_tensors(autoencoder, mode):
    info = CheckpointInfo(TRANSFORMER, autoencoder.config)
    sample = SlotLayout((Slot(Role.LAYER, 2, TokenBox(1, 2, 36, 34), False),), 40, 40)
    latent, places = torch.randn(16, 72, 68), [CanvasRegion(sample.slots[0].box, 40, 40)]
    codec = RegionCodec(autoencoder, mode)
    codec.decode([latent], places)
    with LiveBytes() as counted:
        codec.decode([latent], places)
    planned = workload(info, sample, 1, 1, torch.float32, mode).decoding
    assert 0.9 < planned / counted.peak < 1.1


def test_live_bytes():
    with LiveBytes() as counted:
        a = torch.ones(100)
        b = a.view(10, 10) + 1
        assert counted.live == 800
        a = a * 2
        del b
    assert (counted.live, counted.peak) == (400, 1200)


# Plans

SIZES = WeightSizes((100,) * 10, modulation=500, unread=50, embedders_and_head=10, text_encoder=700, autoencoder=30)
WORK = Workload(activations=200, table=40, decoding=60)
STEP = 240 + RESERVE


@pytest.mark.parametrize(
    ("room", "expected"),
    [
        (2530, (True, ())),  # 1000 + 500 + 50 + 10 of weights, 730 of the others, 240 for a step
        (2529, (False, ())),
        (1250, (False, ())),
        (1249, (False, (1, 5, 8))),  # 7 blocks and two buffers
        (1050, (False, (1, 3, 6, 8))),
        (450, (False, tuple(range(10)))),
    ],
)
def test_what_stays_on_the_device(room, expected):
    plan = plan_memory(SIZES, WORK, room + RESERVE)
    assert (plan.everything, plan.streamed) == expected
    assert plan.peak <= plan.budget == room + RESERVE
    kept = 10 - len(plan.streamed) + min(BUFFERS, len(plan.streamed))
    assert plan.weights == (1560 if plan.everything else 10 + 100 * kept)
    assert plan.sampling == plan.weights + STEP + 730 * plan.everything


def test_models_that_do_not_fit_work_on_the_cpu():
    plan = plan_memory(SIZES, WORK, 699 + RESERVE)
    assert (plan.text_encoder_fits, plan.autoencoder_fits) == (False, True)
    plan = plan_memory(SIZES, replace(WORK, decoding=421), 450 + RESERVE)
    assert (plan.text_encoder_fits, plan.autoencoder_fits, plan.decoding) == (False, False, 0)
    assert plan.peak == 450 + RESERVE


def test_a_card_that_is_too_small():
    with pytest.raises(
        MRTError, match="^a step takes 0.5 GiB even with all blocks streamed, but there are 0.5 GiB; make fewer"
    ):
        plan_memory(SIZES, WORK, 449 + RESERVE)


@pytest.mark.parametrize(("weights", "floor"), [(torch.bfloat16, 12), (torch.float8_e4m3fn, 24)])
def test_plans_of_the_full_model(weights, floor):
    sizes, kept = expected_weights(FULL, weights, 14 * 10**9), []
    work = workload(FULL, square(64, 4), 1, 50, torch.bfloat16)
    for card in (8, 12, 16, 24, 48, 80):
        plan = plan_memory(sizes, work, card * GIB)
        assert max(plan.peak, plan.sampling, plan.decoding) <= card * GIB
        kept.append(60 - len(plan.streamed))
        assert "\n" not in str(plan)
    assert kept == sorted(kept) and kept[0] >= floor and kept[-1] == 60
    assert plan.everything


def test_a_plan_in_words():
    full = plan_memory(SIZES, WORK, GIB)
    assert str(full) == "all models stay on the device; peak 0.5 of 1.0 GiB"
    some = plan_memory(SIZES, WORK, 650 + RESERVE)
    assert (
        str(some) == "2 of 10 blocks on the device, the others streamed, text encoder on the CPU; peak 0.5 of 0.5 GiB"
    )
    assert str(plan_memory(SIZES, WORK, 1300 + RESERVE)).startswith("all 10 blocks on the device while sampling; peak")


@pytest.mark.parametrize(
    ("text", "size"), [("12GB", 12 * GIB), ("12 GiB", 12 * GIB), ("7.5g", 7.5 * GIB), ("800MB", 800 * 2**20)]
)
def test_read_size(text, size):
    assert read_size(text) == size


@pytest.mark.parametrize("text", ["", "12", "GB", "-1GB", "0GB", "12TB", "1e9 GB", "12GB of it"])
def test_read_size_of_something_else(text):
    with pytest.raises(MRTError, match=re.escape(repr(text))):
        read_size(text)


# Planned runs

BLOCKS = 5


@pytest.fixture(scope="module")
def deep_checkpoint(checkpoint) -> Checkpoint:
    """The shared checkpoint with five blocks."""
    info = replace(checkpoint.info, transformer=replace(TRANSFORMER, num_layers=BLOCKS))
    return Checkpoint(random_transformer(num_layers=BLOCKS), checkpoint.autoencoder, checkpoint.text_encoder, info)


def pipeline_within(checkpoint: Checkpoint, memory: int | None = None) -> Pipeline:
    placement = None if memory is None else Placement(CPU, memory)
    return Pipeline(checkpoint, checkpoint.text_encoder, RegionCodec(checkpoint.autoencoder), placement)


@torch.inference_mode()
def test_a_run_within_any_budget_makes_the_same(deep_checkpoint, layout):
    request, options = text_to_layers_request(layout), SamplingOptions(seeds=(0, 1), steps=2, cfg=2.0)
    (expected, _) = pipeline_within(deep_checkpoint).run(request, options)
    whole = pipeline_within(deep_checkpoint).prepare(request, options).memory
    sizes = measure_weights(deep_checkpoint.transformer, deep_checkpoint.text_encoder, deep_checkpoint.autoencoder)
    step = whole.sampling - sizes.transformer - sizes.text_encoder - sizes.autoencoder
    kinds = set()
    for kept in (BLOCKS, 4, 3, 2):
        memory = sizes.embedders_and_head + kept * max(sizes.blocks) + step
        pipeline = pipeline_within(deep_checkpoint, memory)
        plan = pipeline.prepare(request, options).memory
        assert plan.peak <= memory
        kinds.add(len(plan.streamed))
        (stack, _) = pipeline.run(request, options)
        assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(stack.layers, expected.layers, strict=True))
    assert kinds == {0, 3, 4, 5}
    with pytest.raises(MRTError, match="a step takes"):
        pipeline_within(deep_checkpoint, sizes.embedders_and_head + step).run(request, options)


@torch.inference_mode()
def test_a_stream_holds_what_the_plan_says(deep_checkpoint):
    model = deep_checkpoint.transformer
    sizes, work = measure_weights(model), Workload(1000, 1000, 1000)
    budget = RESERVE + 2000 + sizes.embedders_and_head + 4 * max(sizes.blocks)
    plan = plan_memory(sizes, work, budget)
    assert plan.streamed == (0, 2, 4)
    with Placement(CPU, budget).blocks(plan, model) as stream:
        held = sum(len(buffer.memory) for buffer in stream.buffers)
        held += sum(t.nbytes for number in stream.resident for t in resident_weights(model, number))
        held += sum(t.nbytes for edge in model.embedders_and_head() for t in weights_of(edge).values())
    assert 0 <= held - plan.weights < 256 * 40 * BUFFERS


def resident_weights(model, number: int):
    block = model.transformer_blocks[number]
    unread = (*block.MODULATION, *(block.CONTEXT_PRE_ONLY if block.is_last else ()))
    return weights_of(block, unread).values()


def test_models_move_in_turn(deep_checkpoint, layout, monkeypatch):
    """Text encoder, autoencoder, transformer and autoencoder again; each is back on the CPU before the next comes."""
    request, options, moves = text_to_layers_request(layout), SamplingOptions(steps=1, cfg=1.0), []
    model = deep_checkpoint.transformer
    pipeline = pipeline_within(deep_checkpoint)
    whole = pipeline.prepare(request, options).memory
    names = {id(model.img_in): "transformer", id(deep_checkpoint.text_encoder): "text encoder"}
    names[id(deep_checkpoint.autoencoder)] = "autoencoder"
    original = torch.nn.Module.to

    def to(module, device):
        if id(module) in names:
            moves.append((names[id(module)], str(device)))
        return original(module, CPU)

    monkeypatch.setattr(torch.nn.Module, "to", to)
    there = torch.device("cpu", 0)  # another name of the same place
    pipeline.placement = Placement(there, whole.peak - 1)
    pipeline.run(request, options)
    expected = [("text encoder", "cpu"), ("autoencoder", "cpu")]  # at first all are sent home
    for name in ("text encoder", "autoencoder", "transformer", "autoencoder"):
        expected += [(name, "cpu:0"), (name, "cpu")]
    assert moves == expected


def test_the_command_takes_a_budget(tmp_path, monkeypatch, capsys, checkpoint, stack):
    monkeypatch.chdir(tmp_path)
    save_checkpoint("tiny.safetensors", checkpoint)
    save(stack, "stack.psd")
    line = (
        "add stack.psd --box 1 2 20 18 --caption fog --checkpoint tiny.safetensors --device cpu --steps 1 --overwrite"
    )
    assert main([*line.split(), "-o", "free.psd"]) == 0
    assert main([*line.split(), "-o", "bound.psd", "--memory", "600MB"]) == 0
    pairs = zip(load("free.psd").layers, load("bound.psd").layers, strict=True)
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in pairs)
    capsys.readouterr()
    assert main([*line.split(), "-o", "none.psd", "--memory", "100MB"]) != 0
    assert "a step takes 0.5 GiB even with all blocks streamed" in capsys.readouterr().err
    assert main([*line.split(), "-o", "none.psd", "--memory", "lots"]) != 0
    assert "such as 12GB or 800MB" in capsys.readouterr().err
