"""Work ahead: results in order, only so far ahead, and errors that come through."""

import math
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
