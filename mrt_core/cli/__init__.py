"""The command line: `mrt text`, `image`, `add`, `restyle`, `inspect`, `layout`, `evaluate`, `init`, `train` and `demo`."""

import argparse
import logging
import sys
from collections.abc import Sequence
from importlib import import_module

from ..errors import MRTError

MODULES = {  # which of this package has a command
    "text": "make", "image": "make", "add": "make", "restyle": "make", "inspect": "describe", "layout": "draw",
    "evaluate": "evaluate", "init": "init", "train": "train", "demo": "demo",
}  # fmt: skip


def build_parser(command: str | None = None) -> argparse.ArgumentParser:
    """The parser of `command`, or of all of them; each sets `run`, a function of the parsed arguments.

    Only what a command needs is imported: training's packages alone take longer than `mrt inspect`.
    """
    parser = argparse.ArgumentParser(prog="mrt", description="Make and edit layered, transparent images with MRT.")
    parser.add_argument("-v", "--verbose", action="store_true", help="log what happens")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name in dict.fromkeys([MODULES[command]] if command in MODULES else MODULES.values()):
        import_module(f".{name}", __package__).add_commands(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 1 for bad input, 130 when interrupted."""
    arguments = sys.argv[1:] if arguments is None else arguments
    command = next((argument for argument in arguments if not argument.startswith("-")), None)
    options = build_parser(command).parse_args(arguments)
    logging.basicConfig(level=logging.INFO if options.verbose else logging.WARNING, format="%(asctime)s %(message)s")
    try:
        options.run(options)
    except (MRTError, OSError) as error:
        print(f"mrt: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("mrt: interrupted", file=sys.stderr)
        return 130
    return 0
