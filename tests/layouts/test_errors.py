import json
from copy import deepcopy
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrt_core.errors import MRTError
from mrt_core.geometry import Size
from mrt_core.layouts import documents as layout_json
from mrt_core.layouts import layout
from mrt_core.layouts.boxes import read_layout
from mrt_core.layouts.documents import parse_layout
from mrt_core.layouts.layout import Layout

SCHEMA = json.loads((Path(__file__).parents[2] / "mrt_core/data/layout.schema.json").read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
FRAME = {"width": 256, "height": 192}
BOX = {"x": 1, "y": 2, "width": 30, "height": 40}


def document(**changes):
    return {"frame": FRAME, "layers": [{"box": BOX}], **changes}


def layer(**changes):
    return document(layers=[{"box": BOX, **changes}])


def box(**changes):
    return layer(box={**BOX, **changes})


def frame(**changes):
    return document(frame={**FRAME, **changes})


def without(value, key):
    return {name: item for name, item in value.items() if name != key}


def error_of(value, function=parse_layout):
    with pytest.raises(MRTError) as caught:
        function(value)
    return str(caught.value)


# Rules and remedies that many messages share.
A_NUMBER = "but must be a number; write a plain number such as 120."
FINITE = "but must be finite; write a plain number such as 120."
A_STRING = "but must be a string; write it in quotes, or leave it out."
CHARACTERS = "but control characters and lone surrogates are not allowed; remove it."
SIDE = "but must be a whole number from 16 to 16384 px; change it."
Z = "but must be a whole number from -1000000 to 1000000; change it."
SMALL = "but a box is at least 1 px wide and high; make it larger, or leave it out."
WIDTH = "but may reach at most one frame width past the frame, -256 to 512; move or shrink it."
HEIGHT = "but may reach at most one frame height past the frame, -192 to 384; move or shrink it."
REQUIRED = "which is required; add it."
OBJECT = "but must be an object; write one in braces with"

MESSAGES = [
    ([], f"the layout is a list of 0, {OBJECT} frame, layers, caption, background."),
    (b"{}", f"the layout is a value of type bytes, {OBJECT} frame, layers, caption, background."),
    ({"layers": []}, f"the layout has no 'frame', {REQUIRED}"),
    ({"frame": FRAME}, f"the layout has no 'layers', {REQUIRED}"),
    (
        document(Layers=[]),
        "the layout has the unknown key 'Layers', but may only have frame, layers, caption, background; remove it.",
    ),
    (
        {**document(), 7: 1},
        "the layout has the unknown key 7, but may only have frame, layers, caption, background; remove it.",
    ),
    (document(frame=None), f"frame is null, {OBJECT} width, height."),
    (frame(depth=1), "frame has the unknown key 'depth', but may only have width, height; remove it."),
    (frame(width=15), f"frame.width is 15, {SIDE}"),
    (frame(height=16385), f"frame.height is 16385, {SIDE}"),
    (frame(width=256.5), f"frame.width is 256.5, {SIDE}"),
    (frame(width="256"), f"frame.width is the string '256', {A_NUMBER}"),
    (frame(height=True), f"frame.height is true, {A_NUMBER}"),
    (document(layers={}), "layers is an object, but must be a list; write its items in square brackets."),
    (document(layers=[{"box": BOX}] * 51), "layers has 51 items, but a layout has at most 50 layers; remove some."),
    (document(layers=["Sun"]), f"layers[0] is the string 'Sun', {OBJECT} box, name, caption, z."),
    (document(layers=[{"box": BOX}, {}]), f"layers[1] has no 'box', {REQUIRED}"),
    (layer(colour=1), "layers[0] has the unknown key 'colour', but may only have box, name, caption, z; remove it."),
    (layer(box=[1, 2, 3, 4]), f"layers[0].box is a list of 4, {OBJECT} x, y, width, height."),
    (layer(box=without(BOX, "height")), f"layers[0].box has no 'height', {REQUIRED}"),
    (box(w=3), "layers[0].box has the unknown key 'w', but may only have x, y, width, height; remove it."),
    (box(x=float("nan")), f"layers[0].box.x is NaN, {FINITE}"),
    (box(x=float("-inf")), f"layers[0].box.x is -Infinity, {FINITE}"),
    (box(x=10**400), f"layers[0].box.x is an integer of about 401 digits, {FINITE}"),
    (box(x=None), f"layers[0].box.x is null, {A_NUMBER}"),
    (box(width="30"), f"layers[0].box.width is the string '30', {A_NUMBER}"),
    (box(width=False), f"layers[0].box.width is false, {A_NUMBER}"),
    (box(width=[3]), f"layers[0].box.width is a list of 1, {A_NUMBER}"),
    (box(width=0), f"layers[0].box.width is 0, {SMALL}"),
    (box(height=-4.5), f"layers[0].box.height is -4.5, {SMALL}"),
    (box(x=-257), f"layers[0].box spans x = -257 to -227, {WIDTH}"),
    (box(y=300.5, height=90), f"layers[0].box spans y = 300.5 to 390.5, {HEIGHT}"),
    (box(x=1e308, width=1e308), f"layers[0].box spans x = 1e+308 to Infinity, {WIDTH}"),
    (document(background={"box": {**BOX, "width": 0}}), f"background.box.width is 0, {SMALL}"),
    (document(background=[]), f"background is a list of 0, {OBJECT} name, box, caption."),
    (
        document(background={"z": 0}),
        "background has the unknown key 'z', but may only have name, box, caption; remove it.",
    ),
    (layer(z=1.5), f"layers[0].z is 1.5, {Z}"),
    (layer(z=-1000001), f"layers[0].z is -1000001, {Z}"),
    (layer(name=3), f"layers[0].name is 3, {A_STRING}"),
    (layer(name=None), f"layers[0].name is null, {A_STRING}"),
    (layer(name="a\0b"), f"layers[0].name contains U+0000, {CHARACTERS}"),
    (layer(name="a\n"), f"layers[0].name contains U+000A, {CHARACTERS}"),
    (layer(caption="\ud83d"), f"layers[0].caption contains U+D83D, {CHARACTERS}"),
    (layer(name="n" * 256), "layers[0].name has 256 characters, but may have at most 255; shorten it."),
    (document(caption="c" * 10_001), "caption has 10001 characters, but may have at most 10000; shorten it."),
    (document(background={"caption": 1}), f"background.caption is 1, {A_STRING}"),
]


@pytest.mark.parametrize(("value", "message"), MESSAGES)
def test_each_error_states_value_rule_and_remedy(value, message):
    assert error_of(value) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the text is not valid JSON at line 1, column 1 (Expecting value); correct it there."),
        (
            '{"frame":\n  {"width": 256 "height": 2}}',
            "the text is not valid JSON at line 2, column 17 (Expecting ',' delimiter); correct it there.",
        ),
        (
            '{"frame": 1, "frame": 2}',
            "the key 'frame' stands twice in one object, but only one can count; remove the other.",
        ),
        ('"text"', f"the layout is the string 'text', {OBJECT} frame, layers, caption, background."),
        ('{"layers": [], "frame": {"width": 1e400, "height": 64}}', f"frame.width is Infinity, {FINITE}"),
        ('{"layers": [], "frame": {"width": NaN, "height": 64}}', f"frame.width is NaN, {FINITE}"),
    ],
)
def test_hostile_and_broken_text(text, message):
    assert error_of(text) == message


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_deeply_nested_text(opening):
    assert error_of(opening * 100_000) == (
        "the text is nested too deeply, but a layout has four levels; remove the nesting."
    )


