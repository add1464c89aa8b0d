"""What slots show, and regions encoded and decoded in every mode, with small random autoencoders."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mrt_core.geometry import Box, Size, TokenBox
from mrt_core.layouts.layout import Layout, Region
from mrt_core.models.modes import REGION_MODES
from mrt_core.models.sequence import Role, Slot
from mrt_core.stacks.layers import Layer, LayerStack, composite
from mrt_core.tasks import region_codec as regions
from mrt_core.tasks.region_codec import CanvasRegion, RegionCodec, canvas_regions, slot_pixels
from mrt_core.tasks.slots import image_to_layers, restyle_layers, text_to_layers

CANVAS = (3, 4)  # tokens
MIXED_PLACES = [
    CanvasRegion(TokenBox(*box), *CANVAS)
    for box in [(0, 0, 1, 2), (1, 1, 2, 2), (2, 2, 1, 2), (0, 0, 3, 4), (1, 0, 1, 1)]
]


def to_network(pixels):
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 127.5 - 1


def to_pixels(image):
    return ((image[0].permute(1, 2, 0) + 1) / 2 * 255).round().to(torch.uint8).numpy()


def images_of(make_image, places):
    return [make_image(n, 16 * place.box.rows, 16 * place.box.cols) for n, place in enumerate(places)]


def latents_of(places):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(16, 2 * p.box.rows, 2 * p.box.cols, generator=generator) for p in places]


def levels_apart(a, b):
    return np.abs(a.astype(int) - b).max()


# Encoding and decoding


@pytest.mark.parametrize("mode", REGION_MODES)
def test_shapes_are_inverse(autoencoder, make_image, mode):
    codec = RegionCodec(autoencoder, mode)
    images = images_of(make_image, MIXED_PLACES)
    latents = codec.encode(images, MIXED_PLACES)
    assert [latent.shape for latent in latents] == [(16, 2 * p.box.rows, 2 * p.box.cols) for p in MIXED_PLACES]
    decoded = codec.decode(latents, MIXED_PLACES)
    assert [(image.shape, image.dtype) for image in decoded] == [(image.shape, np.uint8) for image in images]


@pytest.mark.parametrize("mode", ["crop", "full"])
def test_a_region_over_the_whole_canvas_is_plainly_coded(autoencoder, make_image, mode):
    place = CanvasRegion(TokenBox(0, 0, *CANVAS), *CANVAS)
    codec, (image,) = RegionCodec(autoencoder, mode), images_of(make_image, [place])
    (latent,) = codec.encode([image], [place])
    expected = autoencoder.encode(to_network(image))
    assert (latent - expected[0]).abs().max() < 1e-5
    (decoded,) = codec.decode([latent], [place])
    assert levels_apart(decoded, to_pixels(autoencoder.decode(expected))) <= 1


@pytest.mark.parametrize("place", MIXED_PLACES[:3])
def test_full_mode_is_the_region_on_the_transparent_canvas(autoencoder, make_image, place):
    codec, (image,), (latent,) = RegionCodec(autoencoder, "full"), images_of(make_image, [place]), latents_of([place])
    box = place.box
    canvas = np.zeros((16 * CANVAS[0], 16 * CANVAS[1], 4), np.uint8)
    blank = autoencoder.encode(to_network(canvas))
    canvas[16 * box.row : 16 * (box.row + box.rows), 16 * box.col : 16 * (box.col + box.cols)] = image
    rows, cols = slice(2 * box.row, 2 * (box.row + box.rows)), slice(2 * box.col, 2 * (box.col + box.cols))
    expected = autoencoder.encode(to_network(canvas))[0, :, rows, cols]
    assert (codec.encode([image], [place])[0] - expected).abs().max() < 1e-5

    blank[0, :, rows, cols] = latent
    whole = to_pixels(autoencoder.decode(blank))
    expected = whole[16 * box.row : 16 * (box.row + box.rows), 16 * box.col : 16 * (box.col + box.cols)]
    assert levels_apart(codec.decode([latent], [place])[0], expected) <= 1


@pytest.mark.parametrize("halo", [1, 2, 3])
def test_halo_is_a_transparent_rim(autoencoder, make_image, halo):
    place = MIXED_PLACES[1]
    codec, (image,), (latent,) = (
        RegionCodec(autoencoder, "halo", halo),
        images_of(make_image, [place]),
        latents_of([place]),
    )
    padded = np.pad(image, ((8 * halo, 8 * halo), (8 * halo, 8 * halo), (0, 0)))
    inside = slice(halo, -halo)
    expected = autoencoder.encode(to_network(padded))[0, :, inside, inside]
    assert (codec.encode([image], [place])[0] - expected).abs().max() < 1e-5

    around = autoencoder.encode(to_network(np.zeros_like(padded)))
    around[0, :, inside, inside] = latent
    whole = to_pixels(autoencoder.decode(around))
    assert levels_apart(codec.decode([latent], [place])[0], whole[8 * halo : -8 * halo, 8 * halo : -8 * halo]) <= 1


@pytest.mark.parametrize("mode", REGION_MODES)
@pytest.mark.parametrize("batch_pixels", [1, 2**18])
def test_results_stand_in_the_items_order(autoencoder, make_image, monkeypatch, mode, batch_pixels):
    """Regions of equal size are coded together, others between them; none of it may show."""
    monkeypatch.setattr(regions, "MAX_BATCH_PIXELS", batch_pixels)
    codec = RegionCodec(autoencoder, mode)
    images, latents = images_of(make_image, MIXED_PLACES), latents_of(MIXED_PLACES)
    encoded, decoded = codec.encode(images, MIXED_PLACES), codec.decode(latents, MIXED_PLACES)
    for number, place in enumerate(MIXED_PLACES):
        (latent,), (image,) = codec.encode([images[number]], [place]), codec.decode([latents[number]], [place])
        assert (encoded[number] - latent).abs().max() < 1e-5
        assert levels_apart(decoded[number], image) <= 1
    assert codec.encode([], []) == [] == codec.decode([], [])


def test_decoding_leaves_its_input_alone(autoencoder):
    for mode in REGION_MODES:
        (latent,) = latents_of(MIXED_PLACES[:1])
        before = latent.clone()
        RegionCodec(autoencoder, mode).decode([latent], MIXED_PLACES[:1])
        assert torch.equal(latent, before)


def test_three_channel_autoencoder_sees_grey_and_decodes_opaque(rgb_autoencoder, make_image):
    place = CanvasRegion(TokenBox(0, 0, 2, 2), 2, 2)
    codec = RegionCodec(rgb_autoencoder)
    (image,) = images_of(make_image, [place])
    alpha = image[..., 3:] / 255
    seen = image[..., :3] * alpha + 127.5 * (1 - alpha)
    (latent,) = codec.encode([image], [place])
    expected = rgb_autoencoder.encode(to_network(seen))
    assert (latent - expected[0]).abs().max() < 1e-5
    colours = image.copy()
    colours[image[..., 3] == 0, :3] = 200  # colour that nobody can see
    assert torch.equal(codec.encode([colours], [place])[0], latent)
    (decoded,) = codec.decode([latent], [place])
    assert bool((decoded[..., 3] == 255).all())
    assert levels_apart(decoded[..., :3], to_pixels(rgb_autoencoder.decode(expected))) <= 1


# What slots show


def on_canvas(layer, box):
    """The layer's pixels by hand, at an area (x, y, width, height) in px; colour is 0 where alpha is 0."""
    x, y, width, height = box
    page = np.zeros((height, width, 4), np.uint8)
    for row in range(layer.pixels.shape[0]):
        for col in range(layer.pixels.shape[1]):
            target_row, target_col = layer.y + row - y, layer.x + col - x
            if 0 <= target_row < height and 0 <= target_col < width:
                page[target_row, target_col] = layer.pixels[row, col]
    page[page[..., 3] == 0] = 0
    return page


