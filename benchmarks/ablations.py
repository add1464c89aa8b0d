"""The paper's ablations at small scale: short trainings that differ in one thing, compared on held-out designs.

    python benchmarks/ablations.py --run runs/tiny [--steps 500] [--batch 16] [--workers 2]

The run folder holds samples, text encoder and autoencoder (`mrt train` up to `text`) and is only read. Every variant
starts as that folder's teacher did, with untrained blocks unless it was unpacked, and trains in a folder of its own in
--out; the same command goes on where it was interrupted. Without overflow data and without grouping, samples that have it
are left out. No grouping is compared with the mix 80/20/0, since only prompts of text and image to layers tell whether
layers were grouped. The autoencoders train from nothing.
"""

import argparse
import json
import logging
from functools import partial
from pathlib import Path

import torch

from mrt_core.documents.contact_sheet import save_sheet
from mrt_core.evaluation.ablations import (
    COMPARISONS,
    autoencoder_sheet,
    autoencoder_table,
    comparison_sheet,
    comparison_table,
    means,
)
from mrt_core.evaluation.reconstruction import Reconstruction
from mrt_core.evaluation.tables import markdown
from mrt_core.tasks.slots import Task
from mrt_core.training.ablations import (
    AUTOENCODERS,
    VARIANTS,
    AblationRun,
    run_variant,
    variant_codec,
    variant_pipeline,
)
from mrt_core.training.ahead import map_ahead
from mrt_core.training.autoencoder import AutoencoderTraining
from mrt_core.training.teacher import TeacherTraining

NAMES = (*VARIANTS, *AUTOENCODERS)


def main() -> None:
    options = parse_options()
    run = AblationRun(
        options.run,
        options.out,
        TeacherTraining(steps=options.steps, batch=options.batch, warmup=50, save_every=50),
        AutoencoderTraining(steps=options.autoencoder_steps),
        options.designs,
        options.continued,
    )
    work = partial(run_in_worker if options.workers else run_variant, run)
    figures = dict(zip(options.variants, map_ahead(work, options.variants, options.workers), strict=True))
    report = {"steps": options.steps, "batch": options.batch, "designs": options.designs}
    report |= report_pools({name: found["samples"] for name, found in figures.items() if name in VARIANTS})
    report |= report_comparisons(run, {name: found["records"] for name, found in figures.items() if name in VARIANTS})
    found = {name: figures[name]["reconstruction"] for name in AUTOENCODERS if name in figures}
    if found:
        report["autoencoder"] = report_autoencoders(run, found)
    (run.folder / "ablations.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def parse_options() -> argparse.Namespace:
    logging.basicConfig(format="%(asctime)s %(message)s")
    logging.getLogger("mrt_core.training").setLevel(logging.INFO)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/tiny"), help="run folder, default: %(default)s")
    parser.add_argument("--out", type=Path, default=Path("runs/ablations"), help="default: %(default)s")
    parser.add_argument("--variants", nargs="+", choices=NAMES, default=NAMES, help="default: all; tables show these")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--autoencoder-steps", type=int, default=1500)
    parser.add_argument("--designs", type=int, default=100, help="held-out designs, default: %(default)s")
    parser.add_argument("--continued", action="store_true", help="start from the run folder's teacher as it is now")
    parser.add_argument("--workers", type=int, default=0, help="variants at a time, each in a process with one thread")
    return parser.parse_args()


def run_in_worker(run: AblationRun, name: str) -> dict:
    logging.basicConfig(format=f"%(asctime)s {name} %(message)s", force=True)
    logging.getLogger("mrt_core.training").setLevel(logging.INFO)
    torch.set_num_threads(1)
    return run_variant(run, name)


def report_pools(pools: dict[str, dict[str, int]]) -> dict:
    """Print how many samples each variant draws from."""
    cells = {name: [str(counts.get(task, "-")) for task in Task] for name, counts in pools.items()}
    print("Samples to draw from:\n\n" + markdown([task.replace("_", " ") for task in Task], cells), flush=True)
    return {"samples": pools}


def report_comparisons(run: AblationRun, records: dict[str, dict]) -> dict:
    """Print and draw every comparison, as far as its variants were asked for."""
    pipelines = {name: variant_pipeline(run, name) for name in records}
    report = {}
    for name, rows in COMPARISONS.items():
        rows = [row for row in rows if row.variant in records]
        if not rows:
            continue
        report[name] = {row.title: means(row, records[row.variant][row.measure]) for row in rows}
        print(f"\n{name}:\n\n{comparison_table(rows, report[name])}", flush=True)
        save_sheet(comparison_sheet(rows, pipelines), run.folder / f"{name}.png", overwrite=True)
    return report


def report_autoencoders(run: AblationRun, figures: dict[str, dict]) -> dict:
    """Print and draw what the autoencoders do."""
    rows = {name: {kind: Reconstruction(**row) for kind, row in kinds.items()} for name, kinds in figures.items()}
    print(f"\nautoencoder:\n\n{autoencoder_table(rows)}", flush=True)
    codecs = {name: variant_codec(run, name) for name in figures}
    save_sheet(autoencoder_sheet(codecs, run.frame_area), run.folder / "autoencoder.png", overwrite=True)
    return figures


if __name__ == "__main__":
    main()