@pytest.mark.parametrize(("digits", "message"), [(30, f"1e+30, {SIDE}"), (5000, f"Infinity, {FINITE}")])
def test_integers_of_many_digits(digits, message):
    text = f'{{"layers": [], "frame": {{"width": 64, "height": {"9" * digits}}}}}'
    assert error_of(text) == f"frame.height is {message}"


def test_a_long_unknown_key_is_cut():
    assert error_of(document(**{"k\ud800" * 500: 1})) == (
        "the layout has the unknown key '"
        + "k\\ud800" * 20
        + "'…, but may only have frame, layers, caption, background; remove it."
    )


def test_deep_objects_never_recurse():
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    assert error_of(layer(name=deep)) == f"layers[0].name is a list of 1, {A_STRING}"


GOOD = [
    document(),
    document(layers=[]),
    document(layers=[{"box": BOX}] * 50),
    document(caption="", background={}),
    document(background={"name": "", "box": BOX, "caption": "two\nlines\t\r"}),
    {**frame(width=16, height=16384), "layers": []},
    frame(width=256.0),
    layer(name="☀️", caption="c" * 10_000, z=-1_000_000),
    layer(name="", z=2.0),
    box(x=-256, width=768),
    box(width=1, height=1.5),
]
NOT_JSON = [value for value, _ in MESSAGES if value == b"{}" or (isinstance(value, dict) and 7 in value)]
ONLY_THE_PARSER_KNOWS = {message for _, message in MESSAGES if " spans " in message and "1e+308" not in message}


