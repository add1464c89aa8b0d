"""`mrt evaluate`: metrics on held-out synthetic designs, as Markdown tables and as JSON."""

import argparse
import json
import logging
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from ..atomic import write_text
from ..documents.contact_sheet import save_sheet
from ..errors import MRTError
from ..evaluation import layerd, probes, reconstruction, restyle, robustness, sheets
from ..evaluation.class_probe import ClassProbe, load_probe, save_probe
from ..evaluation.held_out import (
    MATCHED,
    Outcome,
    evaluate,
    evaluate_baselines,
    held_out_case,
    markdown_table,
    mean_scores,
    opaque_crops,
)
from ..pipeline import Pipeline, SamplingOptions
from ..tasks.slots import Task
from ..training.probe import train_probe
from .common import add_model_options, add_sampling_options, load_pipeline, sampling_options

Value = TypeVar("Value")
CROPS_BASELINE = "image_to_layers baseline: opaque crops"


def add_commands(commands) -> None:
    """Register the command."""
    parser = commands.add_parser("evaluate", help="measure a checkpoint on held-out designs")
    parser.add_argument("--designs", type=int, default=200, help="how many designs per task, default: %(default)s")
    parser.add_argument("--tasks", nargs="*", choices=list(Task), default=list(Task),
                        help="default: all four; --tasks with no name: none, only what the options below add")  # fmt: skip
    parser.add_argument("--json", metavar="FILE", help="also save the figures here, per task and overall")
    more = parser.add_argument_group("further tables")
    more.add_argument(
        "--layerd", action="store_true", help="image to layers by the LayerD protocol, with 0 to 5 merges"
    )
    more.add_argument(
        "--bands", action="store_true", help="image to layers by number of layers, --designs of each band"
    )
    more.add_argument(
        "--jitter", type=int, metavar="PX", help="image to layers with the edges of boxes up to PX px off"
    )
    more.add_argument("--probes", nargs="?", const="", metavar="FILE", help="whether boxes show what their captions say; "
                      "the classifier behind it is read from FILE, or trained in about two minutes and kept there")  # fmt: skip
    more.add_argument(
        "--autoencoder", action="store_true", help="the autoencoder alone, on --designs images of each kind"
    )
    more.add_argument("--sheets", type=Path, metavar="FOLDER", help="contact sheets of all four tasks, TASK.png: the first "
                      f"{sheets.SAMPLES} designs, or --designs where that is fewer")  # fmt: skip
    add_sampling_options(parser)
    add_model_options(parser)
    parser.set_defaults(run=run_evaluate)


def run_evaluate(options: argparse.Namespace) -> None:
    tasks = [Task(name) for name in options.tasks]
    if options.layerd and Task.IMAGE_TO_LAYERS not in tasks:
        raise MRTError(f"--layerd measures {Task.IMAGE_TO_LAYERS}, which --tasks leaves out; name it there")
    if options.jitter is not None and options.jitter < 1:
        raise MRTError(f"--jitter {options.jitter} moves no box; give a number of px of at least 1, such as 8")
    for path in _sheet_paths(options).values():
        if path.exists():
            raise MRTError(f"{path} exists already and is not overwritten; give another folder with --sheets")
    pipeline, sampling = load_pipeline(options), sampling_options(options)
    count, area = options.designs, pipeline.info.frame_area
    report: dict[str, Any] = {"designs": count}
    if tasks:
        report |= _measure_tasks(pipeline, count, tasks, sampling, options.layerd)
    if options.bands:
        rows = robustness.evaluate_bands(pipeline, count, sampling)
        report["bands"] = _measure_rows("Image to layers by number of layers", rows, 2 * len(robustness.BANDS) * count)
    if options.jitter is not None:
        rows = robustness.evaluate_jitter(pipeline, count, options.jitter, sampling)
        report["jitter"] = _measure_rows("Image to layers with inexact boxes", rows, 2 * count)
    if options.probes is not None:
        rows = probes.evaluate_probes(pipeline, _probe(options.probes, pipeline), count, sampling)
        answers = {name: probes.join(few) for name, few in _collect(rows, 4 * count).items()}
        _print("What boxes show", probes.probe_table(answers))
        report["probes"] = {name: probes.probe_shares(joined) for name, joined in answers.items()}
    if options.autoencoder:
        pairs = _collect(
            reconstruction.reconstructions(pipeline.codec, count, area), len(reconstruction.SOURCES) * count
        )
        figures = {name: reconstruction.compare(few) for name, few in pairs.items()}
        _print("The autoencoder", reconstruction.reconstruction_table(figures))
        report["autoencoder"] = {name: row._asdict() for name, row in figures.items()}
    for task, path in _sheet_paths(options).items():
        shown = min(sheets.SAMPLES, count)
        samples = sheets.sample_pictures(pipeline, task, shown, sampling)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_sheet(sheets.draw_sheet(list(tqdm(samples, desc=path.name, total=shown))), path)
    if options.json:
        write_text(Path(options.json), json.dumps(report, indent=2) + "\n")


