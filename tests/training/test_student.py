"""The student: what its losses see, rounds that are resumed bit by bit, and files that the pipeline samples as it was trained."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_teacher import make_teacher
from torch import nn

from mrt_core.checkpoints.checkpoint import Sampling, load_checkpoint, save_checkpoint
from mrt_core.designs.generator import DesignSettings, generate_design
from mrt_core.errors import MRTError
from mrt_core.lora.apply import apply_loras, student_info
from mrt_core.lora.file import read_lora
from mrt_core.pipeline import Pipeline, SamplingOptions
from mrt_core.tasks.region_codec import RegionCodec
from mrt_core.tasks.request import text_to_layers_request
from mrt_core.tasks.slots import Task
from mrt_core.training import bundle
from mrt_core.training.distribution_matching import distribution_matching_loss
from mrt_core.training.flow_matching import velocity_loss
from mrt_core.training.samples import TrainingSample, make_example, read_shard, write_shard
from mrt_core.training.student import StudentTraining, distillation, sampling_of_state, train_student
from mrt_core.training.teacher import TeacherModel, flow_matching_loss

CPU = torch.device("cpu")
SETTINGS = StudentTraining(steps=4, batch=3, fake_updates=2, student_steps=2, warmup=1, save_every=1)
CALLS = 2 * (2 + 1 + 1 + 2) + 2 + 4  # of a network in the first two rounds: fakes, student, fake, teacher; simulations


@pytest.fixture(scope="module")
def shards(autoencoder, tmp_path_factory) -> Path:
    """A sample of every task."""
    folder = tmp_path_factory.mktemp("samples")
    rng = np.random.default_rng(0)
    settings = DesignSettings(frame_area=48 * 48, min_layers=2, max_layers=3)
    examples = [make_example(generate_design(seed, settings), task, rng) for seed, task in enumerate(Task)]
    drawn = [example.drawn() for example in examples]
    write_shard(folder / "samples-0000-00000.safetensors", drawn, RegionCodec(autoencoder))
    return folder


@pytest.fixture(scope="module")
def samples(shards) -> list[TrainingSample]:
    return read_shard(shards / "samples-0000-00000.safetensors")


def clean_mask(samples):
    return torch.cat([sample.sample.expand([slot.clean for slot in sample.sample.slots]) for sample in samples])


# The losses


class Oracle(nn.Module):
    """A transformer that returns what it is told, whatever it is shown."""

    def __init__(self, velocity):
        super().__init__()
        self.velocity = nn.Parameter(velocity)

    def forward(self, tokens, sigma, batch, attend):
        self.tokens, self.text = tokens, batch.text
        return self.velocity


def test_clean_tokens_stay_and_have_no_loss(samples):
    clean, known = clean_mask(samples), torch.cat([sample.tokens for sample in samples]).float()
    case = distillation(make_teacher(0), samples, ["a cat"] * len(samples), 2.0, CPU)
    student, teacher, fake = (Oracle(torch.randn(len(clean), 64)) for _ in range(3))
    sigma = torch.full((len(samples),), 0.4)
    x = torch.randn(int((~clean).sum()), 64)
    x0 = x - 0.4 * case.velocity(student)(x, sigma)
    velocities = case.guided_velocity(teacher), case.velocity(fake)
    distribution_matching_loss(x0, sigma, *velocities, case.batch.tokens).backward()
    assert not student.velocity.grad[clean].any() and student.velocity.grad[~clean].any(dim=1).all()
    assert teacher.velocity.grad is None and fake.velocity.grad is None
    for network in (student, teacher, fake):
        assert torch.equal(network.tokens[clean], known[clean])
        assert not torch.isclose(network.tokens[~clean], known[~clean]).all()
    assert torch.equal(student.tokens[~clean], x)


def test_the_fake_score_loss_is_flow_matching_on_what_the_student_made(samples):
    model = make_teacher(0)
    prompts = ["a cat", "a blue boat", " ", "a red cat on a hill"]
    case = distillation(model, samples, prompts, 2.0, CPU)
    made = torch.randn(len(clean_mask(samples)), 64).where(~clean_mask(samples)[:, None], case.batch.latents)
    lengths = [sample.sample.token_count for sample in samples]
    shown = [replace(sample, tokens=tokens) for sample, tokens in zip(samples, made.split(lengths), strict=True)]
    torch.manual_seed(0)
    expected = flow_matching_loss(model, shown, prompts, CPU)
    torch.manual_seed(0)
    x0 = made[case.batch.noisy]
    loss = velocity_loss(case.velocity(model.transformer), x0, case.batch.random_levels(), case.batch.tokens)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)


def test_guidance_is_the_tasks_own(samples):
    model = make_teacher(0)
    case = distillation(model, samples, ["a red cat"] * len(samples), 3.0, CPU)
    x, sigma = torch.randn(len(case.batch.tokens.sample), 64), torch.full((len(samples),), 0.7)
    with torch.no_grad():
        plain, guided = case.velocity(model.transformer)(x, sigma), case.guided_velocity(model.transformer)(x, sigma)
        empty = distillation(model, samples, [" "] * len(samples), 3.0, CPU).velocity(model.transformer)(x, sigma)
    assert torch.allclose(guided.norm(dim=-1), plain.norm(dim=-1), rtol=1e-4)
    for number, sample in enumerate(samples):
        mine = case.batch.tokens.sample == number
        direction = (3 * plain - 2 * empty)[mine] if sample.task is not Task.IMAGE_TO_LAYERS else plain[mine]
        cosine = torch.cosine_similarity(guided[mine], direction, dim=-1)
        assert cosine.min() > 0.9999, sample.task
        assert torch.allclose(guided[mine], plain[mine], atol=1e-5) == (sample.task is Task.IMAGE_TO_LAYERS)


def test_schedules_serve_the_steps_and_twice_as_many():
    settings = StudentTraining()
    first, second, third = (settings.sigmas(step).tolist() for step in range(3))
    assert (len(first), len(second), third) == (9, 17, first)
    assert first == pytest.approx(second[::2]) and first[1] == pytest.approx(0.95455, abs=1e-5)
    assert settings.sampling == Sampling(steps=8, cfg=1.0, shift=3.0, solver="renoise")


# Runs


class InterruptionError(Exception):
    pass


def test_a_resumed_run_ends_like_an_uninterrupted_one(shards, tmp_path):
    through, parts = tmp_path / "through", tmp_path / "parts"
    train_student(through, shards, make_teacher(0), SETTINGS)
    calls = []

    def interrupt(*_):
        calls.append(None)
        if len(calls) > CALLS + 3:  # in the third round
            raise InterruptionError

    teacher = make_teacher(0)
    teacher.transformer.register_forward_pre_hook(interrupt)  # and of its copies
    with pytest.raises(InterruptionError):
        train_student(parts, shards, teacher, SETTINGS)
    half = load_file(parts / "state.safetensors")
    assert float(half["optimizer.count.img_in.weight"]) == 2 and float(half["fake.optimizer.count.img_in.weight"]) == 4
    train_student(parts, shards, make_teacher(0), SETTINGS)
    expected, actual = (load_file(folder / "state.safetensors") for folder in (through, parts))
    assert expected.keys() == actual.keys()
    assert all(torch.equal(expected[name], actual[name]) for name in expected)

    start = make_teacher(0).transformer.state_dict()
    for name in ("proj_out.weight", "transformer_blocks.0.attn.to_q.weight"):
        weights = [start[name], *(expected[f"{network}{name}"] for network in ("model.", "ema.", "fake.model."))]
        assert all(not torch.equal(a, b) for i, a in enumerate(weights) for b in weights[:i])
        assert all((weight - start[name]).abs().max() < 2e-3 for weight in weights)  # at most eight updates of 2e-4

    with pytest.raises(MRTError, match="trained for 2 steps with shift 3, but 8 steps with shift 3 were asked for"):
        train_student(parts, shards, make_teacher(0), replace(SETTINGS, student_steps=8))


def test_all_three_networks_see_the_clean_latents(shards, samples, tmp_path):
    """Every forward pass of a round has each clean slot's latents as they were encoded."""
    teacher, seen = make_teacher(0), []
    teacher.transformer.register_forward_pre_hook(lambda module, inputs: seen.append((inputs[0], inputs[2].clean)))
    train_student(tmp_path, shards, teacher, replace(SETTINGS, steps=1, shares={Task.RESTYLE_LAYERS: 1.0}))
    (sample,) = [sample for sample in samples if sample.task is Task.RESTYLE_LAYERS]
    clean = clean_mask([sample])
    assert len(seen) == 2 + 2 + 1 + 3
    for tokens, batch_clean in seen:
        for part in tokens.split(len(clean)):
            assert torch.equal(part[clean], sample.tokens.float()[clean])
        assert torch.equal(batch_clean, clean.repeat(SETTINGS.batch))


