"""Synthetic designs: determinism, bounds, captions, the held-out split, and grouping that keeps the composite."""

from dataclasses import replace

import numpy as np
import pytest

from mrt_core.designs.arrangement import MAX_HIDDEN
from mrt_core.designs.artwork import COMMON_NAMES, Artwork, is_held_out, load_artwork, load_common_artwork
from mrt_core.designs.elements import ElementMix, draw_element
from mrt_core.designs.generator import ASPECTS, Design, DesignSettings, generate_design
from mrt_core.designs.grouping import are_close, group_layers, merge_with_next
from mrt_core.designs.legibility import Ground
from mrt_core.designs.shapes import SHAPES
from mrt_core.designs.styles import NATURAL
from mrt_core.designs.words import (
    CHINESE_HELD_OUT_WORDS,
    CHINESE_TRAINING_WORDS,
    HELD_OUT_WORDS,
    latin_training_words,
)
from mrt_core.geometry import Box, frame_box, intersection
from mrt_core.stacks.layers import composite_premultiplied

AREA = 96 * 96
SEEDS = range(200)


@pytest.fixture(scope="module")
def designs() -> list[Design]:
    return [generate_design(seed, DesignSettings(frame_area=AREA)) for seed in SEEDS]


def overflows(design: Design) -> bool:
    width, height = design.stack.frame
    boxes = [region.box for region in design.layout.regions]
    return any(box.x < 0 or box.y < 0 or box.right > width or box.bottom > height for box in boxes)


def bare(name: str) -> str:
    """A layer's name without its finish and effect."""
    for words in ("semi-transparent ", "soft-edged ", " with a soft shadow", " with a glow"):
        name = name.replace(words, "")
    return name


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
    assert set(range(1, 17)) <= set(counts) <= set(range(1, 21)) and max(counts) >= 19
    assert 5.5 < np.mean(counts) < 7.5
    assert 0.1 < np.mean([count >= 12 for count in counts]) < 0.25
    assert np.mean([count <= 4 for count in counts]) > 0.35  # few layers are common


@pytest.mark.parametrize(("least", "most"), [(2, 2), (6, 10), (15, 20)])
@pytest.mark.parametrize("side", [64, 128])
def test_layers_that_are_asked_for_find_a_place(least, most, side):
    settings = DesignSettings(frame_area=side**2, min_layers=least, max_layers=most)
    counts = [len(generate_design(seed, settings).assets) for seed in range(15)]
    assert np.mean([least <= count <= most for count in counts]) > 0.9
    assert len(set(counts)) > 2 or least == most


def test_frames(designs):
    ratios = {design.stack.frame.width / design.stack.frame.height for design in designs}
    assert min(ratios) == 0.5 and max(ratios) == 2.0
    assert len(ratios) >= 5  # at this size, eleven aspects fall together on the grid of 16 px
    for design in designs:
        width, height = design.stack.frame
        assert width % 16 == 0 and height % 16 == 0
        assert 0.75 * AREA < width * height < 1.3 * AREA
        assert min(abs(width / height - a / b) / (a / b) for a, b in ASPECTS) < 0.15


def test_frames_smaller_than_a_word():
    for seed in range(40):
        design = generate_design(seed, DesignSettings(frame_area=32 * 32, overflow_share=0.0))
        assert design.assets and len(design.assets) == len(design.layout.regions)


def test_overflow_share(designs):
    share = np.mean([overflows(design) for design in designs])
    assert 0.53 < share < 0.67  # of DesignSettings.overflow_share = 0.6
    always = [generate_design(seed, DesignSettings(frame_area=AREA, overflow_share=1.0)) for seed in range(40)]
    assert np.mean([overflows(design) for design in always]) > 0.95
    never = [generate_design(seed, DesignSettings(frame_area=AREA, overflow_share=0.0)) for seed in range(40)]
    assert not any(overflows(design) for design in never)


def test_overflowing_layers_stay_visible(designs):
    for design in designs:
        width, height = design.stack.frame
        for box in (region.box for region in design.layout.regions):
            inside_x = min(box.right, width) - max(box.x, 0)
            inside_y = min(box.bottom, height) - max(box.y, 0)
            assert inside_x >= 0.55 * box.width - 1 and inside_y >= 0.55 * box.height - 1


