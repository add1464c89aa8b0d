"""Operations for modules whose weights come later."""

from types import SimpleNamespace

from torch import nn


class _Embedding(nn.Embedding):
    def reset_parameters(self) -> None:
        """Leave the weights alone: filling them on the meta device would import sympy, for more than a second."""


UNFILLED = SimpleNamespace(**{**vars(nn), "Embedding": _Embedding})
