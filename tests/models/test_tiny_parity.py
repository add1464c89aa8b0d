"""The bundled model against the numbers of the program that trained it, from the prompt on, in all four tasks."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from mrt_core.checkpoints.bundled import bundled_checkpoint
from mrt_core.checkpoints.checkpoint import load_checkpoint
from mrt_core.geometry import TokenBox
from mrt_core.models.sequence import Role, Slot, SlotLayout, pack_samples

DATA = Path(__file__).parents[1] / "data" / "mrt_tiny_v4.safetensors"
ROLES = tuple(Role)


def stored_cases() -> list[dict]:
    with safe_open(DATA, "pt") as file:
        return [
            entry | {name: file.get_tensor(f"{entry['task']}.{name}") for name in TENSORS}
            for entry in json.loads(file.metadata()["cases"])
        ]


TENSORS = ("x", "slots", "canvas", "ids", "caption_places", "text_positions", "velocity")
CASES = stored_cases()


@pytest.fixture(scope="module")
def tiny():
    return load_checkpoint(bundled_checkpoint())


@pytest.mark.parametrize("case", CASES, ids=[case["task"] for case in CASES])
def test_velocity(tiny, case):
    text, prompt = tiny.text_encoder, case["prompt"]
    slots = [
        Slot(ROLES[role], index, TokenBox(*box), bool(clean)) for role, index, *box, clean in case["slots"].tolist()
    ]
    sample = SlotLayout(tuple(slots), *case["canvas"].tolist())
    ids = text.tokenize(prompt)
    assert ids == case["ids"].tolist()
    assert text.caption_positions(ids) == case["caption_places"].tolist()
    batch = pack_samples([sample], text.encode_prompts([prompt]), text.anchors([prompt]))
    assert torch.equal(batch.text_positions, case["text_positions"])
    with torch.no_grad():
        velocity = tiny.transformer(case["x"], torch.tensor([case["sigma"]]), batch)
    assert (velocity - case["velocity"]).abs().max() < 1e-4
