"""How much of a training run each task gets, as an option."""

import argparse

from ..tasks.slots import Task
from ..training.teacher import TASK_SHARES


def add_shares(parser: argparse.ArgumentParser) -> None:
    """--shares."""
    shares = list(TASK_SHARES.values())
    parser.add_argument("--shares", type=float, nargs=4, default=shares, metavar=("T", "I", "A", "R"),
                        help="of text to layers, image to layers, adding and restyling, default: %(default)s")  # fmt: skip


def task_shares(options: argparse.Namespace) -> dict[Task, float]:
    """The shares that were given, which may add up to anything, as shares of 1."""
    return dict(zip(Task, (share / sum(options.shares) for share in options.shares), strict=True))
