"""Training: samples on disk, the masked loss, the optimiser, and states that are resumed bit by bit."""

from dataclasses import replace
from itertools import islice, pairwise

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_teacher import TRANSFORMER, make_teacher
from torch import nn

from mrt_core.designs.generator import DesignSettings, generate_design
from mrt_core.errors import MRTError
from mrt_core.models.sequence import Role, patchify
from mrt_core.tasks.region_codec import RegionCodec, canvas_regions
from mrt_core.tasks.slots import HARMONIZE, Task, slot_layout
from mrt_core.training import bundle
from mrt_core.training.autoencoder import AutoencoderTraining, crops
from mrt_core.training.captions import training_prompts
from mrt_core.training.flow_matching import latent_batch, plain_attention
from mrt_core.training.muon import Muon, muon_for, orthogonalise
from mrt_core.training.samples import (
    Example,
    TrainingSample,
    make_example,
    pick_targets,
    random_examples,
    read_shard,
    write_shard,
    write_shards,
)
from mrt_core.training.state import TrainingState, averaged_weights, warmup_stable_decay
from mrt_core.training.teacher import SamplePool, TeacherTraining, _hidden_matrices, flow_matching_loss, train_teacher

SETTINGS = DesignSettings(frame_area=48 * 48, max_layers=4)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    """Every task once, on designs of different sizes, and one design that overflows."""
    rng = np.random.default_rng(0)
    designs = [generate_design(seed, replace(SETTINGS, overflow_share=1.0, min_layers=3)) for seed in range(4)]
    return [make_example(design, task, rng) for design, task in zip(designs, Task, strict=True)]


@pytest.fixture(scope="module")
def samples(examples, autoencoder, tmp_path_factory) -> list[TrainingSample]:
    path = tmp_path_factory.mktemp("samples") / "samples-0000-00000.safetensors"
    write_shard(path, [example.drawn() for example in examples], RegionCodec(autoencoder))
    return read_shard(path)


# Samples


def test_shard_round_trip(examples, samples, autoencoder):
    codec = RegionCodec(autoencoder)
    assert [sample.task for sample in samples] == list(Task)
    assert any(example.sample.canvas_cols * 16 > example.design.stack.frame.width for example in examples)
    for example, sample in zip(examples, samples, strict=True):
        assert sample.sample == example.sample == slot_layout(example.task, example.design.layout, example.targets)
        assert sample.prompts == example.prompts
        latents = codec.encode(example.images(), canvas_regions(example.sample, example.sample.slots))
        expected = torch.cat([patchify(latent) for latent in latents])
        assert sample.tokens.dtype == torch.float16
        assert (sample.tokens.float() - expected).abs().max() < 2e-3 * expected.abs().max()


def test_examples_show_truth_on_targets_and_hide_them_in_the_composite(examples):
    for example in examples:
        images = example.images()
        truth = example.design.stack.layers
        for slot, image in zip(example.sample.slots, images, strict=True):
            assert image.shape == (16 * slot.box.rows, 16 * slot.box.cols, 4)
            if slot.role is Role.LAYER:
                shown = truth[slot.layer_index - 1].pixels[..., 3]
                assert int(image[..., 3].sum()) == pytest.approx(int(shown.sum()), rel=1e-3)
    plain = examples[0].images()[0]
    design = examples[0].design
    edited = Example(design, Task.ADD_LAYERS, (0,), slot_layout(Task.ADD_LAYERS, design.layout, (0,)), ("",))
    assert not np.array_equal(edited.images()[0], plain)


def possible_prompts(design) -> set[str]:
    """Every prompt that a design can be trained with."""
    captions = [region.caption for region in design.layout.regions]
    layers = " ".join(f"<layer> {caption} </layer>" for caption in captions)
    ground = f"<background> {design.layout.background_region.caption} </background>"
    short, long, style = design.short_caption, design.layout.caption, design.style
    tags = {layers, f"{layers} {ground}"}
    if short.endswith(f", {style}"):
        tags |= {f"{prompt} {style}" for prompt in tags}
    prompts = {*tags, f"{layers} {ground} {short}", f"{layers} {short}", f"{layers} {ground} {long}", short, long}
    return prompts | {prompt.replace('the word "', 'the text "') for prompt in prompts}