@pytest.mark.parametrize("value", GOOD)
def test_schema_and_parser_accept(value):
    assert [error.message for error in VALIDATOR.iter_errors(value)] == []
    assert isinstance(parse_layout(deepcopy(value)), Layout)


@pytest.mark.parametrize(("value", "message"), [(v, m) for v, m in MESSAGES if v not in NOT_JSON and "NaN" not in m])
def test_schema_rejects_what_the_parser_rejects(value, message):
    assert VALIDATOR.is_valid(value) == (message in ONLY_THE_PARSER_KNOWS)


def test_schema_is_valid_and_states_the_same_limits():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    properties, definitions = SCHEMA["properties"], SCHEMA["$defs"]
    side = {"type": "integer", "minimum": layout.MIN_FRAME_SIDE, "maximum": layout.MAX_FRAME_SIDE}
    assert properties["frame"]["properties"] == {"width": side, "height": side}
    assert properties["layers"]["maxItems"] == layout.MAX_LAYERS
    z = properties["layers"]["items"]["properties"]["z"]
    assert (z["minimum"], z["maximum"]) == (-layout_json.MAX_Z, layout_json.MAX_Z)
    sides = definitions["box"]["properties"]
    assert sides["x"] == sides["y"] and sides["width"] == sides["height"]
    assert (sides["x"]["minimum"], sides["x"]["maximum"]) == (-layout.MAX_FRAME_SIDE, 2 * layout.MAX_FRAME_SIDE)
    assert (sides["width"]["minimum"], sides["width"]["maximum"]) == (layout.MIN_BOX_SIDE, 3 * layout.MAX_FRAME_SIDE)
    assert definitions["name"]["maxLength"] == layout.MAX_NAME_LENGTH
    assert definitions["caption"]["maxLength"] == layout.MAX_CAPTION_LENGTH


KEYS = [
    "frame",
    "layers",
    "background",
    "caption",
    "width",
    "height",
    "box",
    "name",
    "x",
    "y",
    "z",
    "bbox",
    "type",
    "label",
]
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from([10**400, "\ud800"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=3), inner),
    max_leaves=12,
)


def read_any(value, size):
    return read_layout(value, size).layout


def only_mrt_error(function, *arguments):
    try:
        assert isinstance(function(*arguments), Layout)
    except MRTError as error:
        message = str(error)
        assert message.endswith(".") and "\n" not in message
        message.encode("utf-8")


@given(json_values)
@settings(max_examples=150, deadline=None)
def test_random_values_raise_only_mrt_errors(value):
    only_mrt_error(parse_layout, value)
    only_mrt_error(read_any, value, Size(64, 64))
    only_mrt_error(read_any, json.dumps(value), Size(64, 64))


@given(st.text(max_size=30) | st.text('{}[]",:0123456789eE.-+\\u', max_size=30))
@settings(max_examples=150, deadline=None)
def test_random_text_raises_only_mrt_errors(text):
    only_mrt_error(read_any, text, Size(64, 64))


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_a_document_with_one_random_value_raises_only_mrt_errors(data):
    value = document(background={"name": "b", "box": dict(BOX), "caption": "c"}, caption="d")
    value = deepcopy({**value, "layers": [{"name": "n", "box": BOX, "caption": "e", "z": 1}]})
    target = value
    while True:
        key = data.draw(st.sampled_from(sorted(target) if isinstance(target, dict) else range(len(target))))
        if not isinstance(target[key], (dict, list)) or data.draw(st.booleans()):
            break
        target = target[key]
    target[key] = data.draw(json_values)
    only_mrt_error(parse_layout, value)
