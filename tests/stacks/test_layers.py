"""Layers, groups, compositing and blend modes."""

from dataclasses import replace

import numpy as np
import pytest
from psd_tools.composite import blend as photoshop
from psd_tools.constants import BlendMode

from mrt_core.errors import MRTError
from mrt_core.geometry import Box, Size
from mrt_core.stacks.blending import BLEND_FUNCTIONS, blend
from mrt_core.stacks.layers import (
    BLEND_MODES,
    Group,
    Layer,
    LayerStack,
    composite,
    composite_planes,
    composite_premultiplied,
    crop_to_content,
    over,
    paste,
    premultiply,
    unpremultiply,
)


def noise(height: int, width: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 4), dtype=np.uint8)


def solid(color: tuple[int, int, int, int], height: int = 2, width: int = 2) -> np.ndarray:
    return np.full((height, width, 4), color, np.uint8)


def stack_of(*layers: Layer | Group, size: tuple[int, int] = (2, 2)) -> LayerStack:
    return LayerStack(Size(*size), layers)


def test_over_in_gamma_space():
    stack = stack_of(Layer(solid((48, 96, 160, 255)), 0, 0, "blue"), Layer(solid((208, 64, 32, 128)), 0, 0, "red"))
    assert composite(stack)[0, 0].tolist() == [128, 80, 96, 255]


def test_premultiply_and_back_is_exact_where_alpha_is_not_zero():
    pixels = noise(64, 64, 0)
    back = unpremultiply(premultiply(pixels))
    shown = pixels[..., 3] > 0
    assert np.array_equal(back[shown], pixels[shown])
    assert not back[~shown].any()


def test_over_is_associative():
    a, b, c = (premultiply(noise(8, 8, seed)) for seed in range(3))
    assert np.allclose(over(over(a, b), c), over(a, over(b, c)), atol=1e-6)


@pytest.mark.parametrize(("x", "y"), [(0, 0), (-3, 2), (5, -4), (7, 7), (-9, 0), (0, 30)])
def test_paste_places_and_clips(x, y):
    layer = Layer(noise(6, 9, 1), x, y, "a", opacity=0.25)
    area = Box(-2, -1, 12, 11)
    expected = np.zeros((60, 60, 4), np.float32)
    expected[20 + y : 26 + y, 20 + x : 29 + x] = premultiply(layer.pixels) * 0.25
    assert np.allclose(paste(layer, area), expected[19:30, 18:30], atol=1e-6)


def test_bands_of_the_composite_are_the_composite():
    stack = stack_of(
        Layer(noise(20, 20, 0), 0, 0, "a"),
        Group((Layer(noise(15, 9, 1), -2, 8, "b", blend_mode="overlay"),), "g", opacity=0.5, blend_mode="screen"),
        size=(20, 20),
    )
    whole = composite_premultiplied(stack)
    bands = [np.moveaxis(composite_planes(stack, Box(0, top, 20, 7)), 0, -1) for top in (0, 7, 14)]
    assert np.array_equal(np.concatenate(bands)[:20], whole)


def test_hidden_and_clear_layers_change_nothing():
    base = Layer(noise(4, 4, 0), 0, 0, "base")
    others = [
        Layer(noise(4, 4, 1), 0, 0, "hidden", visible=False),
        Layer(noise(4, 4, 2), 0, 0, "clear", opacity=0.0),
        Layer(solid((9, 9, 9, 0), 4, 4), 0, 0, "empty", blend_mode="multiply"),
        Group((Layer(noise(4, 4, 3), 0, 0, "inside"),), "hidden group", visible=False),
    ]
    assert np.array_equal(composite(stack_of(base, *others, size=(4, 4))), composite(stack_of(base, size=(4, 4))))


def test_pass_through_group_is_as_if_it_were_not_there():
    base, top = Layer(noise(4, 4, 0), 0, 0, "a"), Layer(noise(4, 4, 1), 0, 0, "b", blend_mode="multiply")
    grouped = stack_of(base, Group((top,), "g"), size=(4, 4))
    assert np.array_equal(composite(grouped), composite(stack_of(base, top, size=(4, 4))))


def test_isolated_group_keeps_its_modes_to_itself():
    base = Layer(solid((100, 100, 100, 255)), 0, 0, "base")
    inside = Layer(solid((50, 50, 50, 255)), 0, 0, "inside", blend_mode="multiply")
    grouped = composite(stack_of(base, Group((inside,), "g", blend_mode="normal")))
    assert grouped[0, 0].tolist() == [50, 50, 50, 255]  # multiplied with nothing, then laid over the base
    assert composite(stack_of(base, Group((inside,), "g")))[0, 0].tolist() == [20, 20, 20, 255]


