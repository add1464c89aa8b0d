"""Any layer stack, written and read back (hypothesis)."""

import io
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from psd_tools import PSDImage
from torture import names, noise, over_white, stored

from mrt_core.documents import load, save
from mrt_core.documents.native_layers import MODES, from_native, to_native
from mrt_core.documents.psd.values import clean_name
from mrt_core.documents.psd.writer import write_psd
from mrt_core.geometry import Box, Size
from mrt_core.stacks.layers import (
    BLEND_MODES,
    PASS_THROUGH,
    Group,
    Layer,
    LayerStack,
    composite,
    composite_premultiplied,
)

EXAMPLES = settings(max_examples=40, deadline=None)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
metadata = st.dictionaries(st.text(min_size=1).filter(lambda key: key != "ppi"), json_values, max_size=4)
opacities = st.integers(0, 255).map(lambda level: level / 255)
any_text = st.text(st.characters(exclude_categories=[]), max_size=300)  # lone surrogates and controls included


@st.composite
def layers(draw: st.DrawFn, modes: tuple[str, ...] = BLEND_MODES, name: st.SearchStrategy[str] = any_text) -> Layer:
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    alpha = draw(st.sampled_from([(0, 256), (255, 256), (0, 1), (0, 2), (1, 255)]))
    x, y = draw(st.integers(-60, 60)), draw(st.integers(-60, 60))
    return Layer(
        noise(height, width, draw(st.integers(0, 99)), alpha), x, y, draw(name), draw(st.text(max_size=20)),
        draw(opacities), draw(st.sampled_from(modes)), draw(st.booleans()),
    )  # fmt: skip


@st.composite
def groups(draw: st.DrawFn, inside: st.SearchStrategy) -> Group:
    return Group(
        tuple(draw(st.lists(inside, max_size=3))), draw(any_text), draw(opacities),
        draw(st.sampled_from((*BLEND_MODES, PASS_THROUGH))), draw(st.booleans()), draw(st.booleans()),
    )  # fmt: skip


nodes = st.recursive(layers(), groups, max_leaves=5)
stacks = st.builds(
    LayerStack,
    st.builds(Size, st.integers(1, 50), st.integers(1, 50)),
    st.lists(nodes, min_size=1, max_size=4).map(tuple),
    metadata,
)


@given(stack=stacks, compression=st.sampled_from(["rle", "zip"]), version=st.sampled_from([1, 2]))
@EXAMPLES
def test_psd_holds_any_stack(stack, compression, version):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("a.psd" if version == 1 else "a.psb")
        with path.open("wb+") as file:
            write_psd(stack, file, version, compression)
        back = load(path)
        assert back.frame == stack.frame and back.metadata == stack.metadata and back.warnings == ()
        wanted = [clean_name(name, "") for name in names(stack.layers)]
        assert [a for a, b in zip(names(back.layers), wanted, strict=True) if b and a != b] == []
        for layer, original in zip(back.flat(), stack.flat(), strict=True):
            expected = stored(original)
            assert (layer.x, layer.y) == (expected.x, expected.y)
            assert np.array_equal(layer.pixels, expected.pixels)
            assert (layer.caption, layer.visible, layer.blend_mode) == (
                original.caption, original.visible, original.blend_mode,
            )  # fmt: skip
            assert abs(layer.opacity - original.opacity) < 1e-9
        save(back, Path(folder) / f"b{path.suffix}")
        save(load(Path(folder) / f"b{path.suffix}"), Path(folder) / f"c{path.suffix}")
        assert (Path(folder) / f"b{path.suffix}").read_bytes() == (Path(folder) / f"c{path.suffix}").read_bytes()


@given(stack=stacks)
@EXAMPLES
def test_merged_image_is_the_composite(stack):
    buffer = io.BytesIO()
    write_psd(stack, buffer)
    buffer.seek(0)
    document = PSDImage.open(buffer)
    header = document._record.header
    planes = [np.frombuffer(plane, np.uint8) for plane in document._record.image_data.get_data(header)]
    stored_image = np.stack(planes, -1).reshape(header.height, header.width, -1)
    expected = composite_premultiplied(stack)
    assert np.abs(stored_image[..., :3] - over_white(expected.astype(np.float64))).max() <= 0.51
    alpha = stored_image[..., 3] if header.channels == 4 else np.full(stored_image.shape[:2], 255)
    assert np.abs(alpha - expected[..., 3] * 255).max() <= 0.51


@given(stack=stacks, suffix=st.sampled_from(["", ".zip"]))
@EXAMPLES
def test_folder_and_zip_are_lossless(stack, suffix):
    with tempfile.TemporaryDirectory() as folder:
        save(stack, Path(folder) / f"a{suffix}")
        back = load(Path(folder) / f"a{suffix}")
    assert (back.frame, back.metadata, names(back.layers)) == (stack.frame, stack.metadata, names(stack.layers))
    for a, b in zip(back.flat(), stack.flat(), strict=True):
        assert np.array_equal(a.pixels, b.pixels) and a.__dict__.keys() == b.__dict__.keys()
        assert all(a.__dict__[key] == b.__dict__[key] for key in a.__dict__ if key != "pixels")


@given(stack=stacks)
@EXAMPLES
def test_openraster_keeps_all_but_unprintable_names(stack):
    with tempfile.TemporaryDirectory() as folder:
        save(stack, Path(folder) / "a.ora")
        back = load(Path(folder) / "a.ora")
    assert (back.frame, back.metadata, back.warnings) == (stack.frame, stack.metadata, ())
    assert np.array_equal(composite(back), composite(stack))
    for a, b in zip(back.flat(), stack.flat(), strict=True):
        assert np.array_equal(a.pixels, b.pixels) and (a.caption, a.x, a.y) == (b.caption, b.x, b.y)


@given(found=st.lists(layers(MODES), max_size=5))
@EXAMPLES
def test_native_layers_are_lossless(found):
    stack = LayerStack(Size(30, 20), tuple(found))
    for a, b in zip(from_native(to_native(stack)).layers, found, strict=True):
        assert np.array_equal(a.pixels, b.pixels)
        assert all(a.__dict__[key] == b.__dict__[key] for key in a.__dict__ if key not in ("pixels", "name"))
        assert a.name == (b.name or "Layer")


@given(stack=stacks, cut=st.integers(1, 60))
@EXAMPLES
def test_composite_does_not_depend_on_the_bands(stack, cut):
    width, height = stack.frame
    whole = composite_premultiplied(stack)
    bands = [
        composite_premultiplied(stack, Box(0, top, width, min(cut, height - top))) for top in range(0, height, cut)
    ]
    assert np.allclose(np.concatenate(bands), whole, atol=2e-6)
