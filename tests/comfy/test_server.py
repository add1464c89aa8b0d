"""ComfyUI starts with the pack, knows its nodes, and outlives prompts that are wrong."""

import io
import re

import pytest
from comfy_client import PromptFailedError, RequestRefusedError
from comfy_server import PACK_NAME, ComfyDiedError
from PIL import Image

NODE_IDS = {
    "MRTModelLoader",
    "MRTLayoutBuilder",
    "MRTTextToRegionLatents",
    "MRTImageToRegionLatents",
    "MRTLayersToRegionLatents",
    "MRTMaskedRegionSampler",
    "MRTLayerSplitter",
    "MRTSaveLayeredPSD",
    "MRTLoadLayeredPSD",
}
ORANGE = (208, 64, 32)


def orange_image(width: int) -> dict:
    """The smallest prompt of stock nodes that leaves a file."""
    inputs = {"width": width, "height": 64, "batch_size": 1, "color": int.from_bytes(ORANGE, "big")}
    return {
        "1": {"class_type": "EmptyImage", "inputs": inputs},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "orange"}},
    }


def loaded_image(name: str) -> dict:
    """A prompt that shows a file of the input folder."""
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": name}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }


def test_pack_imports_without_errors(server):
    log = server.log().split("got prompt")[0]  # other tests share the server, and some provoke errors
    about_the_pack = [line for line in log.splitlines() if PACK_NAME in line]
    assert len(about_the_pack) == 1, log  # the time that its import took, and nothing else
    assert re.search(rf"\d seconds: \S*{PACK_NAME}$", about_the_pack[0]), log
    assert "Traceback" not in log, log


def test_object_info_lists_every_node(client):
    nodes = client.object_info()
    ours = {name for name, node in nodes.items() if node["python_module"] == f"custom_nodes.{PACK_NAME}"}
    assert ours == NODE_IDS


def test_every_node_and_input_is_described(client):
    for name in sorted(NODE_IDS):
        node = client.object_info(name)
        assert node["description"], name
        assert node["category"].split("/")[0] == "MRT", name
        inputs = {**node["input"].get("required", {}), **node["input"].get("optional", {})}
        bare = [key for key, (_, *options) in inputs.items() if not (options and options[0].get("tooltip"))]
        assert bare == [], f"{name}: inputs without a tooltip"


def test_prompt_runs_and_its_file_is_served(client):
    entry = client.run(orange_image(96))
    (file,) = entry.outputs["2"]["images"]
    with Image.open(io.BytesIO(client.view(file))) as image:
        assert image.size == (96, 64)
        assert image.getpixel((95, 63)) == ORANGE


def test_websocket_reports_every_node_of_a_prompt(client):
    entry, messages = client.watch(orange_image(88))
    assert entry.status == "success"
    begun = [message.data["node"] for message in messages if message.type == "executing"]
    assert begun == ["1", "2", None]


def test_uploaded_file_is_loaded(client):
    file = io.BytesIO()
    Image.new("RGB", (24, 16), ORANGE).save(file, "PNG")
    name = client.upload("orange.png", file.getvalue(), "a folder")
    assert name == "a folder/orange.png"
    (shown,) = client.run(loaded_image(name)).outputs["2"]["images"]
    with Image.open(io.BytesIO(client.view(shown))) as image:
        assert image.size == (24, 16)
        assert image.getpixel((0, 0)) == ORANGE


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        ({"1": {"class_type": "MRTNoSuchNode", "inputs": {}}}, "missing_node_type"),
        ({"1": {"class_type": "PreviewImage", "inputs": {}}}, "prompt_outputs_failed_validation"),
        ({}, "prompt_no_outputs"),
    ],
    ids=["unknown node", "missing input", "empty"],
)
def test_server_refuses_a_bad_prompt_and_lives_on(client, prompt, reason):
    with pytest.raises(RequestRefusedError) as refusal:
        client.run(prompt)
    assert refusal.value.status == 400
    assert f'"type": "{reason}"' in refusal.value.body
    client.run(orange_image(80))


def test_server_reports_a_failing_node_and_lives_on(client):
    name = client.upload("broken.png", b"not a picture")
    with pytest.raises(PromptFailedError, match="LoadImage 1: cannot identify image file") as failure:
        client.run(loaded_image(name))
    assert failure.value.entry.error["node_id"] == "1"
    assert not failure.value.entry.interrupted
    client.run(orange_image(72))


def test_server_that_cannot_start_says_why(start_server):
    with (
        pytest.raises(ComfyDiedError, match="unrecognized arguments: --no-such-option"),
        start_server("--no-such-option"),
    ):
        pass
