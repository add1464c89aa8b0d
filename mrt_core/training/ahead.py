"""Work done ahead of its use by other processes."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import TypeVar

Argument, Result = TypeVar("Argument"), TypeVar("Result")

SPARE_RESULTS = 2  # finished or begun beyond one per worker, so that memory stays bounded


def _end_with_parent() -> None:
    """Let a worker end when its parent is killed, which tells it nothing: it would wait for work for ever."""

    def wait() -> None:
        parent_process().join()
        os._exit(1)

    Thread(target=wait, daemon=True).start()


def map_ahead(function: Callable[[Argument], Result], arguments: Iterable[Argument], workers: int) -> Iterator[Result]:
    """`function` of every argument, in order, worked out by `workers` processes ahead of their use, or here if there are none.

    Processes are spawned, since a fork would not survive threads or a GPU in use: `function` and what it takes and
    returns must be picklable.
    """
    if workers == 0:
        yield from map(function, arguments)
        return
    pending, remaining = deque(), iter(arguments)
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _end_with_parent)
    try:
        while True:
            room = workers + SPARE_RESULTS - len(pending)
            pending.extend(pool.submit(function, argument) for argument in islice(remaining, room))
            if not pending:
                return
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
