"""The LayerD protocol: how well a stack matches the true one where neighbours may be merged first
(architecture: metrics).

Both stacks are grouped, so that layers which nothing covers come apart from those below them; predicted and true groups are
aligned by dynamic time warping in their order; then neighbours of either stack are merged, one pair at a time, as long as
that helps. A decomposition is so not punished for being finer or coarser than the truth, but for the merges it takes.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ..errors import MRTError
from ..stacks.layers import Layer, LayerStack, composite
from .metrics import alpha_soft_iou, rgb_l1
from .tables import markdown

MAX_MERGES = 5
SMALLEST_STACK = 2  # layers; a stack of so few is not merged, and one of fewer is not measured

Image = np.ndarray  # straight RGBA uint8 (height, width, 4) over the frame


class LayerdScores(NamedTuple):
    """Means over aligned pairs: cost (half RGB L1, half what alpha soft IoU lacks of 1), RGB L1, alpha soft IoU."""

    cost: float
    rgb_l1: float
    alpha_soft_iou: float


class _Aligned(NamedTuple):
    """The pairs (place in the prediction, place in the truth) that belong together, and their mean scores."""

    pairs: list[tuple[int, int]]
    scores: LayerdScores


def compare(prediction: Image, truth: Image) -> LayerdScores:
    """The scores of one pair; RGB counts where the second image is not fully transparent, so that the order matters."""
    color, shape = rgb_l1(prediction, truth), alpha_soft_iou(prediction, truth)
    return LayerdScores((color + 1 - shape) / 2, color, shape)


def group(images: Sequence[Image]) -> list[Image]:
    """Images bottom to top as groups bottom to top: each is flattened from all that no remaining higher image overlaps."""
    remaining, groups = list(images), []
    while remaining:
        covered, free, below = np.zeros(remaining[0].shape[:2], bool), [], []
        for image in reversed(remaining):
            shown = image[..., 3] > 0
            (below if (shown & covered).any() else free).insert(0, image)
            covered |= shown
        groups.insert(0, flatten(free))
        remaining = below
    return groups


def flatten(images: Sequence[Image]) -> Image:
    """Images of one size, bottom to top, as one."""
    height, width = images[0].shape[:2]
    return composite(LayerStack((width, height), tuple(Layer(image, 0, 0, "") for image in images)))


def align(costs: np.ndarray) -> list[tuple[int, int]]:
    """Dynamic time warping: the monotonic path (row, column) from one corner of `costs` to the other with the least sum.

    Of equal ways back it takes the diagonal, then the row before, then the column before.
    """
    total = np.full((costs.shape[0] + 1, costs.shape[1] + 1), np.inf)
    total[0, 0] = 0
    for i, j in np.ndindex(costs.shape):
        total[i + 1, j + 1] = costs[i, j] + min(total[i, j], total[i, j + 1], total[i + 1, j])
    i, j = costs.shape
    path = [(i - 1, j - 1)]
    while (i, j) != (1, 1):
        i, j = min([(i - 1, j - 1), (i - 1, j), (i, j - 1)], key=lambda place: total[place])
        path.insert(0, (i - 1, j - 1))
    return path


def _aligned(predicted: Sequence[Image], true: Sequence[Image]) -> _Aligned:
    table = [[compare(p, t) for t in true] for p in predicted]
    pairs = align(np.array([[scores.cost for scores in row] for row in table]))
    return _Aligned(pairs, LayerdScores(*np.mean([table[i][j] for i, j in pairs], axis=0).tolist()))


def _partners(pairs: Sequence[tuple[int, int]], count: int, others: Sequence[Image]) -> list[list[Image]]:
    """For each of `count` places of one stack, the images of the other that the path pairs it with."""
    return [[others[j] for i, j in pairs if i == place] for place in range(count)]


def _similarity(image: Image, partners: Sequence[Image]) -> float:
    return sum(1 - compare(image, partner).cost for partner in partners)


def _best_merge(images: Sequence[Image], partners: Sequence[Sequence[Image]]) -> tuple[float, int]:
    """The largest gain of merging an image with the next one, and its place; gain 0 where none helps.

    `images` stand first in comparisons, whichever stack they are: where the truth is merged, the prediction's alpha says
    where RGB counts, as in the reference (architecture: metrics).
    """
    best = (0.0, 0)
    if len(images) <= SMALLEST_STACK:
        return best
    for place in range(len(images) - 1):
        own, following = partners[place], partners[place + 1]
        merged = flatten(images[place : place + 2])
        apart = _similarity(images[place], own) + _similarity(images[place + 1], following)
        rest = [_similarity(merged, following)]
        if place + 2 < len(images):
            rest += [_similarity(images[place + 2], own), _similarity(images[place + 2], following)]
        gain = _similarity(merged, own) + max(rest) - apart
        if gain > best[0]:
            best = (gain, place)
    return best


def _merged(images: Sequence[Image], place: int) -> list[Image]:
    return [*images[:place], flatten(images[place : place + 2]), *images[place + 2 :]]


def layerd_scores(prediction: LayerStack, truth: LayerStack, max_merges: int = MAX_MERGES) -> list[LayerdScores]:
    """The scores after 0, 1, .. merges, fewer than `max_merges` where no further one helps.

    Raises MRTError for stacks of different frames or with fewer than two visible layers.
    """
    if tuple(prediction.frame) != tuple(truth.frame):
        raise MRTError(
            f"the predicted frame is {prediction.frame[0]} x {prediction.frame[1]} px and the true one {truth.frame[0]} x "
            f"{truth.frame[1]} px, but layers are compared pixel by pixel; scale the prediction to the true frame"
        )
    predicted, true = group(_frame_images(prediction)), group(_frame_images(truth))
    aligned = _aligned(predicted, true)
    scores = [aligned.scores]
    while len(scores) <= max_merges:
        swapped = [(j, i) for i, j in aligned.pairs]
        of_prediction = _best_merge(predicted, _partners(aligned.pairs, len(predicted), true))
        of_truth = _best_merge(true, _partners(swapped, len(true), predicted))
        if max(of_prediction[0], of_truth[0]) <= 0:
            break
        if of_prediction[0] > of_truth[0]:
            predicted = _merged(predicted, of_prediction[1])
        else:
            true = _merged(true, of_truth[1])
        aligned = _aligned(predicted, true)
        scores.append(aligned.scores)
    return scores


def _frame_images(stack: LayerStack) -> list[Image]:
    """Every visible layer over the frame, with its opacity."""
    layers = [layer for layer in stack.flat() if layer.visible]
    if len(layers) < SMALLEST_STACK:
        raise MRTError(
            f"the stack has {len(layers)} visible layers, but the LayerD protocol compares {SMALLEST_STACK} or more; "
            "leave it out"
        )
    return [composite(LayerStack(stack.frame, (layer,))) for layer in layers]


def mean_by_merges(samples: Sequence[Sequence[LayerdScores]], max_merges: int = MAX_MERGES) -> list[LayerdScores]:
    """Means over samples after 0, 1, .. `max_merges` merges; one that stopped earlier counts with its last scores."""
    filled = [[*scores, *[scores[-1]] * (max_merges + 1 - len(scores))] for scores in samples]
    return [LayerdScores(*row) for row in np.mean(filled, axis=0).tolist()]


def layerd_table(rows: Mapping[str, Sequence[LayerdScores]]) -> str:
    """A Markdown table with a column per number of merges, and two rows per entry: RGB L1 and alpha soft IoU."""
    cells = {}
    for name, levels in rows.items():
        cells[f"{name}: RGB L1"] = [f"{scores.rgb_l1:.4f}" for scores in levels]
        cells[f"{name}: alpha soft IoU"] = [f"{scores.alpha_soft_iou:.4f}" for scores in levels]
    most = max(map(len, rows.values()))
    return markdown([f"{merges} merge{'s' * (merges != 1)}" for merges in range(most)], cells)