def test_prompts_come_in_their_shares():
    rng = np.random.default_rng(0)
    design = generate_design(4, DesignSettings(styled_share=1.0))
    prompts = [prompt for _ in range(700) for prompt in training_prompts(design, rng)]
    assert set(prompts) == possible_prompts(design)
    tagged = [prompt for prompt in prompts if "<background>" in prompt]
    assert len(tagged) / len(prompts) == pytest.approx(0.6, abs=0.04)
    assert sum("<layer>" in prompt for prompt in prompts) / len(prompts) == pytest.approx(0.85, abs=0.04)
    named = [prompt for prompt in tagged if prompt.endswith((f"</background> {design.style}", "</background>"))]
    assert sum(not prompt.endswith(">") for prompt in named) / len(named) == pytest.approx(0.85, abs=0.04)


def test_prompts_of_the_tasks(examples):
    by_task = {example.task: example for example in examples}
    for task in (Task.TEXT_TO_LAYERS, Task.IMAGE_TO_LAYERS):
        example = by_task[task]
        assert set(example.prompts) <= possible_prompts(example.design) and len(example.prompts) == 3
    added = by_task[Task.ADD_LAYERS]
    captions = [added.design.layout.regions[index].caption for index in added.targets]
    assert added.prompts == (" ".join(f"<layer> {caption} </layer>" for caption in captions),)
    assert by_task[Task.RESTYLE_LAYERS].prompts == (HARMONIZE,)


def test_an_image_to_layers_sample_without_its_image_is_text_to_layers(samples):
    sample = next(sample for sample in samples if sample.task is Task.IMAGE_TO_LAYERS)
    text = sample.without_image()
    assert text.task is Task.TEXT_TO_LAYERS and not any(slot.clean for slot in text.sample.slots)
    assert [slot._replace(clean=True) for slot in text.sample.slots] == [
        slot._replace(clean=True) for slot in sample.sample.slots
    ]
    assert text.tokens is sample.tokens and text.prompts == sample.prompts


