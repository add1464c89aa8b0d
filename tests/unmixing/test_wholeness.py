"""Whole layers: opaque ones are closed and completed, others left alone, and the background goes on under them."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageDraw

from mrt_core.evaluation.metrics import alpha_soft_iou, merged_psnr
from mrt_core.geometry import Box, Size
from mrt_core.stacks.layers import Layer, LayerStack, composite
from mrt_core.unmixing.refinement import cut_back, grow, match_image
from mrt_core.unmixing.wholeness import convex_hull, is_opaque, make_whole

FRAME = Size(96, 80)
SKY = (90, 150, 220)


def plain(color, width: int, height: int, alpha: int = 255) -> np.ndarray:
    return np.full((height, width, 4), (*color, alpha), np.uint8)


def scene(*layers: Layer, sky=SKY) -> LayerStack:
    return LayerStack(FRAME, (Layer(plain(sky, *FRAME), 0, 0, "Background"), *layers))


def test_a_hole_in_an_opaque_layer_is_closed_and_its_rim_kept():
    square = Layer(plain((200, 40, 40), 40, 40), 20, 20, "square")
    holed = square.pixels.copy()
    holed[10:14, 10:14, 3] = 90
    holed[0, :, 3] = 120  # a soft outline
    truth = scene(square)
    whole = make_whole(scene(replace(square, pixels=holed)), truth, composite(truth), [False, True])
    alpha = whole.layers[1].pixels[..., 3]
    assert (alpha[3:-3, 3:-3] == 255).all() and (alpha[0] == 120).all()


def test_what_is_hidden_is_completed_to_the_hull():
    low, high = Layer(plain((200, 40, 40), 40, 40), 20, 20, "low"), Layer(plain((20, 90, 20), 30, 20), 30, 30, "high")
    gone = low.pixels.copy()
    gone[10:30, 10:, 3] = 0  # what the upper layer hides
    truth, guess = scene(low, high), scene(replace(low, pixels=gone), high)
    (_, completed, _) = make_whole(guess, guess, composite(truth), [False, True, True]).layers
    assert alpha_soft_iou(completed.pixels, low.pixels) > 0.99 > alpha_soft_iou(gone, low.pixels)


def test_layers_that_are_not_opaque_stay_as_they_were_found():
    glass = Layer(plain((200, 40, 40), 40, 40, 110), 20, 20, "glass")
    found = scene(glass)
    whole = make_whole(found, found, composite(found), [False, False])
    assert np.array_equal(whole.layers[1].pixels, glass.pixels)


def test_the_background_under_a_layer_meets_the_picture_around_it():
    square = Layer(plain((200, 40, 40), 30, 30), 30, 20, "square")
    truth, guess = scene(square), scene(square, sky=(80, 150, 235))  # the model's sky is a little off
    stained = truth.layers[0].pixels.copy()
    stained[20:50, 30:60] = 128  # what a segmentation left under the square
    found = replace(truth, layers=(replace(truth.layers[0], pixels=stained), square))
    ground = make_whole(found, guess, composite(truth), [False, True]).layers[0].pixels
    assert np.abs(ground[..., :3].astype(int) - SKY).max() <= 2


@pytest.mark.parametrize("off", [2, 3])
def test_a_layer_grows_past_a_box_that_is_too_small(off):
    square = Layer(plain((200, 40, 40), 40, 36), 24, 20, "square")
    truth = scene(square)
    guess = scene(replace(square, pixels=square.pixels[off:-off, off:-off], x=24 + off, y=20 + off))
    matched = match_image(guess, composite(truth))
    assert matched.layers[1].box == square.box
    assert merged_psnr(composite(matched), composite(truth)) > 50
    assert np.abs(matched.layers[0].pixels[..., :3].astype(int) - SKY).max() <= 2  # and leaves nothing behind
    exact = match_image(guess, composite(truth), slack=0.0)
    assert exact.layers[1].box == guess.layers[1].box


def test_an_exact_box_stays():
    disc = Image.new("RGBA", (40, 40))
    ImageDraw.Draw(disc).ellipse((0, 0, 39, 39), fill=(200, 40, 40, 255))
    truth = scene(Layer(np.asarray(disc), 24, 20, "disc"))
    assert match_image(truth, composite(truth)).layers[1].box == Box(24, 20, 40, 40)


def test_growing_and_cutting_back_are_inverse():
    stack = scene(Layer(plain((200, 40, 40), 10, 12), 5, -3, "a"))
    grown = grow(stack, 4)
    assert grown.layers[0] is stack.layers[0] and grown.layers[1].box == Box(1, -7, 18, 20)
    back = cut_back(grown.layers[1], stack.layers[1].box)
    assert back.box == stack.layers[1].box and np.array_equal(back.pixels, stack.layers[1].pixels)


def test_convex_hull():
    mask = np.zeros((9, 9), bool)
    assert not convex_hull(mask).any()
    mask[1, 1] = mask[1, 7] = mask[7, 1] = True
    rows, columns = np.mgrid[:9, :9]
    triangle = (rows >= 1) & (columns >= 1) & (rows + columns <= 8)
    assert np.array_equal(convex_hull(mask), triangle)
    ring = np.zeros((20, 20), bool)
    ring[4:16, 4:16] = True
    ring[6:14, 6:14] = False
    assert convex_hull(ring)[4:16, 4:16].all() and convex_hull(ring).sum() == 144


@pytest.mark.parametrize(
    ("alpha", "share", "expected"), [(1.0, 0.6, True), (1.0, 0.1, False), (0.7, 0.6, False), (0.0, 1.0, False)]
)
def test_which_layers_are_opaque(alpha, share, expected):
    picture = np.zeros((20, 20), np.float32)
    picture[: round(20 * share)] = alpha
    assert is_opaque(picture) is expected


def test_what_is_completed_has_the_layers_colours():
    """Also where the model drew nothing at all, which has no colour of its own."""
    low, high = Layer(plain((200, 40, 40), 40, 40), 20, 20, "low"), Layer(plain((20, 90, 20), 30, 20), 30, 30, "high")
    gone = low.pixels.copy()
    gone[10:30, 10:] = 0
    truth, guess = scene(low, high), scene(replace(low, pixels=gone), high)
    completed = match_image(guess, composite(truth)).layers[1].pixels
    assert (completed[12:28, 12:, 3] == 255).all()
    assert np.abs(completed[..., :3].astype(int) - (200, 40, 40)).max() <= 8
