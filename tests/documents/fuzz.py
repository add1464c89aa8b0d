"""Mutation fuzzing of the document readers.

    make fuzz [ARGS="--count 20000 --seed 0"]

Every input is a file of the seed corpus with a few changes: bits, bytes, 32-bit numbers, cut, repeated and swapped
pieces. The reader must return a stack or raise MRTError in one sentence, within 5 s and 1 GB. Ends with figures and
with status 1 if an input broke the rule; that input is kept in build/fuzz.
"""

import argparse
import collections
import json
import logging
import random
import resource
import struct
import sys
import tempfile
import time
from pathlib import Path

from mrt_core.documents import load
from mrt_core.errors import MRTError

CORPUS = Path(__file__).with_name("seeds")
FAILURES = Path(__file__).parents[2] / "build" / "fuzz"
MAX_SECONDS, MAX_BYTES = 5.0, 10**9
_NUMBERS = (0, 1, 2, 7, 127, 128, 255, 256, 30_000, 32_767, 65_535, 2**24, 2**31 - 1, 2**31, 2**32 - 1)


def mutate(data: bytes, draw: random.Random) -> bytes:
    """`data` with one to eight random changes."""
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 3, 8))):
        at = draw.randrange(max(len(changed), 1))
        kind = draw.randrange(7)
        if kind == 0 and changed:
            changed[at] ^= 1 << draw.randrange(8)
        elif kind == 1 and changed:
            changed[at] = draw.randrange(256)
        elif kind == 2:
            changed[at : at + 4] = struct.pack(">I", draw.choice(_NUMBERS))
        elif kind == 3:
            changed[at : at + 2] = struct.pack(">H", draw.choice(_NUMBERS) % 65_536)
        elif kind == 4:
            del changed[at : at + draw.choice((1, 4, 64, len(changed)))]
        elif kind == 5:
            changed[at:at] = changed[at : at + draw.randrange(1, 200)]
        else:
            other = draw.randrange(max(len(changed), 1))
            size = draw.randrange(1, 64)
            changed[at : at + size], changed[other : other + size] = (
                changed[other : other + size], changed[at : at + size],
            )  # fmt: skip
    return bytes(changed)


def check(path: Path) -> str:
    """What the reader makes of one file: "read", the kind of the error, or a complaint that begins with "BAD"."""
    start = time.perf_counter()
    try:
        load(path)
        outcome = "read"
    except MRTError as error:
        message = str(error)
        one_sentence = "\n" not in message and message.endswith(".") and len(message) < 600
        outcome = "refused" if one_sentence else f"BAD message: {message!r}"
        if isinstance(error.__cause__, MemoryError):
            outcome = "BAD memory: the reader asked for more than it may have"
    except BaseException as error:
        outcome = f"BAD error: {type(error).__name__}: {error}"
        if isinstance(error, KeyboardInterrupt):
            raise
    seconds = time.perf_counter() - start
    return f"BAD time: {seconds:.1f} s" if seconds > MAX_SECONDS else outcome


def run(count: int, seed: int, failures: Path | None) -> dict[str, object]:
    """Figures over `count` mutated inputs; those that broke the rule are kept in `failures`."""
    logging.disable(logging.CRITICAL)
    seeds = sorted(path for path in CORPUS.iterdir() if path.is_file())
    contents = [path.read_bytes() for path in seeds]
    draw, outcomes, slowest, bad = random.Random(seed), collections.Counter(), 0.0, []
    # The limit makes a reader that asks for too much fail here instead of slowing the machine down.
    usage = Path("/proc/self/statm").read_text().split()[0] if Path("/proc/self/statm").exists() else "0"
    held = int(usage) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MAX_BYTES, resource.RLIM_INFINITY))
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(count):
            index = draw.randrange(len(seeds))
            path = Path(folder) / f"input{seeds[index].suffix}"
            path.write_bytes(mutate(contents[index], draw))
            start = time.perf_counter()
            outcome = check(path)
            slowest = max(slowest, time.perf_counter() - start)
            outcomes[outcome.split(":")[0]] += 1
            if outcome.startswith("BAD"):
                bad.append(outcome)
                if failures is not None:
                    failures.mkdir(parents=True, exist_ok=True)
                    (failures / f"{len(bad)}-{seeds[index].name}").write_bytes(path.read_bytes())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "count": count,
        "outcomes": dict(outcomes),
        "slowest_s": slowest,
        "peak_mib": peak,
        "bad": [complaint[:300] for complaint in bad[:20]],
    }


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    figures = run(options.count, options.seed, FAILURES)
    sys.stdout.write(json.dumps(figures, indent=1) + "\n")
    sys.exit(1 if figures["bad"] else 0)


if __name__ == "__main__":
    main()
