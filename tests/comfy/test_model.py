"""The MODEL against the library alone: the same noise and schedule give the same latents and layers, in every task."""

import pytest
from worker import run_worker

TASKS = ("text", "image", "add", "restyle")
TOLERANCE = 1e-4  # of latents up to 6: sums are taken in another order, eight steps long


@pytest.fixture(scope="module")
def report(comfy_installation, tmp_path_factory) -> dict:
    """What the worker found, task by task."""
    path = tmp_path_factory.mktemp("model") / "report.json"
    return run_worker(comfy_installation, "model_worker.py", path)


@pytest.mark.parametrize("task", TASKS)
def test_samplers_give_the_latents_of_the_library(report, task):
    found = report[task]
    assert found["scale"] > 1  # latents of something
    assert found["sampler"] < TOLERANCE
    assert found["ksampler"] < TOLERANCE  # euler, simple
    assert found["guided"] < TOLERANCE  # cfg 2.5 with renormalisation
    assert found["student"] < TOLERANCE  # the renoise solver


@pytest.mark.parametrize("task", TASKS)
def test_clean_slots_come_out_as_they_went_in(report, task):
    assert report[task]["clean"] < 1e-6


@pytest.mark.parametrize("task", TASKS)
def test_layers_are_those_of_the_library(report, task):
    assert report[task]["levels"] <= 1  # of 255
    assert report[task]["placed"]


@pytest.mark.parametrize("task", TASKS)
def test_stock_vae_decodes_the_composite(report, task):
    assert report[task]["stock_decode"] <= 1 / 255 + 1e-6


def test_a_lora_changes_the_result_and_nothing_else(report):
    assert report["text"]["lora"] > 0.01
    assert report["text"]["after_lora"] == 0  # the model without it is as before


def test_a_students_lora_says_how_to_sample(report):
    assert report["text"]["student_lora"] == 0  # three renoising steps, as if they had been asked for
