"""Load MRT Model on every form of weights: ComfyUI's answer is the library's, and quantised layers stay packed."""

import json
from pathlib import Path

import pytest
import torch
from quantised_files import save_by_row, save_fp8, save_gguf, wide_state
from safetensors.torch import save_file
from worker import run_worker

LINEARS = 20  # of a model with one block: fourteen in it and six around
PACKED = {
    "q4_k.gguf": LINEARS,
    "q8_0.gguf": LINEARS,
    "scaled.safetensors": LINEARS,
    "layers.safetensors": LINEARS,
    "e5m2.safetensors": LINEARS,
    "iq4_xs.gguf": LINEARS,
    "rows.safetensors": LINEARS,
    "int8.safetensors": LINEARS,
    "plain.safetensors": 0,
    "shards/diffusion_pytorch_model.safetensors.index.json": 0,
    "whole/model_index.json": 0,
}

# Of a LoRA's effect: ComfyUI rounds patched fp8 weights to fp8 again. Unpacked GGUF weights stay as the LoRA makes them.
LORA_ROUNDING = {"scaled.safetensors": 0.1, "layers.safetensors": 0.1, "e5m2.safetensors": 0.25}


def save_models(folder: Path) -> None:
    """One model in every form, in both folders that the loader looks into."""
    state = wide_state()
    first, second = folder / "mrt", folder / "diffusion_models"
    for each in (first, second / "shards", second / "whole" / "transformer"):
        each.mkdir(parents=True)
    save_gguf(first / "q4_k.gguf", state, "Q4_K")
    save_gguf(second / "q8_0.gguf", state, "Q8_0")
    save_fp8(first / "scaled.safetensors", state, "scaled")
    save_fp8(second / "layers.safetensors", state, "layers")
    save_fp8(second / "e5m2.safetensors", state, "metadata", "float8_e5m2")
    save_gguf(first / "iq4_xs.gguf", state, "IQ4_XS")
    save_by_row(first / "rows.safetensors", state)
    save_by_row(second / "int8.safetensors", state, "int8", flat=True)
    save_file(state, second / "plain.safetensors")
    save_file(state, second / "whole" / "transformer" / "diffusion_pytorch_model.safetensors")
    (second / "whole" / "model_index.json").write_text("{}")
    names = list(state)
    weight_map = {name: f"model-{1 + position % 2:05d}-of-00002.safetensors" for position, name in enumerate(names)}
    for shard in set(weight_map.values()):
        save_file({name: state[name] for name in names if weight_map[name] == shard}, second / "shards" / shard)
    index = second / "shards" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))


@pytest.fixture(scope="module")
def report(comfy_installation, tmp_path_factory) -> dict:
    """What the worker found, model by model."""
    path = tmp_path_factory.mktemp("weights") / "report.json"
    save_models(path.parent / "models")
    return run_worker(comfy_installation, "weights_worker.py", path)


def test_the_list_has_models_and_no_shards(report):
    names = {name for name in report if not name.startswith("whole/transformer")}
    assert names == set(PACKED)


@pytest.mark.parametrize("name", PACKED)
def test_models_compute_as_in_the_library(report, name):
    found = report[name]
    assert found["scale"] > 0.1
    assert found["difference"] < 1e-5
    assert found["packed"] == PACKED[name]
    assert found["dtype"] == str(torch.float32)


@pytest.mark.parametrize("name", PACKED)
def test_loras_work_on_packed_layers(report, name):
    found = report[name]
    assert found["lora"] > 0.01
    assert found["lora_difference"] < LORA_ROUNDING.get(name, 1e-5) * found["lora"]
    assert found["after_lora"] == 0
