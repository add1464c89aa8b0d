"""ComfyUI's page with the pack: it opens, runs a workflow in both renderers, and names the nodes that it lacks."""

import io
from collections import Counter

import pytest
from browser import (
    error_notices,
    load_workflow,
    missing_node_types,
    notices,
    open_page,
    queue_and_wait,
    screenshot,
    serialise,
    uses_vue_nodes,
    watch_errors,
)
from PIL import Image

ORANGE = (208, 64, 32)
RENDERERS = pytest.mark.parametrize("vue_nodes", [False, True], ids=["classic", "vue"])


def orange_workflow(first_type: str, width: int) -> dict:
    """A workflow of two stock nodes, as the page saves it."""
    nodes = [
        {"id": 1, "type": first_type, "pos": [100, 100], "size": [300, 130], "order": 0, "inputs": []},
        {"id": 2, "type": "PreviewImage", "pos": [500, 100], "size": [300, 300], "order": 1, "outputs": []},
    ]
    nodes[0]["outputs"] = [{"name": "IMAGE", "type": "IMAGE", "links": [1]}]
    nodes[1]["inputs"] = [{"name": "images", "type": "IMAGE", "link": 1}]
    nodes[0]["widgets_values"] = [width, 64, 1, int.from_bytes(ORANGE, "big")]
    common = {"flags": {}, "mode": 0, "properties": {}}
    links = [[1, 1, 0, 2, 0, "IMAGE"]]
    return {
        "last_node_id": 2,
        "last_link_id": 1,
        "nodes": [{**common, **node} for node in nodes],
        "links": links,
        "groups": [],
        "config": {},
        "extra": {},
        "version": 0.4,
    }


def orange_pixels(file) -> int:
    with Image.open(file) as image:
        return Counter(image.convert("RGB").get_flattened_data())[ORANGE]


@RENDERERS
def test_page_runs_a_workflow_and_shows_its_result(browser_page, client, tmp_path, vue_nodes):
    errors = watch_errors(browser_page)
    open_page(browser_page, client, vue_nodes=vue_nodes)
    assert uses_vue_nodes(browser_page) == vue_nodes

    load_workflow(browser_page, orange_workflow("EmptyImage", 96 + 8 * vue_nodes))
    assert missing_node_types(browser_page) == []
    assert [node["type"] for node in serialise(browser_page)["nodes"]] == ["EmptyImage", "PreviewImage"]
    screenshot(browser_page, tmp_path / "before.png")
    assert orange_pixels(tmp_path / "before.png") == 0

    entry = queue_and_wait(browser_page, client)
    assert entry.status == "success"
    (file,) = entry.outputs["2"]["images"]
    with Image.open(io.BytesIO(client.view(file))) as image:
        assert image.size == (96 + 8 * vue_nodes, 64)
    screenshot(browser_page, tmp_path / "after.png")
    assert orange_pixels(tmp_path / "after.png") > 96 * 64
    assert error_notices(browser_page) == []
    assert errors == []


@RENDERERS
def test_page_names_a_node_it_lacks(browser_page, client, vue_nodes):
    open_page(browser_page, client, vue_nodes=vue_nodes)
    load_workflow(browser_page, orange_workflow("MRTNoSuchNode", 96))
    assert missing_node_types(browser_page) == ["MRTNoSuchNode"]
    notices(browser_page).wait_for()
    (notice,) = error_notices(browser_page)
    assert notice.startswith("Missing node: MRTNoSuchNode")
