"""Ablations: which samples a variant draws from, what it changes, and a small run from samples to tables."""

from dataclasses import replace
from itertools import islice, repeat
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mrt_core.designs.generator import DesignSettings, generate_design
from mrt_core.designs.grouping import group_layers
from mrt_core.errors import MRTError
from mrt_core.evaluation.ablations import (
    COMPARISONS,
    MEASURES,
    Compared,
    autoencoder_table,
    comparison_sheet,
    comparison_table,
    means,
    measures_of,
    overflows,
)
from mrt_core.evaluation.held_out import METRICS, held_out_design
from mrt_core.evaluation.reconstruction import SOURCES, Reconstruction
from mrt_core.evaluation.robustness import evaluate_jitter
from mrt_core.models.transformer import TransformerConfig
from mrt_core.pipeline import SamplingOptions
from mrt_core.tasks.region_codec import RegionCodec
from mrt_core.tasks.slots import EMPTY_PROMPT, Task, layered_prompt
from mrt_core.training import autoencoder as autoencoder_training
from mrt_core.training.ablations import (
    TEXT_AND_IMAGE,
    VARIANTS,
    AblationRun,
    count_samples,
    is_ungrouped,
    run_variant,
    stays_in_frame,
    variant_codec,
    variant_pipeline,
)
from mrt_core.training.autoencoder import AutoencoderTraining, save_autoencoder, seen_by
from mrt_core.training.samples import TrainingSample, make_example, random_examples, read_shard, write_shard
from mrt_core.training.teacher import SamplePool, TeacherTraining

AREA = 48 * 48
TRANSFORMER = TransformerConfig(num_layers=1, num_heads=2, head_dim=32, text_dim=256, rope_axes=(8, 12, 12))


def sample_of(design, task=Task.IMAGE_TO_LAYERS) -> TrainingSample:
    """A design's sample as it is read back, without its latents."""
    example = make_example(design, task, np.random.default_rng(0))
    return TrainingSample(torch.empty(0, 64), example.sample, task, example.prompts)


# Which samples


def test_samples_that_leave_the_frame_are_told_from_others():
    found = set()
    for seed in range(40):
        design = generate_design(seed, DesignSettings(frame_area=AREA, max_layers=3))
        width, height = design.stack.frame
        boxes = [region.box for region in design.layout.regions]
        inside = all(box.x >= 0 and box.y >= 0 and box.right <= width and box.bottom <= height for box in boxes)
        assert all(stays_in_frame(sample_of(design, task)) == inside for task in Task)
        found.add(inside)
    assert found == {True, False}


def test_grouped_samples_are_told_from_others():
    rng, changes = np.random.default_rng(0), []
    for seed in range(40):
        design = generate_design(seed, DesignSettings(frame_area=AREA, min_layers=2, max_layers=6))
        grouped = group_layers(design, rng)
        changes.append(len(grouped.layout.regions) != len(design.layout.regions))
        for task in (Task.TEXT_TO_LAYERS, Task.IMAGE_TO_LAYERS):
            assert is_ungrouped(sample_of(design, task))
            assert is_ungrouped(sample_of(grouped, task)) != changes[-1]
        assert not is_ungrouped(sample_of(design, Task.ADD_LAYERS))  # its prompt does not name every layer
        assert not is_ungrouped(sample_of(design, Task.RESTYLE_LAYERS))
    assert sum(changes) > 20


def test_names_with_and_are_no_groups():
    sample = sample_of(generate_design(0, DesignSettings(frame_area=AREA)))
    tags = "<layer> {} </layer> <layer> a cat </layer> a fork and a cat"  # sentences join layers as groups do
    assert is_ungrouped(replace(sample, prompts=(tags.format("a fork and knife with a soft shadow"),)))
    for grouped in ("a fork and knife and an owl", 'a red ring and the word "sale" in red', "a cat and a dog"):
        assert not is_ungrouped(replace(sample, prompts=(tags.format(grouped),)))


