"""Styles keep shapes and change looks; each tells itself from the natural look on real drawings."""

import numpy as np
import pytest

from mrt_core.designs.artwork import load_common_artwork
from mrt_core.designs.colors import PALETTE
from mrt_core.designs.styles import NATURAL, Style, duotone, greyscale, outline, pick_style, posterised, recoloured

STYLES = [
    Style("greyscale", greyscale),
    Style("posterised", posterised),
    Style("navy duotone", duotone(PALETTE["navy"], PALETTE["orange"])),
    Style("outline", outline),
    Style("recoloured in teal", recoloured(PALETTE["teal"])),
    Style("recoloured in pink", recoloured(PALETTE["pink"])),
]
DRAWINGS = [drawing.pixels for drawing in load_common_artwork()[::3]]
by_name = pytest.mark.parametrize("style", STYLES, ids=lambda style: style.name)


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """Mean absolute difference of the colours of two images of one shape, in levels, weighted by their alpha."""
    apart = np.abs(a[..., :3].astype(float) - b[..., :3]).mean(-1)
    return float(np.average(apart, weights=a[..., 3]))


@by_name
def test_a_style_keeps_alpha_and_can_be_told_from_the_natural_look(style):
    apart = []
    for pixels in DRAWINGS:
        styled = style.apply(pixels)
        assert styled.shape == pixels.shape and styled.dtype == np.uint8
        assert np.array_equal(styled[..., 3], pixels[..., 3])
        assert np.array_equal(style.apply(pixels), styled)
        apart.append(difference(styled, pixels))
    assert np.median(apart) > 20


def test_styles_can_be_told_from_each_other():
    looks = [[style.apply(pixels) for pixels in DRAWINGS] for style in STYLES]
    for index, first in enumerate(looks):
        for second in looks[index + 1 :]:
            assert np.median([difference(a, b) for a, b in zip(first, second, strict=True)]) > 20


def test_an_outline_is_dark_lines_on_a_flat_pale_fill():
    square = np.zeros((20, 20, 4), np.uint8)
    square[2:18, 2:18] = (200, 40, 40, 255)
    drawn = outline(square)
    assert (drawn[2:18, 2, :3] == (70, 14, 14)).all()  # the rim: 0.35 of the mean colour
    assert (drawn[4:16, 4:16, :3] == (236, 180, 180)).all()
    square[8:12, 8:12, :3] = 255
    inner = outline(square)
    assert inner[8, 8, :3].max() < 90 and inner[5, 5, :3].min() > 170  # an edge inside the shape is a line too
    assert difference(inner[9:11, 9:11], inner[5:7, 5:7]) == 0  # and what it surrounds is flat


def test_recolouring_takes_the_hue_and_keeps_the_value():
    row = np.asarray([[[255, 0, 0, 255], [0, 128, 0, 255], [255, 255, 255, 9], [0, 0, 0, 255]]], np.uint8)
    red, green, white, black = recoloured(PALETTE["teal"])(row)[0, :, :3].astype(int)
    assert tuple(red) == PALETTE["teal"]
    assert np.abs(green - np.asarray(PALETTE["teal"]) * 128 / 255).max() <= 1
    assert white.min() > 140 and white[1] - white[0] > 40  # pale teal
    assert not black.any()


def test_any_style_is_picked():
    rng = np.random.default_rng(0)
    picked = [pick_style(rng) for _ in range(300)]
    names = [style.name for style in picked]
    kinds = [name.split()[0] if "recoloured" in name else name.split()[-1] for name in names]
    for kind in ("colour", "greyscale", "posterised", "duotone", "outline", "recoloured"):
        assert 0.1 < kinds.count(kind) / 300 < 0.24
    assert len({name for name in names if "recoloured" in name}) == 9
    assert all((style is NATURAL) == (style.name == "full colour") for style in picked)
