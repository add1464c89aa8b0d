"""A LoRA for the smallest model, and a way to write one."""

from pathlib import Path

import pytest
from lora_files import LAYERS, Pair, random_pairs
from safetensors.torch import save_file
from tiny_checkpoints import TINY

from mrt_core.lora.names import model_layers


@pytest.fixture(scope="session")
def shapes() -> dict[str, tuple[int, int]]:
    """The weights' shapes in the smallest model."""
    return {name: model_layers(TINY).layers[name].shapes["weight"] for name in LAYERS}


@pytest.fixture(scope="session")
def pairs(shapes) -> dict[str, Pair]:
    """A pair for every kind of layer, of rank 4 and alpha 2."""
    return random_pairs(shapes)


@pytest.fixture
def write(tmp_path):
    """A function that writes a LoRA file and returns its path."""

    def write_file(state, name="style.safetensors", **metadata) -> Path:
        path = tmp_path / name
        save_file({key: tensor.contiguous() for key, tensor in state.items()}, path, metadata or None)
        return path

    return write_file