def _sheet_paths(options: argparse.Namespace) -> dict[Task, Path]:
    return {task: options.sheets / f"{task}.png" for task in Task} if options.sheets else {}


def _measure_tasks(
    pipeline: Pipeline, designs: int, tasks: list[Task], sampling: SamplingOptions, with_layerd: bool
) -> dict[str, Any]:
    """The tables of the tasks, with the baselines, printed; and the same as JSON."""
    results, merged, restyled = defaultdict(list), defaultdict(list), defaultdict(list)
    with tqdm(total=designs * len(tasks), unit="design") as bar:
        for outcome in evaluate(pipeline, designs, tasks, sampling):
            results[outcome.name].append(outcome.scores)
            if outcome.case.task is Task.RESTYLE_LAYERS:
                restyled[outcome.name] += restyle.judge(outcome.case, outcome.stack)
            if with_layerd and outcome.name in (Task.IMAGE_TO_LAYERS, MATCHED):
                merged[outcome.name].append(_layerd_scores(outcome))
            bar.update(outcome.name in tasks)
    rows = {str(name): mean_scores(scores) for name, scores in results.items()}
    rows["overall"] = mean_scores([scores for task in tasks for scores in results[task]])
    baselines = evaluate_baselines(designs, pipeline.info.frame_area)
    print(markdown_table(rows | {f"image_to_layers baseline: {name}": scores for name, scores in baselines.items()}))
    report = {"tasks": rows, "baselines": baselines, "overall": rows["overall"]}
    if restyled:
        summaries = {str(name): restyle.summarise(layers) for name, layers in restyled.items()}
        _print("Restyling", restyle.restyle_table(summaries))
        report["restyling"] = {name: summary._asdict() for name, summary in summaries.items()}
    if with_layerd:
        cases = [held_out_case(index, Task.IMAGE_TO_LAYERS, pipeline.info.frame_area) for index in range(designs)]
        merged[CROPS_BASELINE] = [layerd.layerd_scores(opaque_crops(case), case.design.stack) for case in cases]
        means = {str(name): layerd.mean_by_merges(samples) for name, samples in merged.items()}
        _print("LayerD protocol, by the number of merges allowed", layerd.layerd_table(means))
        report["layerd"] = {name: [scores._asdict() for scores in levels] for name, levels in means.items()}
    return report


def _layerd_scores(outcome: Outcome) -> list[layerd.LayerdScores]:
    return layerd.layerd_scores(outcome.stack, outcome.case.design.stack)


def _measure_rows(title: str, rows: Iterable[robustness.Row], total: int) -> dict[str, Any]:
    """A table of mean scores, printed and as JSON."""
    means = {name: mean_scores(scores) for name, scores in _collect(rows, total).items()}
    _print(title, markdown_table(means))
    return means


def _collect(rows: Iterable[tuple[str, Value]], total: int) -> dict[str, list[Value]]:
    """What belongs to each name, with a progress bar over all of it."""
    results = defaultdict(list)
    for name, value in tqdm(rows, total=total):
        results[str(name)].append(value)
    return results


def _print(title: str, table: str) -> None:
    print(f"\n{title}:\n\n{table}")


def _probe(file: str, pipeline: Pipeline) -> ClassProbe:
    """The class probe from a file, or a new one, which is kept there ("": nowhere)."""
    if file and Path(file).exists():
        return load_probe(Path(file))
    logging.getLogger("mrt_core.training.probe").setLevel(logging.INFO)  # training takes a minute or two
    probe = train_probe(pipeline.codec, pipeline.info.frame_area)
    if file:
        save_probe(probe, Path(file))
    return probe
