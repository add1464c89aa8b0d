"""PSD files as psd-tools, an independent reader, sees them."""

import io
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from psd_tools import PSDImage
from psd_tools.compression import decode_rle
from psd_tools.constants import ChannelID, Compression, Resource
from torture import LONG_NAME, noise, over_white, reference, stored, torture_stack

from mrt_core.documents import extension_for, save
from mrt_core.documents.psd import values as psd_values
from mrt_core.documents.psd import writer as psd_writer
from mrt_core.documents.psd.packbits import encode_plane, encoded_bytes_at_most
from mrt_core.documents.psd.writer import save_psd, write_psd
from mrt_core.errors import MRTError
from mrt_core.geometry import Size
from mrt_core.stacks.layers import BLEND_MODES, PASS_THROUGH, Group, Layer, LayerStack

log = logging.getLogger(__name__)


def written(stack: LayerStack, **options) -> PSDImage:
    buffer = io.BytesIO()
    write_psd(stack, buffer, **options)
    buffer.seek(0)
    return PSDImage.open(buffer)


def one_layer(
    pixels: np.ndarray, x: int = 0, y: int = 0, name: str = "a", frame: Size | None = None, **fields
) -> LayerStack:
    frame = frame or Size(max(pixels.shape[1], 1), max(pixels.shape[0], 1))
    return LayerStack(frame, (Layer(pixels, x, y, name, **fields),))


def channels(layer) -> np.ndarray:
    """A record's own channels as (height, width, 4), decoded without psd-tools' layer interface."""
    planes = {
        info.id: np.frombuffer(data.get_data(layer.width, layer.height, 8, layer._psd.version), np.uint8)
        for info, data in zip(layer._record.channel_info, layer._channels, strict=True)
    }
    order = [ChannelID.CHANNEL_0, ChannelID.CHANNEL_1, ChannelID.CHANNEL_2, ChannelID.TRANSPARENCY_MASK]
    return np.stack([planes[channel].reshape(layer.height, layer.width) for channel in order], -1)


def merged(document: PSDImage) -> np.ndarray:
    """The stored merged image (channels, height, width) uint8."""
    header = document._record.header
    planes = document._record.image_data.get_data(header)
    return np.stack([np.frombuffer(plane, np.uint8).reshape(header.height, header.width) for plane in planes])


@pytest.mark.parametrize("options", [{}, {"compression": "zip"}, {"version": 2}], ids=["rle", "zip", "psb"])
def test_torture_document_is_exact(options):
    stack = torture_stack()
    document = written(stack, **options)
    found = [layer for layer in document.descendants() if not layer.is_group()]
    expected = [stored(layer) for layer in stack.flat()]
    assert [layer.name for layer in found] == [layer.name for layer in expected] and len(found) == 11
    geometry = [layer.bbox == (e.x, e.y, e.box.right, e.box.bottom) for layer, e in zip(found, expected, strict=True)]
    assert geometry == [True] * 11
    exact = [np.array_equal(channels(layer), e.pixels) for layer, e in zip(found, expected, strict=True)]
    assert exact == [True] * 11


def test_torture_document_keeps_groups_and_attributes():
    document = written(torture_stack())
    tree = [
        (node.name, node.is_group(), node.visible, node.opacity, node.blend_mode.name)
        for node in document.descendants()
    ]
    assert tree == [
        ("Background", False, True, 255, "NORMAL"),
        ("负偏移", False, True, 255, "NORMAL"),
        ("组 一", True, True, 153, "NORMAL"),
        ("🐈‍⬛ emoji", False, True, 255, "NORMAL"),
        (LONG_NAME, False, True, 128, "NORMAL"),
        ("closed, nested", True, True, 255, "PASS_THROUGH"),
        ("hidden", False, False, 255, "NORMAL"),
        ("slash / back\\slash", False, True, 204, "MULTIPLY"),
        ("off the canvas", False, True, 255, "NORMAL"),
        ("1x1", False, True, 255, "NORMAL"),
        ("larger than the frame", False, True, 1, "NORMAL"),
        ("nothing", False, True, 255, "NORMAL"),
        ("opacity 254", False, True, 254, "NORMAL"),
    ]
    closed = {node.name: not node.open_folder for node in document.descendants() if node.is_group()}
    assert closed == {"组 一": False, "closed, nested": True}