AREAS = [(0, 0, 64, 48), (-16, -16, 48, 32), (16, 0, 32, 48), (32, 32, 64, 48)]  # background and layers, on the grid


@pytest.mark.parametrize("number", range(4))
def test_a_layer_slot_shows_its_layer_alone(layout, stack, number):
    slot = text_to_layers(layout).slots[1 + number]
    assert levels_apart(slot_pixels(slot, layout, stack), on_canvas(stack.layers[number], AREAS[number])) <= 1


def test_a_layer_slot_shows_pixels_as_they_are(layout, stack):
    changed = [replace(layer, opacity=0.3, blend_mode="multiply", visible=False) for layer in stack.layers]
    faded = LayerStack(stack.frame, tuple(changed))
    for slot in text_to_layers(layout).slots[1:]:
        assert np.array_equal(slot_pixels(slot, layout, faded), slot_pixels(slot, layout, stack))


def test_the_composite_covers_the_canvas_or_the_frame(layout, stack):
    whole = slot_pixels(text_to_layers(layout).slots[0], layout, stack)
    assert whole.shape == (96, 112, 4)
    assert np.array_equal(whole, composite(stack, Box(-16, -16, 112, 96)))
    assert whole[10:16, 6:16, 3].any()  # the sun outside the frame
    frame = slot_pixels(image_to_layers(layout).slots[0], layout, stack)
    assert np.array_equal(frame, whole[16:64, 16:80])
    assert np.array_equal(frame, composite(stack))


