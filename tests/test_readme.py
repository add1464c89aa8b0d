"""The README's layout, commands and Python example are true."""

import ast
import importlib
import inspect
import re
import shlex
from pathlib import Path

import pytest

from mrt_core.cli import build_parser
from mrt_core.layouts.documents import parse_layout
from mrt_core.pipeline import Pipeline

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


COMMANDS = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("mrt ")]


def test_layout_is_valid_and_overflows():
    (text,) = blocks("json")
    layout = parse_layout(text)
    assert [region.name for region in layout.regions] == ["Sun", "Headline"]
    assert layout.regions[0].box.x < 0 and layout.regions[0].box.y < 0


@pytest.mark.parametrize("line", COMMANDS)
def test_command_is_understood(line):
    program, *arguments = shlex.split(line, comments=True)
    assert program == "mrt" and callable(build_parser().parse_args(arguments).run)


def test_every_mode_has_a_command():
    assert {"text", "image", "add", "restyle", "train"} == {line.split()[1] for line in COMMANDS}


def test_python_example_uses_what_exists():
    (text,) = blocks("python")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            assert all(hasattr(module, alias.name) for alias in node.names)
    inspect.signature(Pipeline.text_to_layers).bind("self", "layout", options="options")


def test_linked_files_exist():
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links and not [link for link in links if not (Path(__file__).parent.parent / link).exists()]