def test_layers_overlap_but_none_hides_another(designs):
    overlapping = 0
    for design in designs:
        boxes = [region.box for region in design.layout.regions]
        for index, lower in enumerate(boxes):
            hidden = 0.0
            for upper in boxes[index + 1 :]:
                shared = intersection(lower, upper)
                if shared is not None:
                    assert shared.area <= 0.45 * min(lower.area, upper.area)
                    hidden += shared.area / lower.area
            assert hidden <= MAX_HIDDEN + 1e-9
            overlapping += hidden > 0.1
    assert overlapping > 0.2 * sum(len(design.assets) for design in designs)


def test_finishes_and_effects_occur(designs):
    names = [region.name for design in designs for region in design.layout.regions]
    for words, least, most in (
        ("semi-transparent ", 0.05, 0.12),
        ("soft-edged ", 0.025, 0.08),
        (" with a soft shadow", 0.04, 0.12),
        (" with a glow", 0.025, 0.09),
    ):
        found = [name for name in names if words in name]
        assert least < len(found) / len(names) < most
        kinds = {
            "word" if "the word" in name else "shape" if any(x in name for x in SHAPES) else "art" for name in found
        }
        assert kinds == {"word", "shape", "art"}
    assert 0.06 < np.mean(["semi-transparent" in d.layout.background_region.caption for d in designs]) < 0.2


def test_finishes_are_what_captions_say(designs):
    for design in designs:
        for layer in design.stack.layers[1:]:
            alpha = layer.pixels[..., 3]
            if "semi-transparent" in layer.name:
                assert 0.4 * 255 - 1 <= alpha.max() <= 0.75 * 255 + 1
            else:
                assert alpha.max() > (100 if "soft-edged" in layer.name else 200)
            if any(
                words in layer.name for words in ("soft-edged", "soft shadow", "with a glow")
            ):  # nothing is cut off at the box
                sides = alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]
                assert max(side.mean() for side in sides) < 8  # but a thin tip may stick out of its faint shadow


def test_captions_name_every_layer(designs):
    for design in designs:
        background = design.layout.background_region.caption
        for caption in (design.short_caption, design.layout.caption):
            assert all(region.caption in caption for region in design.layout.regions)
            assert f" on {background}" in caption
            assert caption.endswith(background if design.style == "full colour" else f"{background}, {design.style}")
        positions = design.layout.caption.count(" at the ") - design.short_caption.count(" at the ")
        assert positions == len(design.layout.regions)
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
    assert not {word.lower() for word in latin_training_words()} & set(HELD_OUT_WORDS)
    assert not set(CHINESE_TRAINING_WORDS) & set(CHINESE_HELD_OUT_WORDS)
    assert (len(set(CHINESE_TRAINING_WORDS)), len(set(CHINESE_HELD_OUT_WORDS))) == (40, 8)


@pytest.mark.parametrize("held_out", [False, True])
def test_designs_draw_from_their_own_split(held_out):
    other_names = {drawing.name for drawing in load_artwork(not held_out)}
    training = [word.lower() for word in latin_training_words()] + CHINESE_TRAINING_WORDS
    evaluation = HELD_OUT_WORDS + CHINESE_HELD_OUT_WORDS
    own_words, other_words = (evaluation, training) if held_out else (training, evaluation)
    own_names = {drawing.name for drawing in load_artwork(held_out)}
    names = []
    for seed in range(40):
        design = generate_design(seed, DesignSettings(frame_area=AREA, held_out=held_out))
        names += [bare(region.name) for region in design.layout.regions]
    words = {name.split('"')[1].lower() for name in names if name.startswith("the word")}
    drawings = {name for name in names if not name.startswith("the word") and not name.endswith(SHAPES)}
    assert drawings and drawings <= own_names and not drawings & other_names
    assert words and words <= set(own_words) and not words & set(other_words)
    assert any(not word.isascii() for word in words) and any(word.isascii() for word in words)


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
    rng, ground = np.random.default_rng(0), Ground(((128, 0, 128),), NATURAL)
    shares = []
    for common in (0.6, 0.0):
        drawn = [draw_element(rng, 24, ground, mix=mix._replace(common=common)).caption for _ in range(300)]
        shares.append(np.mean([bare(caption) in names for caption in drawn]))
    often, rarely = shares
    assert often == pytest.approx(0.6 + 0.4 * rarely, abs=0.08) and rarely < 0.12
