"""`mrt demo`: all four tasks on the bundled inputs, with documents, pictures and a table as the result."""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..atomic import write_text
from ..documents import load, save
from ..documents.contact_sheet import Row, assemble_sheet, save_sheet
from ..evaluation.metrics import merged_psnr
from ..geometry import Box
from ..layouts.documents import load_layout
from ..layouts.layout import Region
from ..pipeline import Pipeline, SamplingOptions
from ..stacks.layers import LayerStack, composite
from ..tasks.request import with_background
from ..tasks.scaling import resize
from ..tasks.slots import Task
from .common import add_model_options, add_sampling_options, load_pipeline, progress_bar, read_image, sampling_options

INPUTS = Path(__file__).parent.parent / "data" / "demo"


class Result(NamedTuple):
    """What one task made: the stack, in how many steps and s, and the merged PSNR in dB where there is a truth."""

    task: str
    stack: LayerStack
    steps: int
    seconds: float
    psnr: float | None


def add_commands(commands) -> None:
    """Register the command."""
    parser = commands.add_parser("demo", help="run all four tasks on bundled inputs and save the results")
    parser.add_argument("-o", "--output", default="out/demo", metavar="FOLDER", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0)
    add_sampling_options(parser)
    add_model_options(parser)
    parser.set_defaults(run=run_demo)


def text_to_layers(pipeline: Pipeline, options: SamplingOptions) -> tuple[LayerStack, np.ndarray | None]:
    """The layers of a layout, one of which runs past the frame."""
    (stack,) = pipeline.text_to_layers(load_layout(INPUTS / "text_layout.json"), options=options)
    return stack, None


def image_to_layers(pipeline: Pipeline, options: SamplingOptions) -> tuple[LayerStack, np.ndarray | None]:
    """A flat picture taken apart; the truth is the picture."""
    image = read_image(INPUTS / "image.png")
    (stack,) = pipeline.image_to_layers(image, load_layout(INPUTS / "image_layout.json"), options=options)
    return stack, image


def add_layer(pipeline: Pipeline, options: SamplingOptions) -> tuple[LayerStack, np.ndarray | None]:
    """One new layer between two others of a PSD."""
    document = with_background(load(INPUTS / "document.psd"))
    addition = json.loads((INPUTS / "addition.json").read_text(encoding="utf-8"))
    region = Region(addition["name"], Box(**addition["box"]), addition["caption"])
    (stack,) = pipeline.add_layers(document, {addition["place"]: region}, options=options)
    return stack, None


def restyle_layer(pipeline: Pipeline, options: SamplingOptions) -> tuple[LayerStack, np.ndarray | None]:
    """An asset redrawn in the style of a PSD, in the place of its topmost layer."""
    document = with_background(load(INPUTS / "styled.psd"))
    top = len(document.layers) - 2
    height, width = document.layers[-1].pixels.shape[:2]
    asset = resize(read_image(INPUTS / "asset.png"), width, height)
    (stack,) = pipeline.restyle_layers(document, {top: asset}, options=options)
    return stack, None


DEMOS: dict[str, Callable] = {
    "text_to_layers": text_to_layers,
    "image_to_layers": image_to_layers,
    "add_layer": add_layer,
    "restyle_layer": restyle_layer,
}


def run_demo(options: argparse.Namespace) -> None:
    folder = Path(options.output)
    folder.mkdir(parents=True, exist_ok=True)
    pipeline = load_pipeline(options)
    sampling = sampling_options(options, (options.seed,))
    results = []
    for name, demo in DEMOS.items():
        started = time.monotonic()
        with progress_bar(sampling, name) as shown:
            stack, truth = demo(pipeline, shown)
        seconds = time.monotonic() - started
        psnr = None if truth is None else merged_psnr(composite(stack), truth)
        save(stack, folder / f"{name}.psd", overwrite=True)
        save(stack, folder / name, overwrite=True)
        steps = options.steps or pipeline.info.sampling_for(Task(stack.metadata["task"])).steps
        results.append(Result(name, stack, steps, seconds, psnr))
    sheet = assemble_sheet([Row(result.task, result.stack) for result in results])
    save_sheet(sheet, folder / "contact_sheet.png", overwrite=True)
    summary = [
        {
            "mode": r.task,
            "layers": len(r.stack.layers),
            "steps": r.steps,
            "seconds": round(r.seconds, 2),
            "merged_psnr": r.psnr,
        }
        for r in results
    ]
    write_text(folder / "summary.json", json.dumps(summary, indent=2) + "\n")
    print(f"{'mode':18} {'layers':>6} {'steps':>6} {'seconds':>8} {'merged PSNR':>12}")
    for row in summary:
        psnr = "-" if row["merged_psnr"] is None else f"{row['merged_psnr']:.2f} dB"
        print(f"{row['mode']:18} {row['layers']:6} {row['steps']:6} {row['seconds']:8.1f} {psnr:>12}")
    print(f"saved in {folder}: four PSDs, a folder of PNG layers beside each, contact_sheet.png, summary.json")
