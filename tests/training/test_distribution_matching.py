"""Distribution matching: its direction and its gradient, simulation as sampling, and a mixture that is really learned."""

import copy

import pytest
import torch
from torch import Tensor, nn

from mrt_core.sampling.samplers import renoise
from mrt_core.sampling.schedule import shifted_sigmas
from mrt_core.training.distribution_matching import (
    Step,
    distribution_matching_loss,
    matching_direction,
    matching_loss,
    predict_clean,
    simulate,
)
from mrt_core.training.flow_matching import NoisyTokens, add_noise, velocity_loss
from mrt_core.training.muon import Muon, muon_for

TOKENS = NoisyTokens(torch.tensor([0, 0, 1, 1, 1]), torch.tensor([1.0, 2.0, 2.0, 0.5, 1.0]))
WIDTH = 6


def randn(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_tokens_know_their_samples():
    assert TOKENS.spread(torch.tensor([3.0, 5.0])).tolist() == [[3.0], [3.0], [5.0], [5.0], [5.0]]
    values = torch.tensor([1.0, 3.0, 2.0, 4.0, 9.0])
    assert TOKENS.sample_means(values).tolist() == [2.0, 5.0]
    assert TOKENS.mean(values).item() == pytest.approx((1 + 6 + 4 + 2 + 9) / 6.5)


def test_the_gradient_is_the_one_of_the_paper():
    """d loss / d x0_student = weight (x0_fake - x0_teacher) / mean |x0_student - x0_teacher|, over all weights and channels."""
    student, teacher, fake = (randn(5, WIDTH, seed=seed) for seed in (1, 2, 3))
    student.requires_grad_()
    matching_loss(student, matching_direction(student.detach(), teacher, fake, TOKENS), TOKENS).backward()
    expected = torch.empty(5, WIDTH)
    for rows in (slice(0, 2), slice(2, 5)):
        distance = (student.detach()[rows] - teacher[rows]).abs().mean()
        expected[rows] = (fake - teacher)[rows] / distance
    expected *= TOKENS.weight[:, None] / TOKENS.weight.sum() / WIDTH
    assert torch.allclose(student.grad, expected, rtol=1e-5, atol=1e-7)


def test_networks_are_compared_at_the_same_noised_student():
    """With constant velocities both x0 are known: the noised student minus sigma times the velocity."""
    student, sigma = randn(5, WIDTH, seed=1).requires_grad_(), torch.tensor([0.3, 0.8])
    seen = []

    def constant(value: float):
        def velocity(x: Tensor, levels: Tensor) -> Tensor:
            seen.append((x, levels))
            return torch.full_like(x, value)

        return velocity

    torch.manual_seed(0)
    distribution_matching_loss(student, sigma, constant(2.0), constant(-1.0), TOKENS).backward()
    torch.manual_seed(0)
    noised = add_noise(student.detach(), torch.randn(5, WIDTH), TOKENS.spread(sigma))
    assert all(torch.equal(x, noised) and torch.equal(levels, sigma) for x, levels in seen) and len(seen) == 2
    teacher, fake = noised - 2 * TOKENS.spread(sigma), noised + TOKENS.spread(sigma)
    direction = matching_direction(student.detach(), teacher, fake, TOKENS)
    expected = TOKENS.weight[:, None] / TOKENS.weight.sum() / WIDTH * direction
    assert torch.allclose(student.grad, expected, rtol=1e-5, atol=1e-7)


def test_a_student_like_its_teacher_is_left_alone():
    student = randn(5, WIDTH, seed=1).requires_grad_()
    velocity = lambda x, sigma: x.sin()  # noqa: E731
    loss = distribution_matching_loss(student, torch.tensor([0.3, 0.8]), velocity, velocity, TOKENS)
    loss.backward()
    assert loss == 0 and not student.grad.any()


def test_simulation_is_the_sampler():
    """Every step's input and x0 are those of `renoise`, and the last x0 is its result."""
    sigmas, noise = shifted_sigmas(4, 3.0), randn(5, WIDTH, seed=1)
    levels = []

    def student(x: Tensor, sigma: Tensor) -> Tensor:
        levels.append(sigma)
        return 0.5 * x + TOKENS.spread(sigma)

    torch.manual_seed(0)
    trajectory = simulate(student, noise, sigmas, TOKENS)
    torch.manual_seed(0)
    expected = renoise(lambda x, sigma: 0.5 * x + sigma, noise, sigmas, lambda: torch.randn(5, WIDTH))
    assert torch.allclose(trajectory.outputs[-1], expected, atol=1e-6)
    assert torch.equal(trajectory.inputs[0], noise) and torch.equal(trajectory.sigmas, sigmas)
    assert [level.tolist() for level in levels] == [[sigma, sigma] for sigma in sigmas[:-1].tolist()]
    for x, x0, sigma in zip(
        *(list(part) for part in (trajectory.inputs, trajectory.outputs, sigmas[:-1])), strict=True
    ):
        assert torch.allclose(x0, x - sigma * (0.5 * x + sigma), atol=1e-6)


def test_random_steps_are_one_per_sample():
    sigmas = shifted_sigmas(4, 1.0)
    trajectory = simulate(lambda x, sigma: x, randn(5, WIDTH, seed=1), sigmas, TOKENS)
    drawn = set()
    for _ in range(100):
        step = trajectory.random_steps(TOKENS)
        numbers = [sigmas.tolist().index(level) for level in step.sigma.tolist()]
        drawn.add(tuple(numbers))
        for rows, number in zip((slice(0, 2), slice(2, 5)), numbers, strict=True):
            assert torch.equal(step.inputs[rows], trajectory.inputs[number, rows])
            assert torch.equal(step.outputs[rows], trajectory.outputs[number, rows])
        assert torch.equal(step.following, sigmas[[number + 1 for number in numbers]])
    assert len(drawn) == 16  # all pairs of steps


def test_steps_are_compared_above_the_next_ones_level():
    following = torch.tensor([0.0, 0.5, 0.9]).repeat(2000)
    step = Step(torch.empty(0), torch.empty(0), following + 0.1, following)
    for level, drawn in zip((0.0, 0.5, 0.9), step.comparison_levels().view(2000, 3).T, strict=True):
        assert drawn.min() >= max(level, 0.02) and drawn.max() <= 0.98
        assert drawn.mean().item() == pytest.approx((level + 1) / 2, abs=0.03)
        assert drawn.std().item() == pytest.approx((1 - level) / 12**0.5, rel=0.2)


# A mixture of two Gaussians, whose velocity field is known

SHARES, MEANS, DEVIATIONS = torch.tensor([0.3, 0.7]), torch.tensor([-2.0, 1.0]), torch.tensor([0.3, 0.5])


def mixture_velocity(x: Tensor, sigma: Tensor) -> Tensor:
    """E[eps - x0 | x_sigma] of the mixture, for points (M, 1), each at a level of its own (M,)."""
    level = sigma[:, None]
    variance = ((1 - level) * DEVIATIONS).square() + level.square()  # (M, 2)
    offset = x - (1 - level) * MEANS
    posterior = (SHARES.log() - variance.log() / 2 - offset.square() / (2 * variance)).softmax(-1)
    x0 = MEANS + (1 - level) * DEVIATIONS.square() / variance * offset
    return (x - (posterior * x0).sum(-1, keepdim=True)) / level


class PointVelocity(nn.Module):
    """A velocity field on the line."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 1))

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        level = sigma[:, None]
        return self.layers(torch.cat([x, level, x * (1 - level)], dim=1))


COUNT, SIGMAS = 256, shifted_sigmas(4, 3.0)
POINTS = NoisyTokens(torch.arange(COUNT), torch.ones(COUNT))


def descend(loss: Tensor, optimizer: Muon, factor: float) -> None:
    loss.backward()
    optimizer.scale_learning_rates(factor)
    optimizer.step()
    optimizer.zero_grad()


def mixture_teacher() -> PointVelocity:
    """A network that was trained on the mixture by flow matching."""
    network = PointVelocity()
    optimizer = muon_for(network, set(), 0.0, 1e-2)
    for step in range(300):
        component = torch.multinomial(SHARES, COUNT, replacement=True)
        x0 = (MEANS[component] + DEVIATIONS[component] * torch.randn(COUNT))[:, None]
        levels = torch.rand(COUNT) * 0.96 + 0.02
        descend(velocity_loss(network, x0, levels, POINTS), optimizer, 1 - step / 300)
    return network


def sampled(network: PointVelocity) -> Tensor:
    count = 8192
    points = NoisyTokens(torch.arange(count), torch.ones(count))
    return simulate(network, torch.randn(count, 1), SIGMAS, points).outputs[-1]


def test_a_mixture_is_learned():
    """Four steps that give a teacher's averages come to give its distribution, of which the student sees no sample."""
    torch.manual_seed(1)
    student = mixture_teacher()
    fake = copy.deepcopy(student)
    optimizers = [muon_for(network, set(), 0.0, rate) for network, rate in ((student, 3e-3), (fake, 6e-3))]
    mean = float((SHARES * MEANS).sum())
    variance = float((SHARES * (DEVIATIONS.square() + MEANS.square())).sum()) - mean**2
    assert sampled(student).var() < 0.5 * variance
    for step in range(500):
        factor = min(1.0, 2 * (1 - step / 500))
        trajectory = simulate(student, torch.randn(COUNT, 1), SIGMAS, POINTS)
        for _ in range(3):
            made = trajectory.random_steps(POINTS)
            loss = velocity_loss(fake, made.outputs, made.comparison_levels(), POINTS)
            descend(loss, optimizers[1], factor)
        made = trajectory.random_steps(POINTS)
        x0 = predict_clean(student, made.inputs, made.sigma, POINTS)
        loss = distribution_matching_loss(x0, made.comparison_levels(), mixture_velocity, fake, POINTS)
        descend(loss, optimizers[0], factor)
    made = sampled(student)
    assert made.mean().item() == pytest.approx(mean, abs=0.3)
    assert made.var().item() == pytest.approx(variance, rel=0.25)
    assert (made < -0.5).float().mean().item() == pytest.approx(0.3, abs=0.08)
    assert [made[made < -0.5].mean().item(), made[made > -0.5].mean().item()] == pytest.approx([-2, 1], abs=0.4)
