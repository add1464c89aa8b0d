"""The LayerD protocol on cases worked out by hand, and its alignment against all alignments there are."""

import numpy as np
import pytest

from mrt_core.errors import MRTError
from mrt_core.evaluation.layerd import (
    LayerdScores,
    _best_merge,
    align,
    compare,
    flatten,
    group,
    layerd_scores,
    mean_by_merges,
)
from mrt_core.geometry import Size
from mrt_core.stacks.layers import Layer, LayerStack

WIDTH = 12
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def bar(color, left=0, right=WIDTH, alpha=255):
    """One row of pixels that shows `color` from `left` to `right`."""
    image = np.zeros((1, WIDTH, 4), np.uint8)
    image[0, left:right] = (*color, alpha)
    return image


def stack_of(*images):
    return LayerStack(Size(WIDTH, 1), tuple(Layer(image, 0, 0, "") for image in images))


# Cost


def test_compare_by_hand():
    red, short_blue = bar(RED, 0, 8), bar(BLUE, 4, 8)
    # where blue shows, two of three channels are off by 255; alpha: 4 pixels in common of 8
    assert compare(red, short_blue) == pytest.approx(LayerdScores((2 / 3 + 0.5) / 2, 2 / 3, 0.5))
    # the mask is the second image's: the half of red that blue leaves transparent has RGB (0, 0, 0)
    assert compare(short_blue, red) == pytest.approx(LayerdScores((0.5 + 0.5) / 2, (4 * 2 / 3 + 4 / 3) / 8, 0.5))
    assert compare(red, red) == LayerdScores(0, 0, 1)


# Grouping


def test_layers_that_nothing_covers_are_one_group():
    ground, low, other, top = bar(WHITE), bar(RED, 0, 4), bar(GREEN, 6, 12), bar(BLUE, 2, 5)
    groups = group([ground, low, other, top])
    assert len(groups) == 3
    assert np.array_equal(groups[0], ground)
    assert np.array_equal(groups[1], low)
    assert np.array_equal(groups[2], flatten([other, top]))  # blue covers red, and nothing covers green


def test_an_image_below_another_group_is_not_in_its_group():
    low, middle, top = bar(RED, 0, 4), bar(GREEN, 3, 8), bar(BLUE, 7, 12)
    assert len(group([low, middle, top])) == 3  # red and blue do not touch, but green lies on red and below blue
    assert len(group([low, top, middle])) == 2
    assert len(group([bar(RED, 0, 4), bar(GREEN, 4, 8)])) == 1


def test_transparent_pixels_do_not_overlap():
    assert len(group([bar(RED), bar(GREEN, alpha=0)])) == 1
    assert len(group([bar(RED), bar(GREEN, alpha=1)])) == 2


# Alignment


def all_paths(rows, columns):
    """Every monotonic path from (0, 0) to the opposite corner, by definition."""

    def extend(path):
        i, j = path[-1]
        if (i, j) == (rows - 1, columns - 1):
            yield path
        for place in ((i + 1, j + 1), (i + 1, j), (i, j + 1)):
            if place[0] < rows and place[1] < columns:
                yield from extend([*path, place])

    return extend([(0, 0)])


@pytest.mark.parametrize("rows, columns", [(1, 1), (1, 4), (4, 1), (3, 3), (4, 3), (3, 5)])
def test_alignment_is_the_cheapest_of_all(rows, columns):
    rng = np.random.default_rng(rows * 10 + columns)
    for _ in range(20):
        costs = rng.random((rows, columns))
        cheapest = min(all_paths(rows, columns), key=lambda path: sum(costs[place] for place in path))
        assert align(costs) == cheapest


def test_of_equal_alignments_the_diagonal_comes_first():
    assert align(np.zeros((3, 3))) == [(0, 0), (1, 1), (2, 2)]
    assert align(np.zeros((2, 3))) == [(0, 0), (0, 1), (1, 2)]
    # the last corner is reached from above and from the left at the same cost, below that of the diagonal
    assert align(np.array([[1.0, -2], [-2, 0]])) == [(0, 0), (0, 1), (1, 1)]


def test_scores_of_random_stacks_are_those_of_the_cheapest_alignment():
    rng = np.random.default_rng(7)
    for _ in range(10):
        predicted, true = (
            stack_of(bar(WHITE), *[_random_bar(rng) for _ in range(int(rng.integers(1, 4)))]) for _ in range(2)
        )
        groups = [group([layer.pixels for layer in stack.layers]) for stack in (predicted, true)]
        pairs = {(i, j): compare(p, t) for i, p in enumerate(groups[0]) for j, t in enumerate(groups[1])}
        paths = all_paths(len(groups[0]), len(groups[1]))
        cheapest = min(paths, key=lambda path: sum(pairs[place].cost for place in path))
        expected = np.mean([pairs[place] for place in cheapest], axis=0)
        assert layerd_scores(predicted, true)[0] == pytest.approx(tuple(expected))


