"""Synthetic designs: determinism, bounds, captions, the held-out split, and grouping that keeps the composite."""

from dataclasses import replace

import numpy as np
import pytest

from mrt_core.designs.artwork import COMMON_NAMES, Artwork, is_held_out, load_artwork, load_common_artwork
from mrt_core.designs.elements import HELD_OUT_WORDS, SHAPES, TRAINING_WORDS, ElementMix, draw_element
from mrt_core.designs.generator import ASPECTS, Design, DesignSettings, generate_design
from mrt_core.designs.grouping import are_close, group_layers, merge_with_next
from mrt_core.geometry import Box, frame_box
from mrt_core.layers import composite_premultiplied

AREA = 96 * 96
SEEDS = range(120)


@pytest.fixture(scope="module")
def designs() -> list[Design]:
    return [generate_design(seed, DesignSettings(frame_area=AREA)) for seed in SEEDS]


def overflows(design: Design) -> bool:
    width, height = design.stack.frame
    boxes = [region.box for region in design.layout.regions]
    return any(box.x < 0 or box.y < 0 or box.right > width or box.bottom > height for box in boxes)


def contents(design: Design) -> list:
    """Everything that makes up a design, in a form that compares."""
    layers = [(x.name, x.caption, x.box, x.pixels.tobytes()) for x in design.stack.layers]
    assets = [asset.tobytes() for asset in design.assets]
    return [design.layout, design.short_caption, design.style, design.asset_style, layers, assets]


# Designs


@pytest.mark.parametrize("seed", [0, 17, (1, 5), 2**61])
@pytest.mark.parametrize("held_out", [False, True])
def test_a_seed_determines_the_design(seed, held_out):
    settings = DesignSettings(frame_area=AREA, held_out=held_out)
    state = np.random.get_state()[1].copy()
    first, second = generate_design(seed, settings), generate_design(seed, settings)
    assert contents(first) == contents(second)
    assert np.array_equal(state, np.random.get_state()[1])  # the global generator is not used


def test_seeds_differ(designs):
    assert len({design.stack.layers[0].pixels.tobytes() for design in designs}) > 0.9 * len(designs)
    assert contents(generate_design((1, 0))) != contents(generate_design((0, 1)))


def test_layers_layout_and_assets_belong_together(designs):
    for design in designs:
        background, *layers = design.stack.layers
        assert background.box == frame_box(design.stack.frame) == design.layout.background_region.box
        assert design.layout.frame == design.stack.frame
        assert [layer.box for layer in layers] == [region.box for region in design.layout.regions]
        assert [layer.name for layer in layers] == [region.name for region in design.layout.regions]
        for layer, asset in zip(layers, design.assets, strict=True):
            assert layer.pixels.dtype == asset.dtype == np.uint8
            assert layer.pixels.shape == asset.shape
            assert np.array_equal(layer.pixels[..., 3], asset[..., 3])  # a style changes colours alone
            alpha = layer.pixels[..., 3]
            assert alpha[0].any() and alpha[-1].any() and alpha[:, 0].any() and alpha[:, -1].any()  # cropped to content
        assert design.style != design.asset_style


def test_layer_counts(designs):
    counts = [len(design.assets) for design in designs]
    assert min(counts) == 1
    assert 8 <= max(counts) <= 12
    assert 3 < np.mean(counts) < 6
    few = [generate_design(seed, DesignSettings(frame_area=AREA, min_layers=2, max_layers=2)) for seed in range(12)]
    assert {len(design.assets) for design in few} <= {1, 2}  # one that finds no place is left out


def test_frames(designs):
    ratios = {design.stack.frame.width / design.stack.frame.height for design in designs}
    assert len(ratios) == 5  # at this size, eleven aspects are five on the grid of 16 px
    for design in designs:
        width, height = design.stack.frame
        assert width % 16 == 0 and height % 16 == 0
        assert 0.6 * AREA < width * height < 1.5 * AREA
        assert min(abs(width / height - a / b) / (a / b) for a, b in ASPECTS) < 0.25


