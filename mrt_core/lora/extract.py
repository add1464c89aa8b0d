"""A LoRA from the difference of two transformers: its best approximation of a rank, by singular value decomposition."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..errors import MRTError
from ..models.transformer import MaskedRegionTransformer
from .file import Lora, LowRank


class ExtractedLora(NamedTuple):
    """A LoRA, and the share of the difference's length (Frobenius norm over all weights) that it misses, in 0..1."""

    lora: Lora
    error: float


@torch.no_grad()
def extract_lora(
    base: MaskedRegionTransformer, changed: MaskedRegionTransformer, rank: int, dtype: torch.dtype = torch.float32
) -> ExtractedLora:
    """What makes `changed` of `base`: pairs of at most `rank` for linear layers, stored as `dtype`, and whole differences
    of all other parameters; what is equal is left out. The error is that of what is stored. Raises MRTError."""
    if rank < 1:
        raise MRTError(f"the LoRA's rank is {rank}, but it must be at least 1; 32 is usual")
    if base.config != changed.config:
        raise MRTError(
            f"the transformers have the sizes {base.config} and {changed.config}, but a LoRA stands between equal ones; "
            "give a student and its own teacher"
        )
    linear = {f"{name}.weight" for name, module in base.named_modules() if isinstance(module, nn.Linear)}
    before = dict(base.named_parameters())
    low_rank, differences, missed, length = {}, {}, 0.0, 0.0
    for name, parameter in changed.named_parameters():
        difference = parameter.float() - before[name].float()
        if not difference.any():
            continue
        if name in linear:
            pair = _truncated(difference, rank, dtype)
            low_rank[name.removesuffix(".weight")] = pair
            stored = pair.up.float() @ pair.down.float()
        else:
            stored = differences[name] = difference.to(dtype)
        missed += float((difference - stored.float()).square().sum())
        length += float(difference.square().sum())
    return ExtractedLora(Lora(low_rank, differences), (missed / length) ** 0.5 if length else 0.0)


def _truncated(matrix: Tensor, rank: int, dtype: torch.dtype) -> LowRank:
    """The nearest matrix of at most `rank`, its singular values shared evenly by both factors."""
    u, values, v = torch.linalg.svd(matrix, full_matrices=False)
    root = values[:rank].sqrt()
    return LowRank((u[:, :rank] * root).to(dtype), (root[:, None] * v[:rank]).to(dtype))
