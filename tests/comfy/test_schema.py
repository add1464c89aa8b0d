"""The nodes' ids, inputs and outputs against node_schema.json: a change of them breaks workflows that people saved.

ComfyUI stores the values of a node by position, so an input may be appended but not moved, and links by the position
and type of an output. After a change on purpose, run this file with MRT_UPDATE_SCHEMA=1 and commit what it writes.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from comfy_server import PACK_NAME

SNAPSHOT = Path(__file__).parent / "node_schema.json"
UPDATE = "MRT_UPDATE_SCHEMA"
KEPT_OPTIONS = ("min", "max", "control_after_generate")  # limits that values must keep; one more value in the file
FILE_LISTS = ("model_name", "file")  # their options are the files that are there


def input_schema(name: str, kind: str, options: dict[str, Any], optional: bool) -> dict[str, Any]:
    """What a saved workflow or an API prompt relies on in one input."""
    schema = {"name": name, "type": kind, "optional": optional}
    schema |= {key: options[key] for key in KEPT_OPTIONS if key in options}
    if "options" in options and name not in FILE_LISTS:
        schema["options"] = [
            option if isinstance(option, str) else {"key": option["key"], "inputs": inputs_schema(option["inputs"])}
            for option in options["options"]
        ]
    return schema


def inputs_schema(inputs: dict[str, Any]) -> list[dict[str, Any]]:
    """The inputs of a node, or of an option that brings its own, in order."""
    return [
        input_schema(name, kind, rest[0] if rest else {}, group == "optional")
        for group in ("required", "optional")
        for name, (kind, *rest) in inputs.get(group, {}).items()
    ]


def node_schema(node: dict[str, Any]) -> dict[str, Any]:
    """Inputs and outputs of one node of /object_info."""
    outputs = zip(node["output_name"], node["output"], node["output_is_list"], strict=True)
    return {
        "inputs": inputs_schema(node["input"]),
        "outputs": [{"name": name, "type": kind, "is_list": is_list} for name, kind, is_list in outputs],
        "output_node": node["output_node"],
    }


@pytest.fixture(scope="module")
def schema(client) -> dict[str, Any]:
    """Every node of this pack as the server describes it."""
    nodes = client.object_info()
    ours = (name for name, node in nodes.items() if node["python_module"] == f"custom_nodes.{PACK_NAME}")
    return {name: node_schema(nodes[name]) for name in sorted(ours)}


def test_nodes_are_those_of_the_snapshot(schema):
    if os.environ.get(UPDATE):
        SNAPSHOT.write_text(json.dumps(schema, indent=1) + "\n", encoding="utf-8")
        pytest.skip(f"{SNAPSHOT.name} was written anew")
    assert SNAPSHOT.is_file(), f"{SNAPSHOT.name} is missing; write it with {UPDATE}=1"
    saved = json.loads(SNAPSHOT.read_text(encoding="utf-8"))
    assert sorted(schema) == sorted(saved)
    for name, node in schema.items():
        now, then = (
            json.dumps(node, indent=1),
            json.dumps(saved[name], indent=1),
        )  # text, so that pytest shows the lines
        assert now == then, f"{name} changed; if this is meant, write the snapshot with {UPDATE}=1"
