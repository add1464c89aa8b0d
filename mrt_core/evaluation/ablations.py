"""The paper's ablations on held-out designs: which trainings are compared, by what, as tables and as pictures (section 4.4).

The trainings themselves, the variants, are those of `training.ablations`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, count, islice
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ..designs.generator import Design
from ..documents.contact_sheet import Row, assemble_sheet
from ..errors import MRTError
from ..geometry import frame_box
from ..pipeline import Pipeline, SamplingOptions
from ..stacks.layers import LayerStack, composite
from ..tasks.region_codec import RegionCodec
from ..tasks.slots import EMPTY_PROMPT, Task
from . import held_out
from .held_out import Case, held_out_case, held_out_design, mean_scores
from .probes import kept_outside
from .reconstruction import Reconstruction, compare, reconstruction_table, reconstructions
from .robustness import jitter_rng, jittered_request, score_anywhere
from .sheets import TILE, Pictures, layer_grid
from .tables import markdown, percent

PICTURED = 4  # designs on a sheet
OUTSIDE = "content past the frame"

Record = dict[str, Any]  # of one design: METRICS, `overflows`, `kept_outside` as in `probes`


class Measure(NamedTuple):
    """How a held-out design is asked for: its prompt, or none; the edges of its boxes up to `jitter` px off."""

    task: Task
    text: bool = True
    jitter: int = 0

    def sample(self, pipeline: Pipeline, index: int) -> tuple[Case, LayerStack]:
        """Design number `index` and what the model makes of it, with that number as the seed."""
        case = held_out_case(index, self.task, pipeline.info.frame_area)
        request = case.request()
        if not self.text:
            request = replace(request, prompt=EMPTY_PROMPT)
        if self.jitter:
            request = jittered_request(request, self.jitter, jitter_rng(index))
        return case, held_out.sample(pipeline, request, index, SamplingOptions())

    def records(self, pipeline: Pipeline, designs: int) -> Iterator[Record]:
        """The figures of the first `designs` held-out designs."""
        for case, stack in (self.sample(pipeline, index) for index in range(designs)):
            kept = kept_outside(case, stack.layers)
            yield score_anywhere(case, stack) | {"overflows": overflows(case.design), "kept_outside": kept}


class Compared(NamedTuple):
    """A row of a table: a variant and one of MEASURES; with `overflowing` on designs with overflow alone."""

    title: str
    variant: str
    measure: str
    overflowing: bool = False


MEASURES: Mapping[str, Measure] = {
    **{str(task): Measure(task) for task in Task},
    "image_to_layers_without_text": Measure(Task.IMAGE_TO_LAYERS, text=False),
    "image_to_layers_8_px_off": Measure(Task.IMAGE_TO_LAYERS, jitter=8),
}
_MIXES = {  # variant: its shares and the tasks that it trains
    "mix_100_0_0": ("100/0/0", (Task.TEXT_TO_LAYERS,)),
    "mix_80_20_0": ("80/20/0", (Task.TEXT_TO_LAYERS, Task.IMAGE_TO_LAYERS)),
    "base": ("70/15/15", tuple(Task)),
}
COMPARISONS: Mapping[str, tuple[Compared, ...]] = {
    "overflow": tuple(
        Compared(f"{words}, {data} overflow data", variant, task, overflowing=True)
        for task, words in ((Task.TEXT_TO_LAYERS, "text to layers"), (Task.IMAGE_TO_LAYERS, "image to layers"))
        for variant, data in (("no_overflow", "without"), ("base", "with"))
    ),
    "mix": tuple(
        Compared(f"{task.replace('_', ' ')}, {mix}", variant, task)
        for task in Task
        for variant, (mix, trained) in _MIXES.items()
        if task in trained
    ),
    "image_text": (
        Compared("trained without text, given none", "no_image_text", "image_to_layers_without_text"),
        Compared("trained with text, given none", "base", "image_to_layers_without_text"),
        Compared("trained with text, given text", "base", Task.IMAGE_TO_LAYERS),
    ),
    "grouping": tuple(
        Compared(f"{boxes}, {grouping} grouping", variant, measure)
        for measure, boxes in ((Task.IMAGE_TO_LAYERS, "exact boxes"), ("image_to_layers_8_px_off", "boxes 8 px off"))
        for variant, grouping in (("no_grouping", "without"), ("mix_80_20_0", "with"))
    ),
}


def overflows(design: Design) -> bool:
    """Whether a layer's box leaves the frame."""
    return design.layout.canvas != frame_box(design.stack.frame)


