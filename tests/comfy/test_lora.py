"""The stock LoRA loader on the MODEL: in every naming that it knows, its weights are those of the library."""

import json
import subprocess
from pathlib import Path

import pytest
from comfy_server import PACK, server_environment
from lora_files import FLATTENED_PREFIXES, LAYERS, NAMINGS

WORKER = Path(__file__).with_name("lora_worker.py")
KNOWN_PREFIXES = ("", "diffusion_model.", "transformer.", *FLATTENED_PREFIXES)  # to ComfyUI
NAMES = [(prefix, down) for prefix, (down, _) in NAMINGS]
KNOWN = [name for name in NAMES if name[0] in KNOWN_PREFIXES]
UNKNOWN = [name for name in NAMES if name[0] not in KNOWN_PREFIXES]


@pytest.fixture(scope="module")
def report(comfy_installation, tmp_path_factory) -> dict:
    """What the worker found, naming by naming."""
    path = tmp_path_factory.mktemp("lora") / "report.json"
    command = [comfy_installation.python, WORKER, PACK, path]
    finished = subprocess.run(
        command, cwd=comfy_installation.folder, env=server_environment(), capture_output=True, text=True, timeout=900
    )
    assert finished.returncode == 0, finished.stderr[-4000:]
    return json.loads(path.read_text())


@pytest.mark.parametrize("naming", KNOWN, ids="*".join)
def test_the_loader_gives_the_weights_of_the_library(report, naming):
    found = report["*".join(naming)]
    assert found["layers"] == len(LAYERS)
    assert found["change"] > 0.1
    assert found["difference"] < 1e-5


@pytest.mark.parametrize("naming", UNKNOWN, ids="*".join)
def test_the_loader_leaves_what_it_does_not_know_without_an_effect(report, naming):
    assert report["*".join(naming)]["layers"] == 0
