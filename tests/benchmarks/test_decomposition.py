"""Taking pictures apart: scores worked out by hand, the second generator, the peer without a model, and the table."""

from functools import partial

import numpy as np
import pytest
from decomposing import grabcut
from decomposing.drawings import DRAWINGS
from decomposing.elements import SHARES
from decomposing.other_designs import FEWEST, MOST, MOST_HIDDEN, other_design, place
from decomposing.scores import (
    ALL,
    HIDDEN,
    VISIBLE,
    Estimate,
    differences,
    figures,
    let_through,
    pooled,
    score,
    table_order,
)
from decomposition import Cached, jittered, kind_of, matched_layers, opaque_crops, table

from mrt_core.evaluation import metrics
from mrt_core.evaluation.held_out import held_out_design
from mrt_core.geometry import Box, Size
from mrt_core.layouts.layout import Layout, Region
from mrt_core.stacks.layers import Layer, LayerStack, composite

FRAME = Size(16, 8)
AREA = 128 * 128


def flat(width, height, color, alpha=255):
    return np.full((height, width, 4), (*color, alpha), np.uint8)


def two_layers(lower, upper):
    """White ground; two layers of 8 x 8 px: the lower one in the left half, the upper one 4 px farther right."""
    base = Layer(flat(*FRAME, (255, 255, 255)), 0, 0, "Background")
    return LayerStack(FRAME, (base, Layer(lower, 0, 0, "lower"), Layer(upper, 4, 0, "upper")))


TRUTH = two_layers(flat(8, 8, (255, 0, 0)), flat(8, 8, (0, 0, 255), 204))  # the upper one lets a fifth through


# Scores


def test_what_is_let_through():
    ground, lower, upper = let_through(TRUTH)
    assert np.allclose(upper, 1)
    assert np.allclose(lower[:, :4], 1) and np.allclose(lower[:, 4:12], 0.2) and np.allclose(lower[:, 12:], 1)
    assert np.allclose(ground[:, :4], 0) and np.allclose(ground[:, 8:12], 0.2) and np.allclose(ground[:, 12:], 1)


def test_parts_by_hand():
    """The prediction shows the lower layer's left half alone: all that is seen in full, nothing of what lies under."""
    half = flat(8, 8, (255, 0, 0))
    half[:, 4:] = 0
    found = score(two_layers(half, TRUTH.layers[2].pixels), TRUTH, ["shape", "word"])
    lower, upper = found.layers
    assert lower.parts[ALL].soft_iou == pytest.approx(32 / 64)
    assert lower.parts[VISIBLE].soft_iou == pytest.approx(32 / (32 + 0.2 * 32))
    assert lower.parts[HIDDEN].soft_iou == 0 and lower.parts[HIDDEN].maxima == pytest.approx(0.8 * 32)
    # A missing red pixel is wrong by 1 in two of its four channels.
    assert lower.parts[ALL].psnr == pytest.approx(-10 * np.log10(0.5 * 0.5))
    assert lower.parts[VISIBLE].psnr == pytest.approx(-10 * np.log10(0.5 * 0.2 * 32 / (32 + 0.2 * 32)))
    assert lower.parts[HIDDEN].psnr == pytest.approx(-10 * np.log10(0.5))
    assert [lower.parts[part].counts for part in (ALL, VISIBLE, HIDDEN)] == [True] * 3
    assert [upper.parts[part].counts for part in (ALL, VISIBLE, HIDDEN)] == [True, True, False]
    assert upper.parts[ALL].psnr == metrics.MAX_PSNR and upper.parts[VISIBLE].soft_iou == 1
    assert found.background == found.background_hidden == metrics.MAX_PSNR


def test_whole_layers_have_the_known_metrics():
    """Past the frame too, and the same numbers as `mrt_core.evaluation.metrics` gives."""
    rng = np.random.default_rng(0)
    truth, guess = (rng.integers(0, 256, (9, 11, 4)).astype(np.uint8) for _ in range(2))
    truth[:3] = 0
    base = TRUTH.layers[0]
    stacks = [LayerStack(FRAME, (base, Layer(pixels, -4, 2, "x"))) for pixels in (guess, truth)]
    part = score(*stacks, ["drawing"]).layers[0].parts[ALL]
    assert part.psnr == pytest.approx(metrics.layer_psnr(guess, truth), abs=1e-3)
    assert part.soft_iou == pytest.approx(metrics.alpha_soft_iou(guess, truth), abs=1e-5)