def measures_of(variant: str) -> list[str]:
    """The names of the measures by which a variant is compared."""
    rows = chain.from_iterable(COMPARISONS.values())
    return list(dict.fromkeys(str(row.measure) for row in rows if row.variant == variant))


def measure(pipeline: Pipeline, measures: Sequence[str], designs: int) -> dict[str, list[Record]]:
    """The records of every named measure."""
    return {name: list(MEASURES[name].records(pipeline, designs)) for name in measures}


def means(row: Compared, records: Sequence[Record]) -> dict[str, Any]:
    """Mean METRICS of the designs that a row counts, how many they are, and what was kept past the frame of how many boxes."""
    counted = [record for record in records if record["overflows"] or not row.overflowing]
    if not counted:
        raise MRTError(f"none of the first {len(records)} held-out designs overflows the frame; measure more designs")
    kept = [right for record in counted for right in record["kept_outside"]]
    share = float(np.mean(kept)) if kept else None
    return mean_scores(counted) | {"designs": len(counted), "kept_outside": share, "kept_outside_judged": len(kept)}


def comparison_table(rows: Sequence[Compared], figures: Mapping[str, Mapping[str, Any]]) -> str:
    """A Markdown table of `means` by the titles of rows; rows on overflowing designs also tell what was kept out there."""
    outside = any(row.overflowing for row in rows)
    heads = [*held_out.HEADS, "designs", *([OUTSIDE] if outside else [])]
    cells = {}
    for row in rows:
        found = figures[row.title]
        metrics = [f"{found[name]:.{d}f}" for name, d in zip(held_out.METRICS, held_out.DIGITS, strict=True)]
        kept = f"{percent(found['kept_outside'])} of {found['kept_outside_judged']}"
        cells[row.title] = [*metrics, str(found["designs"]), *([kept] if outside else [])]
    return markdown(heads, cells)


def comparison_sheet(rows: Sequence[Compared], pipelines: Mapping[str, Pipeline]) -> Image.Image:
    """The truth and what every row's variant makes of the same PICTURED designs: the canvas, then the layers in the frame."""
    area = pipelines[rows[0].variant].info.frame_area
    wanted = any(row.overflowing for row in rows)
    fitting = (index for index in count() if not wanted or overflows(held_out_design(index, area)))
    indices = list(islice(fitting, PICTURED))
    designs = {index: held_out_design(index, area) for index in indices}
    pages = [Row("truth", [*chain(*(_pictures(index, designs[index], designs[index].stack) for index in indices))])]
    for row in rows:
        stacks = {index: MEASURES[row.measure].sample(pipelines[row.variant], index)[1] for index in indices}
        pages.append(Row(row.title, [*chain(*(_pictures(i, designs[i], stack) for i, stack in stacks.items()))]))
    return assemble_sheet(pages, TILE)


def _pictures(index: int, design: Design, stack: LayerStack) -> Pictures:
    return [(f"design {index}", composite(stack, design.layout.canvas)), ("its layers", layer_grid(stack))]


def measure_autoencoder(codec: RegionCodec, images: int, frame_area: int) -> dict[str, Reconstruction]:
    """The reconstruction of the first `images` held-out images of every kind."""
    pairs: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for kind, pair in reconstructions(codec, images, frame_area):
        pairs.setdefault(kind, []).append(pair)
    return {kind: compare(few) for kind, few in pairs.items()}


def autoencoder_table(figures: Mapping[str, Mapping[str, Reconstruction]]) -> str:
    """A Markdown table of several autoencoders, kind by kind."""
    kinds = dict.fromkeys(chain.from_iterable(figures.values()))
    return reconstruction_table({f"{kind}, {name}": figures[name][kind] for kind in kinds for name in figures})


def autoencoder_sheet(codecs: Mapping[str, RegionCodec], frame_area: int) -> Image.Image:
    """The truth and what every autoencoder makes of it, two images of every kind."""
    made = {name: list(reconstructions(codec, 2, frame_area)) for name, codec in codecs.items()}
    truth = [(kind, image) for kind, (image, _) in next(iter(made.values()))]
    pages = [Row(name, [(kind, output) for kind, (_, output) in pairs]) for name, pairs in made.items()]
    return assemble_sheet([Row("truth", truth), *pages], TILE)
