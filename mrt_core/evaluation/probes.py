"""Does a box show what its caption says? Probes look at every captioned box of text to layers and of adding.

- class: a small classifier names the drawing, one of the 64 common ones (chance 1 / 64). These are drawings that training
  shows, so the figure says how many known drawings come out at their names, and nothing about new ones.
- colour: the palette name nearest to most of a shape's or word's pixels is the one that its caption asks for.
- past the frame: of boxes that run past the frame, those that hold at least half of the true layer's alpha out there.

The same probes on the true layers, as drawn and after the autoencoder, say how far a probe is to be trusted.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import NamedTuple

import numpy as np

from ..designs.colors import PALETTE
from ..designs.elements import ElementMix
from ..designs.generator import Design, DesignSettings, generate_design
from ..geometry import Size
from ..pipeline import Pipeline, SamplingOptions
from ..stacks.layers import Layer
from ..tasks.slots import Task
from .class_probe import CHANCE, ClassProbe, asked_drawing
from .held_out import HELD_OUT_SEED, Case, sample
from .reconstruction import reconstructed_layers
from .tables import markdown, percent

PROBED_TASKS = (Task.TEXT_TO_LAYERS, Task.ADD_LAYERS)
TRUE_LAYERS, DECODED_LAYERS = "true layers", "true layers after the autoencoder"
LEAST_OUTSIDE = 8.0  # px of full alpha past the frame from which on a box counts as running past it
KEPT_OUTSIDE = 0.5  # of the true alpha out there

_COLOR = re.compile(rf"\b({'|'.join(sorted(PALETTE, key=len, reverse=True))})\b")
_QUOTED = re.compile(r'"[^"]*"')


class Answers(NamedTuple):
    """For every box that a probe can judge, whether it is right."""

    classes: list[bool]
    colors: list[bool]
    outside: list[bool]


def probe_design(index: int, frame_area: int) -> Design:
    """Design number `index` of the probes' own set: in full colour, all drawings common ones, words held out."""
    mix = ElementMix(common=1.0)
    settings = DesignSettings(frame_area=frame_area, styled_share=0.0, mix=mix, held_out=True)
    return generate_design((HELD_OUT_SEED, index), settings)


def probe_case(index: int, task: Task, frame_area: int) -> Case:
    """Case number `index` of a task; one layer, drawn by the index, is added."""
    design = probe_design(index, frame_area)
    return Case(design, task, (index % len(design.assets),) if task is Task.ADD_LAYERS else ())


def asked_color(caption: str) -> str | None:
    """The palette name that a shape's or word's caption asks for; None for a drawing, and unless it names just one."""
    found = _COLOR.findall(_QUOTED.sub("", caption))
    return found[0] if len(found) == 1 and not asked_drawing(caption) else None


def main_color(pixels: np.ndarray) -> str | None:
    """The palette name nearest to most of straight RGBA uint8 pixels, counted with their alpha; None for an empty image."""
    shown = pixels[pixels[..., 3] > 0].astype(np.float64)  # (N, 4)
    if not len(shown):
        return None
    palette = np.array(list(PALETTE.values()), np.float64)
    nearest = np.square(shown[:, None, :3] - palette).sum(-1).argmin(1)  # (N,)
    return list(PALETTE)[int(np.bincount(nearest, shown[:, 3]).argmax())]


def alpha_outside(layer: Layer, frame: Size) -> float:
    """Sum of a layer's alpha, in 0..1, over its pixels past the frame."""
    alpha = layer.pixels[..., 3].astype(np.float64) / 255
    inside = alpha[max(0, -layer.y) : max(0, frame.height - layer.y), max(0, -layer.x) : max(0, frame.width - layer.x)]
    return float(alpha.sum() - inside.sum())


def kept_outside(case: Case, layers: Sequence[Layer]) -> list[bool]:
    """For every judged box that runs past the frame, whether `layers`, those of a stack, keep what the true one has there."""
    frame = case.design.stack.frame
    outside = {i: alpha_outside(case.design.stack.layers[i], frame) for i in case.judged}
    return [alpha_outside(layers[i], frame) >= KEPT_OUTSIDE * a for i, a in outside.items() if a >= LEAST_OUTSIDE]


def probe_layers(case: Case, layers: Sequence[Layer], probe: ClassProbe) -> Answers:
    """What the probes say of the judged layers among the `layers` of a stack, the background being the first."""
    truth = case.design.stack.layers
    drawings = {i: name for i in case.judged if (name := asked_drawing(truth[i].caption))}
    named = probe.names([layers[i].pixels for i in drawings])
    asked = {i: asked_color(truth[i].caption) for i in case.judged}
    return Answers(
        [name == drawing for name, drawing in zip(named, drawings.values(), strict=True)],
        [main_color(layers[i].pixels) == color for i, color in asked.items() if color],
        kept_outside(case, layers),
    )


def evaluate_probes(
    pipeline: Pipeline, probe: ClassProbe, designs: int, options: SamplingOptions
) -> Iterator[tuple[str, Answers]]:
    """(task, TRUE_LAYERS or DECODED_LAYERS; answers) as they come; design i is sampled with seed i."""
    area = pipeline.info.frame_area
    for task in PROBED_TASKS:
        for index in range(designs):
            case = probe_case(index, task, area)
            yield task, probe_layers(case, sample(pipeline, case.request(), index, options).layers, probe)
            if task is Task.TEXT_TO_LAYERS:
                background, *layers = case.design.stack.layers
                yield TRUE_LAYERS, probe_layers(case, [background, *layers], probe)
                decoded = reconstructed_layers(pipeline.codec, case.design)
                pairs = zip(layers, decoded, strict=True)
                shown = [background, *(replace(layer, pixels=pixels) for layer, pixels in pairs)]
                yield DECODED_LAYERS, probe_layers(case, shown, probe)


def join(answers: Sequence[Answers]) -> Answers:
    """The answers of many cases as one."""
    return Answers(*(list(chain.from_iterable(column)) for column in zip(*answers, strict=True)))


def probe_shares(answers: Answers) -> dict[str, float | int | None]:
    """The share of right answers of each probe (None without any) and the number of boxes that it judged."""
    shares = {}
    for name, right in answers._asdict().items():
        shares |= {name: float(np.mean(right)) if right else None, f"{name}_judged": len(right)}
    return shares


def probe_table(rows: dict[str, Answers]) -> str:
    """A Markdown table of the probes."""
    heads = (f"class right (chance {percent(CHANCE)})", "colour right", "content past the frame")
    cells = {
        name: [f"{percent(float(np.mean(right)) if right else None)} of {len(right)}" for right in answers]
        for name, answers in rows.items()
    }
    return markdown(heads, cells)
