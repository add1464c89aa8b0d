"""Refining layers to the image they were taken from: exact where it can be, and nothing else is touched."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from mrt_core.designs.generator import DesignSettings, generate_design
from mrt_core.errors import MRTError
from mrt_core.evaluation.metrics import alpha_soft_iou, layer_psnr, merged_psnr
from mrt_core.geometry import Size
from mrt_core.stacks.layers import Layer, LayerStack, composite, premultiply, unpremultiply
from mrt_core.unmixing import refinement
from mrt_core.unmixing.refinement import match_image, spread_colors

FRAME = Size(96, 80)


def disc(size: int, color: tuple[int, int, int], blur: float = 0) -> np.ndarray:
    mask = Image.new("L", (4 * size, 4 * size))
    ImageDraw.Draw(mask).ellipse((0, 0, 4 * size - 1, 4 * size - 1), fill=255)
    mask = mask.resize((size, size), Image.Resampling.BOX).filter(ImageFilter.GaussianBlur(blur))
    image = Image.new("RGB", (size, size), color)
    image.putalpha(mask)
    return np.where(np.asarray(mask)[..., None] > 0, np.asarray(image), 0).astype(np.uint8)


def gradient(alpha: int = 255) -> np.ndarray:
    y, x = np.mgrid[: FRAME.height, : FRAME.width]
    return np.stack([x * 2, 255 - y * 2, 40 + x, np.full_like(x, alpha)], -1).astype(np.uint8)


def stack_of(background: np.ndarray, *layers: Layer) -> LayerStack:
    return LayerStack(FRAME, (Layer(background, 0, 0, "Background"), *layers))


@pytest.fixture
def truth() -> LayerStack:
    low, high = disc(40, (230, 40, 40)), disc(36, (250, 240, 60))
    return stack_of(gradient(), Layer(low, 10, 8, "low"), Layer(high, 70, 30, "high"))


def predicted(truth: LayerStack, blur: float = 5.0) -> LayerStack:
    """The truth as a weak model would make it: discs with washed-out outlines, colours a little off."""
    background, low, high = truth.layers
    guess = (background.pixels // 16 * 16).copy()
    guess[..., 3] = background.pixels[..., 3]
    soft = [disc(40, (210, 60, 50), blur), disc(36, (235, 225, 80), blur)]
    return replace(
        truth,
        layers=(replace(background, pixels=guess), replace(low, pixels=soft[0]), replace(high, pixels=soft[1])),
    )


def test_layers_that_show_the_image_already_stay(truth):
    matched = match_image(truth, composite(truth))
    for before, after in zip(truth.layers, matched.layers, strict=True):
        shown = before.pixels[..., 3] > 0
        assert np.abs(before.pixels.astype(int) - after.pixels)[shown].max() <= 1
        assert np.abs(before.pixels[..., 3].astype(int) - after.pixels[..., 3]).max() <= 1


def test_outlines_and_colours_come_from_the_image(truth):
    image, guess = composite(truth), predicted(truth)
    matched = match_image(guess, image)
    assert merged_psnr(composite(guess), image) < 25
    assert merged_psnr(composite(matched), image) > 45
    for number, least in ((1, 0.93), (2, 0.88)):  # the second one hangs out of the frame, where nothing can be seen
        true, before, after = (stack.layers[number].pixels for stack in (truth, guess, matched))
        assert alpha_soft_iou(before, true) < 0.8 and alpha_soft_iou(after, true) > least
        assert layer_psnr(after, true) > layer_psnr(before, true) + 3


def test_a_transparent_image_is_matched_with_its_transparency(truth):
    glass = stack_of(gradient(alpha=120), *truth.layers[1:])
    matched = match_image(predicted(glass), composite(glass))
    difference = np.abs(composite(matched).astype(int) - composite(glass))
    assert difference[..., 3].mean() < 1 and merged_psnr(composite(matched), composite(glass)) > 40


@pytest.mark.parametrize(("shown", "guessed"), [(0, 255), (255, 0), (90, 255), (255, 90)])
def test_the_backgrounds_alpha_is_that_of_the_image(truth, shown, guessed):
    """A cut-out on nothing gives a transparent background, whatever the model thought, and the other way round."""
    cut_out = stack_of(gradient(alpha=shown), *truth.layers[1:])
    guess = replace(predicted(truth), layers=(Layer(gradient(guessed), 0, 0, ""), *predicted(truth).layers[1:]))
    for layers in (cut_out.layers, cut_out.layers[:1]):
        stack, image = replace(guess, layers=guess.layers[: len(layers)]), composite(replace(cut_out, layers=layers))
        difference = np.abs(composite(match_image(stack, image)).astype(int) - image)
        assert difference[..., 3].mean() < 1


def test_a_layer_gets_what_the_model_missed(truth):
    """Eyes in a face that the model left half transparent, in the face's own colour."""
    background, low, high = truth.layers
    face = low.pixels.copy()
    face[10:16, 12:18, :3] = face[10:16, 24:30, :3] = (30, 30, 200)
    missed = face.copy()
    missed[9:17, 11:19] = missed[9:17, 23:31] = (230, 40, 40, 110)
    image = composite(replace(truth, layers=(background, replace(low, pixels=face), high)))
    matched = match_image(replace(truth, layers=(background, replace(low, pixels=missed), high)), image)
    assert alpha_soft_iou(missed, face) < 0.95
    assert alpha_soft_iou(matched.layers[1].pixels, face) > 0.98
    assert layer_psnr(matched.layers[1].pixels, face) > 30


