"""The workflow templates in ComfyUI's page: no red nodes, queued from the page, and the same as the API workflows."""

import json

import pytest
from browser import (
    error_notices,
    load_workflow,
    missing_node_types,
    open_page,
    queue_and_wait,
    screenshot,
    watch_errors,
)
from comfy_server import PACK
from test_workflows import DOCUMENTS, document, workflow

RENDERERS = pytest.mark.parametrize("vue_nodes", [False, True], ids=["classic", "vue"])
TEMPLATES = sorted((PACK / "workflows").glob("*.json"))


def template(name: str) -> dict:
    return json.loads((PACK / "workflows" / f"{name}.json").read_text(encoding="utf-8"))


def test_every_template_has_its_api_workflow_and_picture():
    assert [path.stem for path in TEMPLATES] == sorted(DOCUMENTS)
    for path in TEMPLATES:
        assert path.with_suffix(".jpg").stat().st_size > 2000


def test_the_server_lists_the_templates(client):
    assert sorted(client.get_json("/workflow_templates")["mrt-layers"]) == sorted(DOCUMENTS)


@RENDERERS
@pytest.mark.parametrize("name", sorted(DOCUMENTS))
def test_template_runs_from_the_page(browser_page, client, tmp_path, name, vue_nodes):
    errors = watch_errors(browser_page)
    open_page(browser_page, client, vue_nodes=vue_nodes)
    load_workflow(browser_page, template(name))
    assert missing_node_types(browser_page) == []
    entry = queue_and_wait(browser_page, client)
    assert entry.status == "success", entry.error_text
    assert error_notices(browser_page) == [] and errors == []
    assert [layer.name for layer in document(client, entry, workflow(name))] == DOCUMENTS[name]
    screenshot(browser_page, tmp_path / f"{name}.png")


@pytest.mark.parametrize("name", sorted(DOCUMENTS))
def test_template_is_the_api_workflow(browser_page, client, name):
    open_page(browser_page, client, vue_nodes=False)
    load_workflow(browser_page, template(name))
    prompt = browser_page.evaluate("async () => (await app.graphToPrompt()).output")
    expected = workflow(name)
    assert prompt.keys() == expected.keys()
    for number, node in expected.items():
        assert prompt[number]["class_type"] == node["class_type"]
        values = {key: value for key, value in prompt[number]["inputs"].items() if key in node["inputs"]}
        assert values == node["inputs"]
