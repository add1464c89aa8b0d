"""Fine-tuning: all weights or a LoRA, from a file to a file, with text states computed before, alone or sharded."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from finetune_setup import PAIRS, TRAINING, exact_loss, save_small, small_model, write_samples
from safetensors.torch import load_file, save_file
from tiny_checkpoints import TINY, public_state, tiny_checkpoint

from mrt_core.checkpoints.checkpoint import Family, inspect_checkpoint, load_checkpoint, save_checkpoint
from mrt_core.checkpoints.info import Sampling
from mrt_core.cli import build_parser, main
from mrt_core.cli.finetune import MEMORY
from mrt_core.designs.generator import DesignSettings
from mrt_core.errors import MRTError
from mrt_core.lora.apply import apply_loras
from mrt_core.lora.file import read_lora
from mrt_core.models.configs import TransformerConfig
from mrt_core.models.sequence import pack_samples
from mrt_core.models.transformer import MaskedRegionTransformer
from mrt_core.tasks.region_codec import RegionCodec
from mrt_core.tasks.slots import EMPTY_PROMPT
from mrt_core.training.finetune import Finetuning, UnfilledOperations, finetune, static_bytes
from mrt_core.training.low_rank import LowRankTraining, add_pairs
from mrt_core.training.prompts import CachedText, write_text_states
from mrt_core.training.samples import TRAINING_MIX, encode_samples, random_examples, read_shard
from mrt_core.training.state import averaged_weights

WORKER = Path(__file__).parent / "finetune_worker.py"
TESTS = Path(__file__).parents[1]


class WordText:
    """Text states that follow from the prompt's letters, a token each."""

    def __init__(self, width: int):
        self.width = width

    def encode_prompts(self, prompts):
        rows = [torch.tensor([ord(letter) for letter in prompt]) for prompt in prompts]
        return [torch.sin(row[:, None] * torch.arange(1, self.width + 1)) for row in rows]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Small checkpoints, one with a text encoder and one without, and samples."""
    folder = tmp_path_factory.mktemp("finetune")
    save_small(folder / "small.safetensors")
    save_small(folder / "textless.safetensors", text_encoder=False)
    write_samples(folder / "samples", load_checkpoint(folder / "small.safetensors").autoencoder)
    return folder


@pytest.fixture(scope="module")
def samples(folder):
    return read_shard(folder / "samples" / "samples-0000-00000.safetensors")


def predictions(transformer, text_encoder, samples):
    """Of both samples' own latents at noise level 0.7."""
    prompts = ["a red cat", EMPTY_PROMPT]
    batch = pack_samples(
        [sample.sample for sample in samples],
        text_encoder.encode_prompts(prompts),
        text_encoder.anchors(prompts),
    )
    tokens = torch.cat([sample.tokens for sample in samples]).float()
    with torch.no_grad():
        return transformer(tokens, torch.tensor([0.7, 0.7]), batch)


def fixed_loss(model, samples):
    with torch.no_grad():
        return sum(float(exact_loss(model, sample, seed)) for seed in range(4) for sample in samples)


# LoRA


@pytest.fixture(scope="module")
def lora(folder):
    """A LoRA trained for a few steps, with its run's state."""
    settings = Finetuning(TRAINING, PAIRS, torch.float32)
    paths = folder / "small.safetensors", folder / "samples", folder / "pairs", folder / "lora.safetensors"
    finetune(*paths, settings, torch.float32)
    return folder / "lora.safetensors"


def test_a_lora_is_what_was_trained(folder, lora, samples):
    model = small_model(folder / "small.safetensors", folder / "samples", PAIRS)
    before = fixed_loss(model, samples)
    model.trained.load_state_dict(averaged_weights(folder / "pairs" / "state.safetensors"))
    assert fixed_loss(model, samples) < 0.97 * before
    checkpoint = load_checkpoint(folder / "small.safetensors")
    untouched = predictions(checkpoint.transformer, checkpoint.text_encoder, samples)
    apply_loras(checkpoint.transformer, [(read_lora(lora, TINY), 1.0)])
    applied = predictions(checkpoint.transformer, checkpoint.text_encoder, samples)
    trained = predictions(model.transformer, checkpoint.text_encoder, samples)
    assert (applied - trained).abs().max() < 1e-5
    assert (applied - untouched).abs().max() > 0.01


