"""How near the layers of a decomposition are to the true ones, visible and hidden parts apart.

t_k is what the layers above layer k of the truth let through, the product of their 1 - alpha. The visible part of a layer is
every pixel of its box inside the frame with weight t_k, the hidden part the same pixels with weight 1 - t_k. Layer PSNR is
that of premultiplied RGBA over the pixels where the true layer is not fully transparent, soft IoU the sum of the smaller
alphas over the sum of the greater ones (`mrt_core.evaluation.metrics`), in a part with its weights. Without a part they are
over the whole layer, past the frame too. Boxes may differ from the true ones: what lies outside a box is transparent.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mrt_core.evaluation.metrics import MAX_PSNR, merged_psnr
from mrt_core.geometry import Box, frame_box, union
from mrt_core.stacks.layers import Layer, LayerStack, composite, paste

LEAST_SHARE = 0.02  # of a layer's alpha (a background's pixels) that lies in a part for the part to count
DRAWING = "drawing"
ALL, VISIBLE, HIDDEN = PARTS = "all", "visible", "hidden"
BASES = ("layer PSNR", "soft IoU", "soft IoU pooled", "background PSNR", "merged PSNR")
POOLED = {ALL: "soft IoU pooled", VISIBLE: "soft IoU pooled, visible", HIDDEN: "soft IoU pooled, hidden"}


class Part(NamedTuple):
    """One part of one layer: PSNR in dB, sums of the smaller and of the greater alphas in px, and whether it counts."""

    psnr: float
    minima: float
    maxima: float
    counts: bool

    @property
    def soft_iou(self) -> float:
        return self.minima / self.maxima if self.maxima > 0 else 0.0


@dataclass(frozen=True)
class LayerScores:
    """The parts of one foreground layer by name, its kind, and whether it lies between layers: covered, and covering one."""

    kind: str
    between: bool
    parts: Mapping[str, Part]


@dataclass(frozen=True)
class DesignScores:
    """All of one decomposition; the background's PSNR under the layers is None where they hide next to nothing."""

    layers: Sequence[LayerScores]
    background: float
    background_hidden: float | None
    merged: float


def let_through(stack: LayerStack) -> list[np.ndarray]:
    """For every layer, background first, what those above it let through: (frame height, frame width) in 0..1."""
    through = np.ones((stack.frame.height, stack.frame.width), np.float32)
    found = []
    for layer in reversed(stack.layers):
        found.append(through)
        through = through * (1 - paste(layer, frame_box(stack.frame))[..., 3])
    return found[::-1]


def weighted_psnr(a: np.ndarray, b: np.ndarray, weight: np.ndarray) -> float:
    """PSNR in dB of float images (h, w, C) in 0..1, pixels weighted by `weight` (h, w), at most MAX_PSNR."""
    total = weight.sum(dtype=np.float64)
    error = (weight[..., None] * np.square(a - b)).sum(dtype=np.float64) / max(total * a.shape[-1], 1e-12)
    return min(MAX_PSNR, float(-10 * np.log10(error))) if error > 0 else MAX_PSNR


def part_scores(prediction: np.ndarray, truth: np.ndarray, weight: np.ndarray) -> Part:
    """The scores of a part: premultiplied float RGBA (h, w, 4) of both, and the part's weight (h, w) in 0..1."""
    shown = weight * (truth[..., 3] > 0)
    a, b = prediction[..., 3], truth[..., 3]
    minima, maxima = (float((weight * f(a, b)).sum(dtype=np.float64)) for f in (np.minimum, np.maximum))
    mass, whole = (weight * b).sum(dtype=np.float64), b.sum(dtype=np.float64)
    return Part(weighted_psnr(prediction, truth, shown), minima, maxima, bool(mass > LEAST_SHARE * whole))


def layer_parts(prediction: Layer, truth: Layer, through: np.ndarray) -> dict[str, Part]:
    """All PARTS of one layer; `through` (frame height, frame width) is its t_k."""
    area = union([Box(*prediction.box), Box(*truth.box)])
    frame = Box(0, 0, through.shape[1], through.shape[0])
    whole, inside = ([paste(layer, where) for layer in (prediction, truth)] for where in (area, frame))
    return {
        ALL: part_scores(*whole, np.ones(whole[0].shape[:2], np.float32)),
        VISIBLE: part_scores(*inside, through),
        HIDDEN: part_scores(*inside, 1 - through),
    }


