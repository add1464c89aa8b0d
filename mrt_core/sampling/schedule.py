"""Noise schedules: decreasing noise levels sigma from 1 to 0, one more than there are steps."""

import math

import torch
from torch import Tensor

from ..errors import MRTError

BASE_TOKENS = 256  # tokens of the 256 x 256 px image at which the teacher's shift is 1


def uniform_sigmas(steps: int) -> Tensor:
    """1, 1 - 1/K, ..., 1/K for K steps, without the closing 0: (K,) fp64."""
    if steps < 1:
        raise MRTError(f"{steps} sampling steps were asked for, but it takes at least 1; give a positive whole number")
    return torch.arange(steps, 0, -1, dtype=torch.float64) / steps


def shift_linear(sigmas: Tensor, mu: float | Tensor) -> Tensor:
    """mu * s / (1 + (mu - 1) * s): spend more of the steps at high noise where mu > 1 (architecture: sampling)."""
    return mu * sigmas / (1 + (mu - 1) * sigmas)


def close(sigmas: Tensor) -> Tensor:
    """The schedule with its closing 0, as fp32 (K + 1,)."""
    return torch.cat([sigmas, sigmas.new_zeros(1)]).float()


def shifted_sigmas(steps: int, shift: float) -> Tensor:
    """A fixed shift, as for distilled students (shift 3): (steps + 1,)."""
    if not 0 < shift < math.inf:
        raise MRTError(
            f"the schedule's shift is {shift}, but it must be a positive number; 1 leaves the noise levels even"
        )
    return close(shift_linear(uniform_sigmas(steps), shift))


def teacher_sigmas(steps: int, canvas_tokens: int) -> Tensor:
    """Linear shift with mu = sqrt(tokens of one full canvas / 256), as Qwen-Image-Layered does it
    (architecture: sampling)."""
    return shifted_sigmas(steps, math.sqrt(canvas_tokens / BASE_TOKENS))


def qwen_image_sigmas(steps: int, tokens: int, terminal: float = 0.02) -> Tensor:
    """Qwen-Image's text-to-image schedule: exponential shift by token count, last step stretched to `terminal`
    (architecture: sampling)."""
    mu = 0.5 + 0.4 * (tokens - 256) / (8192 - 256)
    sigmas = shift_linear(uniform_sigmas(steps), math.exp(mu))
    return close(1 - (1 - sigmas) * (1 - terminal) / (1 - sigmas[-1]))
