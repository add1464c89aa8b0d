"""The warm-up of the small text encoder."""

import numpy as np
import pytest
import torch
from tiny_teacher import make_teacher

from mrt_core.designs.generator import DesignSettings, generate_design
from mrt_core.regions import RegionCodec
from mrt_core.sequence import patchify
from mrt_core.tasks import Task, plan
from mrt_core.training.samples import Example, TrainingSample, encode_samples
from mrt_core.training.text import PICTURE, coarse_pictures, picture_loss, warm_up_text

SETTINGS = DesignSettings(frame_area=64 * 64, max_layers=3)


@pytest.fixture(scope="module")
def samples(autoencoder) -> list[TrainingSample]:
    made = []
    for seed in range(6):
        design = generate_design(seed, SETTINGS)
        task, targets = (Task.ADD_LAYERS, (0,)) if seed == 0 else (Task.TEXT_TO_LAYERS, ())
        example = Example(design, task, targets, plan(task, design.layout, targets))
        tokens = encode_samples([example.drawn()], RegionCodec(autoencoder))
        made.append(TrainingSample(tokens, example.sample, task, example.prompts()))
    return made


def test_pictures_are_of_the_background_and_the_layers_that_are_made(samples):
    sample = samples[1]
    pictures = coarse_pictures(sample)
    assert pictures.shape == (len(sample.sample.slots) - 1, 16 * PICTURE**2)  # all but the composite
    assert len(coarse_pictures(samples[0])) == 2  # adding: the background and one target
    flat = patchify(torch.full((16, 8, 8), 3.0))
    slot = sample.sample.slots[1]._replace(box=sample.sample.slots[1].box._replace(rows=4, cols=4))
    plain = TrainingSample(flat, sample.sample._replace(slots=(slot,)), Task.TEXT_TO_LAYERS, ("",))
    assert torch.allclose(coarse_pictures(plain), torch.tensor(3.0))


def test_text_about_what_is_given_is_left_out(samples):
    encoder = make_teacher(0).text_encoder
    head = torch.nn.Linear(encoder.config.width, 16 * PICTURE**2)
    torch.nn.init.zeros_(head.weight), torch.nn.init.zeros_(head.bias)
    loss = picture_loss(encoder, head, samples[:1], ["a whole <layer> x </layer>"])
    assert loss.item() == pytest.approx(float(coarse_pictures(samples[0])[1].square().mean()), rel=1e-5)


def test_warm_up_learns_what_words_look_like(samples):
    encoder = make_teacher(0).text_encoder
    before = {name: parameter.clone() for name, parameter in encoder.named_parameters()}
    losses = []

    def loss_of(steps: int) -> float:
        torch.manual_seed(1)
        warm_up_text(encoder, samples, steps, 4)
        states = torch.cat(encoder.encode_prompts([sample.prompts[-1] for sample in samples[1:]])).detach()
        owners = encoder.caption_indices([sample.prompts[-1] for sample in samples[1:]])
        targets = [coarse_pictures(s)[o + 1] for s, o in zip(samples[1:], owners, strict=True)]
        solution = torch.linalg.lstsq(states, torch.cat(targets)).solution
        return float((states @ solution - torch.cat(targets)).square().mean())

    losses = [loss_of(1), loss_of(60)]
    assert losses[1] < losses[0]
    assert all(not torch.equal(before[name], parameter) for name, parameter in encoder.named_parameters()
               if "blocks" in name)  # fmt: skip
    assert np.isfinite(losses).all()
