"""Contact sheets of unpicked samples."""

import numpy as np
from tiny_checkpoints import tiny_checkpoint

from mrt_core.evaluation.held_out import held_out_case
from mrt_core.evaluation.sheets import CELL, MARGIN, TILE, draw_sheet, layer_grid, sample_pictures
from mrt_core.geometry import Size
from mrt_core.pipeline import Pipeline, SamplingOptions
from mrt_core.stacks.layers import Layer, LayerStack, composite
from mrt_core.tasks.region_codec import RegionCodec
from mrt_core.tasks.slots import Task


def test_layers_stand_side_by_side_each_in_a_square():
    background = Layer(np.full((10, 20, 4), 255, np.uint8), 0, 0, "Background")
    shapes = ((14, 28), (56, 7), (1, 1))  # height, width
    layers = [Layer(np.full((*shape, 4), 100 + i, np.uint8), -3, i, f"{i}") for i, shape in enumerate(shapes)]
    grid = layer_grid(LayerStack(Size(20, 10), (background, *layers)))
    assert grid.shape == (2 * CELL, 2 * CELL, 4)  # the last of the four is empty
    inner = CELL - 2 * MARGIN
    for index, (top, left, height, width) in enumerate(
        [(0, 0, inner // 2, inner), (0, CELL, inner, inner // 8), (CELL, 0, inner, inner)]
    ):
        alpha = grid[top : top + CELL, left : left + CELL, 3]
        rows, columns = np.nonzero(alpha)
        assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (height, width)
        assert set(alpha[alpha > 0]) == {100 + index}
        assert abs(rows.mean() - (CELL - 1) / 2) <= 0.5 and abs(columns.mean() - (CELL - 1) / 2) <= 0.5
    assert not grid[CELL:, CELL:].any()


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