def test_merged_image_is_within_one_level_of_float64():
    stack = torture_stack()
    planes = merged(written(stack))
    expected = reference(stack)
    assert planes.shape == (4, 240, 320)
    color_error = np.abs(np.moveaxis(planes[:3], 0, -1) - over_white(expected)).max()
    alpha_error = np.abs(planes[3] - expected[..., 3] * 255).max()
    log.info("largest error over white %.3f, of alpha %.3f levels", color_error, alpha_error)
    assert color_error <= 1 and alpha_error <= 1


def test_merged_image_of_fifty_translucent_layers_does_not_drift():
    layers = tuple(Layer(noise(64, 64, seed, (0, 80)), 0, 0, str(seed)) for seed in range(50))
    stack = LayerStack(Size(64, 64), layers)
    planes = merged(written(stack))
    assert np.abs(np.moveaxis(planes[:3], 0, -1) - over_white(reference(stack))).max() <= 0.51


def test_opaque_document_has_three_channels_and_a_positive_count():
    document = written(one_layer(noise(9, 9, 0, (255, 256))))
    assert document._record.header.channels == 3
    assert document._record.layer_and_mask_information.layer_info.layer_count == 1
    assert Resource.ALPHA_IDENTIFIERS not in document.image_resources


def test_translucent_document_names_its_alpha_as_transparency():
    document = written(one_layer(noise(9, 9, 0)))
    resources = document.image_resources
    assert document._record.layer_and_mask_information.layer_info.layer_count == -1
    assert list(resources.get_data(Resource.ALPHA_IDENTIFIERS)) == [0]
    assert list(resources.get_data(Resource.ALPHA_NAMES_PASCAL)) == ["Transparency"]
    assert document.topil().mode == "RGBA"


def test_opaque_bottom_layer_has_an_alpha_channel_and_so_is_no_background():
    (layer,) = written(one_layer(noise(5, 5, 0, (255, 256))))
    assert ChannelID.TRANSPARENCY_MASK in [info.id for info in layer._record.channel_info]


def test_resources_read_back():
    stack = replace(torture_stack(), metadata={"ppi": 300})
    document = written(stack)
    resolution = document.image_resources.get_data(Resource.RESOLUTION_INFO)
    assert (resolution.horizontal, resolution.vertical) == (300 << 16, 300 << 16)
    profile = document.image_resources.get_data(Resource.ICC_PROFILE)
    assert profile[36:40] == b"acsp" and len(profile) == int.from_bytes(profile[:4], "big")
    ids = [record.tagged_blocks.get_data(b"lyid") for record, _ in document._record._iter_layers()]
    assert len(set(ids)) == len(ids) == 15  # 11 layers, 2 groups, 2 group starts


def test_thumbnail_is_the_composite_over_white():
    stack = torture_stack()
    thumbnail = written(stack).thumbnail().convert("RGB")
    assert thumbnail.size == (160, 120)
    expected = over_white(reference(stack)).reshape(120, 2, 160, 2, 3).mean((1, 3))
    assert np.abs(np.asarray(thumbnail) - expected).mean() < 6  # JPEG


@pytest.mark.parametrize("size", [(1, 1), (161, 3), (3, 999), (320, 321)])
def test_thumbnail_of_any_shape_fits_160_px(size):
    document = written(one_layer(noise(size[1], size[0], 0)))
    assert max(document.thumbnail().size) <= 160


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("plain", "plain"),
        ("猫", "猫"),
        ("👩‍👩‍👧", "👩‍👩‍👧"),
        (LONG_NAME, LONG_NAME),
        ("y" * 256, "y" * 255),
        ("y" * 254 + "🐈", "y" * 254),  # the pair does not fit and is not cut in half
        ("", "Layer 1"),
        ("a/b\\c", "a/b\\c"),
        ("nul\0nul", "nulnul"),
        ("lone\ud83dhalf", "lonehalf"),
        ("\0", "Layer 1"),
        ("Ünïcode", "Ünïcode"),
        ("عربي עברית", "عربي עברית"),
    ],
)
def test_names(name, expected):
    (layer,) = written(one_layer(noise(2, 2, 0), name=name))
    assert layer.name == expected
    pascal = layer._record.name
    assert pascal.isascii() and 0 < len(pascal) <= 31


@pytest.mark.parametrize("opacity", [0, 1, 128, 254, 255])
def test_opacity_bytes(opacity):
    (layer,) = written(one_layer(noise(2, 2, 0), opacity=opacity / 255))
    assert layer.opacity == opacity