def test_group_opacity_fades_the_group_as_a_whole():
    base = Layer(solid((0, 0, 0, 255)), 0, 0, "base")
    inside = tuple(Layer(solid((200, 200, 200, 255)), 0, 0, str(i)) for i in range(3))
    for mode in ("normal", "pass-through"):
        assert composite(stack_of(base, Group(inside, "g", opacity=0.5, blend_mode=mode)))[0, 0].tolist() == [
            100,
            100,
            100,
            255,
        ]


def test_flat_hands_the_groups_attributes_down():
    leaf = Layer(noise(2, 2, 0), 0, 0, "leaf", opacity=0.5)
    hidden = Layer(noise(2, 2, 0), 0, 0, "hidden", visible=False)
    stack = stack_of(
        leaf, Group((Group((leaf, hidden), "inner", opacity=0.5), leaf), "outer", opacity=0.5, visible=False)
    )
    assert [(layer.name, layer.opacity, layer.visible) for layer in stack.flat()] == [
        ("leaf", 0.5, True),
        ("leaf", 0.125, False),
        ("hidden", 0.25, False),
        ("leaf", 0.25, False),
    ]


def test_crop_to_content():
    pixels = np.zeros((9, 11, 4), np.uint8)
    pixels[2:5, 3:10] = 7
    layer = Layer(pixels, -4, 6, "a", "caption", 0.5, "screen", False)
    cropped = crop_to_content(layer)
    assert (cropped.box, cropped.caption, cropped.opacity, cropped.blend_mode, cropped.visible) == (
        Box(-1, 8, 7, 3), "caption", 0.5, "screen", False,
    )  # fmt: skip
    assert crop_to_content(replace(layer, pixels=pixels * 0)) is None


@pytest.mark.parametrize("mode", [m.name for m in BlendMode if m is not BlendMode.PASS_THROUGH])
def test_blend_modes_agree_with_psd_tools(mode):
    levels = np.array([0, 1, 40, 63, 64, 100, 127, 128, 200, 254, 255], np.float32) / 255
    rng = np.random.default_rng(0)
    backdrop, source = (rng.choice(levels, (3, 40, 50)).astype(np.float32) for _ in range(2))
    expected = photoshop.BLEND_FUNC[BlendMode[mode]](np.moveaxis(backdrop, 0, -1), np.moveaxis(source, 0, -1))
    ours = blend(mode.lower().replace("_", "-"), backdrop, source)
    wrong = np.abs(np.moveaxis(ours, 0, -1) - expected.clip(0, 1)) > 1 / 255
    assert wrong.mean() == 0


def test_modes_that_psd_lacks():
    backdrop, source = np.full((3, 1, 1), 0.6, np.float32), np.full((3, 1, 1), 0.2, np.float32)
    assert blend("grain-extract", backdrop, source).ravel() == pytest.approx([0.9] * 3)
    assert blend("grain-merge", backdrop, source).ravel() == pytest.approx([0.3] * 3)


@pytest.mark.parametrize("mode", BLEND_MODES)
def test_every_mode_stays_in_range_and_leaves_the_uncovered_backdrop(mode):
    levels = np.linspace(0, 255, 16).astype(np.uint8)
    r, g, b = np.meshgrid(levels, levels, levels, indexing="ij")
    pixels = np.stack([r, g, b, np.full_like(r, 255)], -1).reshape(64, 64, 4)
    bottom = Layer(pixels, 0, 0, "bottom")
    top = Layer(pixels[::-1, ::-1].copy(), 32, 0, "top", blend_mode=mode)
    image = composite_premultiplied(LayerStack(Size(64, 64), (bottom, top)))
    assert np.isfinite(image).all() and image.min() >= 0 and image.max() <= 1 + 1e-6
    assert np.allclose(image[:, :32], premultiply(pixels)[:, :32], atol=1e-6)
    assert (image[..., 3] > 1 - 1e-6).all()


def test_a_mode_on_an_empty_backdrop_shows_the_layer_itself():
    pixels = noise(8, 8, 4)
    for mode in BLEND_FUNCTIONS:
        image = composite_premultiplied(stack_of(Layer(pixels, 0, 0, "a", blend_mode=mode), size=(8, 8)))
        assert np.allclose(image, premultiply(pixels), atol=1e-6)


def test_unknown_mode_is_named():
    with pytest.raises(MRTError, match='Layer "a" has the blend mode "glow", which is not known; use one of: normal'):
        composite(stack_of(Layer(solid((1, 2, 3, 4)), 0, 0, "a", blend_mode="glow")))
