"""The rooms of the library, and that imports go down only: read from every import, also those inside functions."""

import ast
import shutil
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# The folders and the single modules of mrt_core, lowest first. Those in one line know nothing of each other.
ROOMS = [
    {"errors"},
    {"geometry", "atomic"},
    {"layouts", "stacks"},
    {"models", "documents", "unmixing"},
    {"sampling", "weights"},
    {"checkpoints"},
    {"tasks", "lora"},
    {"offload", "designs"},
    {"pipeline"},
    {"evaluation"},
    {"training"},
    {"cli"},
    {"__main__"},
]
LEVELS = {room: level for level, rooms in enumerate(ROOMS) for room in rooms}

Name = tuple[str, ...]  # of a module, without mrt_core: ("models", "rope"), or ("cli",) for cli/__init__.py


def module_name(path: Path, library: Path) -> Name:
    parts = path.relative_to(library).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


def import_graph(library: Path) -> dict[Name, set[Name]]:
    """What every module imports of the library, as modules; `from room import module` imports the module."""
    paths = {module_name(path, library): path for path in library.rglob("*.py")}
    graph = {}
    for module, path in paths.items():
        package = ("mrt_core", *path.relative_to(library).parts[:-1])
        found = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                targets = [tuple(alias.name.split(".")) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                above = package[: len(package) - node.level + 1] if node.level else ()
                base = (*above, *(node.module or "").split("."))[: None if node.module else -1]
                targets = [(*base, alias.name) if (*base[1:], alias.name) in paths else base for alias in node.names]
            else:
                continue
            found |= {target[1:] for target in targets if target[0] == "mrt_core"}
        graph[module] = found
    return graph


def upward_imports(graph: dict[Name, set[Name]]) -> list[str]:
    """Imports of another room that does not lie below; KeyError for a room that ROOMS does not list."""
    return sorted(
        f"{'.'.join(module)} imports {'.'.join(target)}"
        for module, targets in graph.items()
        for target in targets
        if module and target and module[0] != target[0] and LEVELS[module[0]] <= LEVELS[target[0]]
    )


def circle(graph: dict[Name, set[Name]]) -> list[str]:
    """The modules of an import circle, or none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [".".join(module) for module in error.args[1]]
    return []


@pytest.fixture
def copied_library(tmp_path) -> Path:
    return shutil.copytree(
        ROOT / "mrt_core", tmp_path / "mrt_core", ignore=shutil.ignore_patterns("data", "__pycache__")
    )


def test_imports_go_down_only():
    assert upward_imports(import_graph(ROOT / "mrt_core")) == []


def test_no_import_circle():
    assert circle(import_graph(ROOT / "mrt_core")) == []


def test_every_room_is_there_and_holds_several_modules():
    modules = [module for module in import_graph(ROOT / "mrt_core") if module]
    assert {module[0] for module in modules} == LEVELS.keys()
    folders = [path.parent for path in (ROOT / "mrt_core").rglob("__init__.py")]
    assert not [folder for folder in folders if len(list(folder.glob("*.py"))) < 3]


@pytest.mark.parametrize(
    ("file", "line", "found"),
    [
        (
            "models/rope.py",
            "from ..training.flow_matching import add_noise",
            "models.rope imports training.flow_matching",
        ),
        ("models/rope.py", "def late():\n    from .. import pipeline", "models.rope imports pipeline"),
        ("documents/psd/values.py", "from ... import models", "documents.psd.values imports models"),
        ("stacks/layers.py", "import mrt_core.layouts.layout", "stacks.layers imports layouts.layout"),
    ],
)
def test_a_planted_upward_import_is_found(copied_library, file, line, found):
    with (copied_library / file).open("a", encoding="utf-8") as source:
        source.write(f"\n{line}\n")
    assert upward_imports(import_graph(copied_library)) == [found]


def test_a_planted_circle_is_found(copied_library):
    with (copied_library / "models" / "rope.py").open("a", encoding="utf-8") as source:
        source.write("\nif TYPE_CHECKING:\n    from .transformer import Attention\n")
    assert {"models.rope", "models.transformer"} <= set(circle(import_graph(copied_library)))
