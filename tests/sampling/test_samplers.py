"""Samplers on differential equations whose solutions are known."""

import math

import pytest
import torch

from mrt_core.sampling.samplers import SeededNoise, euler, guided, renoise
from mrt_core.sampling.schedule import shifted_sigmas

RATE = 1.5


def grow(x, sigma):
    """dx / dsigma = RATE * x, whose solution falls by exp(RATE) from sigma 1 to 0."""
    return RATE * x


class PointTarget:
    """The exact velocity where the data is a single point: every path runs straight to it."""

    def __init__(self, target):
        self.target, self.calls = target, []

    def __call__(self, x, sigma):
        self.calls.append((sigma, x))
        return (x - self.target) / sigma


def start(seed=0, tokens=5):
    return torch.randn(tokens, 64, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# Euler


def test_euler_is_the_product_of_its_steps():
    sigmas = shifted_sigmas(7, 3.0)
    factor = math.prod(1 + RATE * step for step in sigmas.double().diff().tolist())
    assert torch.allclose(euler(grow, start(), sigmas), factor * start(), rtol=1e-12)


def test_euler_converges_with_first_order():
    exact = math.exp(-RATE) * start()
    errors = [float((euler(grow, start(), shifted_sigmas(steps, 1.0)) - exact).abs().max()) for steps in (50, 100, 200)]
    assert errors[2] < 0.02
    assert errors[0] / errors[1] == pytest.approx(2, abs=0.1)
    assert errors[1] / errors[2] == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("steps", [1, 3, 10])
def test_euler_is_exact_on_straight_paths(steps):
    noise, target, sigmas = start(0), start(1), shifted_sigmas(steps, 3.0)
    denoise = PointTarget(target)
    assert torch.allclose(euler(denoise, noise, sigmas), target, atol=1e-12)
    assert [sigma for sigma, _ in denoise.calls] == sigmas[:-1].tolist()
    for sigma, x in denoise.calls:  # every state lies on the line from noise to target
        assert torch.allclose(x, (1 - sigma) * target + sigma * noise, atol=1e-12)


# Renoise


@pytest.mark.parametrize("steps", [1, 4])
def test_renoise_noises_its_estimate_anew(steps):
    target, sigmas = start(1), shifted_sigmas(steps, 3.0)
    denoise = PointTarget(target)
    fresh = [start(10 + step) for step in range(steps - 1)]
    remaining = iter(fresh)
    assert torch.allclose(renoise(denoise, start(0), sigmas, lambda: next(remaining)), target, atol=1e-12)
    assert next(remaining, None) is None  # the last step draws none
    for (sigma, x), noise in zip(denoise.calls, [start(0), *fresh], strict=True):
        assert torch.allclose(x, (1 - sigma) * target + sigma * noise, atol=1e-12)


# Progress


def samplers():
    return {
        "euler": lambda denoise, sigmas, progress: euler(denoise, start(), sigmas, progress),
        "renoise": lambda denoise, sigmas, progress: renoise(denoise, start(), sigmas, lambda: start(9), progress),
    }


@pytest.mark.parametrize("name", samplers())
def test_progress_after_every_step(name):
    target, seen = start(1), []
    samplers()[name](PointTarget(target), shifted_sigmas(4, 3.0), lambda *event: seen.append(event))
    assert [(step, steps) for step, steps, _ in seen] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert all(torch.allclose(estimate, target, atol=1e-12) for _, _, estimate in seen)


class Stop(Exception):
    pass


@pytest.mark.parametrize("name", samplers())
def test_exception_from_progress_stops_at_once(name):
    denoise = PointTarget(start(1))

    def progress(step, steps, estimate):
        if step == 2:
            raise Stop

    with pytest.raises(Stop):
        samplers()[name](denoise, shifted_sigmas(6, 3.0), progress)
    assert len(denoise.calls) == 2


# Guidance


POSITIVE, NEGATIVE = start(1), start(2)


def constant(value):
    return lambda x, sigma: value


@pytest.mark.parametrize("renormalise", [True, False])
def test_scale_one_is_the_conditional(renormalise):
    velocity = guided(constant(POSITIVE), constant(NEGATIVE), 1.0, renormalise)(start(), 0.5)
    assert torch.allclose(velocity, POSITIVE, rtol=1e-12)


def test_plain_guidance():
    velocity = guided(constant(POSITIVE), constant(NEGATIVE), 4.0, renormalise=False)(start(), 0.5)
    assert torch.allclose(velocity, NEGATIVE + 4.0 * (POSITIVE - NEGATIVE), atol=1e-12)


def test_renormalised_guidance_keeps_each_tokens_norm():
    velocity = guided(constant(POSITIVE), constant(NEGATIVE), 4.0)(start(), 0.5)
    plain = NEGATIVE + 4.0 * (POSITIVE - NEGATIVE)
    assert torch.allclose(velocity.norm(dim=1), POSITIVE.norm(dim=1), rtol=1e-12)
    assert torch.allclose(velocity / velocity.norm(dim=1, keepdim=True), plain / plain.norm(dim=1, keepdim=True))


def test_guidance_of_nothing_is_nothing():
    zero = torch.zeros(3, 64)
    assert torch.equal(guided(constant(zero), constant(zero), 4.0)(zero, 0.5), zero)


def test_both_denoisers_see_the_same_state():
    conditional, negative = PointTarget(POSITIVE), PointTarget(NEGATIVE)
    guided(conditional, negative, 2.0)(start(), 0.25)
    assert [(sigma, torch.equal(x, start())) for sigma, x in conditional.calls + negative.calls] == [(0.25, True)] * 2


# Noise


SHAPES = [(16, 4, 6), (16, 2, 2)]


def test_noise_is_what_a_cpu_generator_gives():
    generator = torch.Generator("cpu").manual_seed(7)
    expected = [torch.randn(shape, generator=generator) for _ in range(2) for shape in SHAPES]
    source = SeededNoise([7])
    drawn = [latent for _ in range(2) for latent in source.draw(SHAPES)[0]]
    assert all(torch.equal(*pair) for pair in zip(drawn, expected, strict=True))


def test_seeds_do_not_touch_each_other():
    together = SeededNoise([5, 7, 5])
    torch.randn(3)  # nor does the global generator
    first, second = together.draw(SHAPES), together.draw(SHAPES)
    for place, seed in enumerate([5, 7, 5]):
        alone = SeededNoise([seed])
        for drawn in (first, second):
            (expected,) = alone.draw(SHAPES)
            assert all(torch.equal(*pair) for pair in zip(drawn[place], expected, strict=True))
    assert not torch.equal(first[0][0], first[1][0])
    assert not torch.equal(first[0][0], second[0][0])


def test_noise_is_standard_normal():
    ((latent,),) = SeededNoise([0]).draw([(16, 64, 64)])
    assert abs(float(latent.mean())) < 0.02
    assert float(latent.std()) == pytest.approx(1, abs=0.02)