def test_only_layers_that_are_covered_and_cover_lie_between():
    layers = [Layer(flat(6, 8, (9, 9, 9)), x, 0, "x") for x in (0, 4, 8)]
    stack = LayerStack(FRAME, (TRUTH.layers[0], *layers))
    found = score(stack, stack, ["drawing"] * 3)
    assert [layer.between for layer in found.layers] == [False, True, False]
    assert figures(found)["layer PSNR, drawings between layers"] == metrics.MAX_PSNR


def test_pooled_layers_count_by_their_size():
    small, large = flat(2, 2, (255, 0, 0)), flat(8, 8, (0, 0, 255))
    truth, guess = two_layers(small, large), two_layers(0 * small, large)
    found = score(guess, truth, ["shape", "shape"])
    assert figures(found)["soft IoU"] == 0.5
    assert figures(found)["soft IoU pooled"] == pooled([found, found])["soft IoU pooled"] == pytest.approx(64 / 68)


def test_paired_differences_by_hand():
    a, b = {0: {"x": 3.0}, 1: {"x": 5.0}, 2: {"y": 1.0}}, {0: {"x": 2.0}, 1: {"x": 2.0}, 3: {"x": 0.0}}
    assert differences(a, b) == {"x": Estimate(2.0, pytest.approx(1.0), 2)}


def test_order_of_a_table():
    names = [
        "merged PSNR",
        "soft IoU, hidden",
        "layer PSNR, words",
        "soft IoU",
        "layer PSNR, hidden, words",
        "layer PSNR",
    ]
    assert table_order(names) == [
        "layer PSNR", "layer PSNR, words", "layer PSNR, hidden, words", "soft IoU", "soft IoU, hidden", "merged PSNR",
    ]  # fmt: skip


# The second generator


@pytest.mark.parametrize("index", range(6))
def test_other_designs(index):
    design, again = other_design(index, AREA), other_design(index, AREA)
    frame = design.stack.frame
    assert design.layout == again.layout and design.kinds == again.kinds
    assert np.array_equal(composite(design.stack), composite(again.stack))
    assert 1 <= len(design.kinds) == len(design.layout.regions) == len(design.stack.layers) - 1 <= MOST
    assert set(design.kinds) <= SHARES.keys()
    ground = design.stack.layers[0].pixels
    assert ground.shape[:2] == (frame.height, frame.width) and (ground[..., 3] == 255).all()
    for layer, region in zip(design.stack.layers[1:], design.layout.regions, strict=True):
        assert layer.box == region.box and region.caption == f"a {layer.caption}"
        alpha = layer.pixels[..., 3]
        assert all(alpha[edge].any() for edge in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1]))  # exact boxes
        x, y = layer.x + layer.box.width / 2, layer.y + layer.box.height / 2
        assert 0 <= x <= frame.width and 0 <= y <= frame.height
    assert not np.array_equal(composite(design.stack), composite(other_design(index, AREA, seed=1).stack))


def test_other_designs_are_varied():
    designs = [other_design(index, 64 * 64) for index in range(60)]
    assert {kind for design in designs for kind in design.kinds} == SHARES.keys()
    assert {len(design.kinds) for design in designs} >= set(range(FEWEST, MOST + 1))
    layers = [layer for design in designs for layer in design.stack.layers[1:]]
    past = [x for x in layers if x.x < 0 or x.y < 0]
    assert 0.02 < len(past) / len(layers) < 0.3
    assert len(DRAWINGS) >= 15
    drawn = {name for layer in layers for name in DRAWINGS if name in layer.caption}
    assert len(drawn) >= 15


def test_no_layer_is_hidden_too_far():
    rng, boxes = np.random.default_rng(3), [Box(10, 10, 20, 20)]
    for _ in range(40):
        box = place(rng, Size(48, 48), (20, 20), boxes)
        across, down = (20 - abs(a - b) for a, b in ((box.x, 10), (box.y, 10)))
        assert max(across, 0) * max(down, 0) <= MOST_HIDDEN * 400
    assert place(rng, Size(20, 20), (20, 20), [Box(0, 0, 20, 20)] * 2) is None


# The peer


def red_square():
    base = Layer(flat(64, 48, (255, 255, 255)), 0, 0, "Background")
    truth = LayerStack(
        Size(64, 48), (base, Layer(np.pad(flat(16, 16, (220, 20, 20)), ((4, 4), (4, 4), (0, 0))), 20, 12, "square"))
    )
    return truth, Layout(truth.frame, (Region("square", Box(20, 12, 24, 24)),))


