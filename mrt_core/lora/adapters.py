"""The forms that a change of one weight takes in a file, and the matrix that each stands for.

LoRA is a product of two low-rank matrices, LoHa the elementwise product of two such products (FedPara, arXiv 2108.06098), LoKr
a Kronecker product (LyCORIS, arXiv 2309.14859). DoRA sets the length of the changed weight's rows or columns (arXiv 2402.09353).
"""

from typing import NamedTuple

import torch
from torch import Tensor

SMALLEST_LENGTH = torch.finfo(torch.float32).eps  # beside a row or column of zeros, as LyCORIS has it


class LowRank(NamedTuple):
    """A change `scale * up @ down` of a weight (out, in): `up` (out, rank), `down` (rank, in), `scale` alpha / rank."""

    up: Tensor
    down: Tensor
    scale: float = 1.0

    def matrix(self, like: Tensor) -> Tensor:
        """The change (out, in), in the precision and on the device of `like`."""
        return self.scale * (self.up.to(like) @ self.down.to(like))


class Hadamard(NamedTuple):
    """LoHa, `scale * (up_1 @ down_1) * (up_2 @ down_2)`: each product is of a rank of its own."""

    up_1: Tensor  # (out, rank)
    down_1: Tensor  # (rank, in)
    up_2: Tensor
    down_2: Tensor
    scale: float = 1.0

    def matrix(self, like: Tensor) -> Tensor:
        """The change (out, in), in the precision and on the device of `like`."""
        first, second = self.up_1.to(like) @ self.down_1.to(like), self.up_2.to(like) @ self.down_2.to(like)
        return self.scale * first * second

    def as_low_rank(self) -> LowRank:
        """The same change as one product, of the rank rank_1 * rank_2: rows and columns are those of Kronecker products."""
        up = (self.up_1.float()[:, :, None] * self.up_2.float()[:, None]).flatten(1)  # (out, rank_1 * rank_2)
        down = (self.down_1.float()[:, None] * self.down_2.float()[None]).flatten(0, 1)  # (rank_1 * rank_2, in)
        return LowRank(up, down, self.scale)


class Kronecker(NamedTuple):
    """LoKr, `scale * kron(left, right)`: `left` (a, b), `right` (c, d) for a weight (a * c, b * d)."""

    left: Tensor
    right: Tensor
    scale: float = 1.0

    def matrix(self, like: Tensor) -> Tensor:
        """The change (out, in), in the precision and on the device of `like`."""
        return self.scale * torch.kron(self.left.to(like), self.right.to(like))


class Decomposed(NamedTuple):
    """DoRA: the weight with a change, its rows or columns then brought to the lengths of `magnitude`, (out, 1) or (1, in)."""

    change: LowRank | Hadamard | Kronecker
    magnitude: Tensor

    def difference(self, weight: Tensor) -> Tensor:
        """What a weight (out, in) in fp32 changes by."""
        changed = weight + self.change.matrix(weight)
        axis = 1 if len(self.magnitude) == len(weight) else 0  # summed over
        length = changed.norm(dim=axis, keepdim=True) + SMALLEST_LENGTH
        return changed * (self.magnitude.to(weight) / length) - weight


Adapter = Hadamard | Kronecker | Decomposed
