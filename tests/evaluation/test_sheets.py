"""Contact sheets of unpicked samples."""

import numpy as np
from tiny_checkpoints import tiny_checkpoint

from mrt_core.evaluation.held_out import held_out_case
from mrt_core.evaluation.sheets import TILE, draw_sheet, layer_grid, sample_pictures
from mrt_core.geometry import Size
from mrt_core.layers import Layer, LayerStack, composite
from mrt_core.pipeline import Pipeline, SamplingOptions
from mrt_core.regions import RegionCodec
from mrt_core.tasks import Task


def test_layers_stand_side_by_side_each_in_the_frame():
    background = Layer(np.full((10, 20, 4), 255, np.uint8), 0, 0, "Background")
    dots = [Layer(np.full((2, 2, 4), 100 + i, np.uint8), 19 - i, i, f"Dot {i}") for i in range(3)]
    grid = layer_grid(LayerStack(Size(20, 10), (background, *dots)))
    assert grid.shape == (20, 40, 4)  # two by two frames, the last one empty
    for index, (top, left) in enumerate([(0, 0), (0, 20), (10, 0)]):
        cell = grid[top : top + 10, left : left + 20]
        expected = np.zeros((10, 20), np.uint8)
        expected[index : index + 2, 19 - index : 21 - index] = 100 + index
        assert np.array_equal(cell[..., 3], expected)
    assert not grid[10:, 20:].any()


def test_samples_are_the_first_held_out_designs_with_their_numbers_as_seeds():
    checkpoint = tiny_checkpoint()
    pipeline = Pipeline(checkpoint, checkpoint.text_encoder, RegionCodec(checkpoint.autoencoder))
    options = SamplingOptions(steps=1, cfg=1.0)
    samples = list(sample_pictures(pipeline, Task.ADD_LAYERS, 3, options))
    assert len(samples) == 3
    for index, ((_, truth), (_, made), _) in enumerate(samples):
        case = held_out_case(index, Task.ADD_LAYERS, pipeline.info.frame_area)
        assert np.array_equal(truth, composite(case.design.stack))
        (stack,) = pipeline.run(case.request(), SamplingOptions(steps=1, cfg=1.0, seeds=(index,)))
        assert np.array_equal(made, composite(stack))
    sheet = draw_sheet(samples)
    assert sheet.width // TILE == 6 and sheet.height > 2 * TILE
