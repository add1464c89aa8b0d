"""Where the processes of a training work."""

import pytest

from mrt_core.training.processes import place_process


@pytest.mark.parametrize(
    ("processes", "gpus", "places", "backend"),
    [
        (2, 0, ["cpu", "cpu"], "gloo"),
        (2, 2, ["cuda:0", "cuda:1"], "nccl"),
        (1, 4, ["cuda:0"], "nccl"),
        (4, 1, ["cuda:0"] * 4, "gloo"),
        (3, 2, ["cuda:0", "cuda:1", "cuda:0"], "gloo"),
    ],
)
def test_processes_spread_over_the_gpus_and_share_them(processes, gpus, places, backend):
    placed = [place_process(number, processes, gpus) for number in range(processes)]
    assert [str(device) for device, _ in placed] == places
    assert {name for _, name in placed} == {backend}
