"""Layer-count bands, jittered boxes, and what the autoencoder does to layers."""

from dataclasses import replace

import numpy as np
import pytest

from mrt_core.evaluation.held_out import Case, held_out_case, score
from mrt_core.evaluation.reconstruction import (
    SOURCES,
    compare,
    reconstructed_layers,
    reconstruction_table,
    reconstructions,
)
from mrt_core.evaluation.robustness import (
    BANDS,
    SMALLEST_BOX,
    band_cases,
    evaluate_bands,
    jittered_request,
    score_anywhere,
)
from mrt_core.geometry import Box
from mrt_core.pipeline import Pipeline, SamplingOptions
from mrt_core.stacks.layers import Layer, LayerStack
from mrt_core.tasks.region_codec import RegionCodec
from mrt_core.tasks.slots import Task

AREA = 64 * 64


# Bands


@pytest.mark.parametrize("band", BANDS)
def test_designs_of_a_band_have_as_many_layers(band):
    low, high = band
    counts = [len(case.design.stack.layers) for case in band_cases(6, band, 128 * 128)]
    assert len(counts) == 6 and low <= min(counts) and max(counts) <= high


def test_rows_of_the_bands(checkpoint, autoencoder):
    pipeline = Pipeline(checkpoint, checkpoint.text_encoder, RegionCodec(autoencoder))
    rows = list(evaluate_bands(pipeline, 1, SamplingOptions(steps=1, cfg=1.0)))
    names = [f"{low}-{high} layers{suffix}" for low, high in BANDS for suffix in ("", ", matched")]
    assert [name for name, _ in rows] == names
    assert all(
        own["merged_psnr"] < matched["merged_psnr"]
        for (_, own), (_, matched) in zip(rows[::2], rows[1::2], strict=True)
    )


# Jitter


def test_edges_move_by_up_to_the_jitter():
    request = held_out_case(4, Task.IMAGE_TO_LAYERS, 128 * 128).request()
    moves = []
    for seed in range(60):
        moved = jittered_request(request, 8, np.random.default_rng(seed))
        assert moved.layout.background_region == request.layout.background_region
        assert moved.prompt == request.prompt and moved.stack is request.stack
        for old, new in zip(request.layout.regions, moved.layout.regions, strict=True):
            assert new.name == old.name and min(new.box[2:]) >= SMALLEST_BOX
            moves += [new.box.x - old.box.x, new.box.y - old.box.y, new.box.right - old.box.right]
    assert min(moves) == -8 and max(moves) == 8
    assert np.mean(moves) == pytest.approx(0, abs=0.5)


def test_small_boxes_stay_boxes(layout, stack):
    tiny = replace(layout, regions=(replace(layout.regions[0], box=Box(10, 10, 3, 3)),))
    request = replace(held_out_case(0, Task.IMAGE_TO_LAYERS, AREA).request(), layout=tiny)
    for seed in range(40):
        (region,) = jittered_request(request, 8, np.random.default_rng(seed)).layout.regions
        assert min(region.box[2:]) >= SMALLEST_BOX


def test_scores_do_not_depend_on_boxes_but_on_pixels():
    case = held_out_case(2, Task.IMAGE_TO_LAYERS, AREA)
    truth = case.design.stack
    perfect = score(case, truth)
    assert score_anywhere(case, truth) == perfect

    def wider(layer):
        return replace(layer, pixels=np.pad(layer.pixels, ((3, 1), (2, 5), (0, 0))), x=layer.x - 2, y=layer.y - 3)

    padded = LayerStack(truth.frame, (truth.layers[0], *(wider(layer) for layer in truth.layers[1:])))
    assert score_anywhere(case, padded) == pytest.approx(perfect)


def test_what_lies_past_a_box_is_missed():
    design = held_out_case(2, Task.IMAGE_TO_LAYERS, AREA).design
    square = np.full((8, 8, 4), (200, 10, 10, 255), np.uint8)
    base, layer = design.stack.layers[0], Layer(square, 10, 10, "square")
    truth = LayerStack(design.stack.frame, (base, layer))
    case = Case(replace(design, stack=truth, assets=(square,)), Task.IMAGE_TO_LAYERS, ())
    narrow = LayerStack(truth.frame, (base, replace(layer, pixels=square[:, 2:], x=12)))
    assert score_anywhere(case, narrow)["alpha_soft_iou"] == 48 / 64
    shifted = LayerStack(truth.frame, (base, replace(layer, x=12)))
    assert score_anywhere(case, shifted)["alpha_soft_iou"] == 48 / 80


# Autoencoder


def test_reconstruction_by_hand():
    truth, output = np.zeros((1, 4, 4), np.uint8), np.zeros((1, 4, 4), np.uint8)
    truth[0, :2] = (255, 255, 255, 255)
    output[0, :, 3] = (255, 204, 2, 3)  # black in place of white; of two transparent pixels one stays so
    output[0, 0] = (255, 255, 255, 255)
    figures = compare([(truth, output)])
    error = (3 + (51 / 255) ** 2 + (2 / 255) ** 2 + (3 / 255) ** 2) / 16
    assert figures.psnr == pytest.approx(-10 * np.log10(error), abs=1e-4)
    assert figures.alpha_error == pytest.approx((51 + 2 + 3) / 4 / 255)
    assert figures.stays_clear == 0.5
    assert compare([(truth, truth)]) == (60, 0, 1)
    opaque = np.full((2, 2, 4), 255, np.uint8)
    assert compare([(opaque, opaque)]).stays_clear is None
    assert reconstruction_table({"x": compare([(opaque, opaque)])}).endswith("| x | 60.00 | 0.0000 | - |")


def test_what_is_reconstructed(autoencoder):
    rows = list(reconstructions(RegionCodec(autoencoder), 5, AREA))
    assert [name for name, _ in rows] == [name for name in SOURCES for _ in range(5)]
    for name, (truth, output) in rows:
        assert truth.shape == output.shape and truth.shape[0] % 16 == truth.shape[1] % 16 == 0
        if name in ("artwork", "shapes and words"):
            assert truth[..., 3].any() and (truth[..., 3] == 0).any()


def test_reconstructed_layers_have_the_sizes_of_their_boxes(autoencoder):
    class Unchanged(RegionCodec):
        """A codec that loses nothing."""

        def encode(self, images, places):
            return images

        def decode(self, latents, places):
            return latents

    design = held_out_case(6, Task.IMAGE_TO_LAYERS, 128 * 128).design
    for layer, same in zip(design.stack.layers[1:], reconstructed_layers(Unchanged(autoencoder), design), strict=True):
        assert same.shape == layer.pixels.shape
        shown = layer.pixels[..., 3] == 255
        assert np.array_equal(same[shown], layer.pixels[shown])
    for layer, coded in zip(
        design.stack.layers[1:], reconstructed_layers(RegionCodec(autoencoder), design), strict=True
    ):
        assert coded.shape == layer.pixels.shape