# Files


@pytest.fixture(scope="module")
def run(checkpoint, shards, tmp_path_factory) -> tuple[Path, TeacherModel]:
    """A run folder with a teacher and a student of it, and the teacher."""
    folder = tmp_path_factory.mktemp("run")
    save_checkpoint(folder / "teacher.safetensors", checkpoint)
    bundle.unpack_checkpoint(folder / "teacher.safetensors", folder)
    info, tokenizer = checkpoint.info, checkpoint.text_encoder.tokenizer
    teacher = TeacherModel(info.transformer, info.text_encoder, tokenizer)
    bundle.load_teacher(folder, teacher)
    settings = StudentTraining(steps=2, batch=2, fake_updates=1, warmup=1, learning_rate=1e-2, shift=2.0)
    train_student(folder / "student", shards, teacher, settings)
    return folder, teacher


def test_steps_after_unpack_go_on_from_the_checkpoint(checkpoint, tmp_path):
    save_checkpoint(tmp_path / "teacher.safetensors", checkpoint)
    bundle.unpack_checkpoint(tmp_path / "teacher.safetensors", tmp_path)
    stored = load_checkpoint(tmp_path / "teacher.safetensors")
    teacher = TeacherModel(stored.info.transformer, stored.info.text_encoder, stored.text_encoder.tokenizer)
    bundle.load_start(tmp_path, teacher)
    for name, weight in stored.transformer.state_dict().items():
        assert torch.equal(teacher.transformer.state_dict()[name], weight), name
    for name, weight in stored.text_encoder.state_dict().items():
        assert torch.equal(teacher.text_encoder.state_dict()[name], weight), name
    with pytest.raises(MRTError, match="transformer.safetensors exists already"):
        bundle.unpack_checkpoint(tmp_path / "teacher.safetensors", tmp_path)


