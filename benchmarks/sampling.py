"""How steps, guidance and shift change what a checkpoint makes, in each mode: the measurement behind its defaults.

    python benchmarks/sampling.py --probe FILE [--designs 24] [--checkpoint FILE] [--tasks ...]

One setting at a time is changed from the checkpoint's own. The designs (from number 300 on) are in no other table. The
classifier of `mrt evaluate --probes` is read from FILE, or trained and kept there.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from mrt_core.checkpoints.info import Sampling
from mrt_core.evaluation import probes, restyle
from mrt_core.evaluation.class_probe import ClassProbe, load_probe, save_probe
from mrt_core.evaluation.held_out import held_out_case, mean_scores, sample, score
from mrt_core.evaluation.tables import markdown, percent
from mrt_core.pipeline import Pipeline, SamplingOptions
from mrt_core.tasks.slots import Task
from mrt_core.training.probe import train_probe

FIRST_DESIGN = 300
STEPS, GUIDANCE, SHIFTS = (4, 8, 12, 16, 20, 24), (1.0, 1.5, 2.0, 2.5, 3.0, 4.0), (1.0, 2.0, 3.0, 4.0, 5.0)
Cells = tuple[list[str], list[str]]  # heads and values


def settings(base: Sampling) -> Iterator[tuple[str, SamplingOptions]]:
    """The checkpoint's own setting, then each of the others with one value changed."""
    yield f"{base.steps} steps, guidance {base.cfg:g}, shift {base.shift or 0:g}", SamplingOptions()
    for name, values, words in (
        ("steps", STEPS, "{} steps"),
        ("cfg", GUIDANCE, "guidance {:g}"),
        ("shift", SHIFTS, "shift {:g}"),
    ):
        for value in values:
            if value != getattr(base, name):
                yield words.format(value), replace(SamplingOptions(), **{name: value})


def probed(pipeline: Pipeline, task: Task, options: SamplingOptions, designs: range, probe: ClassProbe) -> Cells:
    """What boxes show, in text to layers and adding."""
    answers = []
    for index in designs:
        case = probes.probe_case(index, task, pipeline.info.frame_area)
        answers.append(probes.probe_layers(case, sample(pipeline, case.request(), index, options).layers, probe))
    joined = probes.join(answers)
    cells = [f"{percent(float(np.mean(right)) if right else None)} of {len(right)}" for right in joined]
    return ["class right", "colour right", "past the frame"], cells


def compared(pipeline: Pipeline, task: Task, options: SamplingOptions, designs: range, probe: ClassProbe) -> Cells:
    """How near the layers are to the truth, in image to layers and restyling."""
    scores, restyled = [], []
    for index in designs:
        case = held_out_case(index, task, pipeline.info.frame_area)
        stack = sample(pipeline, case.request(), index, options)
        scores.append(score(case, stack))
        restyled += restyle.judge(case, stack) if task is Task.RESTYLE_LAYERS else []
    mean = mean_scores(scores)
    heads, cells = (
        ["merged PSNR", "layer PSNR", "alpha soft IoU"],
        [f"{mean['merged_psnr']:.2f}", f"{mean['layer_psnr']:.2f}", f"{mean['alpha_soft_iou']:.3f}"],
    )
    if restyled:
        summary = restyle.summarise(restyled)
        heads += ["shape kept", "style nearer"]
        cells += [percent(summary.shape_kept), percent(summary.style_nearer)]
    return heads, cells


MEASURES: dict[Task, Callable[..., Cells]] = {
    Task.TEXT_TO_LAYERS: probed, Task.ADD_LAYERS: probed, Task.IMAGE_TO_LAYERS: compared, Task.RESTYLE_LAYERS: compared,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--designs", type=int, default=24)
    parser.add_argument("--checkpoint")
    parser.add_argument("--probe", type=Path, required=True, metavar="FILE")
    parser.add_argument("--tasks", nargs="*", choices=list(Task), default=list(Task))
    options = parser.parse_args()
    pipeline = Pipeline.load(options.checkpoint)
    if not options.probe.exists():
        save_probe(train_probe(pipeline.codec, pipeline.info.frame_area), options.probe)
    probe = load_probe(options.probe)
    designs = range(FIRST_DESIGN, FIRST_DESIGN + options.designs)
    for task in map(Task, options.tasks):
        rows: dict[str, list[str]] = {}
        for name, changed in settings(pipeline.info.sampling_for(task)):
            started = time.monotonic()
            heads, rows[name] = MEASURES[task](pipeline, task, changed, designs, probe)
            rows[name].append(f"{(time.monotonic() - started) / len(designs):.2f}")
            print(task, name, rows[name], flush=True)
        print(f"\n{task}, {len(designs)} designs\n\n{markdown((*heads, 's a design'), rows)}\n", flush=True)


if __name__ == "__main__":
    main()
