"""`mrt inspect`: what a checkpoint or a LoRA is."""

import argparse

from ..checkpoints.bundled import find_checkpoint
from ..checkpoints.detection import inspect_checkpoint
from ..checkpoints.report import Family
from ..lora.report import inspect_lora, is_lora


def add_commands(commands) -> None:
    """Register the command."""
    inspect = commands.add_parser("inspect", help="say what a checkpoint or a LoRA is, from its header")
    inspect.add_argument("file")
    inspect.set_defaults(run=run_inspect)


def run_inspect(options: argparse.Namespace) -> None:
    path = find_checkpoint(options.file)
    report = inspect_checkpoint(path)
    if report.family is Family.OTHER and is_lora(path):
        report = inspect_lora(path)
    print(report)
