"""Sheets of unpicked samples: what a checkpoint makes of the first held-out designs, beside the truth."""

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain

import numpy as np
from PIL import Image, ImageOps

from ..documents.contact_sheet import Row, assemble_sheet
from ..pipeline import Pipeline, SamplingOptions
from ..stacks.layers import LayerStack, composite
from ..tasks.slots import Task
from .held_out import held_out_case

SAMPLES = 24
DESIGNS_PER_ROW = 2
TILE = 160  # px
CELL, MARGIN = 64, 4  # px, of a layer among the others

Pictures = list[tuple[str, np.ndarray]]


def layer_grid(stack: LayerStack) -> np.ndarray:
    """The foreground layers of a stack side by side, each scaled into a square of its own: straight RGBA uint8, bottom to top."""
    cells = [_cell(layer.pixels) for layer in stack.layers[1:]]
    side = math.ceil(math.sqrt(len(cells)))
    cells += [np.zeros((CELL, CELL, 4), np.uint8)] * (side * math.ceil(len(cells) / side) - len(cells))
    return np.vstack([np.hstack(cells[start : start + side]) for start in range(0, len(cells), side)])


def _cell(pixels: np.ndarray) -> np.ndarray:
    """A layer (h, w, 4) as large as fits into a square of CELL px."""
    cell = Image.new("RGBA", (CELL, CELL))
    picture = ImageOps.contain(Image.fromarray(pixels), (CELL - 2 * MARGIN, CELL - 2 * MARGIN))
    cell.paste(picture, ((CELL - picture.width) // 2, (CELL - picture.height) // 2))
    return np.asarray(cell)


def sample_pictures(pipeline: Pipeline, task: Task, count: int, options: SamplingOptions) -> Iterator[Pictures]:
    """For each of the first `count` held-out designs, sampled with its number as the seed: truth, result, its layers."""
    for index in range(count):
        case = held_out_case(index, task, pipeline.info.frame_area)
        request = case.request()
        (stack,) = pipeline.run(request, replace(options, seeds=(index,)))
        names = ", ".join(stack.layers[i].name for i in case.judged)
        yield [
            (f"{index}: {case.design.layout.caption}", composite(case.design.stack)),
            (f"made: {names}", composite(stack)),
            ("its layers", layer_grid(stack)),
        ]


def draw_sheet(samples: list[Pictures]) -> Image.Image:
    """All samples on one RGB picture, DESIGNS_PER_ROW in a row."""
    starts = range(0, len(samples), DESIGNS_PER_ROW)
    rows = [Row("", [*chain(*samples[start : start + DESIGNS_PER_ROW])]) for start in starts]
    return assemble_sheet(rows, TILE)