def test_plain_attention_is_attention():
    q, k, v = torch.randn(3, 1, 2, 9, 16).unbind()
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    assert torch.allclose(plain_attention(q, k, v), expected, atol=1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.allclose(plain_attention(q, k, v).float(), expected, atol=0.02)


def test_prompt_dropout(samples):
    rng = np.random.default_rng(0)
    shares = {}
    for sample in samples:
        picked = [sample.pick_prompt(rng, 0.1) for _ in range(600)]
        assert set(picked) == {" ", *sample.prompts}
        shares[sample.task] = picked.count(" ") / len(picked)
    assert shares.pop(Task.IMAGE_TO_LAYERS) == pytest.approx(0.5, abs=0.07)
    assert all(share == pytest.approx(0.1, abs=0.05) for share in shares.values())


def test_random_examples_mix_the_tasks():
    first, again = random_examples(3, SETTINGS), random_examples(3, SETTINGS)
    drawn = [next(first) for _ in range(80)]
    repeated = [next(again) for _ in range(80)]
    assert {example.task for example in drawn} == set(Task)
    assert [(e.task, e.targets, e.sample, e.prompts) for e in drawn] == [
        (e.task, e.targets, e.sample, e.prompts) for e in repeated
    ]
    for example in drawn:
        editing = example.task in (Task.ADD_LAYERS, Task.RESTYLE_LAYERS)
        assert bool(example.targets) == editing


@pytest.mark.parametrize("count", [1, 2, 5])
def test_targets_are_distinct_ordered_and_exist(count):
    rng = np.random.default_rng(0)
    drawn = {pick_targets(rng, count) for _ in range(200)}
    assert all(targets and all(a < b for a, b in pairwise(targets)) for targets in drawn)
    assert {index for targets in drawn for index in targets} == set(range(count))
    assert max(len(targets) for targets in drawn) == min(count, 3)


def test_existing_shards_are_kept_and_new_ones_are_found(tmp_path, autoencoder):
    codec, pool = RegionCodec(autoencoder), SamplePool(tmp_path)
    write_shards(tmp_path, codec, 1, 2, 7, SETTINGS)
    (first,) = tmp_path.glob("*.safetensors")
    before = first.stat().st_mtime_ns
    pool.reload()
    assert len(pool.samples) == 2
    write_shards(tmp_path, codec, 2, 2, 7, SETTINGS)
    assert first.stat().st_mtime_ns == before
    pool.reload()
    pool.reload()
    assert len(pool.samples) == 4
    assert not torch.equal(pool.samples[0].tokens, pool.samples[2].tokens)
    tasks = {sample.task: 1.0 for sample in pool.samples[:1]}
    batch = next(pool.batches(np.random.default_rng(0), 9, tasks))
    assert len(batch) == 9 and all(any(sample is known for known in pool.samples) for sample in batch)


def test_shards_do_not_depend_on_who_draws_them(tmp_path, autoencoder):
    codec = RegionCodec(autoencoder)
    for workers in (0, 2):
        write_shards(tmp_path / str(workers), codec, 3, 2, 7, SETTINGS, workers)
    here, elsewhere = ({path.name: path.read_bytes() for path in (tmp_path / x).iterdir()} for x in ("0", "2"))
    assert len(here) == 3 and len(set(here.values())) == 3
    assert here == elsewhere


def test_a_shard_is_of_its_own_whatever_others_exist(tmp_path, autoencoder):
    codec = RegionCodec(autoencoder)
    write_shards(tmp_path, codec, 2, 2, 7, SETTINGS)
    second = max(tmp_path.iterdir())
    before = second.read_bytes()
    second.unlink()
    write_shards(tmp_path, codec, 2, 2, 7, SETTINGS)
    assert second.read_bytes() == before
    drawn = list(islice(random_examples(700_001, SETTINGS), 2))
    assert [sample.sample for sample in read_shard(second)] == [example.sample for example in drawn]


# The loss


class Oracle(nn.Module):
    """A model that returns what it is told, whatever it is shown."""

    def __init__(self, velocity):
        super().__init__()
        self.velocity = velocity

    def forward(self, tokens, sigma, layouts, prompts):
        self.tokens, self.sigma = tokens, sigma
        return self.velocity, None


def clean_mask(samples):
    return torch.cat([sample.sample.expand([slot.clean for slot in sample.sample.slots]) for sample in samples])


def loss_of(model, samples, seed=0):
    torch.manual_seed(seed)
    return flow_matching_loss(model, samples, ["a cat"] * len(samples), CPU)


def test_loss_counts_noisy_tokens_alone(samples):
    clean = clean_mask(samples)
    assert clean.any() and not clean.all()
    velocity = torch.randn(len(clean), 64, generator=torch.Generator().manual_seed(1))
    expected = loss_of(Oracle(velocity), samples)
    changed = velocity.clone()
    changed[clean] += 100
    assert torch.equal(loss_of(Oracle(changed), samples), expected)
    changed[~clean] += 1
    assert abs(loss_of(Oracle(changed), samples) - expected) > 0.1


def test_targets_of_clean_tokens_do_not_matter(samples):
    clean = clean_mask(samples)
    lengths = [sample.sample.token_count for sample in samples]
    moved = [
        replace(sample, tokens=torch.where(mask[:, None], sample.tokens + 3, sample.tokens))
        for sample, mask in zip(samples, clean.split(lengths), strict=True)
    ]
    oracle = Oracle(torch.zeros(len(clean), 64))
    assert torch.equal(loss_of(oracle, samples), loss_of(oracle, moved))


def test_the_true_velocity_has_no_loss_and_clean_tokens_have_no_noise(samples):
    clean, tokens = clean_mask(samples), torch.cat([sample.tokens for sample in samples]).float()
    oracle = Oracle(torch.zeros(len(clean), 64))
    loss_of(oracle, samples)
    level = oracle.sigma.repeat_interleave(torch.tensor([sample.sample.token_count for sample in samples]))[:, None]
    assert len(oracle.sigma.unique()) == len(samples)
    assert torch.equal(oracle.tokens[clean], tokens[clean])
    velocity = (oracle.tokens - tokens) / level  # x_sigma - x0 = sigma * (eps - x0)
    assert loss_of(Oracle(velocity), samples) < 1e-6
    noise = (velocity + tokens)[~clean]
    assert float(noise.std()) == pytest.approx(1, abs=0.02)


def test_an_untrained_teacher_predicts_nothing(samples):
    expected = loss_of(Oracle(torch.zeros(len(clean_mask(samples)), 64)), samples)
    assert loss_of(make_teacher(0, noise=0), samples).item() == pytest.approx(expected.item(), rel=1e-6)


def new_state(seed=0, noise=0.0):
    model = make_teacher(seed, noise)
    return TrainingState(model, muon_for(model, _hidden_matrices(model), 0.01, 1e-3, 0.01), ema_decay=0.9)


def test_twenty_steps_lower_the_loss(samples):
    state = new_state()
    first = loss_of(state.module, samples).item()
    for _ in range(20):
        loss_of(state.module, samples).backward()
        state.apply_gradients(1.0)
    assert loss_of(state.module, samples).item() < 0.8 * first


# The optimiser


def test_hidden_matrices_are_those_inside_the_blocks():
    names = _hidden_matrices(make_teacher(0))
    assert len(names) == TRANSFORMER.num_layers * 12  # 8 of attention and 4 of MLPs
    assert "transformer.transformer_blocks.1.attn.to_out.0.weight" in names
    assert not any(part in name for name in names for part in ("_mod", "norm", "bias", "img_in", "proj_out", "tokens"))


@pytest.mark.parametrize("shape", [(64, 64), (32, 128), (256, 64)])
def test_orthogonalise_levels_the_singular_values(shape):
    u, _, v = torch.linalg.svd(torch.randn(shape, generator=torch.Generator().manual_seed(0)), full_matrices=False)
    matrix = u @ torch.diag(torch.logspace(-1.5, 0, min(shape))) @ v  # singular values from 0.03 to 1
    values = torch.linalg.svdvals(orthogonalise(matrix))
    assert values.min() > 0.6 and values.max() < 1.3
    assert float(values.mean()) == pytest.approx(1, abs=0.2)


def test_orthogonalise_keeps_directions_and_ignores_scale():
    u, _ = torch.linalg.qr(torch.randn(48, 32, generator=torch.Generator().manual_seed(0)))
    v, _ = torch.linalg.qr(torch.randn(32, 32, generator=torch.Generator().manual_seed(1)))
    matrix = u @ torch.diag(torch.linspace(0.5, 2, 32)) @ v.T
    update = orthogonalise(matrix)
    alignment = u.T @ update @ v
    assert bool((alignment.diagonal() > 0.6).all())
    assert (alignment - torch.diag(alignment.diagonal())).abs().max() < 0.1
    assert (orthogonalise(1000 * matrix) - update).abs().max() < 0.05


def test_adam_takes_its_textbook_step():
    torch.manual_seed(0)
    ours = nn.Parameter(torch.randn(7))
    theirs = nn.Parameter(ours.detach().clone())
    optimizer = Muon([{"params": [ours], "lr": 0.01, "weight_decay": 0.1}])
    reference = torch.optim.AdamW([theirs], lr=0.01, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.1)
    for _ in range(5):
        ours.grad = torch.randn(7)
        theirs.grad = ours.grad.clone()
        optimizer.step()
        reference.step()
    assert (ours - theirs).abs().max() < 1e-6


def test_muon_takes_its_published_step():
    """Keller Jordan's reference: momentum, Nesterov, orthogonalise, scale by sqrt(max(1, rows / cols))."""
    torch.manual_seed(0)
    parameter = nn.Parameter(torch.randn(24, 6))
    expected, momentum = parameter.detach().clone(), torch.zeros(24, 6)
    optimizer = Muon([{"params": [parameter], "lr": 0.02, "matrix": True, "weight_decay": 0.01}])
    for _ in range(3):
        gradient = torch.randn(24, 6)
        parameter.grad = gradient.clone()
        optimizer.step()
        momentum = 0.95 * momentum + 0.05 * gradient
        update = orthogonalise(0.05 * gradient + 0.95 * momentum)
        expected = expected * (1 - 0.02 * 0.01) - 0.02 * 2 * update
    assert (parameter - expected).abs().max() < 3e-4  # a hundredth of what it moves by; orthogonalise works in bfloat16


@pytest.mark.parametrize(
    ("step", "factor"), [(0, 0.1), (4, 0.5), (9, 1.0), (50, 1.0), (75, 1.0), (80, 0.8), (99, 0.04), (100, 0.0)]
)
def test_learning_rate_factor(step, factor):
    assert warmup_stable_decay(step, 100, 10, 0.25) == pytest.approx(factor)


# States


def advance(state, samples, steps):
    """Steps whose noise follows from the step's number, as a run's does not: they can be repeated exactly."""
    for _ in range(steps):
        loss_of(state.module, samples, seed=state.step).backward()
        state.apply_gradients(0.7)


def test_resuming_continues_bit_by_bit(samples, tmp_path):
    through = new_state(noise=0.05)
    advance(through, samples, 4)
    first = new_state(noise=0.05)
    advance(first, samples, 2)
    first.save(tmp_path / "state.safetensors", {"note": "half way"})
    second = new_state(seed=5, noise=0.05)
    advance(second, samples, 1)  # what it knew must be forgotten
    assert second.resume(tmp_path / "state.safetensors") == {"note": "half way"}
    assert second.step == 2
    advance(second, samples, 2)

    through.save(tmp_path / "through.safetensors", {})
    second.save(tmp_path / "second.safetensors", {})
    expected, actual = (load_file(tmp_path / f"{name}.safetensors") for name in ("through", "second"))
    assert expected.keys() == actual.keys()
    assert all(torch.equal(expected[name], actual[name]) for name in expected)
    assert (through.step, second.step) == (4, 4)


def test_the_file_of_a_state(samples, tmp_path):
    state, path = new_state(noise=0.05), tmp_path / "state.safetensors"
    advance(state, samples, 1)
    state.save(path, {})
    stored = load_file(path)
    names = [name for name, _ in state.module.named_parameters()]
    assert {name for name in stored if not name.startswith("optimizer.")} == {
        f"{part}.{name}" for part in ("model", "ema") for name in names
    }
    kinds = {
        "transformer.transformer_blocks.0.attn.to_q.weight": {"momentum"},
        "transformer.img_in.bias": {"first", "second", "count"},
    }
    for name, expected in kinds.items():
        kept = {
            key.removesuffix(f".{name}") for key in stored if key.startswith("optimizer.") and key.endswith(f".{name}")
        }
        assert kept == {f"optimizer.{kind}" for kind in expected}
    weights = averaged_weights(path)
    assert weights.keys() == set(names)
    assert all(torch.equal(weights[name], state.ema.average[name]) for name in names)


def test_moving_average():
    model = nn.Linear(2, 2, bias=False)
    state = TrainingState(model, muon_for(model, set(), 0.0, 0.1), ema_decay=0.5)
    expected = model.weight.detach().clone()
    for step in range(1, 13):
        model.weight.grad = torch.ones(2, 2)
        state.apply_gradients(1.0)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * model.weight.detach()
    assert (state.ema.average["weight"] - expected).abs().max() < 1e-6


def test_gradients_are_clipped_and_cleared():
    model = nn.Linear(3, 1, bias=False)
    state = TrainingState(model, muon_for(model, set(), 0.0, 0.1), ema_decay=0.5)
    model.weight.grad = torch.full((1, 3), 100.0)
    assert state.apply_gradients(1.0) == pytest.approx(100 * 3**0.5)
    assert model.weight.grad is None
    assert (state.optimizer.state[model.weight]["first"] - 0.1 / 3**0.5).abs().max() < 1e-6


def test_averaged_weights_of_nothing(tmp_path):
    with pytest.raises(MRTError, match="state.safetensors does not exist.*run the training step before it first"):
        averaged_weights(tmp_path / "state.safetensors")


def test_train_teacher_saves_and_resumes(examples, autoencoder, tmp_path):
    drawn = [example.drawn() for example in examples]
    write_shard(tmp_path / "samples" / "samples-0000-00000.safetensors", drawn, RegionCodec(autoencoder))
    settings = TeacherTraining(steps=2, batch=2, warmup=1, save_every=100)
    folder, path = tmp_path / "teacher", tmp_path / "teacher" / "state.safetensors"
    train_teacher(folder, tmp_path / "samples", make_teacher(0), settings)
    two_steps = load_file(path)
    words = make_teacher(0).text_encoder.tokens.weight
    assert not torch.equal(two_steps["model.text_encoder.tokens.weight"], words)  # trained along
    resumed = make_teacher(1)
    train_teacher(folder, tmp_path / "samples", resumed, settings)  # nothing left to do
    assert all(torch.equal(value.cpu(), two_steps[f"model.{name}"]) for name, value in resumed.named_parameters())
    train_teacher(folder, tmp_path / "samples", make_teacher(2), replace(settings, steps=3))
    three_steps = load_file(path)
    count = "optimizer.count.transformer.img_in.weight"
    assert (float(two_steps[count]), float(three_steps[count])) == (2, 3)
    assert not torch.equal(two_steps["model.transformer.img_in.weight"], three_steps["model.transformer.img_in.weight"])


# Crops for the autoencoder


def test_crops_follow_from_their_number_whoever_draws_them():
    settings = AutoencoderTraining(batch=2)
    first = list(islice(crops(settings, 5), 3))
    assert all(torch.equal(a, b) for a, b in zip(first, islice(crops(settings, 5, workers=1), 3), strict=True))
    assert torch.equal(first[2], next(crops(settings, 5, first=2)))  # a resumed run goes on with the next ones
    assert not any(a.shape == b.shape and torch.equal(a, b) for a, b in pairwise(first))
    for batch in first:
        assert batch.shape[1] == 4 and -1 <= batch.min() < batch.max() <= 1


# Settings of a run


def test_a_run_folder_keeps_its_sizes(tmp_path):
    small = bundle.sized(2, 2, 32)
    assert small.rope_axes == (8, 12, 12) and small.width == 64
    assert bundle.run_sizes(tmp_path, small) == bundle.run_sizes(tmp_path) == bundle.run_sizes(tmp_path, small) == small
    with pytest.raises(MRTError, match="was begun with other sizes"):
        bundle.run_sizes(tmp_path, bundle.sized(3, 2, 32))
    assert bundle.run_sizes(tmp_path / "new") == bundle.TINY_TRANSFORMER
    with pytest.raises(MRTError, match="a head is a multiple of 16 wide"):
        bundle.sized(2, 2, 40)


def test_noise_levels_lean_by_the_setting(samples):
    batch = latent_batch(samples, torch.device("cpu"))
    torch.manual_seed(0)
    even = batch.random_levels(dict.fromkeys(Task, 1.0))
    torch.manual_seed(0)
    leaning = batch.random_levels(dict.fromkeys(Task, 9.0))
    assert torch.allclose(leaning, 9 * even / (1 + 8 * even)) and (leaning > even).all()
