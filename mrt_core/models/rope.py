"""Rotary position embedding over three axes: layer index, row, column (Qwen-Image's, architecture: positions)."""

import torch
from torch import Tensor


def rotation_angles(positions: Tensor, axes: tuple[int, ...], theta: float) -> Tensor:
    """Angles (N, sum(axes) / 2) in fp32 for positions (N, len(axes)), whole or not; `axes` are the head dimensions per axis."""
    columns = []
    for axis, dimensions in enumerate(axes):
        exponents = torch.arange(0, dimensions, 2, dtype=torch.float32, device=positions.device) / dimensions
        columns.append(positions[:, axis, None].float() * (1.0 / theta**exponents))  # (N, dimensions / 2)
    return torch.cat(columns, dim=1)


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Rotate the neighbouring pairs of `x` (N, heads, dim) by `angles` (N, dim / 2), as complex numbers in fp32."""
    turns = torch.polar(torch.ones_like(angles), angles)[:, None]  # (N, 1, dim / 2)
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))  # (N, heads, dim / 2)
    return torch.view_as_real(pairs * turns).flatten(-2).to(x.dtype)
