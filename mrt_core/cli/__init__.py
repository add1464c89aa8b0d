"""The command line: `mrt text`, `image`, `add`, `restyle`, `inspect`, `layout`, `evaluate`, `init`, `train` and `demo`."""

import argparse
import logging
import sys
from collections.abc import Sequence

from ..errors import MRTError
from . import demo, describe, evaluate, init, make, train


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; every command sets `run`, a function of the parsed arguments."""
    parser = argparse.ArgumentParser(prog="mrt", description="Make and edit layered, transparent images with MRT.")
    parser.add_argument("-v", "--verbose", action="store_true", help="log what happens")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for module in (make, describe, evaluate, init, train, demo):
        module.add_commands(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 1 for bad input, 130 when interrupted."""
    options = build_parser().parse_args(arguments)
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