@pytest.mark.parametrize("mode", [mode for mode in BLEND_MODES if mode not in psd_values.NEAREST_MODES])
def test_every_blend_mode_has_its_key(mode):
    layer = Layer(noise(4, 4, 0), 0, 0, "a", blend_mode=mode)
    document = written(LayerStack(Size(4, 4), (layer, Group((layer,), "g", blend_mode=mode))))
    assert [node.blend_mode.name.lower().replace("_", "-") for node in document] == [mode, mode]


@pytest.mark.parametrize(("mode", "shown"), [("grain-merge", "LINEAR_LIGHT"), ("grain-extract", "SUBTRACT")])
def test_mode_that_psd_lacks_warns_by_layer_name(mode, shown, caplog):
    with caplog.at_level(logging.WARNING):
        (layer,) = written(one_layer(noise(4, 4, 0), name="grainy", blend_mode=mode))
    assert layer.blend_mode.name == shown
    assert "grainy" in caplog.text and mode in caplog.text


def test_groups_nest_close_and_hide():
    layer = Layer(noise(2, 2, 0), 0, 0, "leaf")
    nodes = (
        Group((Group((), "empty", visible=False), Group((layer,), "inner", closed=True)), "outer", opacity=1 / 255),
    )
    (outer,) = written(LayerStack(Size(2, 2), nodes))
    empty, inner = outer
    assert (outer.name, outer.opacity, outer.blend_mode.name) == ("outer", 1, PASS_THROUGH.upper().replace("-", "_"))
    assert (empty.name, len(empty), empty.visible) == ("empty", 0, False)
    assert (inner.name, inner.open_folder, [child.name for child in inner]) == ("inner", False, ["leaf"])


@pytest.mark.parametrize("width", [1, 2, 3, 127, 128, 129, 130, 255, 256, 257, 30_000])
@pytest.mark.parametrize("kind", ["noise", "constant", "runs", "pairs"])
def test_packbits_of_every_width(width, kind):
    row = np.random.default_rng(width).integers(1, 256, width, dtype=np.uint8)
    if kind == "constant":
        row[:] = 77
    elif kind == "runs":
        row = np.repeat(row, 3)[:width]
    elif kind == "pairs":
        row = np.repeat(row, 2)[:width]
    pixels = np.broadcast_to(row[None, :, None], (2, width, 4)).copy()
    (layer,) = written(one_layer(pixels))
    assert np.array_equal(channels(layer), pixels)
    stored_bytes = layer._channels[0].data
    assert layer._channels[0].compression == Compression.RLE
    assert decode_rle(stored_bytes, width, 2, 8, 1) == pixels[..., 3].tobytes()


def test_colour_under_transparency_is_dropped():
    pixels = np.full((3, 3, 4), 200, np.uint8)
    pixels[1, 1, 3] = 0
    (layer,) = written(one_layer(pixels))
    assert channels(layer)[1, 1].tolist() == [0, 0, 0, 0]
    assert channels(layer)[0, 0].tolist() == [200, 200, 200, 200]


def test_empty_layers_are_kept_as_one_pixel():
    stack = LayerStack(
        Size(8, 8),
        (Layer(np.zeros((3, 4, 4), np.uint8), 2, 5, "clear"), Layer(np.zeros((0, 7, 4), np.uint8), -1, 1, "no rows")),
    )
    boxes = [(layer.name, layer.bbox) for layer in written(stack)]
    assert boxes == [("clear", (2, 5, 3, 6)), ("no rows", (-1, 1, 0, 2))]


@pytest.mark.parametrize(("width", "extension"), [(30_000, ".psd"), (30_001, ".psb")])
def test_wide_document_needs_psb(width, extension, tmp_path: Path):
    stack = one_layer(np.full((1, width, 4), 255, np.uint8))
    assert extension_for(stack) == extension
    save(stack, tmp_path / f"a{extension}")
    document = PSDImage.open(tmp_path / f"a{extension}")
    assert document._record.header.version == (1 if extension == ".psd" else 2) and document.width == width
    assert np.array_equal(channels(document[0]), stack.layers[0].pixels)


def test_document_too_wide_for_psd_is_refused_under_that_name(tmp_path: Path):
    stack = one_layer(np.full((1, 30_001, 4), 255, np.uint8))
    (tmp_path / "a.psd").write_bytes(b"old")
    with pytest.raises(MRTError, match=r"frame is 30001 x 1 px and PSD holds at most 30000; save it as \.psb\.$"):
        save(stack, tmp_path / "a.psd", overwrite=True)
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("a.psd", b"old")]


