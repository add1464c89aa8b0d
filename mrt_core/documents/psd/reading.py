"""What is collected while one PSD is read, and what is said of its layers."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from psd_tools.compression import PSDDecompressionWarning

from ..budget import PixelBudget

_OVER_BUDGET = "configured budget"  # in psd-tools' words for what would take more memory than it may


def is_over_budget(error: BaseException) -> bool:
    """Whether psd-tools refused something for the memory that it would take."""
    return _OVER_BUDGET in str(error)


@dataclass
class Reading:
    """What is collected while one document is read; `extras` are our own notes on its layers, by layer id.

    `has_preview()`: whether the program that saved the document stored a picture of it.
    """

    budget: PixelBudget
    extras: dict[str, Any]
    has_preview: Callable[[], bool]
    warnings: list[str] = field(default_factory=list)

    def warn(self, name: str, text: str) -> None:
        """Say where the layer `name` is not exact."""
        self.warnings.append(f'Layer "{name}": {text}.')

    @contextmanager
    def decoding(self, name: str) -> Iterator[None]:
        """Turn psd-tools' warning of a channel that it replaced by black into ours."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
        if any(issubclass(warning.category, PSDDecompressionWarning) for warning in caught):
            self.warn(name, "a part of it could not be decoded and is black")
