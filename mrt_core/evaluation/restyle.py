"""Restyling: does a layer keep the shape of its asset, and does it take on the style of the design?

Shape: alpha soft IoU with the asset. Style: the distance between the colours that two images show, wherever they show them,
so that a small shift counts for nothing. The style of the design is that of the true layer, which shows what the asset
shows. Distance: sliced 1-Wasserstein distance of straight RGB, each pixel weighted with its alpha.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..stacks.layers import LayerStack
from .held_out import Case
from .metrics import alpha_soft_iou
from .tables import markdown, percent

KEPT_SHAPE = 0.85  # alpha soft IoU from which on the shape counts as kept
SAME_STYLE = (
    0.02  # distance under which asset and truth look too much alike to tell which of them a result is nearer to
)
DIRECTIONS, QUANTILES = 32, 64


class RestyleScores(NamedTuple):
    """Of one layer: alpha soft IoU with the asset, and whether its style is nearer to the truth's than to the asset's
    (None where these two look alike)."""

    shape: float
    style_nearer: bool | None


class RestyleSummary(NamedTuple):
    """Over layers: mean alpha soft IoU with the asset, share that keeps its shape, share whose style is nearer to the
    design's, share with both, and the number of layers that the last two shares count."""

    shape: float
    shape_kept: float
    style_nearer: float | None
    both: float | None
    counted: int


def _directions() -> np.ndarray:
    """Unit vectors (3, DIRECTIONS) spread evenly over a half sphere (Fibonacci lattice)."""
    height = (np.arange(DIRECTIONS) + 0.5) / DIRECTIONS
    angle = np.pi * (3 - 5**0.5) * np.arange(DIRECTIONS)
    radius = np.sqrt(1 - height**2)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), height])


def _color_quantiles(pixels: np.ndarray) -> np.ndarray:
    """QUANTILES (.., DIRECTIONS) of the projected colours of straight RGBA uint8, in 0..1; alpha is not 0 everywhere."""
    shown = pixels[pixels[..., 3] > 0].astype(np.float64) / 255  # (N, 4)
    projected = shown[:, :3] @ _directions()  # (N, DIRECTIONS)
    order = np.argsort(projected, axis=0)
    share = np.cumsum(shown[:, 3][order], axis=0) / shown[:, 3].sum()
    levels = (np.arange(QUANTILES) + 0.5) / QUANTILES
    columns = [
        projected[order[:, k], k][np.searchsorted(share[:, k], levels).clip(max=len(shown) - 1)]
        for k in range(DIRECTIONS)
    ]
    return np.stack(columns, 1)


def style_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Sliced 1-Wasserstein distance of the colours of two straight RGBA uint8 images, 0 for equal ones; infinite where one
    of them shows nothing."""
    if not a[..., 3].any() or not b[..., 3].any():
        return float("inf")
    return float(np.abs(_color_quantiles(a) - _color_quantiles(b)).mean())


def restyle_scores(result: np.ndarray, truth: np.ndarray, asset: np.ndarray) -> RestyleScores:
    """Judge one restyled layer; all three are straight RGBA uint8 of one size, and `truth` is in the design's style."""
    nearer = None
    if style_distance(truth, asset) >= SAME_STYLE:
        nearer = style_distance(result, truth) < style_distance(result, asset)
    return RestyleScores(alpha_soft_iou(result, asset), nearer)


def judge(case: Case, result: LayerStack) -> list[RestyleScores]:
    """The scores of every layer that a case restyles."""
    design = case.design
    return [
        restyle_scores(result.layers[i].pixels, design.stack.layers[i].pixels, design.assets[i - 1])
        for i in case.judged
    ]


def summarise(layers: Sequence[RestyleScores]) -> RestyleSummary:
    """The figures of many layers; shares that nothing counts for are None."""
    kept = np.array([layer.shape >= KEPT_SHAPE for layer in layers])
    told = [
        (layer.style_nearer, is_kept)
        for layer, is_kept in zip(layers, kept, strict=True)
        if layer.style_nearer is not None
    ]
    nearer = float(np.mean([style for style, _ in told])) if told else None
    both = float(np.mean([style and shape for style, shape in told])) if told else None
    return RestyleSummary(
        float(np.mean([layer.shape for layer in layers])), float(kept.mean()), nearer, both, len(told)
    )


def restyle_table(summaries: dict[str, RestyleSummary]) -> str:
    """A Markdown table of restyling."""
    heads = ("alpha soft IoU with the asset", f"shape kept (>= {KEPT_SHAPE})", "style nearer to the design's", "both")
    rows = {
        f"{name} ({row.counted} layers)": [f"{row.shape:.3f}", *map(percent, row[1:4])]
        for name, row in summaries.items()
    }
    return markdown(heads, rows)
