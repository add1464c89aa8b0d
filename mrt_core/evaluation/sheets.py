"""Sheets of unpicked samples: what a checkpoint makes of the first held-out designs, beside the truth."""

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain

import numpy as np
from PIL import Image

from ..documents.contact_sheet import Row, assemble_sheet
from ..geometry import frame_box
from ..layers import LayerStack, composite, paste, unpremultiply
from ..pipeline import Pipeline, SamplingOptions
from ..tasks import Task
from .held_out import held_out_case

SAMPLES = 24
DESIGNS_PER_ROW = 2
TILE = 160  # px

Pictures = list[tuple[str, np.ndarray]]


def layer_grid(stack: LayerStack) -> np.ndarray:
    """The foreground layers of a stack side by side, each alone in the frame: straight RGBA uint8, bottom to top."""
    alone = [unpremultiply(paste(layer, frame_box(stack.frame))) for layer in stack.layers[1:]]
    side = math.ceil(math.sqrt(len(alone)))
    blank = np.zeros((stack.frame.height, stack.frame.width, 4), np.uint8)
    cells = alone + [blank] * (side * math.ceil(len(alone) / side) - len(alone))
    return np.vstack([np.hstack(cells[start : start + side]) for start in range(0, len(cells), side)])


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