def test_a_bundled_student_is_sampled_as_it_was_trained(run, layout, tmp_path):
    folder, teacher = run
    trained = load_file(folder / "student" / "state.safetensors")
    bundle.write_student(tmp_path / "student.safetensors", folder, teacher, image_steps=2, frame_area=64 * 64)
    pipeline = Pipeline.load(tmp_path / "student.safetensors")
    sampling = Sampling(steps=8, cfg=1.0, shift=2.0, solver="renoise")
    assert sampling_of_state(folder / "student" / "state.safetensors") == sampling
    assert pipeline.info.student and pipeline.info.sampling == sampling
    assert pipeline.info.image_sampling == replace(sampling, steps=2)
    for name, weight in pipeline.transformer.state_dict().items():
        assert torch.equal(weight, trained[f"ema.{name}"].bfloat16().float()), name

    steps = []
    options = SamplingOptions(progress=lambda step, count, x0: steps.append((step, count)))
    (stack,) = pipeline.text_to_layers(layout, options=options)
    assert steps == [(step, 8) for step in range(1, 9)] and len(stack.layers) == 4
    request = text_to_layers_request(layout)
    (made,) = pipeline.sample(pipeline.prepare(request, SamplingOptions()))
    pipeline.info = replace(pipeline.info, sampling=replace(sampling, solver="euler"))
    assert not torch.allclose(made, pipeline.sample(pipeline.prepare(request, SamplingOptions()))[0], atol=0.1)


def test_a_students_lora_makes_the_student(run, tmp_path):
    folder, teacher = run
    bundle.load_teacher(folder, teacher)
    path = tmp_path / "student.safetensors"
    error = bundle.write_student_lora(path, folder, teacher, 192)
    assert error < 0.005  # of bf16 alone
    student, sampling = bundle.load_student(folder, teacher.transformer.config)
    base = load_checkpoint(folder / "teacher.safetensors")
    lora = read_lora(path, base.info.transformer)
    assert lora.sampling == sampling and student_info(base.info, [(lora, 1.0)]).student
    before = {name: weight.clone() for name, weight in base.transformer.state_dict().items()}
    apply_loras(base.transformer, [(lora, 1.0)])
    made = base.transformer.state_dict()
    for name, weight in student.state_dict().items():
        moved = (weight - before[name]).norm()
        assert (made[name] - weight).norm() <= 0.01 * moved, name
    assert bundle.write_student_lora(tmp_path / "small.safetensors", folder, teacher, 2) > 0.1


def test_a_student_needs_its_run(tmp_path):
    with pytest.raises(MRTError, match="student/state.safetensors does not exist"):
        bundle.load_student(tmp_path, make_teacher(0).transformer.config)