def test_frames_smaller_than_a_word():
    for seed in range(40):
        design = generate_design(seed, DesignSettings(frame_area=32 * 32, overflow_share=0.0))
        assert design.assets and len(design.assets) == len(design.layout.regions)


def test_overflow_share(designs):
    share = np.mean([overflows(design) for design in designs])
    assert 0.15 < share < 0.45  # 40 % of designs may overflow, and then half of their layers
    always = [generate_design(seed, DesignSettings(frame_area=AREA, overflow_share=1.0)) for seed in range(40)]
    assert np.mean([overflows(design) for design in always]) > 0.6
    never = [generate_design(seed, DesignSettings(frame_area=AREA, overflow_share=0.0)) for seed in range(40)]
    assert not any(overflows(design) for design in never)


def test_overflowing_layers_stay_visible(designs):
    for design in designs:
        width, height = design.stack.frame
        for box in (region.box for region in design.layout.regions):
            inside_x = min(box.right, width) - max(box.x, 0)
            inside_y = min(box.bottom, height) - max(box.y, 0)
            assert inside_x >= 0.55 * box.width - 1 and inside_y >= 0.55 * box.height - 1


def test_no_layer_hides_another(designs):
    for design in designs:
        boxes = [region.box for region in design.layout.regions]
        for index, lower in enumerate(boxes):
            for upper in boxes[index + 1 :]:
                shared_x = min(lower.right, upper.right) - max(lower.x, upper.x)
                shared_y = min(lower.bottom, upper.bottom) - max(lower.y, upper.y)
                if shared_x > 0 and shared_y > 0:
                    assert shared_x * shared_y <= 0.35 * min(lower.area, upper.area)


def test_captions_name_every_layer(designs):
    for design in designs:
        background = design.layout.background_region.caption
        for caption in (design.short_caption, design.layout.caption):
            assert all(region.caption in caption for region in design.layout.regions)
            assert f" on {background}" in caption
            assert caption.endswith(background if design.style == "full colour" else f"{background}, {design.style}")
        assert " at the " in design.layout.caption and " at the " not in design.short_caption
        for region in design.layout.regions:
            assert region.caption.split()[0] in ("a", "an", "the")
            assert region.caption.endswith(region.name)


def test_positions_in_captions():
    settings = DesignSettings(frame_area=AREA, min_layers=1, max_layers=1)
    for design in (generate_design(seed, settings) for seed in range(20)):
        (region,) = design.layout.regions
        width, height = design.stack.frame
        x, y = (region.box.x + region.box.width / 2) / width, (region.box.y + region.box.height / 2) / height
        row = "top" if y < 1 / 3 else "bottom" if y >= 2 / 3 else "middle"
        col = "left" if x < 1 / 3 else "right" if x >= 2 / 3 else "center"
        place = "center" if (row, col) == ("middle", "center") else f"{row} {col}"
        assert design.layout.caption.startswith(f"{region.caption} at the {place} on ")


# The held-out split


def test_artwork_is_split_by_name():
    training, held_out = load_artwork(False), load_artwork(True)
    training_names, held_out_names = ({drawing.name for drawing in split} for split in (training, held_out))
    assert not training_names & held_out_names
    assert all(is_held_out(name) for name in held_out_names)
    assert not any(is_held_out(name) for name in training_names)
    assert 0.07 < len(held_out) / (len(training) + len(held_out)) < 0.13


def test_no_drawing_stands_in_both_splits():
    def images(split: tuple[Artwork, ...]) -> set[bytes]:
        return {drawing.pixels.tobytes() for drawing in split}

    assert not images(load_artwork(False)) & images(load_artwork(True))


def test_words_are_disjoint():
    assert not set(TRAINING_WORDS) & set(HELD_OUT_WORDS)