@pytest.mark.parametrize("hidden", [(1,), (0, 2)])
def test_the_composite_leaves_hidden_layers_out(layout, stack, hidden):
    kept = tuple(layer for place, layer in enumerate(stack.layers) if place - 1 not in hidden)
    shown = slot_pixels(text_to_layers(layout).slots[0], layout, stack, hidden)
    assert np.array_equal(shown, composite(LayerStack(stack.frame, kept), Box(-16, -16, 112, 96)))


def test_the_composite_keeps_opacity_and_visibility(layout, stack):
    faded = LayerStack(
        stack.frame, (*stack.layers[:2], replace(stack.layers[2], opacity=0.5), replace(stack.layers[3], visible=False))
    )
    shown = slot_pixels(text_to_layers(layout).slots[0], layout, faded)
    assert np.array_equal(shown, composite(faded, Box(-16, -16, 112, 96)))
    assert not shown[64:, 80:].any()  # the label is hidden


def test_a_frame_off_the_grid_is_padded_with_transparency(make_image):
    image = make_image(0, 33, 50)
    flat = LayerStack(Size(50, 33), (Layer(image, 0, 0, "Image"),))
    layout = Layout(flat.frame, (Region("a", Box(0, 0, 9, 9)),))
    shown = slot_pixels(image_to_layers(layout).slots[0], layout, flat)
    assert shown.shape == (48, 64, 4)
    assert levels_apart(shown, on_canvas(flat.layers[0], (0, 0, 64, 48))) <= 1


def test_a_condition_slot_shows_the_asset(layout, stack, make_image):
    assets = {0: make_image(20, 20, 30), 2: make_image(21, 33, 45)}
    sample = restyle_layers(layout, (0, 2))
    for slot, index in zip(sample.slots[-2:], (0, 2), strict=True):
        assert slot.role is Role.CONDITION
        shown = slot_pixels(slot, layout, stack, (0, 2), assets)
        placed = replace(stack.layers[1 + index], pixels=assets[index])
        assert levels_apart(shown, on_canvas(placed, AREAS[1 + index])) <= 1


def test_places_follow_the_sample(layout):
    sample = text_to_layers(layout)
    assert canvas_regions(sample, sample.slots[2:4]) == [
        CanvasRegion(TokenBox(0, 0, 2, 3), 6, 7),
        CanvasRegion(TokenBox(1, 2, 3, 2), 6, 7),
    ]
    assert canvas_regions(sample, [Slot(Role.LAYER, 9, TokenBox(1, 1, 1, 1), True)]) == [
        CanvasRegion(TokenBox(1, 1, 1, 1), 6, 7)
    ]