# Variants


def test_variants_differ_in_one_thing():
    def changes(name, reference):
        ours, theirs = VARIANTS[name]._asdict(), VARIANTS[reference]._asdict()
        return {field for field in ours if ours[field] != theirs[field]}

    assert VARIANTS["base"].shares == dict(zip(Task, (0.7, 0.15, 0.075, 0.075), strict=True))
    assert VARIANTS["mix_80_20_0"].shares == dict(zip(Task, (0.8, 0.2, 0, 0), strict=True)) == TEXT_AND_IMAGE
    assert VARIANTS["mix_100_0_0"].tasks == (Task.TEXT_TO_LAYERS,)
    assert changes("no_overflow", "base") == changes("no_grouping", "mix_80_20_0") == {"accept"}
    assert changes("mix_100_0_0", "base") == changes("mix_80_20_0", "base") == {"shares"}
    assert changes("no_image_text", "base") == {"image_prompt_dropout"}
    settings = VARIANTS["no_overflow"].settings(TeacherTraining(steps=7, batch=3))
    assert (settings.steps, settings.batch, settings.accept) == (7, 3, stays_in_frame)


def test_without_image_text_the_same_samples_are_drawn():
    image = sample_of(generate_design(1, DesignSettings(frame_area=AREA)))
    text = image.without_image()
    picked = {}
    for name in ("base", "no_image_text"):
        rng, dropout = np.random.default_rng(0), VARIANTS[name].image_prompt_dropout
        picked[name] = [[sample.pick_prompt(rng, 0.1, dropout) for _ in range(200)] for sample in (image, text)]
        picked[name].append(rng.integers(2**62))
    images, texts, after = zip(picked["base"], picked["no_image_text"], strict=True)
    assert images[1] == [EMPTY_PROMPT] * 200 and images[0].count(EMPTY_PROMPT) == pytest.approx(100, abs=25)
    assert texts[0] == texts[1] and texts[0].count(EMPTY_PROMPT) == pytest.approx(20, abs=15)
    assert after[0] == after[1]


def test_every_row_has_what_it_compares():
    for rows in COMPARISONS.values():
        assert len({row.title for row in rows}) == len(rows)
        for row in rows:
            assert MEASURES[row.measure].task in VARIANTS[row.variant].tasks
            assert row.measure in measures_of(row.variant)
    assert {row.variant for rows in COMPARISONS.values() for row in rows} == set(VARIANTS)


# Figures


def test_rows_on_overflowing_designs_count_those_alone():
    def record(value, overflows, kept):
        return dict.fromkeys(METRICS, value) | {"overflows": overflows, "kept_outside": kept}

    records = [record(1.0, True, [True, False]), record(2.0, False, []), record(3.0, True, [True])]
    rows = [Compared("all", "base", "x"), Compared("some", "base", "x", overflowing=True)]
    figures = {row.title: means(row, records) for row in rows}
    assert (figures["all"]["layer_psnr"], figures["all"]["designs"]) == (2, 3)
    records[1]["layer_psnr"] = 50.0
    assert means(rows[1], records)["layer_psnr"] == 2 and means(rows[1], records)["designs"] == 2
    assert (
        comparison_table(rows, figures).splitlines()[-1]
        == "| some | 2.00 | 2.000 | 2.00 | 2.000 | 2.000 | 2 | 66.7 % of 3 |"
    )
    with pytest.raises(MRTError, match="none of the first 1 held-out designs overflows"):
        means(rows[1], records[1:2])


class Asked:
    """A pipeline that notes what it is asked for."""

    info = SimpleNamespace(frame_area=AREA)

    def run(self, request, options):
        self.request, self.seeds = request, options.seeds
        return [request.stack]