@pytest.mark.parametrize("held_out", [False, True])
def test_designs_draw_from_their_own_split(held_out):
    other_names = {drawing.name for drawing in load_artwork(not held_out)}
    other_words = {word.lower() for word in (TRAINING_WORDS if held_out else HELD_OUT_WORDS)}
    own_names = {drawing.name for drawing in load_artwork(held_out)}
    names = []
    for seed in range(30):
        design = generate_design(seed, DesignSettings(frame_area=AREA, held_out=held_out))
        names += [region.name for region in design.layout.regions if not region.name.endswith(SHAPES)]
    assert not other_names & set(names)
    assert own_names & set(names)
    words = {name.split('"')[1].lower() for name in names if name.startswith("the word")}
    assert words and not words & other_words


# Grouping


def levels_apart(a: Design, b: Design) -> float:
    """Greatest difference of the two composites over the canvas, in levels of 255, premultiplied."""
    area = a.layout.canvas
    return float(np.abs(composite_premultiplied(a.stack, area) - composite_premultiplied(b.stack, area)).max() * 255)


def test_grouping_keeps_the_composite(designs):
    grouped = [(design, group_layers(design, np.random.default_rng(0))) for design in designs]
    assert max(levels_apart(*pair) for pair in grouped) <= 2
    assert max(levels_apart(with_assets(before), with_assets(after)) for before, after in grouped) <= 2
    assert sum(len(after.assets) < len(before.assets) for before, after in grouped) > 40
    for before, after in grouped:
        merged = len(before.assets) - len(after.assets)
        assert 0 <= merged <= -(-len(before.assets) // 3)
        assert [layer.box for layer in after.stack.layers[1:]] == [region.box for region in after.layout.regions]
        assert after.layout.canvas == before.layout.canvas
        assert (after.short_caption, after.layout.caption) == (before.short_caption, before.layout.caption)
        shapes = [
            (asset.shape, layer.pixels.shape) for asset, layer in zip(after.assets, after.stack.layers[1:], strict=True)
        ]
        assert all(asset == layer for asset, layer in shapes)


def with_assets(design: Design) -> Design:
    """The design with its layers in the other style."""
    layers = [replace(layer, pixels=asset) for layer, asset in zip(design.stack.layers[1:], design.assets, strict=True)]
    return replace(design, stack=replace(design.stack, layers=(design.stack.layers[0], *layers)))


def test_merged_layers(designs):
    design = next(design for design in designs if len(design.assets) >= 3)
    merged = merge_with_next(design, 1)
    low, high = design.layout.regions[1:3]
    region = merged.layout.regions[1]
    assert region.name == f"{low.name} and {high.name}" == merged.stack.layers[2].name
    assert region.caption == f"{low.caption} and {high.caption}"
    assert region.box == Box(
        min(low.box.x, high.box.x),
        min(low.box.y, high.box.y),
        max(low.box.right, high.box.right) - min(low.box.x, high.box.x),
        max(low.box.bottom, high.box.bottom) - min(low.box.y, high.box.y),
    )
    assert merged.layout.regions[0] == design.layout.regions[0]
    assert merged.layout.regions[2:] == design.layout.regions[3:]


@pytest.mark.parametrize(
    ("other", "close"),
    [
        (Box(5, 5, 10, 10), True),
        (Box(42, 0, 10, 10), True),  # 32 px apart
        (Box(43, 0, 10, 10), False),
        (Box(0, -42, 10, 10), True),
        (Box(0, -43, 10, 10), False),
        (Box(43, 43, 10, 10), False),
    ],
)
def test_closeness(other, close):
    box = Box(0, 0, 10, 10)
    assert are_close(box, other) is close
    assert are_close(other, box) is close


def test_common_drawings_come_more_often():
    """A share of the drawings is taken from the common ones; without it they are as rare as all others."""
    mix = ElementMix(artwork=1.0, shape=0.0, word=0.0, common=0.6)
    names = {drawing.name for drawing in load_common_artwork()}
    assert len(names) == len(COMMON_NAMES) and not any(is_held_out(name) for name in names)
    rng = np.random.default_rng(0)
    often = np.mean([draw_element(rng, 24, mix=mix).caption in names for _ in range(300)])
    rarely = np.mean([draw_element(rng, 24, mix=mix._replace(common=0.0)).caption in names for _ in range(300)])
    assert often == pytest.approx(0.6 + 0.4 * rarely, abs=0.08) and rarely < 0.12
