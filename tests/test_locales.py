"""Help pages and translations: one of each for every node and language, and what they say is what the nodes say.

The nodes are read as text, because importing them needs ComfyUI.
"""

import ast
import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = [*sorted((ROOT / "nodes").glob("*.py")), *sorted((ROOT / "mrt_core").rglob("*.py"))]
LANGUAGES = ("en", "zh")
HEADINGS = {
    "en": ["Inputs", "Outputs", "How to use it", "When something is wrong"],
    "zh": ["输入", "输出", "使用方法", "出错时"],
}
CHINESE = re.compile("[\u4e00-\u9fff]")
ROW = re.compile(r"^\| `(.+?)`[^|]*\|", re.MULTILINE)  # of a table whose first column begins with code
GAP = "…"  # in a quoted message, where a value stands


@cache
def syntax_tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), path.name)


def assigned(body: list[ast.stmt]) -> dict[str, ast.expr]:
    """The values of plain assignments, and of functions that only return something, by their names."""
    values: dict[str, ast.expr] = {}
    for statement in body:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            values[statement.targets[0].id] = statement.value
        elif isinstance(statement, ast.FunctionDef) and isinstance(statement.body[-1], ast.Return):
            values[statement.name] = statement.body[-1].value
    return values


def resolved(value: ast.expr, names: Mapping[str, ast.expr]) -> ast.expr:
    """What a name, or the call of a function without arguments, stands for."""
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and not value.args:
        value = value.func
    return names[value.id] if isinstance(value, ast.Name) else value


def keywords(call: ast.Call) -> dict[str, ast.expr]:
    return {keyword.arg: keyword.value for keyword in call.keywords}


def text(call: ast.Call, key: str) -> str:
    return ast.literal_eval(keywords(call)[key])


def named_lists(value: ast.expr, names: Mapping[str, ast.expr]) -> list[ast.List]:
    """The lists that names in `value` stand for, in their order in the text."""
    found = sorted(
        (node for node in ast.walk(value) if isinstance(node, ast.Name)),
        key=lambda node: (node.lineno, node.col_offset),
    )
    return [names[node.id] for node in found if isinstance(names.get(node.id), ast.List)]


def described_inputs(inputs: ast.expr, names: Mapping[str, ast.expr], prefix: str = "") -> Iterator[tuple[str, dict]]:
    """The locale entries of a list of inputs; ComfyUI looks for the input "mode.layout" under "mode_layout"."""
    for item in resolved(inputs, names).elts:
        call = resolved(item, names)
        name = ast.literal_eval(call.args[0])
        yield prefix + name, {"name": name, "tooltip": text(call, "tooltip")}
        if ast.unparse(call.func).endswith("DynamicCombo.Input"):
            for option in named_lists(keywords(call)["options"], names):
                yield from described_inputs(option, names, f"{prefix}{name}_")


def described_outputs(outputs: ast.expr, names: Mapping[str, ast.expr]) -> dict[str, dict]:
    calls = resolved(outputs, names).elts
    return {
        str(slot): {"name": text(call, "display_name"), "tooltip": text(call, "tooltip")}
        for slot, call in enumerate(calls)
    }


def described_nodes() -> dict[str, dict]:
    """The locale entry of every node, by its id, as the schemas in nodes/ describe it."""
    nodes = {}
    for path in sorted((ROOT / "nodes").glob("*.py")):
        module = syntax_tree(path)
        for node in ast.walk(module):
            if not (isinstance(node, ast.FunctionDef) and node.name == "define_schema"):
                continue
            names = {**assigned(module.body), **assigned(node.body)}
            schema = node.body[-1].value
            entry = {key: text(schema, key) for key in ("display_name", "description")}
            entry["inputs"] = dict(described_inputs(keywords(schema)["inputs"], names))
            if "outputs" in keywords(schema):
                entry["outputs"] = described_outputs(keywords(schema)["outputs"], names)
            nodes[text(schema, "node_id")] = entry
    return nodes


NODES = described_nodes()


def locale(language: str) -> dict[str, dict]:
    return json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))