def test_a_few_pixels_are_enough_to_know_the_colours(truth, monkeypatch):
    image, guess = composite(truth), predicted(truth)
    monkeypatch.setattr(refinement, "FIT_PIXELS", 500)
    monkeypatch.setattr(refinement, "BAND_PIXELS", 7 * FRAME.width * 3)
    low, true = match_image(guess, image).layers[1].pixels, truth.layers[1].pixels
    assert alpha_soft_iou(low, true) > 0.93


def test_what_lies_past_the_frame_stays(truth):
    guess = predicted(truth)
    high, matched = guess.layers[2], match_image(guess, composite(truth)).layers[2]
    inside = FRAME.width - high.x
    assert high.x + high.pixels.shape[1] > FRAME.width
    before, after = high.pixels[:, inside:], matched.pixels[:, inside:]
    shown = before[..., 3] > 0
    assert np.array_equal(after[..., 3], before[..., 3]) and np.array_equal(after[shown], before[shown])
    assert not np.array_equal(matched.pixels[:, :inside], high.pixels[:, :inside])


def test_only_pixels_change(truth):
    matched = match_image(predicted(truth), composite(truth))
    for before, after in zip(truth.layers, matched.layers, strict=True):
        assert (after.box, after.name, after.opacity) == (before.box, before.name, before.opacity)
    assert matched.frame == truth.frame


def test_transparent_surroundings_have_the_colours_of_the_layer(truth):
    low = match_image(predicted(truth), composite(truth)).layers[1].pixels
    hidden = low[..., 3] == 0
    assert hidden.sum() > 50 and np.abs(low[hidden][:, :3].astype(int) - (230, 40, 40)).mean() < 40


def test_bands_make_no_difference(truth, monkeypatch):
    image, guess = composite(truth), predicted(truth)
    whole = match_image(guess, image)
    monkeypatch.setattr(refinement, "BAND_PIXELS", 7 * FRAME.width * 3)
    for one, other in zip(whole.layers, match_image(guess, image).layers, strict=True):
        assert np.abs(one.pixels.astype(int) - other.pixels).max() <= 1


def blurred(pixels: np.ndarray) -> np.ndarray:
    """Straight RGBA, blurred as premultiplied: what an autoencoder does to fine outlines."""
    image = np.rint(premultiply(pixels) * 255).astype(np.uint8)
    soft = np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(2)))
    return unpremultiply(soft.astype(np.float32) / 255)


@pytest.mark.parametrize("seed", range(6))
def test_designs_with_blurred_layers_become_better(seed):
    """Any design whose layers were blurred: refined, every measure is better than before."""
    truth = generate_design(seed, DesignSettings(frame_area=96 * 96, min_layers=3, max_layers=6)).stack
    guess = replace(truth, layers=tuple(replace(layer, pixels=blurred(layer.pixels)) for layer in truth.layers))
    matched = match_image(guess, composite(truth))
    assert merged_psnr(composite(matched), composite(truth)) > merged_psnr(composite(guess), composite(truth)) + 6
    scores = [
        [metric(layer.pixels, true.pixels) for layer, true in zip(stack.layers[1:], truth.layers[1:], strict=True)]
        for metric in (alpha_soft_iou, layer_psnr)
        for stack in (guess, matched)
    ]
    iou_before, iou_after, psnr_before, psnr_after = (float(np.mean(values)) for values in scores)
    assert iou_after > iou_before and psnr_after > psnr_before


def test_colours_spread_into_transparent_surroundings():
    pixels = np.zeros((24, 24, 4), np.uint8)
    pixels[8:16, 8:16] = (200, 100, 50, 255)
    spread = spread_colors(pixels)
    assert np.array_equal(spread[..., 3], pixels[..., 3])
    assert np.abs(spread[..., :3].astype(int) - (200, 100, 50)).max() <= 1
    assert not spread_colors(np.zeros((9, 5, 4), np.uint8)).any()


def test_an_image_of_another_size_is_refused(truth):
    with pytest.raises(MRTError) as caught:
        match_image(truth, np.zeros((80, 90, 4), np.uint8))
    assert str(caught.value) == (
        "the image to match is 90 x 80 px, but the layers' frame is 96 x 80 px; scale the image to the frame"
    )
