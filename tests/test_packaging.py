"""What is shipped: the requirements, the version, the wheel's files, and the wall between library and ComfyUI."""

import ast
import importlib.util
import inspect
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

import mrt_core

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "mrt_core").rglob("*.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
IMPORT_NAMES = {"pillow": "PIL", "psd-tools": "psd_tools"}  # where it is not the distribution's name
OPTIONAL = {"transformers"}  # `qwen`: never needed to import the library
COMMAND_LINE = re.compile(r"cli(/|_\w+\.py$|\.py$)|__main__\.py$")


def source_id(path: Path) -> str:
    return path.relative_to(ROOT / "mrt_core").as_posix()


@cache
def syntax_tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), path.name)


def requirements(text: str) -> list[str]:
    lines = (line.split("#")[0].strip() for line in text.splitlines())
    return [line for line in lines if line]


def distribution(requirement: str) -> str:
    return re.match(r"[\w.-]+", requirement)[0].lower()


def imported_modules(path: Path) -> set[str]:
    """Top-level names of what a module imports, wherever in it; relative imports resolved from the repository's root."""
    package = path.relative_to(ROOT).parts[:-1]
    found = set()
    for node in ast.walk(syntax_tree(path)):
        if isinstance(node, ast.Import):
            found.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            target = [*package[: len(package) - node.level + 1], node.module] if node.level else [node.module]
            assert target[0], f"line {node.lineno} imports from above the repository's root"
            found.add(target[0].split(".")[0])
    return found


def test_requirements_leave_torch_to_the_user():
    names = {distribution(line) for line in requirements((ROOT / "requirements.txt").read_text(encoding="utf-8"))}
    assert {"numpy", "psd-tools"} <= names
    assert not {name for name in names if name.startswith(("torch", "nvidia", "triton"))}


def test_requirements_are_the_dependencies():
    listed = requirements((ROOT / "requirements.txt").read_text(encoding="utf-8"))
    assert listed == PROJECT["project"]["dependencies"]


def test_torch_is_pinned_where_the_makefile_looks():
    pins = [line for line in PROJECT["project"]["optional-dependencies"]["dev"] if distribution(line) == "torch"]
    found = re.findall(r'"(torch==[^"]*)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert found == pins and len(pins) == 1


def test_version_is_the_same_everywhere():
    assert PROJECT["project"]["version"] == mrt_core.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+", mrt_core.__version__)  # what the ComfyUI registry accepts


def test_registry_metadata():
    assert not re.search("comfyui", PROJECT["project"]["name"], re.IGNORECASE)
    keys = set(PROJECT["tool"]["comfy"])
    assert keys == {"PublisherId", "DisplayName", "requires-comfyui"}  # `web` would load the JavaScript twice
    assert PROJECT["project"]["urls"]["Repository"].startswith("https://")


@pytest.mark.parametrize("path", SOURCES, ids=source_id)
def test_source_compiles(path):
    code = compile(path.read_text(encoding="utf-8"), str(path), "exec", dont_inherit=True)
    assert code.co_name == "<module>"
    ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 11))


@pytest.mark.parametrize("path", SOURCES, ids=source_id)
def test_library_imports_only_what_it_declares(path):
    declared = {distribution(line) for line in PROJECT["project"]["dependencies"]}
    known = {IMPORT_NAMES.get(name, name) for name in declared} | {"torch", "mrt_core"} | OPTIONAL
    assert imported_modules(path) - set(sys.stdlib_module_names) <= known  # so neither comfy nor nodes


@pytest.mark.parametrize("path", SOURCES, ids=source_id)
def test_only_the_command_line_prints(path):
    calls = (node.func for node in ast.walk(syntax_tree(path)) if isinstance(node, ast.Call))
    lines = [call.lineno for call in calls if isinstance(call, ast.Name) and call.id == "print"]
    assert not lines or COMMAND_LINE.match(source_id(path)), f"print in lines {lines}; use logging"


def test_library_imports_without_comfyui_and_optional_packages():
    modules = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in SOURCES]
    modules = [name.removesuffix(".__init__") for name in modules if not name.endswith("__main__")]
    blocked = ["comfy", "comfy_api", "nodes", "folder_paths", "transformers", "diffusers", "fontTools", "skimage"]
    program = (
        "import importlib, sys\n"
        f"sys.modules.update(dict.fromkeys({blocked}))\n"  # None there makes an import fail
        f"for name in {modules}: importlib.import_module(name)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_pack_loads_without_comfyui():
    spec = importlib.util.spec_from_file_location(
        "mrt_pack", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    pack = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pack)
    assert inspect.iscoroutinefunction(pack.comfy_entrypoint) and pack.WEB_DIRECTORY == "./web"
    assert not hasattr(pack, "NODE_CLASS_MAPPINGS")  # with it ComfyUI would never call the entry point


def test_wheel_holds_the_library_with_its_data_and_nothing_else():
    wheel = pytest.importorskip("hatchling.builders.wheel", reason="part of the dev extra: pip install -e .[dev]")
    included = {Path(file.relative_path) for file in wheel.WheelBuilder(str(ROOT)).recurse_included_files()}
    files = {path.relative_to(ROOT) for path in (ROOT / "mrt_core").rglob("*") if path.is_file()}
    assert included == {path for path in files if "__pycache__" not in path.parts}
    names = {path.name for path in included}
    assert {
        "layout.schema.json",
        "emoji.webp",
        "emoji.json",
        "LICENSES.md",
        "OFL.txt",
        "NotoSansCJKsc-Bold-Words.otf",
    } <= names