def page(node_id: str, language: str) -> str:
    return (ROOT / "web" / "docs" / node_id / f"{language}.md").read_text(encoding="utf-8")


def sections(markdown: str) -> dict[str, str]:
    """A page's sections by their headings of level 2."""
    _, *parts = re.split(r"^## (.+)\n", markdown, flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def slots(entry: dict) -> list[dict]:
    return [*entry["inputs"].values(), *entry.get("outputs", {}).values()]


def leaves(value: dict, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    for key, item in value.items():
        if isinstance(item, dict):
            yield from leaves(item, (*path, key))
        else:
            yield (*path, key), item


@cache
def message_parts() -> tuple[str, ...]:
    """Every piece of text in the sources that a message can be made of."""
    found = (node.value for path in SOURCES for node in ast.walk(syntax_tree(path)) if isinstance(node, ast.Constant))
    return tuple(value for value in found if isinstance(value, str))


def test_every_node_is_found():
    ids = re.findall(r'node_id="(MRT\w+)"', "".join(path.read_text(encoding="utf-8") for path in SOURCES))
    assert sorted(NODES) == sorted(ids) and len(ids) >= 9


def test_english_locale_is_what_the_nodes_say():
    assert locale("en") == NODES


@pytest.mark.parametrize("language", LANGUAGES)
def test_locale_has_only_files_that_comfyui_loads(language):
    known = {"main.json", "nodeDefs.json", "commands.json", "settings.json"}
    assert {file.name for file in (ROOT / "locales" / language).iterdir()} <= known


def test_languages_have_the_same_keys():
    english, chinese = (dict(leaves(locale(language))) for language in LANGUAGES)
    assert english.keys() == chinese.keys()


@pytest.mark.parametrize("language", LANGUAGES)
def test_texts_are_clean(language):
    for path, value in leaves(locale(language)):
        assert isinstance(value, str) and value.strip() == value != "", path
        if path[-1] != "tooltip":  # ComfyUI's page takes these as patterns, in which some characters have a meaning
            assert not set(value) & set("{}@|"), path


def test_chinese_is_translated():
    english = dict(leaves(locale("en")))
    left = [path for path, value in leaves(locale("zh")) if path[-1] != "name" and not CHINESE.search(value)]
    same = [path for path, value in leaves(locale("zh")) if path[-1] != "name" and value == english[path]]
    assert not left and not same


@pytest.mark.parametrize("language", LANGUAGES)
def test_help_pages_are_those_of_the_nodes(language):
    folder = ROOT / "web" / "docs"
    assert {file.parent.name for file in folder.glob(f"*/{language}.md")} == set(NODES)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("node_id", NODES)
def test_help_page(node_id, language):
    written, shown = page(node_id, language), locale(language)[node_id]
    assert written.startswith(f"# {shown['display_name']}\n")
    parts = sections(written)
    headings = [name for name in HEADINGS[language] if name != HEADINGS[language][1] or "outputs" in shown]
    assert list(parts) == headings
    for key, heading in zip(("inputs", "outputs"), HEADINGS[language][:2], strict=True):
        if key in shown:
            names = [slot["name"] for slot in NODES[node_id][key].values()]
            assert ROW.findall(parts[heading]) == names, heading


@pytest.mark.parametrize("node_id", NODES)
def test_chinese_help_page_uses_the_names_on_the_node(node_id):
    written = page(node_id, "zh")
    assert not [slot["name"] for slot in slots(locale("zh")[node_id]) if slot["name"] not in written]


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("node_id", NODES)
def test_quoted_messages_are_in_the_code(node_id, language):
    messages = ROW.findall(sections(page(node_id, language))[HEADINGS[language][-1]])
    pieces = [piece for message in messages for piece in message.split(GAP) if piece.strip()]
    assert pieces
    assert not [piece for piece in pieces if not any(piece in part for part in message_parts())]


@pytest.mark.parametrize("node_id", NODES)
def test_both_languages_quote_the_same_messages(node_id):
    english, chinese = (
        ROW.findall(sections(page(node_id, language))[HEADINGS[language][-1]]) for language in LANGUAGES
    )
    assert english == chinese
