"""Measure a pipeline, and two trivial baselines, on held-out synthetic designs.

Design i of the held-out set is `generate_design((HELD_OUT_SEED, i))` drawn with artwork and words that training never
sees. Layer metrics count foreground layers alone, and in the editing tasks the edited ones alone; a background that fills
its box would only flatter them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from ..designs.generator import Design, DesignSettings, generate_design
from ..geometry import Box
from ..pipeline import Pipeline, SamplingOptions
from ..stacks.layers import Layer, LayerStack, composite, paste, unpremultiply
from ..tasks.realise import matched
from ..tasks.request import Request
from ..tasks.slots import Task, default_prompt
from . import metrics
from .tables import markdown

HELD_OUT_SEED = 1
MATCHED = "image_to_layers_matched"  # image to layers, refined to show the image together
OTHER_PROMPT = "text_to_layers_other_prompt"  # text to layers with another design's prompt: what text is worth
METRICS = ("merged_psnr", "merged_ssim", "layer_psnr", "alpha_soft_iou", "rgb_l1")
HEADS = ("merged PSNR (dB)", "merged SSIM", "layer PSNR (dB)", "alpha soft IoU", "RGB L1")
DIGITS = (2, 3, 2, 3, 3)

Scores = dict[str, float]


@dataclass(frozen=True)
class Case:
    """One held-out design under one task, with the layers that the task makes."""

    design: Design
    task: Task
    targets: tuple[int, ...]  # edited layers; empty for whole designs

    @property
    def judged(self) -> tuple[int, ...]:
        """Indices into the stack's layers of the foreground layers that count."""
        return tuple(index + 1 for index in self.targets or range(len(self.design.assets)))

    def request(self) -> Request:
        """What the pipeline is asked for: the truth of what is given, blanks for what is to be made."""
        design = self.design
        stack, assets = design.stack, {}
        if self.task is Task.IMAGE_TO_LAYERS:
            stack = LayerStack(stack.frame, (Layer(composite(stack), 0, 0, "Image"),))
        elif self.targets:
            hidden = set(self.judged)
            layers = [
                replace(x, pixels=np.zeros_like(x.pixels)) if i in hidden else x for i, x in enumerate(stack.layers)
            ]
            stack = replace(stack, layers=tuple(layers))
        if self.task is Task.RESTYLE_LAYERS:
            assets = {index: design.assets[index] for index in self.targets}
        prompt = default_prompt(self.task, design.layout, self.targets)
        return Request(self.task, design.layout, stack, prompt, self.targets, assets)


class Outcome(NamedTuple):
    """What came of one case: `name` is its task, MATCHED or OTHER_PROMPT, `index` the number of its design."""

    name: str
    index: int
    case: Case
    stack: LayerStack

    @property
    def scores(self) -> Scores:
        return score(self.case, self.stack)


def held_out_design(index: int, frame_area: int) -> Design:
    """Design number `index` of the held-out set, at a frame area in px."""
    return generate_design((HELD_OUT_SEED, index), DesignSettings(frame_area=frame_area, held_out=True))


def held_out_case(index: int, task: Task, frame_area: int) -> Case:
    """Case number `index` of a task; in the editing tasks one layer, drawn by the index, is edited."""
    design = held_out_design(index, frame_area)
    editing = task in (Task.ADD_LAYERS, Task.RESTYLE_LAYERS)
    return Case(design, task, (index % len(design.assets),) if editing else ())


def score(case: Case, prediction: LayerStack) -> Scores:
    """The METRICS of a predicted stack against the design; layer metrics are means over the judged layers."""
    truth = case.design.stack
    pairs = [(on_box(prediction.layers[i], truth.layers[i].box), truth.layers[i].pixels) for i in case.judged]
    merged = composite(prediction), composite(truth)
    scores = {"merged_psnr": metrics.merged_psnr(*merged), "merged_ssim": metrics.merged_ssim(*merged)}
    for name in ("layer_psnr", "alpha_soft_iou", "rgb_l1"):
        scores[name] = float(np.mean([getattr(metrics, name)(*pair) for pair in pairs]))
    return scores


def on_box(layer: Layer, box: Box) -> np.ndarray:
    """What a layer shows in a box: straight RGBA (height, width, 4) uint8. One matched to an image may be larger."""
    return layer.pixels if layer.box == box else unpremultiply(paste(layer, box))


def mean_scores(scores: Sequence[Scores]) -> Scores:
    """The mean of every metric."""
    return {name: float(np.mean([row[name] for row in scores])) for name in METRICS}


def opaque_crops(case: Case) -> LayerStack:
    """Baseline: every layer is the crop of the flattened frame under its box, opaque where the frame is."""
    truth = case.design.stack
    flat = LayerStack(truth.frame, (Layer(composite(truth), 0, 0, "Image"),))
    return replace(truth, layers=tuple(replace(layer, pixels=composite(flat, layer.box)) for layer in truth.layers))


def empty_layers(case: Case) -> LayerStack:
    """Baseline: every layer is fully transparent."""
    truth = case.design.stack
    return replace(truth, layers=tuple(replace(layer, pixels=np.zeros_like(layer.pixels)) for layer in truth.layers))


BASELINES: dict[str, Callable[[Case], LayerStack]] = {"opaque crops": opaque_crops, "empty layers": empty_layers}


def evaluate(pipeline: Pipeline, designs: int, tasks: Sequence[Task], options: SamplingOptions) -> Iterator[Outcome]:
    """The outcomes of every task on the first `designs` held-out designs, as they come; design i is sampled with seed i.

    A task's layers are judged as the model makes them. MATCHED has those of image to layers after `match_image`;
    OTHER_PROMPT those of text to layers where the prompt is that of the next design.
    """
    for task in tasks:
        for index in range(designs):
            case = held_out_case(index, task, pipeline.info.frame_area)
            request = case.request()
            stack = sample(pipeline, request, index, options)
            yield Outcome(task, index, case, stack)
            if task is Task.IMAGE_TO_LAYERS:
                yield Outcome(MATCHED, index, case, matched(request, stack))
            elif task is Task.TEXT_TO_LAYERS:
                other = held_out_case(index + 1, task, pipeline.info.frame_area).request().prompt
                yield Outcome(
                    OTHER_PROMPT, index, case, sample(pipeline, replace(request, prompt=other), index, options)
                )


def sample(pipeline: Pipeline, request: Request, seed: int, options: SamplingOptions) -> LayerStack:
    """The stack that the model itself makes of a request with one seed, not matched to an image."""
    (stack,) = pipeline.run(request, replace(options, seeds=(seed,), match_image=False))
    return stack


def evaluate_baselines(designs: int, frame_area: int) -> dict[str, Scores]:
    """Mean scores of the trivial baselines at taking an image apart."""
    cases = [held_out_case(index, Task.IMAGE_TO_LAYERS, frame_area) for index in range(designs)]
    return {name: mean_scores([score(case, baseline(case)) for case in cases]) for name, baseline in BASELINES.items()}


def markdown_table(rows: Mapping[str, Scores]) -> str:
    """A Markdown table with one row per entry and one column per metric."""
    cells = {
        name: [f"{scores[metric]:.{d}f}" for metric, d in zip(METRICS, DIGITS, strict=True)]
        for name, scores in rows.items()
    }
    return markdown(HEADS, cells)