def lies_between(index: int, stack: LayerStack, through: np.ndarray) -> bool:
    """Whether layer `index` is covered by those above it and covers those below, but for the background, by LEAST_SHARE."""
    frame = frame_box(stack.frame)
    own = paste(stack.layers[index], frame)[..., 3]
    below = np.ones_like(own)
    for layer in stack.layers[1:index]:
        below *= 1 - paste(layer, frame)[..., 3]
    least = LEAST_SHARE * own.sum()
    return bool((own * (1 - through)).sum() > least and (own * (1 - below)).sum() > least)


def score(prediction: LayerStack, truth: LayerStack, kinds: Sequence[str]) -> DesignScores:
    """Compare two stacks of the same layers, background first; `kinds` are those of the foreground layers."""
    through = let_through(truth)
    layers = [
        LayerScores(
            kind,
            lies_between(index, truth, through[index]),
            layer_parts(prediction.layers[index], truth.layers[index], through[index]),
        )
        for index, kind in enumerate(kinds, start=1)
    ]
    grounds = [paste(stack.layers[0], frame_box(truth.frame)) for stack in (prediction, truth)]
    under = 1 - through[0]
    return DesignScores(
        layers,
        weighted_psnr(*grounds, np.ones_like(under)),
        weighted_psnr(*grounds, under) if under.mean() > LEAST_SHARE else None,
        merged_psnr(composite(prediction), composite(truth)),
    )


def pooled_iou(layers: Sequence[LayerScores], part: str) -> float | None:
    """The sum of all smaller alphas over the sum of all greater ones; None without any."""
    total = sum(layer.parts[part].maxima for layer in layers)
    return sum(layer.parts[part].minima for layer in layers) / total if total > 0 else None


def figures(design: DesignScores) -> dict[str, float]:
    """The figures of one design by their names in the table: means over its layers that count, without those of none."""
    groups: dict[str, Sequence[LayerScores]] = {"": design.layers}
    for kind in sorted({layer.kind for layer in design.layers}):
        groups[f", {kind}s"] = [layer for layer in design.layers if layer.kind == kind]
    groups[f", {DRAWING}s between layers"] = [x for x in design.layers if x.kind == DRAWING and x.between]
    found: dict[str, float | None] = {}
    for group, layers in groups.items():
        for part in PARTS:
            parts = [layer.parts[part] for layer in layers if layer.parts[part].counts]
            words = f"{'' if part is ALL else ', ' + part}{group}"
            if parts:
                found[f"layer PSNR{words}"] = float(np.mean([x.psnr for x in parts]))
                found[f"soft IoU{words}"] = float(np.mean([x.soft_iou for x in parts]))
    found |= {POOLED[part]: pooled_iou(design.layers, part) for part in PARTS}
    found["background PSNR"] = design.background
    found["background PSNR, hidden"] = design.background_hidden
    found["merged PSNR"] = design.merged
    return {name: value for name, value in found.items() if value is not None}


def pooled(designs: Sequence[DesignScores]) -> dict[str, float]:
    """The pooled figures over the layers of all designs."""
    layers = [layer for design in designs for layer in design.layers]
    found = {POOLED[part]: pooled_iou(layers, part) for part in PARTS}
    return {name: value for name, value in found.items() if value is not None}


def table_order(names: Iterable[str]) -> list[str]:
    """Names of figures as a table has them: layer PSNR, soft IoU, the rest; all layers first, then by kind; part by part."""

    def place(name: str) -> tuple[int, str, int]:
        base, *words = name.split(", ")
        part = words[0] if words and words[0] in PARTS else ALL
        return BASES.index(base), "".join(word for word in words if word != part), PARTS.index(part)

    return sorted(names, key=place)


def is_of_all_kinds(name: str) -> bool:
    """Whether a figure is over layers of every kind."""
    return set(name.split(", ")[1:]) <= set(PARTS)


class Estimate(NamedTuple):
    """A mean over designs, its standard error (0 for a single design), and how many designs it is of."""

    mean: float
    error: float
    designs: int


def estimate(values: Sequence[float]) -> Estimate:
    error = np.std(values, ddof=1) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return Estimate(float(np.mean(values)), float(error), len(values))


def means(designs: Mapping[int, Mapping[str, float]]) -> dict[str, Estimate]:
    """The mean of every figure over the designs that have it, from figures by design."""
    values = defaultdict(list)
    for row in designs.values():
        for name, value in row.items():
            values[name].append(value)
    return {name: estimate(found) for name, found in values.items()}


def differences(a: Mapping[int, Mapping[str, float]], b: Mapping[int, Mapping[str, float]]) -> dict[str, Estimate]:
    """Of every figure, the mean over designs of a - b, from figures by design of two methods."""
    paired = {
        index: {name: value - b[index][name] for name, value in row.items() if name in b[index]}
        for index, row in a.items()
        if index in b
    }
    return means(paired)