def test_what_measures_ask_for():
    asked = {}
    for name, measure in MEASURES.items():
        pipeline = Asked()
        case, _ = measure.sample(pipeline, 3)
        assert case.task is measure.task is pipeline.request.task and pipeline.seeds == (3,)
        asked[name] = pipeline.request
    exact, blank, moved = (request for request in asked.values() if request.task is Task.IMAGE_TO_LAYERS)
    assert exact.prompt == moved.prompt == layered_prompt(held_out_design(3, AREA).layout)
    assert blank.prompt == EMPTY_PROMPT
    assert exact.layout == blank.layout == held_out_design(3, AREA).layout != moved.layout
    pairs = zip(exact.layout.regions, moved.layout.regions, strict=True)
    assert 0 < max(abs(a.box.x - b.box.x) for a, b in pairs) <= 8


def test_designs_with_overflow():
    for index in range(12):
        stack = held_out_design(index, AREA).stack
        boxes = [layer.box for layer in stack.layers]
        inside = all(
            b.x >= 0 and b.y >= 0 and b.right <= stack.frame.width and b.bottom <= stack.frame.height for b in boxes
        )
        assert overflows(held_out_design(index, AREA)) != inside


# A small run


@pytest.fixture(scope="module")
def run(tmp_path_factory, autoencoder, tokenizer) -> AblationRun:
    folder = tmp_path_factory.mktemp("run")
    drawn = [x.drawn() for x in islice(random_examples(5, DesignSettings(frame_area=AREA, max_layers=3)), 24)]
    write_shard(folder / "samples" / "samples-0000-00000.safetensors", drawn, RegionCodec(autoencoder))
    tokenizer.save(str(folder / "tokenizer.json"))
    torch.manual_seed(0)
    save_autoencoder(folder / "autoencoder", autoencoder)
    training = TeacherTraining(steps=2, batch=2, warmup=1, matrices=False)
    reconstruction = AutoencoderTraining(steps=1, batch=1)
    out = folder / "ablations"
    return AblationRun(folder, out, training, reconstruction, 2, transformer=TRANSFORMER, frame_area=AREA)


def test_a_run_of_two_variants(run):
    names = ["no_grouping", "mix_80_20_0"]
    figures = {name: run_variant(run, name) for name in names}
    samples = read_shard(run.source / "samples" / "samples-0000-00000.safetensors")
    whole = [sample for sample in samples if sample.task is Task.IMAGE_TO_LAYERS]
    assert figures["mix_80_20_0"]["samples"][Task.IMAGE_TO_LAYERS] == len(whole)
    assert figures["no_grouping"]["samples"][Task.IMAGE_TO_LAYERS] == sum(map(is_ungrouped, whole)) < len(whole)
    rows = COMPARISONS["grouping"]
    found = {row.title: means(row, figures[row.variant]["records"][row.measure]) for row in rows}
    lines = comparison_table(rows, found).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == [
        f"| {boxes}, {grouping} grouping"
        for boxes in ("exact boxes", "boxes 8 px off")
        for grouping in ("without", "with")
    ]
    assert len({row["layer_psnr"] for row in found.values()}) == 4
    state = run.folder / "no_grouping" / "teacher" / "state.safetensors"
    trained = state.stat().st_mtime_ns
    assert run_variant(run, "no_grouping") == figures["no_grouping"]
    (run.folder / "no_grouping" / "figures.json").unlink()
    assert run_variant(run, "no_grouping") == figures["no_grouping"]  # measured again
    assert state.stat().st_mtime_ns == trained
    with pytest.raises(
        MRTError, match=r'was begun with .*"steps": 2.*not with .*"steps": 3.*another folder with --out'
    ):
        run_variant(replace(run, training=replace(run.training, steps=3)), "no_grouping")

    pipelines = {name: variant_pipeline(run, name) for name in names}
    assert pipelines["no_grouping"].info.tasks == (Task.TEXT_TO_LAYERS, Task.IMAGE_TO_LAYERS)
    jittered = next(evaluate_jitter(pipelines["no_grouping"], 1, 8, SamplingOptions()))[1]
    assert jittered == pytest.approx(
        {name: figures["no_grouping"]["records"]["image_to_layers_8_px_off"][0][name] for name in METRICS}
    )
    sheet = comparison_sheet(rows[:1], pipelines)
    assert np.asarray(sheet).std() > 10
    weights = [load_file(run.folder / name / "teacher" / "state.safetensors") for name in names]
    assert not torch.equal(*(tensors["model.transformer.proj_out.weight"] for tensors in weights))


