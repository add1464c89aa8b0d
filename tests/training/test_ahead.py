"""Work ahead: results in order, only so far ahead, and errors that come through."""

import math
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import count, islice

import pytest

from mrt_core.training.ahead import SPARE_RESULTS, map_ahead


@pytest.mark.parametrize("workers", [0, 2])
def test_results_come_in_order_and_not_too_far_ahead(workers):
    taken = []

    def arguments() -> Iterator[int]:
        for number in count():
            taken.append(number)
            yield -number

    results = map_ahead(abs, arguments(), workers)
    assert list(islice(results, 9)) == list(range(9))
    ahead = len(taken) - 9
    assert ahead == (workers + SPARE_RESULTS - 1 if workers else 0)
    results.close()


@pytest.mark.parametrize("workers", [0, 1])
def test_errors_of_the_work_come_through(workers):
    results = map_ahead(math.sqrt, [4, -1, 9], workers)
    assert next(results) == 2
    with pytest.raises(ValueError, match="math domain error"):
        next(results)


@pytest.mark.parametrize("workers", [0, 1])
def test_nothing_to_do(workers):
    assert list(map_ahead(abs, [], workers)) == []


def test_workers_end_when_their_parent_is_killed():
    program = (
        "import multiprocessing, time\n"
        "from mrt_core.training.ahead import map_ahead\n"
        "results = map_ahead(abs, range(99), 1)\n"
        "next(results)\n"
        "print(*(child.pid for child in multiprocessing.active_children()), flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        (worker,) = parent.stdout.readline().split()
        assert not has_ended(worker)
        parent.kill()
    deadline = time.monotonic() + 20
    while not has_ended(worker):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def has_ended(process: str) -> bool:
    """Whether a process is gone, or a zombie that nobody has asked for its status."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", process], capture_output=True, text=True).stdout
    return not state or state.startswith("Z")
