"""The measure of restyling: distances between colours worked out by hand, and what counts as nearer."""

import numpy as np
import pytest

from mrt_core.designs.styles import duotone, greyscale, posterised
from mrt_core.evaluation.held_out import held_out_case
from mrt_core.evaluation.restyle import (
    RestyleScores,
    _directions,
    judge,
    restyle_scores,
    restyle_table,
    style_distance,
    summarise,
)
from mrt_core.tasks.slots import Task

RED, BLUE = (255, 0, 0, 255), (0, 0, 255, 255)


def image(*pixels):
    return np.array([pixels], np.uint8)


# Distance


def test_distance_of_flat_colours_is_the_mean_projected_difference():
    directions = _directions()
    assert np.linalg.norm(directions, axis=0) == pytest.approx(1)
    expected = np.abs(directions[0] - directions[2]).mean()
    assert style_distance(image(RED), image(BLUE)) == pytest.approx(expected)
    # evenly spread directions: the mean of |cos| over a sphere is 1 / 2, and (1, 0, -1) has the length sqrt 2
    assert expected == pytest.approx(np.sqrt(0.5), rel=0.03)


def test_distance_asks_which_colours_there_are_and_not_where():
    a, b = image(RED, BLUE, BLUE, (9, 9, 9, 0)), image((80, 80, 80, 0), BLUE, RED, BLUE, BLUE, RED, BLUE)
    assert style_distance(a, a) == 0
    assert style_distance(a, b) == 0
    assert style_distance(a, image(RED, BLUE)) > 0.05


def test_distance_counts_pixels_with_their_alpha():
    faint = image(RED, (0, 0, 255, 1))
    assert style_distance(faint, image(RED)) < 0.01 < style_distance(image(RED, BLUE), image(RED))
    half = image((255, 0, 0, 100), (0, 0, 255, 100))
    assert style_distance(half, image(RED, BLUE)) == 0


def test_nothing_is_infinitely_far():
    assert style_distance(image((9, 9, 9, 0)), image(RED)) == float("inf")


# Scores


def test_the_truth_is_nearer_and_the_asset_is_not():
    for index in range(5):
        case = held_out_case(index, Task.RESTYLE_LAYERS, 64 * 64)
        (own,) = judge(case, case.design.stack)
        assert own.shape == 1 and own.style_nearer in (True, None)
        (target,) = case.judged
        asset = case.design.assets[target - 1]
        unchanged = restyle_scores(asset, case.design.stack.layers[target].pixels, asset)
        assert unchanged.shape == 1 and unchanged.style_nearer in (False, None)


def test_a_shifted_and_noisy_result_in_the_right_style_is_nearer():
    case = held_out_case(1, Task.RESTYLE_LAYERS, 96 * 96)
    natural = case.design.stack.layers[case.judged[0]].pixels
    rng = np.random.default_rng(0)
    for truth_style, asset_style in ((greyscale, posterised), (duotone((28, 42, 96), (250, 211, 70)), greyscale)):
        truth, asset = truth_style(natural), asset_style(natural)
        result = np.roll(truth, 3, 1).astype(int)
        result[..., :3] += rng.normal(0, 12, result[..., :3].shape).astype(int)
        scores = restyle_scores(result.clip(0, 255).astype(np.uint8), truth, asset)
        assert scores.style_nearer and scores.shape < 1


def test_alike_styles_are_not_counted():
    grey = image((100, 100, 100, 255), (30, 30, 30, 255))
    assert restyle_scores(grey, grey, greyscale(grey)).style_nearer is None


def test_empty_results_are_wrong():
    empty = image((0, 0, 0, 0), (0, 0, 0, 0))
    assert restyle_scores(empty, image(RED, RED), image(BLUE, BLUE)) == (0, False)


def test_summary_and_table():
    layers = [RestyleScores(0.95, True), RestyleScores(0.8, True), RestyleScores(1.0, None), RestyleScores(0.85, False)]
    summary = summarise(layers)
    assert summary == pytest.approx((0.9, 0.75, 2 / 3, 1 / 3, 3))
    assert restyle_table({"tiny": summary}).splitlines()[-1] == "| tiny (3 layers) | 0.900 | 75.0 % | 66.7 % | 33.3 % |"
    alone = summarise([RestyleScores(1.0, None)])
    assert alone[2:] == (None, None, 0)
    assert restyle_table({"tiny": alone}).endswith("| 1.000 | 100.0 % | - | - |")
