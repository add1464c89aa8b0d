"""Probes of what boxes show: colours, classes and what lies past the frame, and the classifier's training."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mrt_core.designs.artwork import load_common_artwork
from mrt_core.designs.colors import PALETTE
from mrt_core.designs.elements import ElementMix
from mrt_core.designs.generator import DesignSettings, generate_design
from mrt_core.errors import MRTError
from mrt_core.evaluation.class_probe import CHANCE, SIDE, ClassProbe, asked_drawing, load_probe, picture, save_probe
from mrt_core.evaluation.probes import (
    DECODED_LAYERS,
    TRUE_LAYERS,
    Answers,
    alpha_outside,
    asked_color,
    evaluate_probes,
    join,
    main_color,
    probe_case,
    probe_layers,
    probe_shares,
    probe_table,
)
from mrt_core.geometry import Size
from mrt_core.pipeline import Pipeline, SamplingOptions
from mrt_core.stacks.layers import Layer
from mrt_core.tasks.region_codec import RegionCodec
from mrt_core.tasks.slots import Task
from mrt_core.training.probe import augmented, train_probe

AREA = 64 * 64


class Unchanged(RegionCodec):
    """A codec that loses nothing."""

    def encode(self, images, places):
        return images

    def decode(self, latents, places):
        return latents


class Named(ClassProbe):
    """A probe that always sees the same drawing."""

    def __init__(self, name):
        super().__init__()
        self.name = name

    def names(self, layers):
        return [self.name] * len(layers)


def flat(color, height=4, width=4, alpha=255):
    return np.full((height, width, 4), (*color, alpha), np.uint8)


# Colour


@pytest.mark.parametrize(
    "caption, color",
    [
        ("red circle", "red"),
        ("soft-edged red circle with a soft shadow", "red"),
        ("semi-transparent sky blue star", "sky blue"),
        ('the word "black friday" in navy', "navy"),
        ("red apple", None),  # a drawing
        ("semi-transparent green apple with a glow", None),
        ("a gradient background from red to blue", None),
        ("the word sale", None),
        ("coloured star", None),
    ],
)
def test_asked_color(caption, color):
    assert asked_color(caption) == color


@pytest.mark.parametrize(
    "caption, name",
    [
        ("red apple", "red apple"),
        ("soft-edged sun with face with a glow", "sun with face"),
        ('the word "rocket" in red', None),
        ("teal star", None),
        ("rocketship", None),
    ],
)
def test_asked_drawing(caption, name):
    assert asked_drawing(caption) == name


def test_main_color_is_that_of_most_alpha():
    assert all(main_color(flat(color)) == name for name, color in PALETTE.items())
    image = flat(PALETTE["red"], 4, 10, 60)
    image[:, :3] = (*PALETTE["blue"], 255)
    assert main_color(image) == "blue"  # 3 columns at 255 against 7 at 60
    image[:, 2] = 0
    image[:, 3:] = (*PALETTE["red"], 80)
    assert main_color(image) == "red"  # 7 columns at 80 against 2 at 255
    assert main_color(flat((9, 9, 9), alpha=0)) is None


def test_main_color_finds_the_colour_of_real_shapes_and_words():
    settings = DesignSettings(frame_area=AREA, styled_share=0, mix=ElementMix(0.0, 0.6, 0.4))
    layers = [layer for seed in range(30) for layer in generate_design(seed, settings).stack.layers[1:]]
    right = [main_color(layer.pixels) == asked_color(layer.caption) for layer in layers]
    assert len(right) > 60 and np.mean(right) > 0.93


# Past the frame


@pytest.mark.parametrize("x, y, outside", [(0, 0, 0), (-2, 0, 20), (6, 5, 40 + 50 - 20), (-20, 3, 100), (8, 30, 100)])
def test_alpha_outside(x, y, outside):
    assert alpha_outside(Layer(flat((1, 2, 3), 10, 10), x, y, ""), Size(12, 10)) == outside
    assert alpha_outside(Layer(flat((1, 2, 3), 10, 10, 51), x, y, ""), Size(12, 10)) == pytest.approx(outside / 5)


# Answers


def test_the_truth_is_right_and_emptiness_is_wrong():
    asked = 0
    for index in range(4):
        case = probe_case(index, Task.TEXT_TO_LAYERS, AREA)
        truth = case.design.stack.layers
        drawings = [name for layer in truth[1:] if (name := asked_drawing(layer.caption))]
        empty = [replace(layer, pixels=np.zeros_like(layer.pixels)) for layer in truth]
        name = drawings[0] if drawings else "airplane"
        right, wrong = (probe_layers(case, layers, Named(name)) for layers in (truth, empty))
        assert right.classes == [drawing == name for drawing in drawings]
        assert len(drawings) + len(right.colors) == len(truth) - 1  # every box is either a drawing or has a colour
        assert all(right.outside) and not any(wrong.outside) and not any(wrong.colors)
        asked += len(right.outside)
    assert asked > 0


def test_half_of_the_content_past_the_frame_is_enough():
    case = next(
        case for index in range(30)
        if probe_layers(case := probe_case(index, Task.TEXT_TO_LAYERS, AREA), case.design.stack.layers, Named("")).outside
    )  # fmt: skip
    for share, kept in ((0.6, True), (0.4, False)):
        faded = [
            replace(layer, pixels=(layer.pixels * [1, 1, 1, share]).astype(np.uint8))
            for layer in case.design.stack.layers
        ]
        assert set(probe_layers(case, faded, Named("")).outside) == {kept}


def test_only_the_added_layer_is_judged():
    case = probe_case(3, Task.ADD_LAYERS, AREA)
    answers = probe_layers(case, case.design.stack.layers, Named(""))
    assert len(case.targets) == 1 and len(answers.classes) + len(answers.colors) == 1


def test_rows_of_a_pipeline(checkpoint, autoencoder):
    pipeline = Pipeline(checkpoint, checkpoint.text_encoder, RegionCodec(autoencoder))
    rows = list(evaluate_probes(pipeline, Named("anchor"), 2, SamplingOptions(steps=1, cfg=1.0)))
    once = [Task.TEXT_TO_LAYERS, TRUE_LAYERS, DECODED_LAYERS]
    assert [name for name, _ in rows] == [*once, *once, Task.ADD_LAYERS, Task.ADD_LAYERS]
    assert rows[1][1].colors.count(True) >= rows[0][1].colors.count(True)
    assert (
        [len(part) for part in rows[0][1]] == [len(part) for part in rows[1][1]] == [len(part) for part in rows[2][1]]
    )


def test_shares_and_table():
    joined = join([Answers([True, False], [True], []), Answers([False], [], [])])
    assert joined == Answers([True, False, False], [True], [])
    assert probe_shares(joined) == {
        "classes": pytest.approx(1 / 3), "classes_judged": 3, "colors": 1, "colors_judged": 1, "outside": None,
        "outside_judged": 0,
    }  # fmt: skip
    head, _, row = probe_table({"tiny": joined}).splitlines()
    assert "chance 1.6 %" in head and CHANCE == 1 / 64
    assert row == "| tiny | 33.3 % of 3 | 100.0 % of 1 | - of 0 |"


# The classifier


def test_picture_keeps_proportions_and_premultiplies():
    seen = picture(flat((255, 128, 0), 10, 40, 51))
    assert seen.shape == (4, SIDE, SIDE)
    assert (seen[3] > 0).sum() == SIDE * 8 and (seen[3, 12:20] > 0).all()
    assert seen[:, 16, 16].tolist() == pytest.approx([0.2, 0.2 * 128 / 255, 0, 0.2], abs=3e-3)


def test_augmentation_changes_pictures_and_keeps_them_premultiplied():
    torch.manual_seed(0)
    pictures = torch.stack([picture(drawing.pixels) for drawing in load_common_artwork()[:8]])
    changed = augmented(pictures)
    assert changed.shape == pictures.shape
    assert (changed[:, :3] <= changed[:, 3:] + 1e-6).all() and changed.min() >= 0
    assert all((new - old).abs().mean() > 0.005 for new, old in zip(changed, pictures, strict=True))
    assert (changed - pictures).abs().mean() < 0.2


def test_training_is_repeatable(autoencoder):
    probe, again = (train_probe(Unchanged(autoencoder), AREA, drawings=8, steps=2) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(probe.state_dict().values(), again.state_dict().values(), strict=True))


def test_training_learns_and_is_kept(autoencoder, tmp_path):
    probe = train_probe(Unchanged(autoencoder), AREA, drawings=96, steps=24)
    drawings = load_common_artwork()
    named = probe.names([drawing.pixels for drawing in drawings])
    assert np.mean([name == drawing.name for name, drawing in zip(named, drawings, strict=True)]) > 4 * CHANCE
    save_probe(probe, tmp_path / "probe.safetensors")
    assert (tmp_path / "probe.safetensors").stat().st_size < 300_000
    kept = load_probe(tmp_path / "probe.safetensors")
    pictures = torch.stack([picture(drawing.pixels) for drawing in drawings])
    assert (kept(pictures) - probe(pictures)).abs().max() < 0.05
    assert kept.names([]) == []


def test_other_files_are_no_probe(tmp_path):
    (tmp_path / "text").write_text("this is no probe, and it is long enough to have a header")
    with pytest.raises(MRTError, match="is not a probe"):
        load_probe(tmp_path / "text")
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(MRTError, match="is not a probe for the present 64 classes"):
        load_probe(tmp_path / "other.safetensors")
