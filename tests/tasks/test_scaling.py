"""Jobs much larger than what a checkpoint was trained at are sampled small and enlarged."""

from dataclasses import replace

import numpy as np
import pytest

from mrt_core.checkpoints.checkpoint import Checkpoint
from mrt_core.errors import MRTError
from mrt_core.geometry import Box, Size
from mrt_core.pipeline import Pipeline, SamplingOptions
from mrt_core.stacks.layers import Layer, LayerStack, composite
from mrt_core.tasks.region_codec import RegionCodec
from mrt_core.tasks.scaling import enlarge, resize, scale_box, scale_layout, scale_stack, working_frame

SCALE = 5  # of the shared layout, whose own frame is what the checkpoint knows here


def larger(layer):
    pixels = layer.pixels.repeat(SCALE, axis=0).repeat(SCALE, axis=1)
    return replace(layer, pixels=pixels, x=SCALE * layer.x, y=SCALE * layer.y)


@pytest.fixture
def large_stack(stack):
    frame = Size(SCALE * stack.frame.width, SCALE * stack.frame.height)
    return LayerStack(frame, tuple(larger(layer) for layer in stack.layers))


@pytest.fixture
def large_layout(layout):
    regions = tuple(
        replace(region, box=Box(*(SCALE * value for value in region.box)))
        for region in (layout.background_region, *layout.regions)
    )
    frame = Size(SCALE * layout.frame.width, SCALE * layout.frame.height)
    return replace(layout, frame=frame, background=regions[0], regions=regions[1:])


@pytest.fixture
def pipeline(checkpoint):
    info = replace(checkpoint.info, frame_area=64 * 48)
    changed = Checkpoint(checkpoint.transformer, checkpoint.autoencoder, checkpoint.text_encoder, info)
    return Pipeline(changed, checkpoint.text_encoder, RegionCodec(checkpoint.autoencoder))


@pytest.mark.parametrize(
    ("frame", "area", "expected"),
    [
        (Size(128, 128), 128 * 128, Size(128, 128)),
        (Size(160, 160), 128 * 128, Size(160, 160)),  # 1.56 times the area
        (Size(163, 161), 128 * 128, Size(128, 128)),  # 1.602 times
        (Size(1024, 1024), 128 * 128, Size(128, 128)),
        (Size(1920, 1080), 128 * 128, Size(176, 96)),
        (Size(64, 32), 128 * 128, Size(64, 32)),  # smaller ones are not enlarged
        (Size(16384, 16), 64 * 64, Size(2048, 16)),
    ],
)
def test_working_frame(frame, area, expected):
    assert working_frame(frame, area) == expected


def test_boxes_are_scaled_outward_to_whole_pixels():
    old, new = Size(320, 240), Size(64, 48)
    assert scale_box(Box(-50, -30, 150, 100), old, new) == Box(-10, -6, 30, 20)
    assert scale_box(Box(3, 4, 10, 10), old, new) == Box(0, 0, 3, 3)
    assert scale_box(Box(100, 100, 1, 1), old, new) == Box(20, 20, 1, 1)
    assert scale_box(Box(0, 0, 320, 240), old, Size(80, 32)) == Box(0, 0, 80, 32)  # sides are rounded apart


def test_resizing_weighs_colour_with_alpha():
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[:, :4] = (200, 100, 50, 255)
    pixels[:, 4:] = (0, 255, 0, 0)  # invisible green
    for size in ((4, 4), (16, 12)):
        small = resize(pixels, *size)
        assert small.shape == (size[1], size[0], 4)
        red, green, blue = small[small[..., 3] > 100][:, :3].T.astype(int)  # fainter colours are rounded more
        assert np.abs(red - 2 * green).max() <= 4 and np.abs(red - 4 * blue).max() <= 8


def test_a_layer_is_enlarged_to_its_box(make_image):
    layer = Layer(make_image(0, 20, 30), -10, -6, "sun", "a sun")
    big = enlarge(layer, Box(-50, -30, 150, 100))
    assert (big.box, big.name, big.caption) == (Box(-50, -30, 150, 100), "sun", "a sun")


def test_scaling_down_undoes_scaling_up(layout, stack, large_layout, large_stack):
    assert scale_layout(large_layout, layout.frame) == layout
    small = scale_stack(large_stack, stack.frame)
    assert [layer.box for layer in small.layers] == [layer.box for layer in stack.layers]
    difference = np.abs(composite(small).astype(int) - composite(stack))
    assert np.median(difference[composite(stack)[..., 3] > 200]) <= 16  # Lanczos sharpens noise


@pytest.mark.parametrize("seeds", [(0,), (1, 2)])
def test_a_large_job_is_the_small_one_enlarged(pipeline, layout, large_layout, seeds):
    options = SamplingOptions(seeds=seeds)
    small, large = (
        pipeline.text_to_layers(layout, options=options),
        pipeline.text_to_layers(large_layout, options=options),
    )
    for few, many in zip(small, large, strict=True):
        assert many.frame == large_layout.frame
        assert [layer.name for layer in many.layers] == [layer.name for layer in few.layers]
        for layer, other in zip(few.layers, many.layers, strict=True):
            assert other.box == Box(*(SCALE * value for value in layer.box))
            assert np.array_equal(other.pixels, enlarge(layer, other.box).pixels)


def test_given_layers_keep_their_own_pixels(pipeline, large_stack, make_image):
    (result,) = pipeline.restyle_layers(large_stack, {1: make_image(1, 150, 120)})
    for place in (0, 1, 3):
        assert np.array_equal(result.layers[place].pixels, large_stack.layers[place].pixels)
        assert result.layers[place].box == large_stack.layers[place].box
    assert result.layers[2].box == large_stack.layers[2].box
    assert not np.array_equal(result.layers[2].pixels, large_stack.layers[2].pixels)


def test_a_large_image_is_taken_apart(pipeline, large_layout, large_stack):
    (result,) = pipeline.image_to_layers(composite(large_stack), large_layout, options=SamplingOptions(box_slack=0.0))
    regions = [large_layout.background_region, *large_layout.regions]
    assert [layer.box for layer in result.layers] == [region.box for region in regions]


@pytest.mark.parametrize("place", [3, -1])
def test_wrong_targets_of_a_large_job(pipeline, large_stack, make_image, place):
    with pytest.raises(MRTError, match=f"^the target layers are .{place}., but they must be one or more"):
        pipeline.restyle_layers(large_stack, {place: make_image(0, 9, 9)})
