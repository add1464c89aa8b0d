"""The stock LoRA loader on the MODEL: in every naming that it knows, its weights are those of the library."""

import pytest
from lora_files import FLATTENED_PREFIXES, LAYERS, NAMINGS
from worker import run_worker

KNOWN_PREFIXES = ("", "diffusion_model.", "transformer.", *FLATTENED_PREFIXES)  # to ComfyUI
NAMES = [(prefix, down) for prefix, (down, _) in NAMINGS]
KNOWN = [name for name in NAMES if name[0] in KNOWN_PREFIXES]
UNKNOWN = [name for name in NAMES if name[0] not in KNOWN_PREFIXES]


@pytest.fixture(scope="module")
def report(comfy_installation, tmp_path_factory) -> dict:
    """What the worker found, naming by naming."""
    path = tmp_path_factory.mktemp("lora") / "report.json"
    return run_worker(comfy_installation, "lora_worker.py", path)


@pytest.mark.parametrize("naming", KNOWN, ids="*".join)
def test_the_loader_gives_the_weights_of_the_library(report, naming):
    found = report["*".join(naming)]
    assert found["layers"] == len(LAYERS)
    assert found["change"] > 0.1
    assert found["difference"] < 1e-5


@pytest.mark.parametrize("naming", UNKNOWN, ids="*".join)
def test_the_loader_leaves_what_it_does_not_know_without_an_effect(report, naming):
    assert report["*".join(naming)]["layers"] == 0
