import json
import re
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrt_core.errors import MRTError
from mrt_core.geometry import Box, Size
from mrt_core.layouts.boxes import read_layout
from mrt_core.layouts.documents import layout_to_json, load_layout, parse_layout
from mrt_core.layouts.layout import Layout, Region

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "mrt_core/data/layout.schema.json").read_text(encoding="utf-8"))
FRAME = {"width": 256, "height": 192}
BOX = {"x": 1, "y": 2, "width": 30, "height": 40}


def document(**changes):
    return {"frame": FRAME, "layers": [{"box": BOX}], **changes}


def layer(**changes):
    return document(layers=[{"box": BOX, **changes}])


def box(**changes):
    return layer(box={**BOX, **changes})


def error_of(value, function=parse_layout):
    with pytest.raises(MRTError) as caught:
        function(value)
    return str(caught.value)


def test_a_full_document():
    text = """{"frame": {"width": 256, "height": 192}, "caption": "a poster",
        "background": {"name": "Sky", "box": {"x": -8, "y": 0, "width": 264.5, "height": 192}, "caption": "blue"},
        "layers": [{"name": "Sun", "box": {"x": -20, "y": -10.25, "width": 80, "height": 80}, "caption": "a sun"},
                   {"box": {"x": 1, "y": 2, "width": 30, "height": 40}}]}"""
    assert parse_layout(text) == Layout(
        frame=Size(256, 192),
        regions=(Region("Sun", Box(-20, -10.25, 80, 80), "a sun"), Region("Layer 2", Box(1, 2, 30, 40))),
        caption="a poster",
        background=Region("Sky", Box(-8, 0, 264.5, 192), "blue"),
    )


def test_the_written_document():
    parsed = parse_layout(document(background={"caption": "blue"}, layers=[{"box": BOX, "caption": "x", "z": 7}]))
    assert layout_to_json(parsed) == {
        "frame": {"width": 256, "height": 192},
        "background": {"name": "Background", "box": {"x": 0, "y": 0, "width": 256, "height": 192}, "caption": "blue"},
        "layers": [{"name": "Layer 1", "box": {"x": 1, "y": 2, "width": 30, "height": 40}, "caption": "x"}],
    }


@pytest.mark.parametrize(
    ("order", "names"),
    [
        ([None, None, None], "abc"),
        ([2, 1, 0], "cba"),
        ([5, None, None], "bca"),
        ([None, None, -1], "cab"),
        ([None, 0, None], "abc"),  # a and b both have 0: list order
        ([1, None, 1.0], "abc"),
        ([2, None, None], "bac"),  # a and c both have 2
        ([3, 3, 3], "abc"),
    ],
)
def test_z_defaults_to_the_place_in_the_list_and_sorts_stably(order, names):
    places = [{} if z is None else {"z": z} for z in order]
    layers = [{"name": name, "box": BOX, **place} for name, place in zip("abc", places, strict=True)]
    assert "".join(region.name for region in parse_layout(document(layers=layers)).regions) == names


def test_unnamed_layers_are_numbered_in_the_sorted_order():
    layers = [{"box": BOX, "caption": "top", "z": 9}, {"box": BOX, "name": "", "caption": "bottom"}]
    regions = parse_layout(document(layers=layers)).regions
    assert [(region.name, region.caption) for region in regions] == [("Layer 1", "bottom"), ("Layer 2", "top")]


def test_no_layers_is_a_background_only_design():
    parsed = parse_layout(document(layers=[]))
    assert parsed.regions == ()
    assert parsed.background is None
    assert parsed.canvas == Box(0, 0, 256, 192)


def test_an_empty_background_object_covers_the_frame():
    assert parse_layout(document(background={"name": ""})).background == Region("Background", Box(0, 0, 256, 192))


def test_whole_numbers_become_integers_and_numpy_numbers_are_numbers():
    parsed = parse_layout(box(x=np.float32(2.5), y=-0.0, width=np.int64(3), height=4.0)).regions[0].box
    assert [repr(side) for side in parsed] == ["2.5", "0", "3", "4"]


@pytest.mark.parametrize("name", ["太陽", "شمس", "सूर्य", "☀️ 👩‍👩‍👧", "a\u202eb", "x" * 255, " "])
def test_names_in_any_script(name):
    assert parse_layout(json.dumps(layer(name=name))).regions[0].name == name


