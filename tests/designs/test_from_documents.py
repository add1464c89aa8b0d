"""Designs from documents: what our own writer saved comes back, and what users' documents lack is made up or said."""

import logging
from dataclasses import replace

import numpy as np
import pytest

from mrt_core.designs.from_documents import (
    MAX_LAYERS,
    TRANSPARENT,
    caption_from_name,
    design_from_stack,
    read_designs,
    training_frame,
)
from mrt_core.designs.generator import DesignSettings, generate_design
from mrt_core.documents import save
from mrt_core.errors import MRTError
from mrt_core.evaluation.metrics import merged_psnr
from mrt_core.geometry import Size
from mrt_core.stacks.layers import Group, Layer, LayerStack, composite
from mrt_core.tasks.scaling import resize

AREA = 64 * 64
SETTINGS = DesignSettings(frame_area=AREA, max_layers=5, overflow_share=0.5)


def flat(color, width, height, alpha=255):
    return np.full((height, width, 4), (*color, alpha), np.uint8)


def small_stack(*layers, width=64, height=64, **changes):
    return LayerStack(Size(width, height), layers, **changes)


SKY = Layer(flat((90, 160, 230), 64, 64), 0, 0, "Background")
SUN = Layer(flat((250, 210, 70), 20, 20), 30, 4, "Sun copy 2")


# Round trip


@pytest.mark.parametrize("suffix", [".psd", ".psb", ".ora"])
def test_generated_designs_come_back(tmp_path, suffix):
    drawn = [generate_design(seed, SETTINGS) for seed in range(4)]
    for index, design in enumerate(drawn):
        save(design.stack, tmp_path / f"{index}{suffix}")
    for design, read in zip(drawn, read_designs(tmp_path, AREA, 0), strict=True):
        assert read.stack.frame == design.stack.frame
        assert merged_psnr(composite(read.stack), composite(design.stack)) > 40
        assert [layer.box for layer in read.stack.layers[1:]] == [region.box for region in read.layout.regions]
        assert [layer.pixels.shape for layer in read.stack.layers[1:]] == [asset.shape for asset in read.assets]
        if suffix != ".ora":  # which has no place for captions; names serve
            captions = [layer.caption for layer in design.stack.layers]
            assert [layer.caption for layer in read.stack.layers] == captions
            assert read.short_caption.endswith(f" on {captions[0]}")
            assert all(region.caption in read.layout.caption for region in read.layout.regions)


def test_assets_show_the_same_in_another_style(tmp_path):
    save(generate_design(3, SETTINGS).stack, tmp_path / "a.psd")
    changed = 0
    for seed in range(5):
        (design,) = read_designs(tmp_path, AREA, seed)
        assert design.asset_style != design.style
        for layer, asset in zip(design.stack.layers[1:], design.assets, strict=True):
            assert np.array_equal(layer.pixels[..., 3], asset[..., 3])
            changed += not np.array_equal(layer.pixels, asset)
    assert changed > 0


def test_documents_of_subfolders_are_read_in_order(tmp_path):
    (tmp_path / "b").mkdir()
    for name in ("b/last.PSD", "first.psd"):
        design = small_stack(SKY, replace(SUN, name=name))
        save(design, tmp_path / name)
    (tmp_path / "notes.txt").write_text("no document")
    assert [d.layout.regions[0].name for d in read_designs(tmp_path, AREA, 0)] == ["b/last.PSD", "first.psd"]


# Reducing


@pytest.mark.parametrize(
    "frame, area, expected",
    [
        ((64, 64), 64 * 64, (64, 64)),
        ((80, 64), 64 * 64, (80, 64)),  # a little more than the area is kept
        ((70, 50), 64 * 64, (64, 48)),
        ((1920, 1080), 128 * 128, (176, 96)),
        ((1000, 20), 128 * 128, (992, 16)),
        ((9, 9), 128 * 128, (16, 16)),
    ],
)
def test_training_frame(frame, area, expected):
    assert training_frame(Size(*frame), area) == expected


def test_a_large_document_is_reduced():
    big = generate_design(1, replace(SETTINGS, frame_area=256 * 256)).stack
    design = design_from_stack(big, "big", AREA, (0,))
    width, height = design.stack.frame
    assert width % 16 == height % 16 == 0 and 0.7 * AREA < width * height < 1.4 * AREA
    assert merged_psnr(composite(design.stack), resize(composite(big), width, height)) > 24
    assert len(design.assets) == len(big.layers) - 1


# What counts as what


def test_without_a_layer_over_the_frame_the_background_is_transparent():
    design = design_from_stack(small_stack(SUN), "sun", AREA, (0,))
    assert design.stack.layers[0].pixels.shape == (64, 64, 4) and not design.stack.layers[0].pixels.any()
    assert design.layout.background_region.caption == TRANSPARENT
    assert design.short_caption == f"Sun on {TRANSPARENT}"