def test_the_lora_file(lora):
    loaded = read_lora(lora, TINY)
    unread = [f"transformer_blocks.1.{name}" for name in ("attn.add_q_proj", "attn.to_add_out", "txt_mlp.net.2")]
    assert len(loaded.low_rank) == 14 * 2 - 4 and not loaded.low_rank.keys() & set(unread)
    assert "transformer_blocks.1.img_mod.1" in loaded.low_rank
    assert all(pair.scale == 2 and len(pair.down) == 4 and pair.up.any() for pair in loaded.low_rank.values())
    assert loaded.differences.keys() == {"cond_token_embed.weight"}
    assert loaded.differences["cond_token_embed.weight"].abs().max() > 1e-3
    names = load_file(lora)
    assert "transformer.transformer_blocks.0.attn.to_q.lora_A.weight" in names
    assert float(names["transformer.transformer_blocks.0.attn.to_q.alpha"]) == PAIRS.alpha


def test_the_base_stays_as_it_is(folder, samples):
    model = small_model(folder / "small.safetensors", folder / "samples", PAIRS)
    base = load_file(folder / "small.safetensors")
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    for sample in samples:
        exact_loss(model, sample, 0).backward()
    optimizer.step()
    state = model.transformer.state_dict()
    kept = [name for name in state if "trained_pair" not in name and name != "cond_token_embed.weight"]
    assert len(kept) > 60 and all(torch.equal(state[name], base[name]) for name in kept)
    assert all(parameter.grad is not None for parameter in model.trained.parameters())
    assert not torch.equal(state["cond_token_embed.weight"], base["cond_token_embed.weight"])


def test_pairs_change_nothing_at_first(folder, samples):
    model = small_model(folder / "small.safetensors", folder / "samples", PAIRS)
    checkpoint = load_checkpoint(folder / "small.safetensors")
    expected = predictions(checkpoint.transformer, checkpoint.text_encoder, samples)
    assert torch.equal(predictions(model.transformer, checkpoint.text_encoder, samples), expected)


# All weights


def test_all_weights(folder, samples, tmp_path, capsys):
    arguments = f"train finetune {folder}/small.safetensors --samples {folder}/samples --run {tmp_path} --save-every 2"
    arguments += " --learning-rate 0.01 --shares 0.5 0 0 0.5 --batch 2 --checkpoint-activations"
    for steps in (2, 4):  # the second run goes on where the first one ended
        assert main(f"{arguments} --steps {steps} -o {tmp_path}/{steps}.safetensors".split()) == 0
    assert capsys.readouterr().out.splitlines() == [f"{tmp_path}/{steps}.safetensors" for steps in (2, 4)]
    state = load_file(tmp_path / "finetune" / "state.safetensors")
    assert state["optimizer.count.img_in.weight"] == 4
    source, made = load_checkpoint(folder / "small.safetensors"), load_checkpoint(tmp_path / "4.safetensors")
    report = inspect_checkpoint(tmp_path / "4.safetensors")
    assert (report.family, report.differences, made.info) == (Family.TEACHER, "", source.info)
    for name, tensor in made.transformer.state_dict().items():
        assert torch.equal(tensor, state[f"ema.{name}"]), name
    assert not torch.equal(made.transformer.img_in.weight, source.transformer.img_in.weight)
    for part in ("autoencoder", "text_encoder"):
        before, after = (getattr(checkpoint, part).state_dict() for checkpoint in (source, made))
        assert all(torch.equal(before[name], after[name]) for name in before)
    assert made.text_encoder.tokenizer.to_str() == source.text_encoder.tokenizer.to_str()
    models = [
        small_model(path, folder / "samples", None)
        for path in (folder / "small.safetensors", tmp_path / "4.safetensors")
    ]
    losses = [fixed_loss(model, samples) for model in models]
    assert losses[1] < 0.99 * losses[0]