def test_grabcut_takes_a_red_square_off_white():
    truth, layout = red_square()
    found = grabcut.take_apart(composite(truth), layout)
    assert [layer.box for layer in found.layers] == [Box(0, 0, 64, 48), Box(20, 12, 24, 24)]
    scores = figures(score(found, truth, ["shape"]))
    assert scores["soft IoU"] > 0.92 and scores["layer PSNR"] > 20 and scores["background PSNR"] > 30
    inside = found.layers[1].pixels[6:18, 6:18]
    assert (inside == (220, 20, 20, 255)).all()
    again = grabcut.take_apart(composite(truth), layout)
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(found.layers, again.layers, strict=True))


def test_grabcut_looks_for_lower_layers_where_upper_ones_were():
    truth, layout = red_square()
    cover = Region("cover", Box(30, 20, 8, 8))
    stack = LayerStack(truth.frame, (*truth.layers, Layer(flat(8, 8, (20, 20, 220)), 30, 20, "cover")))
    found = grabcut.take_apart(composite(stack), Layout(truth.frame, (*layout.regions, cover)))
    hidden = found.layers[1].pixels[10:14, 12:16]
    assert (hidden[..., 3] == 255).all() and np.abs(hidden[..., :3].astype(int) - (220, 20, 20)).max() < 30


@pytest.mark.parametrize(
    ("box", "whole"),
    [(Box(0, 0, 32, 32), 32 * 32), (Box(-4, -4, 40, 40), 32 * 32), (Box(5, 5, 3, 20), 60), (Box(40, 0, 9, 9), 0)],
    ids=["the frame", "more than the frame", "tiny", "outside"],
)
def test_boxes_without_surroundings_are_taken_whole(box, whole):
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 4)).astype(np.uint8)
    assert (grabcut.found_alpha(picture, box) == 255).sum() == whole


def test_nothing_around_leaves_the_picture():
    picture = flat(4, 4, (1, 2, 3))
    assert np.array_equal(grabcut.inpainted(picture, np.ones((4, 4), bool)), picture)
    filled = grabcut.inpainted(flat(8, 8, (40, 90, 200), 128), np.eye(8) > 0)
    assert np.abs(filled.astype(int) - (40, 90, 200, 128)).max() <= 3


# The benchmark


def test_jitter_moves_every_edge_a_little():
    layout = other_design(4, AREA).layout
    moved = jittered(layout, 0.04, np.random.default_rng(0))
    assert moved == jittered(layout, 0.04, np.random.default_rng(0)) != layout
    for a, b in zip(layout.regions, moved.regions, strict=True):
        assert abs(a.box.x - b.box.x) <= 0.04 * layout.frame.width + 0.5
        assert abs(a.box.bottom - b.box.bottom) <= 0.04 * layout.frame.height + 0.5
    assert jittered(layout, 0.0, np.random.default_rng(0)) == layout


def test_kinds_of_held_out_layers():
    captions = ['word "x"', 'the word "jazz" in red', "semi-transparent red circle", "blue star with a glow", "hammer"]
    assert [kind_of(caption) for caption in captions] == ["drawing", "word", "shape", "shape", "drawing"]


def test_a_table_of_methods(tmp_path):
    design = held_out_design(2, 64 * 64)
    image, kinds = composite(design.stack), [kind_of(region.name) for region in design.layout.regions]
    kept = Cached(opaque_crops, tmp_path, "crops")
    first, again = kept(image, design.layout, 7), kept(image, design.layout, 7)
    for a, b in zip(first.layers, again.layers, strict=True):
        assert np.array_equal(a.pixels, b.pixels) and (a.box, a.name) == (b.box, b.name)
    truth = partial(matched_layers, opaque_crops, lambda stack, image: design.stack)
    results = {
        "right": {2: [score(truth(image, design.layout, 0), design.stack, kinds)]},
        "crops": {2: [score(again, design.stack, kinds)]},
    }
    lines = table(results, ["crops"]).splitlines()
    assert lines[0] == "| | designs | right | crops | right - crops |"
    assert lines[2].startswith("| layer PSNR | 1 | 60.00 | ")
    brief = table(results, ["crops"], brief=True).splitlines()
    kinds_left_out = [line.split(" | ")[0] for line in lines if line not in brief]
    assert set(brief) < set(lines) and "| layer PSNR, drawings" in kinds_left_out
    assert all(name.endswith(("words", "drawings", "shapes", "between layers")) for name in kinds_left_out)
    soft_iou = next(line for line in lines if line.startswith("| soft IoU |"))
    assert soft_iou.split(" | ")[2] == "1.000" and soft_iou.split(" | ")[4].startswith("+0.")
