"""Students as LoRAs: what is written comes back, and makes a student of a teacher."""

from dataclasses import replace

import pytest
import torch
from lora_files import lora_state
from safetensors.torch import load_file
from tiny_checkpoints import TINY

from mrt_core.checkpoints.checkpoint import CheckpointInfo, Sampling
from mrt_core.errors import MRTError
from mrt_core.lora.apply import student_info
from mrt_core.lora.file import Lora, LowRank, read_lora, save_lora
from mrt_core.models.configs import AutoencoderConfig

STUDENT = Sampling(steps=3, cfg=1.0, sigmas=(1.0, 0.7, 0.3, 0.0), solver="renoise")
INFO = CheckpointInfo(TINY, AutoencoderConfig(4), image_sampling=Sampling(steps=4))


def test_a_saved_lora_comes_back(tmp_path, pairs):
    deltas = {name: LowRank(pair.up, pair.down, 0.3) for name, pair in pairs.items()}
    save_lora(tmp_path / "new" / "student.safetensors", Lora(deltas, {}, STUDENT))
    lora = read_lora(tmp_path / "new" / "student.safetensors", TINY)
    assert lora.sampling == STUDENT
    for name, delta in deltas.items():
        assert torch.equal(lora.low_rank[name].up, delta.up) and torch.equal(lora.low_rank[name].down, delta.down)
        assert lora.low_rank[name].scale == pytest.approx(0.3, abs=1e-7)
    stored = load_file(tmp_path / "new" / "student.safetensors")
    assert stored["transformer.proj_out.alpha"].item() == pytest.approx(1.2)
    assert [entry.name for entry in (tmp_path / "new").iterdir()] == ["student.safetensors"]


def test_a_students_lora_makes_a_student_of_a_teacher(tmp_path, write, pairs):
    deltas = {"proj_out": LowRank(pairs["proj_out"].up, pairs["proj_out"].down)}
    save_lora(tmp_path / "student.safetensors", Lora(deltas, {}, STUDENT))
    student = read_lora(tmp_path / "student.safetensors", TINY)
    style = read_lora(write(lora_state(pairs)), TINY)
    info = student_info(INFO, [(style, 0.5), (student, 0.9)])
    assert info == replace(INFO, student=True, sampling=STUDENT, image_sampling=None)
    assert student_info(INFO, [(style, 1.0), (student, 0.0)]) == INFO
    with pytest.raises(MRTError, match="2 of the LoRAs say how to sample"):
        student_info(INFO, [(student, 1.0), (student, 1.0)])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a JSON object with `sampling`"),
        ("[" * 100_000, "not a JSON object with `sampling`"),
        ('{"version": 1, "sampling": 8}', "not a JSON object with `sampling`"),
        ('{"version": 2, "sampling": {"steps": 8}}', "version 2, but 1 was expected"),
        ('{"version": 1, "sampling": {"steps": 0}}', "steps is 0"),
        ('{"version": 1, "sampling": {"steps": 8, "cfg": 2.5}}', "cfg is 2.5, but a student"),
        ('{"version": 1, "sampling": {"steps": 8, "sigmas": [1.0, 0.0]}}', "steps . 1 falling numbers"),
        ('{"version": 1, "sampling": {"steps": 8, "solver": "heun"}}', "one of euler, renoise"),
        ('{"version": 1, "sampling": {"steps": 8, "speed": 1}}', "speed is 1, but it must be absent"),
    ],
)
def test_bad_student_metadata_is_one_sentence(write, pairs, text, message):
    with pytest.raises(MRTError, match=f"style.safetensors.*{message}"):
        read_lora(write(lora_state(pairs), mrt=text), TINY)


def test_a_sampling_with_guidance_is_not_saved(tmp_path):
    with pytest.raises(MRTError, match="cfg is 4, but a student"):
        save_lora(tmp_path / "student.safetensors", Lora({}, {}, Sampling()))
    assert not list(tmp_path.iterdir())
