"""Muon for matrices and convolutions, AdamW for all other parameters, as one optimiser.

Muon (Keller Jordan et al., 2024) replaces a matrix's momentum by the nearest semi-orthogonal matrix, found with a few
Newton-Schulz steps. On the small autoencoder it was 3.4 dB ahead of AdamW after the same 80 s (docs/results.md).
"""

import torch
from torch import Tensor, nn

from .sharding import gather, local, place_like

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # the published quintic's coefficients


def orthogonalise(matrix: Tensor, steps: int = 5) -> Tensor:
    """About the nearest semi-orthogonal matrix to `matrix` (rows, cols), computed in bfloat16."""
    a, b, c = NEWTON_SCHULZ
    x = matrix.bfloat16()
    if wide := matrix.shape[0] > matrix.shape[1]:
        x = x.T
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.T if wide else x).to(matrix.dtype)


class Muon(torch.optim.Optimizer):
    """Muon on the groups with `matrix=True`, AdamW on the others; `lr` is per group and scaled by one schedule factor."""

    def __init__(self, groups: list[dict], momentum: float = 0.95, betas: tuple[float, float] = (0.9, 0.98)):
        super().__init__(groups, {"momentum": momentum, "betas": betas, "weight_decay": 0.0, "matrix": False})
        for group in self.param_groups:
            group["peak_lr"] = group["lr"]

    def scale_learning_rates(self, factor: float) -> None:
        """Set every group's learning rate to `factor` times its peak."""
        for group in self.param_groups:
            group["lr"] = factor * group["peak_lr"]

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            update = self._muon if group["matrix"] else self._adam
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    update(parameter, self.state[parameter], group)

    @staticmethod
    def _muon(parameter: Tensor, state: dict, group: dict) -> None:
        momentum = local(state.setdefault("momentum", torch.zeros_like(parameter)))
        gradient = local(parameter.grad)
        momentum.lerp_(gradient, 1 - group["momentum"])
        gradient.lerp_(momentum, group["momentum"])  # Nesterov's look-ahead, in the gradient's place
        matrix = gather(parameter.grad).flatten(1)  # a part of a matrix would be made orthogonal to itself alone
        scale = max(1.0, matrix.shape[0] / matrix.shape[1]) ** 0.5
        update = orthogonalise(matrix).view(parameter.shape)
        parameter.add_(place_like(update, parameter), alpha=-group["lr"] * scale)

    @staticmethod
    def _adam(parameter: Tensor, state: dict, group: dict) -> None:
        first = local(state.setdefault("first", torch.zeros_like(parameter)))
        second = local(state.setdefault("second", torch.zeros_like(parameter)))
        gradient = local(parameter.grad)
        count = state.setdefault("count", torch.zeros((), dtype=torch.float32))
        count += 1
        first.lerp_(gradient, 1 - group["betas"][0])
        second.lerp_(gradient.square(), 1 - group["betas"][1])
        correction = [1 - beta ** float(count) for beta in group["betas"]]
        denominator = (second / correction[1]).sqrt_().add_(1e-8)
        local(parameter).addcdiv_(first, denominator, value=-group["lr"] / correction[0])


def muon_for(
    module: nn.Module, matrices: set[str], matrix_lr: float, other_lr: float, weight_decay: float = 0.0
) -> Muon:
    """A Muon optimiser that treats the parameters named in `matrices` as matrices and gives AdamW the rest."""
    named = dict(module.named_parameters())
    return Muon(
        [
            {"params": [named[name] for name in named if name in matrices], "matrix": True, "lr": matrix_lr,
             "weight_decay": weight_decay},
            {"params": [named[name] for name in named if name not in matrices], "lr": other_lr},
        ]
    )  # fmt: skip
