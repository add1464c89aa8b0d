"""Metrics against scikit-image and numbers worked out by hand, and the trivial baselines."""

import numpy as np
import pytest

from mrt_core.evaluation import metrics
from mrt_core.evaluation.held_out import (
    METRICS,
    empty_layers,
    evaluate_baselines,
    held_out_case,
    held_out_design,
    markdown_table,
    mean_scores,
    opaque_crops,
    score,
)
from mrt_core.stacks.layers import composite
from mrt_core.tasks.slots import Task

FRAME_AREA = 64 * 64


def flat(color, alpha=255, height=4, width=4):
    return np.full((height, width, 4), (*color, alpha), np.uint8)


def smooth_image(seed, height=37, width=52):
    """Random RGBA with structure at several scales and every alpha."""
    rng = np.random.default_rng(seed)
    coarse = np.kron(rng.integers(0, 256, (-(-height // 8), -(-width // 8), 4)), np.ones((8, 8, 1)))[:height, :width]
    return (0.8 * coarse + 0.2 * rng.integers(0, 256, (height, width, 4))).astype(np.uint8)


# SSIM


@pytest.mark.parametrize("pair", ["unrelated", "noisy", "brighter", "equal", "smallest"])
def test_ssim_equals_scikit_image(pair):
    structural_similarity = pytest.importorskip("skimage.metrics").structural_similarity
    a = smooth_image(0)
    b = {
        "unrelated": smooth_image(1),
        "noisy": np.clip(a + np.random.default_rng(2).normal(0, 9, a.shape), 0, 255).astype(np.uint8),
        "brighter": np.minimum(a.astype(int) + 12, 255).astype(np.uint8),
        "equal": a,
        "smallest": smooth_image(3),
    }[pair]
    if pair == "smallest":
        a, b = a[:11, :11], b[:11, :11]  # a single window
    shown = [metrics.over_white(image).astype(np.float64) for image in (a, b)]
    _, similarity = structural_similarity(
        *shown, win_size=11, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
        channel_axis=-1, data_range=1.0, full=True,
    )  # fmt: skip
    expected = similarity[5:-5, 5:-5].mean()  # whole windows alone
    assert abs(metrics.merged_ssim(a, b) - expected) < 1e-6


def test_ssim_of_flat_images():
    black, white, clear = flat((0, 0, 0), 255, 16, 16), flat((255, 255, 255), 255, 16, 16), flat((9, 9, 9), 0, 16, 16)
    assert metrics.merged_ssim(white, clear) == pytest.approx(1)  # nothing is white on white
    assert metrics.merged_ssim(black, white) == pytest.approx(1e-4 / (1 + 1e-4), rel=1e-4)


# PSNR


def test_merged_psnr_by_hand():
    assert metrics.merged_psnr(flat((0, 0, 0)), flat((255, 255, 255))) == pytest.approx(0, abs=1e-5)
    assert metrics.merged_psnr(flat((100, 100, 100)), flat((151, 151, 151))) == pytest.approx(-20 * np.log10(51 / 255))
    half = flat((0, 0, 0))
    half[:2] = 255
    assert metrics.merged_psnr(half, flat((255, 255, 255))) == pytest.approx(-10 * np.log10(0.5), abs=1e-5)
    assert metrics.merged_psnr(half, half) == metrics.MAX_PSNR == 60
    # half-transparent black on white is grey: 255 * (1 - 102 / 255) = 153
    assert metrics.merged_psnr(flat((0, 0, 0), 102), flat((153, 153, 153))) == 60
    assert metrics.merged_psnr(flat((7, 99, 200), 0), flat((255, 255, 255))) == 60


def test_layer_psnr_counts_the_true_layers_pixels_alone():
    truth, prediction = flat((200, 100, 50)), flat((200, 100, 50))
    truth[:2, :, 3] = 0
    prediction[:2] = (255, 255, 255, 255)  # wrong, where the truth shows nothing
    assert metrics.layer_psnr(prediction, truth) == 60
    prediction[2:] = (200, 100, 50, 0)  # premultiplied: all four channels become 0
    error = np.mean(np.square([200 / 255, 100 / 255, 50 / 255, 1]))
    assert metrics.layer_psnr(prediction, truth) == pytest.approx(-10 * np.log10(error), abs=1e-5)


# Layer metrics


def test_alpha_soft_iou_by_hand():
    a, b = flat((0, 0, 0), 0, 1, 4), flat((9, 9, 9), 0, 1, 4)
    a[0, :, 3], b[0, :, 3] = (255, 100, 0, 50), (255, 200, 30, 0)
    assert metrics.alpha_soft_iou(a, b) == (255 + 100) / (255 + 200 + 30 + 50)
    assert metrics.alpha_soft_iou(b, a) == metrics.alpha_soft_iou(a, b)
    assert metrics.alpha_soft_iou(a, a) == 1
    empty = flat((5, 5, 5), 0, 1, 4)
    assert metrics.alpha_soft_iou(empty, a) == 0
    assert metrics.alpha_soft_iou(empty, empty) == 0


def test_rgb_l1_by_hand():
    truth, prediction = flat((10, 20, 30), 255, 1, 4), flat((10, 20, 30), 0, 1, 4)
    truth[0, :, 3] = (255, 1, 0, 0)
    prediction[0, 0, :3] = (61, 20, 30)  # 51 levels in one of three channels
    prediction[0, 2, :3] = 255  # where the truth shows nothing
    assert metrics.rgb_l1(prediction, truth) == pytest.approx((51 / 3 / 255) / 2, rel=1e-6)
    assert metrics.rgb_l1(truth, truth) == 0
    assert metrics.rgb_l1(truth, flat((0, 0, 0), 0, 1, 4)) == 0


# Held-out designs and baselines


@pytest.mark.parametrize("task", Task)
def test_the_truth_scores_best(task):
    case = held_out_case(3, task, FRAME_AREA)
    perfect = score(case, case.design.stack)
    assert perfect == {
        "merged_psnr": 60, "merged_ssim": pytest.approx(1), "layer_psnr": 60, "alpha_soft_iou": 1, "rgb_l1": 0,
    }  # fmt: skip
    for baseline in (empty_layers, opaque_crops):
        scores = score(case, baseline(case))
        assert all(scores[name] < perfect[name] for name in ("layer_psnr", "alpha_soft_iou"))


def test_empty_layers_have_no_overlap():
    case = held_out_case(0, Task.IMAGE_TO_LAYERS, FRAME_AREA)
    scores = score(case, empty_layers(case))
    assert scores["alpha_soft_iou"] == 0
    white = -10 * np.log10(np.mean(np.square(1 - metrics.over_white(composite(case.design.stack)), dtype=np.float64)))
    assert scores["merged_psnr"] == pytest.approx(white, abs=1e-4)


def test_opaque_crops_restore_the_picture_but_not_the_layers():
    case = held_out_case(0, Task.IMAGE_TO_LAYERS, FRAME_AREA)
    crops = opaque_crops(case)
    assert [layer.box for layer in crops.layers] == [layer.box for layer in case.design.stack.layers]
    scores = score(case, crops)
    assert scores["merged_psnr"] > 40
    assert 0 < scores["alpha_soft_iou"] < 1


def test_mean_of_the_baselines():
    means = evaluate_baselines(2, FRAME_AREA)
    cases = [held_out_case(index, Task.IMAGE_TO_LAYERS, FRAME_AREA) for index in range(2)]
    assert list(means) == ["opaque crops", "empty layers"]
    for name, baseline in (("opaque crops", opaque_crops), ("empty layers", empty_layers)):
        rows = [score(case, baseline(case)) for case in cases]
        assert means[name] == {metric: pytest.approx(np.mean([row[metric] for row in rows])) for metric in METRICS}


def test_held_out_cases_are_fixed_and_ask_for_what_the_task_gives():
    assert np.array_equal(
        composite(held_out_design(5, FRAME_AREA).stack), composite(held_out_design(5, FRAME_AREA).stack)
    )
    for index in (2, 3):
        case = held_out_case(index, Task.RESTYLE_LAYERS, FRAME_AREA)
        (target,) = case.targets
        assert target == index % len(case.design.assets)
        assert case.judged == (target + 1,)
        request = case.request()
        assert list(request.assets) == [target]
        for place, (known, truth) in enumerate(zip(request.stack.layers, case.design.stack.layers, strict=True)):
            if place == target + 1:
                assert not known.pixels.any()  # the answer is not given away
            else:
                assert np.array_equal(known.pixels, truth.pixels)
    picture = held_out_case(2, Task.IMAGE_TO_LAYERS, FRAME_AREA)
    assert picture.judged == tuple(range(1, len(picture.design.stack.layers)))
    assert len(picture.request().stack.layers) == 1


def test_markdown_table():
    scores = dict(zip(METRICS, (21.987, 0.87654, 18.0, 0.5, 0.1234), strict=True))
    head, rule, row = markdown_table({"tiny": scores}).splitlines()
    assert head.count("|") == rule.count("|") == row.count("|") == 7
    assert row == "| tiny | 21.99 | 0.877 | 18.00 | 0.500 | 0.123 |"
    assert mean_scores([scores, {name: 0.0 for name in METRICS}])["layer_psnr"] == 9