def test_layer_larger_than_the_frame_needs_psb_too():
    assert extension_for(one_layer(np.full((30_001, 1, 4), 255, np.uint8), frame=Size(9, 9))) == ".psb"


def test_size_estimate_chooses_psb_before_two_gigabytes():
    pixels = np.broadcast_to(np.uint8(255), (10_000, 10_000, 4))  # 0.4 GB if it could not be compressed, and no memory
    four = LayerStack(Size(10_000, 10_000), tuple(Layer(pixels, 0, 0, str(i)) for i in range(4)))
    five = replace(four, layers=(*four.layers, Layer(pixels, 0, 0, "one more")))
    assert (extension_for(four), extension_for(five)) == (".psd", ".psb")  # with the merged image 2.0 and 2.4 GB


@pytest.mark.parametrize("width", [1, 2, 3, 126, 127, 128, 250, 1000])
def test_size_estimate_is_never_too_low(width):
    rng = np.random.default_rng(width)
    for weights in rng.dirichlet((1, 1, 1, 0.3), 200):
        runs = rng.choice([1, 2, 3, 4], width, p=weights)  # short runs are what PackBits stores worst
        plane = np.repeat(rng.integers(1, 255, width).cumsum().astype(np.uint8), runs)[None, :width]
        assert sum(map(len, encode_plane(plane, 1))) <= encoded_bytes_at_most(width, 1)


def test_document_that_outgrows_psd_is_refused_while_it_is_written(monkeypatch):
    layers = tuple(Layer(noise(50, 50, i), 0, 0, str(i)) for i in range(40))  # 10 kB each
    stack = LayerStack(Size(50, 50), layers)
    assert extension_for(stack) == ".psd"
    monkeypatch.setattr(psd_writer, "PSD_MAX_BYTES", 100_000)
    assert extension_for(stack) == ".psb"
    file = io.BytesIO()
    with pytest.raises(MRTError, match=r"more than the 100000 bytes that PSD can hold; save it as \.psb\.$"):
        write_psd(stack, file)
    assert 100_000 < len(file.getvalue()) < 120_000
    document = written(stack, version=2)
    exact = [np.array_equal(channels(layer), e.pixels) for layer, e in zip(document, layers, strict=True)]
    assert exact == [True] * 40


def test_extension_chooses_psb(tmp_path: Path):
    save_psd(one_layer(noise(3, 3, 0)), tmp_path / "a.psb")
    assert (tmp_path / "a.psb").read_bytes()[:6] == b"8BPS\0\2"


@pytest.mark.parametrize(
    ("stack", "message"),
    [
        (LayerStack(Size(0, 5), ()), "frame is 0 x 5 px"),
        (one_layer(noise(2, 2, 0), blend_mode="multply"), 'Layer "a" has the blend mode "multply"'),
        (one_layer(noise(2, 2, 0).astype(np.float32)), "give 8-bit RGBA"),
        (one_layer(noise(2, 2, 0)[..., :3]), "give 8-bit RGBA"),
        (replace(one_layer(noise(2, 2, 0)), metadata={"seed": float("nan")}), "cannot be stored as JSON"),
        (replace(one_layer(noise(2, 2, 0)), metadata={"array": np.zeros(2)}), "cannot be stored as JSON"),
    ],
)
def test_stack_that_cannot_be_written_is_refused(stack, message):
    with pytest.raises(MRTError, match=message):
        write_psd(stack, io.BytesIO())


def test_document_without_layers():
    document = written(LayerStack(Size(7, 5), ()))
    assert (document.width, document.height, len(document)) == (7, 5, 0)
    assert merged(document)[3].max() == 0


def test_small_file_option_is_smaller():
    ramp = np.broadcast_to(np.arange(256, dtype=np.uint8)[None, :, None], (256, 256, 4)).copy()
    sizes = {}
    for compression in ("rle", "zip"):
        buffer = io.BytesIO()
        write_psd(one_layer(ramp), buffer, compression=compression)
        sizes[compression] = buffer.tell()
    assert sizes["zip"] < 0.8 * sizes["rle"]


def test_merged_image_opens_in_pillow(tmp_path: Path):
    stack = torture_stack()
    save_psd(stack, tmp_path / "a.psd")
    with Image.open(tmp_path / "a.psd") as image:
        assert image.size == (320, 240)
        assert image.info["icc_profile"][36:40] == b"acsp"
