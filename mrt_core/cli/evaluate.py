"""`mrt evaluate`: metrics on held-out synthetic designs, as a Markdown table and as JSON."""

import argparse
import json
from collections import defaultdict
from pathlib import Path

from tqdm import tqdm

from ..evaluation.held_out import evaluate, evaluate_baselines, markdown_table, mean_scores
from ..tasks import Task
from .common import add_model_options, add_sampling_options, load_pipeline, sampling_options


def add_commands(commands) -> None:
    """Register the command."""
    parser = commands.add_parser("evaluate", help="measure a checkpoint on held-out designs")
    parser.add_argument("--designs", type=int, default=200, help="how many designs per task, default: %(default)s")
    parser.add_argument("--tasks", nargs="+", choices=list(Task), default=list(Task), help="default: all four")
    parser.add_argument("--json", metavar="FILE", help="also save the figures here, per task and overall")
    add_sampling_options(parser)
    add_model_options(parser)
    parser.set_defaults(run=run_evaluate)


def run_evaluate(options: argparse.Namespace) -> None:
    pipeline = load_pipeline(options)
    tasks = [Task(name) for name in options.tasks]
    results = defaultdict(list)
    cases = evaluate(pipeline, options.designs, tasks, sampling_options(options))
    with tqdm(total=options.designs * len(tasks), unit="design") as bar:
        for name, _, scores in cases:
            results[name].append(scores)
            bar.update(name in tasks)
    rows = {str(name): mean_scores(scores) for name, scores in results.items()}
    rows["overall"] = mean_scores([scores for task in tasks for scores in results[task]])
    baselines = evaluate_baselines(options.designs, pipeline.info.frame_area)
    print(markdown_table(rows | {f"image_to_layers baseline: {name}": scores for name, scores in baselines.items()}))
    if options.json:
        report = {"designs": options.designs, "tasks": rows, "baselines": baselines, "overall": rows["overall"]}
        Path(options.json).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