def _random_bar(rng):
    left, right = np.sort(rng.choice(WIDTH + 1, 2, replace=False))
    return bar(rng.integers(0, 256, 3), left, right, int(rng.integers(60, 256)))


# Merges


def test_the_truth_needs_no_merges():
    stack = stack_of(bar(WHITE), bar(RED, 0, 6), bar(GREEN, 3, 9))
    assert layerd_scores(stack, stack) == [LayerdScores(0, 0, 1)]


def test_a_layer_that_came_apart_is_merged():
    """Red and green were one layer; they overlap in the prediction, so that grouping alone does not join them."""
    lower, upper = bar(RED, 0, 6), bar(GREEN, 5, 9)
    truth, predicted = stack_of(bar(WHITE), flatten([lower, upper])), stack_of(bar(WHITE), lower, upper)
    scores = layerd_scores(predicted, truth)
    # before: white 0; red in 5 of 9 right and alpha 6 / 9, green in 4 of 9 right and alpha 4 / 9
    red = (1 * 2 / 3 + 3 * 1 / 3) / 9  # one pixel is red in place of green, three are empty (black) in place of green
    green = 5 * (1 / 3) / 9  # five are empty in place of red
    assert scores[0].rgb_l1 == pytest.approx((0 + red + green) / 3)
    assert scores[0].alpha_soft_iou == pytest.approx((1 + 6 / 9 + 4 / 9) / 3)
    assert scores[1:] == [pytest.approx(LayerdScores(0, 0, 1))]


def test_true_layers_that_came_out_as_one_are_merged():
    lower, upper = bar(RED, 0, 6), bar(GREEN, 5, 9)
    truth, predicted = stack_of(bar(WHITE), lower, upper), stack_of(bar(WHITE), flatten([lower, upper]))
    scores = layerd_scores(predicted, truth)
    assert scores[0].cost > 0.1
    assert scores[1:] == [pytest.approx(LayerdScores(0, 0, 1))]


def test_the_number_of_merges_is_limited():
    parts = [bar(color, 3 * index, 3 * index + 4) for index, color in enumerate((RED, GREEN, BLUE))]
    truth, predicted = stack_of(bar(WHITE), flatten(parts)), stack_of(bar(WHITE), *parts)
    assert len(layerd_scores(predicted, truth)) == 3
    assert layerd_scores(predicted, truth)[2].cost == pytest.approx(0)
    assert len(layerd_scores(predicted, truth, max_merges=1)) == 2
    assert layerd_scores(predicted, truth, max_merges=1) == layerd_scores(predicted, truth)[:2]


def test_gain_of_a_merge_by_hand():
    """Three images whose middle one belongs to the first partner; the last may take the middle one's partner."""
    first, middle, last = bar(RED, 0, 4), bar(RED, 3, 8), bar(BLUE, 7, 12)
    whole = bar(RED, 0, 8)
    partners = [[whole], [whole], [last]]
    similarity = lambda image, partner: 1 - compare(image, partner).cost  # noqa: E731
    apart = similarity(first, whole) + similarity(middle, whole)
    expected = similarity(whole, whole) + max(similarity(whole, whole), similarity(last, whole)) - apart
    gain, place = _best_merge([first, middle, last], partners)
    assert (gain, place) == (pytest.approx(expected), 0)
    assert _best_merge([first, middle], partners[:2]) == (0, 0)  # two layers are never merged
    assert _best_merge([first, middle, last], [[first], [middle], [last]]) == (0, 0)  # nothing to gain


def test_stopped_samples_count_with_their_last_scores():
    early, late = LayerdScores(0.2, 0.1, 0.7), [LayerdScores(0.4, 0.3, 0.5), LayerdScores(0.0, 0.0, 1.0)]
    means = mean_by_merges([[early], late], max_merges=2)
    assert means == [pytest.approx(LayerdScores(0.3, 0.2, 0.6))] + [pytest.approx(LayerdScores(0.1, 0.05, 0.85))] * 2


def test_opacity_counts_and_hidden_layers_do_not():
    truth = stack_of(bar(WHITE), bar(RED, 0, 6, alpha=51))
    faded = LayerStack(
        truth.frame,
        (truth.layers[0], Layer(bar(GREEN), 0, 0, "", visible=False), Layer(bar(RED, 0, 6), 0, 0, "", opacity=0.2)),
    )
    assert layerd_scores(faded, truth) == [LayerdScores(0, 0, 1)]


def test_what_cannot_be_compared():
    one, two = stack_of(bar(WHITE)), stack_of(bar(WHITE), bar(RED))
    with pytest.raises(MRTError, match="1 visible layers"):
        layerd_scores(one, two)
    with pytest.raises(MRTError, match="scale the prediction"):
        layerd_scores(LayerStack(Size(WIDTH, 2), two.layers), two)
