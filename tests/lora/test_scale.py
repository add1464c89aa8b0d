"""How strong a LoRA is by its own account: alpha, rank, and PEFT's settings."""

import json
import math

import pytest
from lora_files import lora_state, random_pairs
from tiny_checkpoints import TINY

from mrt_core.errors import MRTError
from mrt_core.lora.file import read_lora

IMG_IN = {"img_in": (32, 64)}


def test_peft_settings_in_the_metadata(write, shapes):
    state = lora_state(random_pairs(shapes, alpha=None), "transformer.")
    settings = {"transformer.r": 4, "transformer.lora_alpha": 8, "transformer.alpha_pattern": {"attn.to_q": 2}}
    lora = read_lora(write(state, lora_adapter_metadata=json.dumps(settings)), TINY)
    assert lora.low_rank["proj_out"].scale == 2
    assert lora.low_rank["transformer_blocks.0.attn.to_q"].scale == 0.5
    rooted = settings | {"transformer.use_rslora": True}
    lora = read_lora(write(state, lora_adapter_metadata=json.dumps(rooted)), TINY)
    assert lora.low_rank["proj_out"].scale == 8 / math.sqrt(4)
    assert read_lora(write(state, lora_alpha="12", r="4"), TINY).low_rank["img_in"].scale == 3


def test_peft_settings_beside_the_file(write, tmp_path, pairs, shapes):
    state = lora_state(random_pairs(shapes, alpha=None), "base_model.model.")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 16}))
    assert read_lora(write(state, "adapter_model.safetensors"), TINY).low_rank["img_in"].scale == 4
    assert read_lora(write(lora_state(pairs)), TINY).low_rank["img_in"].scale == 0.5  # its own alpha comes first


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"r": 8, "lora_alpha": 8}, "says rank 8 for the layer img_in, but its matrices have rank 4"),
        ({"r": 4, "lora_alpha": "8"}, "says lora_alpha '8', but a number"),
        ({"r": 4, "lora_alpha": 8, "alpha_pattern": [1]}, "alpha_pattern .*, but a JSON object"),
        ([1], "not a JSON object"),
    ],
)
def test_bad_peft_settings_are_one_sentence(write, tmp_path, settings, message):
    state = lora_state(random_pairs(IMG_IN, alpha=None))
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    with pytest.raises(MRTError, match=f"adapter_config.json beside style.safetensors.*{message}"):
        read_lora(write(state), TINY)
