"""Drawing batches: tasks come in the shares that are asked for."""

from collections import Counter

import numpy as np
import pytest

from mrt_core.designs.generator import DesignSettings
from mrt_core.errors import MRTError
from mrt_core.models.sequence import Role
from mrt_core.tasks.region_codec import RegionCodec
from mrt_core.tasks.slots import Task
from mrt_core.training.samples import random_examples, write_shard
from mrt_core.training.teacher import SamplePool


@pytest.fixture(scope="module")
def pool(tmp_path_factory, autoencoder):
    folder = tmp_path_factory.mktemp("samples")
    examples = random_examples(5, DesignSettings(frame_area=48 * 48, max_layers=2))
    drawn = [next(examples).drawn() for _ in range(30)]
    write_shard(folder / "samples-0000-00000.safetensors", drawn, RegionCodec(autoencoder))
    pool = SamplePool(folder)
    pool.reload()
    return pool


def test_tasks_come_in_their_shares(pool):
    shares = dict(zip(Task, (0.5, 0.2, 0.2, 0.1), strict=True))
    batch = next(pool.batches(np.random.default_rng(0), 400, shares))
    counts = Counter(sample.task for sample in batch)
    assert {task: counts[task] / 400 for task in Task} == pytest.approx(shares, abs=0.08)
    for sample in batch:  # an image-to-layers sample that serves as text to layers shows nothing
        composite = sample.sample.slots[0]
        assert composite.role is Role.COMPOSITE and composite.clean == (sample.task is not Task.TEXT_TO_LAYERS)


def test_a_share_of_one_draws_that_task_alone(pool):
    shares = dict(zip(Task, (0.0, 1.0, 0.0, 0.0), strict=True))
    batch = next(pool.batches(np.random.default_rng(1), 50, shares))
    assert {sample.task for sample in batch} == {Task.IMAGE_TO_LAYERS}


def test_a_task_without_samples_is_an_error(tmp_path):
    with pytest.raises(MRTError) as caught:
        next(SamplePool(tmp_path).batches(np.random.default_rng(0), 4, {Task.ADD_LAYERS: 1.0}))
    assert str(caught.value) == (
        f"{tmp_path} holds no samples for add_layers, which has a share of the training; draw more with `mrt train samples`, "
        "or set its share to 0"
    )
