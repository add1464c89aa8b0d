"""Image to layers where it gets harder: more layers, and boxes that are not quite right.

Rows come in pairs: the layers as the model makes them, and matched to the image.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from ..designs.generator import DesignSettings, generate_design
from ..geometry import Box, union
from ..layouts.layout import Layout
from ..pipeline import Pipeline, SamplingOptions
from ..stacks.layers import Layer, LayerStack
from ..tasks.request import Request
from ..tasks.slots import Task
from ..unmixing.refinement import match_image
from .held_out import HELD_OUT_SEED, Case, Scores, held_out_case, sample, score

BANDS = ((2, 7), (8, 11), (12, 14), (15, 20))  # layers, the background among them, as the paper groups them
SMALLEST_BOX = 8  # px a side that a jittered box keeps

Row = tuple[str, Scores]


def band_cases(designs: int, band: tuple[int, int], frame_area: int) -> Iterator[Case]:
    """The first `designs` held-out designs that have as many layers as `band` says."""
    low, high = band
    settings = DesignSettings(frame_area=frame_area, min_layers=low - 1, max_layers=high - 1, held_out=True)
    found = index = 0
    while found < designs:
        design = generate_design((HELD_OUT_SEED, index), settings)
        if len(design.stack.layers) >= low:  # a crowded frame may have no room for all
            yield Case(design, Task.IMAGE_TO_LAYERS, ())
            found += 1
        index += 1


def evaluate_bands(pipeline: Pipeline, designs: int, options: SamplingOptions) -> Iterator[Row]:
    """Scores by the number of layers, `designs` of each band, as they come."""
    for band in BANDS:
        for index, case in enumerate(band_cases(designs, band, pipeline.info.frame_area)):
            request = case.request()
            stack = sample(pipeline, request, index, options)
            yield f"{band[0]}-{band[1]} layers", score(case, stack)
            matched = match_image(stack, request.stack.layers[0].pixels)
            yield f"{band[0]}-{band[1]} layers, matched", score(case, matched)


def evaluate_jitter(pipeline: Pipeline, designs: int, jitter: int, options: SamplingOptions) -> Iterator[Row]:
    """Scores with boxes whose edges are up to `jitter` px off, as they come."""
    for index in range(designs):
        case = held_out_case(index, Task.IMAGE_TO_LAYERS, pipeline.info.frame_area)
        request = jittered_request(case.request(), jitter, jitter_rng(index))
        stack = sample(pipeline, request, index, options)
        yield f"boxes up to {jitter} px off", score_anywhere(case, stack)
        matched = match_image(stack, request.stack.layers[0].pixels)
        yield f"boxes up to {jitter} px off, matched", score_anywhere(case, matched)


def jitter_rng(index: int) -> np.random.Generator:
    """What moves the boxes of held-out design number `index`."""
    return np.random.default_rng((5, index))


def jittered_request(request: Request, jitter: int, rng: np.random.Generator) -> Request:
    """`request` with every edge of every foreground box moved by -jitter..jitter whole px, each on its own."""
    regions = [replace(region, box=_jittered(region.box, jitter, rng)) for region in request.layout.regions]
    layout: Layout = replace(request.layout, regions=tuple(regions))
    return replace(request, layout=layout)


def _jittered(box: Box, jitter: int, rng: np.random.Generator) -> Box:
    left, top, right, bottom = (
        int(edge + rng.integers(-jitter, jitter + 1)) for edge in (box.x, box.y, box.right, box.bottom)
    )
    return Box(left, top, max(right - left, SMALLEST_BOX), max(bottom - top, SMALLEST_BOX))


def score_anywhere(case: Case, prediction: LayerStack) -> Scores:
    """As `score`, for layers whose boxes differ from the true ones: a pair is compared over both of its boxes."""
    truth = case.design.stack
    pairs = list(zip(prediction.layers, truth.layers, strict=True))
    areas = [union([Box(*a.box), Box(*b.box)]) for a, b in pairs]
    wide = [
        LayerStack(truth.frame, tuple(_on(layer, area) for layer, area in zip(stack.layers, areas, strict=True)))
        for stack in (prediction, truth)
    ]
    return score(replace(case, design=replace(case.design, stack=wide[1])), wide[0])


def _on(layer: Layer, area: Box) -> Layer:
    """The layer with transparent margins out to `area`."""
    left, top = round(layer.x - area.x), round(layer.y - area.y)
    height, width = layer.pixels.shape[:2]
    right, bottom = round(area.width) - left - width, round(area.height) - top - height
    pixels = np.pad(layer.pixels, ((top, bottom), (left, right), (0, 0)))
    return replace(layer, pixels=pixels, x=round(area.x), y=round(area.y))
