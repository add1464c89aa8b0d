"""Samplers: from noise to latents along a schedule. Plain functions over the noisy tokens of a packed batch.

A denoiser is a function (x, sigma) -> velocity, with x (M, 64) the noisy tokens and the velocity eps - x0 of each.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Denoiser = Callable[[Tensor, float | Tensor], Tensor]
Progress = Callable[[int, int, Tensor], None]  # steps done, steps in all, the current estimate of x0 (M, 64)


def euler(denoise: Denoiser, x: Tensor, sigmas: Tensor, progress: Progress | None = None) -> Tensor:
    """Euler steps of the probability-flow ODE: x <- x + (sigma' - sigma) * velocity."""
    for step, (sigma, following) in enumerate(zip(sigmas[:-1].tolist(), sigmas[1:].tolist(), strict=True), start=1):
        velocity = denoise(x, sigma)
        if progress:
            progress(step, len(sigmas) - 1, x - sigma * velocity)
        x = x + (following - sigma) * velocity
    return x


def renoise(
    denoise: Denoiser, x: Tensor, sigmas: Tensor, noise: Callable[[], Tensor], progress: Progress | None = None
) -> Tensor:
    """Predict x0, then noise it anew to the next level: the sampler of DMD2 students (Yin et al. 2024)."""
    for step, (sigma, following) in enumerate(zip(sigmas[:-1].tolist(), sigmas[1:].tolist(), strict=True), start=1):
        clean = x - sigma * denoise(x, sigma)
        if progress:
            progress(step, len(sigmas) - 1, clean)
        x = (1 - following) * clean + following * noise() if following > 0 else clean
    return x


def guided(conditional: Denoiser, negative: Denoiser, scale: float | Tensor, renormalise: bool = True) -> Denoiser:
    """True classifier-free guidance; renormalised, each token keeps the norm of its conditional velocity
    (architecture: sampling).

    `scale` may differ from token to token, as (M, 1).
    """

    def denoise(x: Tensor, sigma: float) -> Tensor:
        positive = conditional(x, sigma)
        velocity = negative(x, sigma).lerp(positive, scale)
        return renormalised(velocity, positive) if renormalise else velocity

    return denoise


def renormalised(velocity: Tensor, like: Tensor) -> Tensor:
    """`velocity` (..., 64) with each token's norm made that of the same token in `like`."""
    return velocity * (like.norm(dim=-1, keepdim=True) / velocity.norm(dim=-1, keepdim=True).clamp_min(1e-12))


class SeededNoise:
    """Standard normal noise per sample from a CPU generator each, so that a seed means the same on every device.

    Every slot is drawn, clean ones too, as a latent (16, 2 * rows, 2 * cols) in slot order: the same numbers that a
    sampler over nested latents draws.
    """

    def __init__(self, seeds: Sequence[int]):
        self.generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]

    def draw(self, shapes: Sequence[tuple[int, ...]]) -> list[list[Tensor]]:
        """For each sample, one fp32 tensor per shape."""
        return [[torch.randn(shape, generator=generator) for shape in shapes] for generator in self.generators]