def test_layers_may_share_a_name():
    parsed = parse_layout(document(layers=[{"name": "Star", "box": BOX}] * 2))
    assert [region.name for region in parsed.regions] == ["Star", "Star"]


def test_the_widest_overflow_is_one_frame_on_each_side():
    widest = {"x": -256, "y": -192, "width": 768, "height": 576}
    parsed = parse_layout(document(layers=[{"box": widest}] * 50))
    assert parsed.canvas == Box(-256, -192, 768, 576)
    assert len(parsed.regions) == 50


def test_rounding_of_a_sum_is_no_overflow():
    assert -249.7 + 749.7 > 500
    box = {"x": -249.7, "y": 0, "width": 749.7, "height": 64}
    assert parse_layout({"frame": {"width": 250, "height": 64}, "layers": [{"box": box}]}).regions[0].box.x == -249.7


def test_load_layout(tmp_path):
    path = tmp_path / "poster.json"
    path.write_text("\ufeff" + json.dumps(layer(name="太陽"), ensure_ascii=False), encoding="utf-8")  # with a BOM
    assert load_layout(path) == load_layout(str(path)) == parse_layout(layer(name="太陽"))


def test_unreadable_files(tmp_path):
    missing, latin, large = tmp_path / "no.json", tmp_path / "latin.json", tmp_path / "large.json"
    latin.write_bytes(b'{"caption": "\xe4"}')
    large.write_bytes(b" " * (8 * 2**20 + 1))
    assert error_of(missing, load_layout) == (
        f"{str(missing)!r} cannot be read (No such file or directory); give the path of a layout's JSON file."
    )
    assert error_of(tmp_path, load_layout).startswith(f"{str(tmp_path)!r} cannot be read (")
    assert error_of("a\0b", load_layout).startswith("'a\\x00b' cannot be read (embedded null ")
    assert error_of(latin, load_layout) == (
        f"{str(latin)!r} is not UTF-8 text at byte 13, as a layout's JSON file must be; save it as UTF-8."
    )
    assert error_of(large, load_layout) == (
        f"{str(large)!r} is larger than the 8 MiB that a layout may have; give the path of a layout's JSON file."
    )


def test_the_longest_layout_fits_into_a_file(tmp_path):
    path = tmp_path / "long.json"
    layers = [{"box": BOX, "name": "n" * 255, "caption": "😀" * 10_000}] * 50  # 12 bytes each where escaped
    path.write_text(json.dumps(document(layers=layers)), encoding="ascii")
    assert load_layout(path).regions[49].caption == "😀" * 10_000


def test_every_example_of_the_help_page_is_read():
    page = (ROOT / "docs/layout.md").read_text(encoding="utf-8")
    examples = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    layouts = [read_layout(text, Size(800, 600)).layout for text in examples]
    assert [[region.name for region in parsed.regions] for parsed in layouts] == [
        ["Sun", "Headline"],
        [],
        ["Shadow", "Photo", "Badge"],
        ["red car"],
        ["a wooden table", "MENU"],
    ]
    assert layouts[4].regions[0].box == Box(0, 300, 800, 300)
    assert layouts[4].regions[1].caption == 'the text "MENU", large white serif letters'
    assert error_of(document(layers=[{"box": BOX}, {"box": {**BOX, "width": 0}}])) in page


texts = st.text(st.characters(exclude_categories=("Cc", "Cs"), exclude_characters="\ufffe\uffff"), max_size=12)


@st.composite
def layouts(draw) -> Layout:
    size = Size(draw(st.integers(16, 16384)), draw(st.integers(16, 16384)))

    def span(length: int) -> tuple[float, float]:
        start = draw(st.floats(-length, 2 * length - 1) | st.integers(-length, 2 * length - 1))
        return start, draw(st.floats(1, 2 * length - start) | st.just(1))

    def region(name: str) -> Region:
        (x, width), (y, height) = span(size.width), span(size.height)
        return Region(name, Box(x, y, width, height), draw(texts))

    regions = tuple(region(draw(texts) or "unnamed") for _ in range(draw(st.integers(0, 4))))
    return Layout(size, regions, draw(texts), region("Sky") if draw(st.booleans()) else None)


@given(layouts())
@settings(max_examples=60, deadline=None)
def test_round_trip_is_exact(original):
    written = layout_to_json(original)
    assert jsonschema.Draft202012Validator(SCHEMA).is_valid(written)
    assert parse_layout(written) == original
    assert parse_layout(json.dumps(written)) == original
    assert layout_to_json(parse_layout(written)) == written
