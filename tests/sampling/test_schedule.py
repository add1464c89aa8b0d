"""Noise schedules against the reference vectors of the public models (architecture: sampling)."""

import math

import pytest
import torch

from mrt_core.errors import MRTError
from mrt_core.sampling.schedule import qwen_image_sigmas, shifted_sigmas, teacher_sigmas, uniform_sigmas

VECTORS = {
    "layered 640": (
        lambda: teacher_sigmas(10, 40 * 40),
        [1, 0.95745, 0.90909, 0.85366, 0.78947, 0.71429, 0.625, 0.51724, 0.38462, 0.21739, 0],
    ),
    "layered 1024": (
        lambda: teacher_sigmas(10, 64 * 64),
        [1, 0.97297, 0.94118, 0.90323, 0.85714, 0.8, 0.72727, 0.63158, 0.5, 0.30769, 0],
    ),
    "text to image 1024": (
        lambda: qwen_image_sigmas(10, 64 * 64),
        [1, 0.93698, 0.86695, 0.78868, 0.70062, 0.60082, 0.48675, 0.35512, 0.20153, 0.02, 0],
    ),
    "lightning": (
        lambda: shifted_sigmas(8, 3.0),
        [1, 0.95455, 0.9, 0.83333, 0.75, 0.64286, 0.5, 0.3, 0],
    ),
}


@pytest.mark.parametrize("name", VECTORS)
def test_reference_vectors(name):
    make, expected = VECTORS[name]
    sigmas = make()
    assert sigmas.dtype == torch.float32
    assert sigmas.shape == (len(expected),)
    assert (sigmas.double() - torch.tensor(expected, dtype=torch.float64)).abs().max() <= 0.51e-5  # five digits
    assert sigmas[0] == 1 and sigmas[-1] == 0


@pytest.mark.parametrize("steps", [1, 2, 7, 50])
def test_unshifted_schedules(steps):
    even = torch.linspace(1, 0, steps + 1)
    assert torch.allclose(shifted_sigmas(steps, 1.0), even, atol=1e-7)
    assert torch.allclose(teacher_sigmas(steps, 256), even, atol=1e-7)  # 256 x 256 px


@pytest.mark.parametrize("make", [lambda k: shifted_sigmas(k, 3.0), lambda k: teacher_sigmas(k, 4096)])
@pytest.mark.parametrize("steps", [1, 8, 1000])
def test_schedules_fall_from_one_to_zero(make, steps):
    sigmas = make(steps)
    assert len(sigmas) == steps + 1
    assert bool((sigmas.diff() < 0).all())
    assert (sigmas[0], sigmas[-1]) == (1, 0)


@pytest.mark.parametrize("steps", [0, -3])
@pytest.mark.parametrize(
    "make",
    [
        uniform_sigmas,
        lambda k: shifted_sigmas(k, 3.0),
        lambda k: teacher_sigmas(k, 256),
        lambda k: qwen_image_sigmas(k, 256),
    ],
)
def test_too_few_steps(make, steps):
    with pytest.raises(MRTError, match=f"^{steps} sampling steps were asked for, but it takes at least 1"):
        make(steps)


@pytest.mark.parametrize("shift", [0.0, -1.0, math.inf, math.nan])
def test_impossible_shift(shift):
    with pytest.raises(MRTError, match=f"shift is {shift}, but it must be a positive number"):
        shifted_sigmas(4, shift)
