"""Distribution matching for few steps: DMD2 (Yin et al. 2024, arXiv 2405.14867) on noisy tokens (paper section 3.3).

The student is trained on the inputs that it meets when it samples (backward simulation). Where its outputs, noised again,
are judged differently by the teacher and by a network that is kept at modelling the student (the fake score), they are
pushed to where the teacher would have them. There is no adversarial loss: the paper asks for none, and it would take
a discriminator and real samples.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ..sampling.samplers import renoise
from .flow_matching import NoisyTokens, Velocity, add_noise

NOISE_LEVELS = (0.02, 0.98)  # at which teacher and fake score are compared: DMD's own limits
SMALLEST_DISTANCE = 1e-3  # of a sample from the teacher's estimate, in latent units, so that nothing is divided by 0


class Step(NamedTuple):
    """One sampling step of every sample: inputs and x0 (M, 64), its noise level and the next one's (B,)."""

    inputs: Tensor
    outputs: Tensor
    sigma: Tensor
    following: Tensor

    def comparison_levels(self) -> Tensor:
        """A random noise level per sample (B,), not below the next step's.

        A step's x0 is noised to the next step's level and need not be right below it. Compared at all levels, the last steps
        are driven past the teacher's variance, since the fake score also sees the first steps' averages;
        trajectory distribution matching (Luo et al. 2025, arXiv 2503.06674) parts the steps for the same reason.
        """
        levels = self.following + (1 - self.following) * torch.rand_like(self.following)
        return levels.clamp(*NOISE_LEVELS)


class Trajectory(NamedTuple):
    """What a student saw and predicted while it sampled K steps: the schedule (K + 1,), inputs and x0 (K, M, 64)."""

    sigmas: Tensor
    inputs: Tensor
    outputs: Tensor

    def random_steps(self, tokens: NoisyTokens) -> Step:
        """One step at random per sample."""
        samples = int(tokens.sample.max()) + 1
        step = torch.randint(len(self.inputs), (samples,), device=self.sigmas.device)
        which = step[tokens.sample], torch.arange(len(tokens.sample), device=step.device)
        return Step(self.inputs[which], self.outputs[which], self.sigmas[step], self.sigmas[step + 1])


@torch.no_grad()
def simulate(student: Velocity, noise: Tensor, sigmas: Tensor, tokens: NoisyTokens) -> Trajectory:
    """Sample from `noise` (M, 64) along a schedule (K + 1,) exactly as students are sampled, and keep every step."""
    inputs, outputs = [], []
    samples = int(tokens.sample.max()) + 1

    def denoise(x: Tensor, sigma: float) -> Tensor:
        inputs.append(x)
        return student(x, torch.full((samples,), sigma, device=x.device))

    renoise(denoise, noise, sigmas, lambda: torch.randn_like(noise), lambda _step, _steps, x0: outputs.append(x0))
    return Trajectory(sigmas.to(noise), torch.stack(inputs), torch.stack(outputs))


def predict_clean(velocity: Velocity, x: Tensor, sigma: Tensor, tokens: NoisyTokens) -> Tensor:
    """A network's x0 (M, 64) of tokens (M, 64) at noise levels (B,)."""
    return x - tokens.spread(sigma) * velocity(x, sigma)


def matching_direction(student: Tensor, teacher: Tensor, fake: Tensor, tokens: NoisyTokens) -> Tensor:
    """(x0_fake - x0_teacher) / mean |x0_student - x0_teacher|, the mean taken per sample: DMD's gradient (M, 64).

    Down this direction the student's distribution comes nearer to the teacher's in KL divergence.
    """
    distance = tokens.sample_means((student - teacher).abs().mean(-1)).clamp_min(SMALLEST_DISTANCE)  # (B,)
    return (fake - teacher) / tokens.spread(distance)


def matching_loss(student: Tensor, direction: Tensor, tokens: NoisyTokens) -> Tensor:
    """Half the weighted mean squared `direction`, as a function of x0_student (M, 64) whose gradient follows `direction`."""
    target = (student - direction).detach()
    return tokens.mean((student - target).square().mean(-1)) / 2


def distribution_matching_loss(
    student: Tensor, sigma: Tensor, teacher: Velocity, fake: Velocity, tokens: NoisyTokens
) -> Tensor:
    """`matching_loss` of x0_student (M, 64), compared by teacher and fake score at noise levels (B,) with fresh noise."""
    with torch.no_grad():
        x = add_noise(student, torch.randn_like(student), tokens.spread(sigma))
        teacher_x0, fake_x0 = (predict_clean(velocity, x, sigma, tokens) for velocity in (teacher, fake))
        direction = matching_direction(student, teacher_x0, fake_x0, tokens)
    return matching_loss(student, direction, tokens)