@pytest.mark.parametrize("low_rank", [None, PAIRS])
def test_recomputed_activations_give_the_same_gradients(folder, samples, low_rank):
    gradients = []
    for recompute in (False, True):
        model = small_model(folder / "small.safetensors", folder / "samples", low_rank, recompute=recompute)
        exact_loss(model, samples[1], 3).backward()
        gradients.append({name: p.grad for name, p in model.trained.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys() and len(gradients[0]) > 20
    assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in gradients[0])


# Text states


@pytest.fixture
def cached(folder, tmp_path):
    """A folder with the samples and their text states."""
    (shard,) = (folder / "samples").glob("samples-*.safetensors")
    (tmp_path / shard.name).write_bytes(shard.read_bytes())
    write_text_states(tmp_path, WordText(TINY.text_dim))
    return tmp_path


def test_text_states_are_those_of_the_encoder(cached, samples):
    prompts = [EMPTY_PROMPT, *samples[0].prompts, *samples[1].prompts]
    text = CachedText(cached, TINY.text_dim)
    for found, expected in zip(
        text.encode_prompts(prompts), WordText(TINY.text_dim).encode_prompts(prompts), strict=True
    ):
        assert torch.equal(found, expected.bfloat16())
    assert text.anchors(prompts) is None
    with pytest.raises(MRTError, match="no text states for the prompt 'a green dog'; run `mrt train prompts`"):
        text.encode_prompts(["a green dog"])
    with pytest.raises(MRTError, match="text states 16 wide, but the checkpoint takes 24"):
        CachedText(cached, 24).encode_prompts([EMPTY_PROMPT])


def test_text_states_are_kept_and_completed(cached, folder):
    (path,) = cached.glob("prompts-*.safetensors")
    before = path.stat().st_mtime_ns
    write_text_states(cached, WordText(TINY.text_dim))
    assert path.stat().st_mtime_ns == before
    text = CachedText(cached, TINY.text_dim)
    text.encode_prompts([EMPTY_PROMPT])
    tensors = {"tokens": torch.zeros(1, 64)}
    save_file(
        tensors, cached / "samples-0000-00001.safetensors", {"prompts": '[{"task": "x", "prompts": ["a new one"]}]'}
    )
    write_text_states(cached, WordText(TINY.text_dim))
    (states,) = text.encode_prompts(["a new one"])  # found although it came later
    assert len(states) == len("a new one")
    with pytest.raises(MRTError, match="holds no shards of samples"):
        write_text_states(folder, WordText(TINY.text_dim))


def test_a_checkpoint_without_text_encoder_reads_them(folder, cached, tmp_path):
    settings = Finetuning(replace(TRAINING, steps=2), PAIRS)
    finetune(folder / "textless.safetensors", cached, tmp_path / "run", tmp_path / "lora.safetensors", settings)
    pair = read_lora(tmp_path / "lora.safetensors", TINY).low_rank["transformer_blocks.0.attn.add_k_proj"]
    assert pair.up.any() and pair.up.dtype == torch.bfloat16


# Samples


def test_samples_are_encoded_by_the_checkpoint(folder, tmp_path, capsys):
    arguments = f"train samples --checkpoint {folder}/textless.safetensors --run {tmp_path} --shards 1 --size 2"
    assert main(f"{arguments} --frame-area 2304 --region-mode halo".split()) == 0
    (path,) = (tmp_path / "samples").glob("*.safetensors")
    stored = read_shard(path)
    codec = RegionCodec(load_checkpoint(folder / "textless.safetensors").autoencoder, "halo")
    settings = DesignSettings(frame_area=2304, mix=TRAINING_MIX)
    examples = random_examples(0, settings)
    expected = encode_samples([next(examples).drawn() for _ in range(2)], codec)
    found = torch.cat([sample.tokens for sample in stored]).float()
    assert (found - expected).abs().max() < 2e-3 * expected.abs().max()
    (tmp_path / "autoencoder").mkdir()
    assert main(arguments.split()) == 1
    assert "has an autoencoder of its own" in capsys.readouterr().err


# Memory


def test_the_memory_that_the_help_and_the_page_name():
    """Parameters x bytes at Qwen-Image's size, for a LoRA of rank 32 and for all weights."""
    help_text, page = MEMORY, (TESTS.parent / "docs" / "training.md").read_text(encoding="utf-8")
    transformer = MaskedRegionTransformer(TransformerConfig(), torch.float32, "meta", UnfilledOperations)
    whole = static_bytes(transformer)
    frozen = sum(parameter.numel() for parameter in transformer.parameters()) * 2
    shown = [f"{whole / 1e9:.1f} GB", f"{frozen / 1e9:.1f} GB"]
    add_pairs(transformer.bfloat16(), LowRankTraining(32, 32.0))
    shown.append(f"{(static_bytes(transformer) - frozen) / 1e9:.1f} GB")
    assert shown == ["408.6 GB", "40.9 GB", "5.9 GB"]
    assert all(figure in text for figure in shown for text in (help_text, page))


# What is refused


def test_what_is_refused(folder, tmp_path, lora):
    save_file(public_state(), tmp_path / "public.safetensors")
    student = tiny_checkpoint(student=True, sampling=Sampling(steps=4, cfg=1.0))
    save_checkpoint(tmp_path / "student.safetensors", student)
    settings, rest = Finetuning(TRAINING), (folder / "samples", folder / "pairs", tmp_path / "out.safetensors")
    with pytest.raises(MRTError, match="public.safetensors is Qwen-Image or .*; make one of it with `mrt init`"):
        finetune(tmp_path / "public.safetensors", *rest, settings)
    with pytest.raises(MRTError, match="student.safetensors is MRT student, .*; give its teacher"):
        finetune(tmp_path / "student.safetensors", *rest, settings)
    for other in (None, replace(PAIRS, rank=2)):
        with pytest.raises(MRTError, match="state.safetensors is the state of a run with other weights"):
            finetune(folder / "small.safetensors", *rest, Finetuning(TRAINING, other))
    assert not (tmp_path / "out.safetensors").exists()
    with pytest.raises(MRTError, match="--lora-rank is 0, but it must lie in"):
        options = build_parser().parse_args(["train", "finetune", "x", "-o", str(tmp_path / "y"), "--lora-rank", "0"])
        options.run(options)


# Several processes


@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="this build of PyTorch has no gloo")
def test_two_processes(folder, tmp_path):
    for name in ("small.safetensors", "samples"):
        (tmp_path / name).symlink_to(folder / name)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    path = os.pathsep.join(str(part) for part in (TESTS.parent, TESTS, WORKER.parent))
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    finished = subprocess.run(
        [*torchrun, str(WORKER), str(tmp_path)], env=environment, capture_output=True, text=True, timeout=600
    )
    assert finished.returncode == 0, finished.stderr[-4000:]
    source, *made = (load_checkpoint(tmp_path / f"{name}.safetensors") for name in ("small", "whole-2", "whole-3"))
    weights = [checkpoint.transformer.img_in.weight for checkpoint in (source, *made)]
    assert not torch.equal(weights[0], weights[1]) and not torch.equal(weights[1], weights[2])
    state = load_file(tmp_path / "whole" / "state.safetensors")
    assert torch.equal(weights[2], state["ema.img_in.weight"]) and state["optimizer.count.img_in.weight"] == 3
    pair = read_lora(tmp_path / "lora.safetensors", TINY).low_rank["transformer_blocks.0.img_mlp.net.2"]
    assert pair.up.any() and pair.scale == PAIRS.scale