def test_a_background_past_the_frame_is_cut_to_it():
    wide = replace(SKY, pixels=flat((1, 2, 3), 90, 80), x=-20, y=-6)
    base = design_from_stack(small_stack(wide, SUN), "wide", AREA, (0,)).stack.layers[0]
    assert base.box == (0, 0, 64, 64) and (base.pixels == (1, 2, 3, 255)).all()


def test_what_shows_nothing_is_left_out_and_said(caplog):
    empty, speck = flat((0, 0, 0), 9, 9, 0), flat((9, 9, 9), 3, 30)
    layers = (
        SKY,
        Layer(empty, 4, 4, "empty"),
        Layer(speck, 4, 4, "speck"),
        replace(SUN, visible=False),
        Group((replace(SUN, name="in a hidden group"),), "group", visible=False),
        replace(SUN, x=500),
        SUN,
    )
    with caplog.at_level(logging.WARNING):
        design = design_from_stack(small_stack(*layers), "card.psd", AREA, (0,))
    assert [region.name for region in design.layout.regions] == [SUN.name]
    assert [record.getMessage() for record in caplog.records] == [
        "card.psd: left out 2 hidden, 2 empty, 1 too small layers"
    ]


def test_opacity_and_groups_are_in_the_pixels(caplog):
    faded = Group((replace(SUN, opacity=0.5, blend_mode="multiply"),), "group", opacity=0.5)
    with caplog.at_level(logging.WARNING):
        design = design_from_stack(small_stack(SKY, faded), "card.psd", AREA, (0,))
    assert (design.stack.layers[1].pixels == (250, 210, 70, 64)).all()
    assert [record.getMessage() for record in caplog.records] == ["card.psd: took the blend mode of 1 layers as normal"]


def test_layers_far_past_the_frame_are_cut():
    far = replace(SUN, pixels=flat((9, 9, 9), 300, 20), x=-100)
    assert design_from_stack(small_stack(SKY, far), "far", AREA, (0,)).layout.regions[0].box == (-32, 4, 128, 20)


def test_many_layers_are_merged_with_their_neighbours():
    rng = np.random.default_rng(0)
    layers = [
        Layer(flat(rng.integers(0, 256, 3), 8, 8), int(x), int(y), f"tile {index}")
        for index, (x, y) in enumerate(rng.integers(0, 56, (27, 2)))
    ]
    stack = small_stack(SKY, *layers)
    design = design_from_stack(stack, "tiles", AREA, (0,))
    assert len(design.assets) == len(design.layout.regions) == len(design.stack.layers) - 1 == MAX_LAYERS
    assert np.array_equal(composite(design.stack), composite(stack))
    assert all(f"tile {index}" in design.short_caption for index in range(27))


# Captions


@pytest.mark.parametrize(
    "name, caption",
    [
        ("Layer 3", ""),
        ("Group 1 copy 2", ""),
        ("Ebene 12", ""),
        ("Background", ""),
        ("IMG_2041.JPG", ""),
        ("red apple", "red apple"),
        ("Sun copy", "Sun"),
        ("Sun copy 2 copy", "Sun"),
        ("Sun #1", "Sun"),
        ("Rounded Rectangle 12", "rounded rectangle"),
        ("Ellipse 1 copy", "ellipse"),
        ("summer_sale.png", "summer sale"),
        ("50% off", "50% off"),
        ("copy", ""),
        ("layered cake", "layered cake"),
        ("x" * 200, "x" * 80),
    ],
)
def test_caption_from_name(name, caption):
    assert caption_from_name(name) == caption


def test_the_prompt_of_a_document_describes_the_whole_unless_it_is_a_list_of_layers():
    told = small_stack(SKY, SUN, metadata={"prompt": "a sunny day"})
    listed = small_stack(SKY, SUN, metadata={"prompt": "<layer> sun </layer>"})
    assert design_from_stack(told, "a", AREA, (0,)).layout.caption == "a sunny day"
    assert design_from_stack(listed, "a", AREA, (0,)).layout.caption == "Sun"


# Mistakes


def test_a_broken_document_is_skipped_with_one_sentence(tmp_path, caplog):
    save(small_stack(SKY, SUN), tmp_path / "good.psd")
    save(small_stack(SKY), tmp_path / "bare.psd")
    whole = (tmp_path / "good.psd").read_bytes()
    (tmp_path / "cut.psd").write_bytes(whole[: len(whole) // 3])
    with caplog.at_level(logging.WARNING):
        assert len(read_designs(tmp_path, AREA, 0)) == 1
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2
    assert messages[0].startswith("bare.psd was left out: bare.psd has no visible layer besides its background")
    assert messages[1].startswith("cut.psd was left out: ") and "damaged" in messages[1]


def test_a_folder_without_documents(tmp_path):
    with pytest.raises(MRTError, match="holds no document, but training needs at least one .psd, .psb, .ora"):
        read_designs(tmp_path, AREA, 0)
    save(small_stack(SKY), tmp_path / "bare.psd")
    with pytest.raises(MRTError, match="holds 1 documents, none of which can be used"):
        read_designs(tmp_path, AREA, 0)