def test_variants_start_from_the_same_weights_or_from_the_teacher(run, tmp_path):
    def weights(folder, **changes):
        return variant_pipeline(replace(run, folder=folder, **changes), "mix_100_0_0").transformer.state_dict()

    first = weights(tmp_path / "a")
    torch.rand(5)
    second = weights(tmp_path / "b")
    assert all(torch.equal(first[name], second[name]) for name in first)
    source = tmp_path / "source"
    source.mkdir()
    for path in run.source.iterdir():
        (source / path.name).symlink_to(path)
    (source / "teacher").symlink_to(tmp_path / "a" / "mix_100_0_0" / "teacher")
    further = weights(tmp_path / "c", source=source, continued=True)
    assert not torch.equal(further["proj_out.weight"], first["proj_out.weight"])
    assert torch.allclose(further["proj_out.weight"], first["proj_out.weight"], atol=4e-3)  # two steps further


def test_a_run_folder_without_samples(run, tmp_path):
    with pytest.raises(MRTError, match="has no samples, which every variant needs; run `mrt train samples` first"):
        replace(run, source=tmp_path)


def test_a_pool_takes_what_is_accepted(run):
    pool = SamplePool(run.source / "samples", stays_in_frame)
    pool.reload()
    everything = read_shard(run.source / "samples" / "samples-0000-00000.safetensors")
    assert 0 < len(pool.samples) == sum(map(stays_in_frame, everything)) < len(everything)
    assert count_samples(run, VARIANTS["mix_100_0_0"]).keys() == {Task.TEXT_TO_LAYERS}


# The autoencoder over grey


def test_the_encoder_sees_layers_over_grey(rgb_autoencoder, autoencoder):
    pixels = torch.tensor([[1.0, -1, -1, 1], [1, -1, -1, -1], [1, 1, -1, 0]]).T[None, :, :, None]  # (1, 4, 3, 1)
    seen = seen_by(rgb_autoencoder, pixels)[0, :, :, 0].T
    assert torch.allclose(seen, torch.tensor([[1.0, -1, -1], [0, 0, 0], [0.5, 0.5, -0.5]]))
    assert seen_by(autoencoder, pixels) is pixels


def test_both_autoencoders(run, monkeypatch):
    noise = torch.rand(2, 4, 32, 32, generator=torch.manual_seed(0)) * 2 - 1
    monkeypatch.setattr(autoencoder_training, "crops", lambda *_, **__: repeat(noise))  # drawing designs takes seconds
    figures = {name: run_variant(run, name)["reconstruction"] for name in ("rgba_autoencoder", "grey_autoencoder")}
    configs = {name: variant_codec(run, name).autoencoder.config for name in figures}
    assert {n: (c.in_channels, c.out_channels) for n, c in configs.items()} == {
        "rgba_autoencoder": (4, 4),
        "grey_autoencoder": (3, 4),
    }
    assert all(list(rows) == list(SOURCES) for rows in figures.values())
    table = autoencoder_table({n: {k: Reconstruction(**row) for k, row in rows.items()} for n, rows in figures.items()})
    assert [line.split(" | ")[0] for line in table.splitlines()[2:4]] == [
        "| artwork, rgba_autoencoder",
        "| artwork, grey_autoencoder",
    ]
    assert figures["rgba_autoencoder"] != figures["grey_autoencoder"]
