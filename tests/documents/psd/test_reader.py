"""PSD files of other programs, made with psd-tools' own writing interface, and our own files read back."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms
from psd_tools import PSDImage
from psd_tools.constants import BlendMode, Clipping, Resource, Tag
from psd_tools.psd.descriptor import Bool, Descriptor, DescriptorBlock2, Double, Enumerated, UnitFloat
from psd_tools.psd.image_resources import ImageResource
from psd_tools.psd.tagged_blocks import TaggedBlock
from psd_tools.terminology import Key
from seeds import FOLDER
from torture import LONG_NAME, mask_by_path, mask_group, names, noise, stored, torture_stack

from mrt_core.documents import load, save
from mrt_core.documents.metadata import from_xmp, to_xmp
from mrt_core.documents.psd.color_profile import srgb_profile
from mrt_core.documents.psd.reader import load_psd, load_psd_preview
from mrt_core.errors import MRTError
from mrt_core.geometry import Size
from mrt_core.stacks.layers import BLEND_MODES, Group, Layer, LayerStack, composite


def saved(document: PSDImage, tmp_path: Path) -> Path:
    path = tmp_path / "other.psd"
    document.save(path)
    return path


def rgb_document(tmp_path: Path, size: tuple[int, int] = (12, 10)) -> PSDImage:
    """A document as psd-tools reads it from a file, so that layers added to it keep their alpha."""
    return PSDImage.new("RGBA", size)


def add(document: PSDImage, pixels: np.ndarray, name: str, x: int = 0, y: int = 0):
    return document.create_pixel_layer(Image.fromarray(pixels), name, top=y, left=x)


def test_torture_document_comes_back(tmp_path: Path):
    stack = torture_stack()
    save(stack, tmp_path / "a.psd")
    back = load(tmp_path / "a.psd")
    assert back.frame == stack.frame and back.metadata == stack.metadata and back.warnings == ()
    assert names(back.layers) == names(stack.layers) and len(names(back.layers)) == 13
    for layer, original in zip(back.flat(), stack.flat(), strict=True):
        expected = stored(original)
        assert (layer.x, layer.y) == (expected.x, expected.y)
        assert np.array_equal(layer.pixels, expected.pixels)
        assert layer.caption == original.caption and layer.blend_mode == original.blend_mode
        assert layer.visible == original.visible and layer.opacity == pytest.approx(original.opacity, abs=1e-9)
    outer = back.layers[2]
    assert (outer.opacity, outer.blend_mode, outer.closed) == (153 / 255, "normal", False)
    assert (outer.layers[2].blend_mode, outer.layers[2].closed) == ("pass-through", True)
    assert np.array_equal(composite(back), composite(stack))


@pytest.mark.parametrize("suffix", [".psd", ".psb"])
def test_save_load_save_is_byte_identical(suffix, tmp_path: Path):
    save(torture_stack(), tmp_path / f"a{suffix}")
    save(load(tmp_path / f"a{suffix}"), tmp_path / f"b{suffix}")
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


@pytest.mark.parametrize("mode", BLEND_MODES)
def test_every_blend_mode_comes_back(mode, tmp_path: Path):
    layer = Layer(noise(3, 3, 0), 0, 0, "a", blend_mode=mode)
    save(LayerStack(Size(3, 3), (layer, Group((layer,), "g", blend_mode=mode))), tmp_path / "a.psd")
    back = load(tmp_path / "a.psd")
    assert [node.blend_mode for node in back.layers] == [mode, mode]


def test_resolution_comes_back(tmp_path: Path):
    layer = Layer(noise(3, 3, 0), 0, 0, "a")
    for ppi in (72, 150, 300.5):
        save(LayerStack(Size(3, 3), (layer,), {"ppi": ppi}), tmp_path / "a.psd", overwrite=True)
        assert load(tmp_path / "a.psd").metadata == {"ppi": ppi}


def test_xmp_survives_being_rewritten_by_another_program():
    packet = to_xmp({"metadata": {"prompt": 'a <b> & "c"'}}).decode()
    start, end = packet.index("<mrt:job>"), packet.index("</mrt:job>")
    value = packet[start + 9 : end].replace('"', "&quot;")
    as_attribute = packet[:start] + packet[end + 10 :]
    as_attribute = as_attribute.replace('rdf:about=""', f'rdf:about="" ns1:job="{value}"')
    as_attribute = as_attribute.replace("xmlns:mrt", "xmlns:ns1")
    assert from_xmp(as_attribute.encode()) == {"metadata": {"prompt": 'a <b> & "c"'}}


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"\xff\xfe\x00",
        to_xmp({})[:-40],
        to_xmp({}).replace(b"<x:xmpmeta", b'<!DOCTYPE x [<!ENTITY a "b">]><x:xmpmeta'),
        to_xmp({}).replace(b"{}", b"[1]"),
        to_xmp({}).replace(b"{}", b"{"),
        to_xmp({}).replace(b"{}", b"[" * 100_000),
        to_xmp({}).replace(b"{}", b'{"metadata": {"ppi": Infinity}}'),
        to_xmp({}).replace(b"{}", b'{"metadata": {"ppi": 1e999}}'),
    ],
    ids=range(9),
)
def test_xmp_of_no_use_is_ignored(packet):
    assert from_xmp(packet) is None


def test_hidden_layers_stay_hidden_and_keep_their_pixels(tmp_path: Path):
    document = rgb_document(tmp_path)
    layer = add(document, noise(4, 5, 1, (255, 256)), "ghost", 3, -2)
    layer.visible = False
    (back,) = load_psd(saved(document, tmp_path)).layers
    assert (back.name, back.visible, back.box) == ("ghost", False, (3, -2, 5, 4))
    assert np.array_equal(back.pixels, noise(4, 5, 1, (255, 256)))


def with_mask(tmp_path: Path, background: int, x: int = 2, y: int = 1) -> tuple[LayerStack, np.ndarray]:
    """A 6 x 4 layer at (1, 1) whose 3 x 2 mask of levels 0, 51, .. 255 lies at (x, y)."""
    document = PSDImage.new("RGB", (12, 10))
    layer = add(document, np.full((4, 6, 3), 90, np.uint8), "masked", 1, 1)
    levels = np.arange(6, dtype=np.uint8).reshape(2, 3) * 51
    layer.create_mask(Image.fromarray(levels), top=y, left=x).data.background_color = background
    return load_psd(saved(document, tmp_path)), levels


@pytest.mark.parametrize("background", [0, 255])
def test_masks_are_rendered(background, tmp_path: Path):
    stack, levels = with_mask(tmp_path, background)
    (layer,) = stack.layers
    expected = np.full((4, 6), background)
    expected[0:2, 1:4] = levels
    assert np.array_equal(layer.pixels[..., 3], expected)
    assert stack.warnings == ()


@pytest.mark.parametrize("disabled", [False, True])
def test_vector_mask_without_a_raster_copy_is_drawn(disabled, tmp_path: Path):
    document = rgb_document(tmp_path, (20, 10))
    layer = add(document, np.full((8, 12, 4), (90, 80, 70, 255), np.uint8), "cut", 1, 1)
    mask_by_path(layer, disabled)
    stack = load_psd(saved(document, tmp_path))
    assert stack.layers[0].box == ((1, 1, 12, 8) if disabled else (4, 2, 8, 4)) and stack.warnings == ()
    assert {tuple(pixel) for pixel in stack.layers[0].pixels.reshape(-1, 4)} == {(90, 80, 70, 255)}


def test_disabled_mask_is_not_applied(tmp_path: Path):
    document = PSDImage.new("RGB", (6, 4))
    layer = add(document, np.full((4, 6, 3), 90, np.uint8), "masked")
    layer.create_mask(Image.new("L", (6, 4), 0))
    layer.mask.disabled = True
    (back,) = load_psd(saved(document, tmp_path)).layers
    assert back.pixels[..., 3].min() == 255


def test_clipped_layers_are_merged_into_their_base(tmp_path: Path):
    document = rgb_document(tmp_path)
    red, green = np.full((6, 6, 4), (255, 0, 0, 255), np.uint8), np.full((6, 6, 4), (0, 255, 0, 255), np.uint8)
    add(document, red, "base", 0, 0)
    add(document, green, "clip", 3, 3)._record.clipping = Clipping.NON_BASE
    add(document, green, "above", 0, 0)
    stack = load_psd(saved(document, tmp_path))
    assert [layer.name for layer in stack.layers] == ["base", "above"]
    base = stack.layers[0]
    assert base.box == (0, 0, 6, 6)
    assert base.pixels[2, 2].tolist() == [255, 0, 0, 255] and base.pixels[4, 4].tolist() == [0, 255, 0, 255]
    assert stack.warnings == ('Layer "base": what is clipped to it was merged into it: "clip".',)


def test_base_keeps_opacity_and_mode_apart_when_it_is_rendered(tmp_path: Path):
    document = rgb_document(tmp_path)
    base = add(document, np.full((6, 6, 4), (255, 0, 0, 255), np.uint8), "base")
    base.opacity, base.blend_mode, base.visible = 51, BlendMode.MULTIPLY, False
    add(document, np.full((6, 6, 4), (0, 255, 0, 255), np.uint8), "clip", 3, 3)._record.clipping = Clipping.NON_BASE
    (layer,) = load_psd(saved(document, tmp_path)).layers
    assert (layer.opacity, layer.blend_mode, layer.visible) == (0.2, "multiply", False)
    assert layer.pixels[..., 3].min() == 255


def test_hidden_clipped_layer_stays_a_hidden_layer(tmp_path: Path):
    document = rgb_document(tmp_path)
    add(document, np.full((6, 6, 4), (255, 0, 0, 255), np.uint8), "base")
    clip = add(document, np.full((6, 6, 4), (0, 255, 0, 255), np.uint8), "clip", 3, 3)
    clip._record.clipping, clip.visible = Clipping.NON_BASE, False
    stack = load_psd(saved(document, tmp_path))
    assert [(layer.name, layer.visible) for layer in stack.layers] == [("base", True), ("clip", False)]
    assert stack.layers[0].pixels[4, 4].tolist() == [255, 0, 0, 255] and stack.warnings == ()


def test_colour_fill_layer_fills_the_frame(tmp_path: Path):
    (layer,) = load_psd(FOLDER / "filled.psd").layers
    assert layer.box == (0, 0, 12, 10) and {tuple(pixel) for pixel in layer.pixels.reshape(-1, 4)} == {
        (10, 200, 90, 255)
    }


def effects(kind: bytes, red: float, green: float, blue: float) -> DescriptorBlock2:
    """Photoshop's effects block with one effect of one colour, such as b"SoFi", a colour overlay."""
    color = Descriptor(name="", classID=b"RGBC")
    for key, value in ((Key.Red, red), (Key.Green, green), (Key.Blue, blue)):
        color[key] = Double(value)
    effect = Descriptor(name="", classID=kind)
    effect[Key.Enabled] = Bool(True)
    effect[b"present"] = Bool(True)
    effect[Key.Mode] = Enumerated(typeID=b"BlnM", enum=b"Nrml")
    effect[Key.Opacity] = UnitFloat(100.0, unit=b"#Prc")
    effect[Key.Color] = color
    block = DescriptorBlock2(name="", classID=b"null", version=0, data_version=16)
    block[b"masterFXSwitch"] = Bool(True)
    block[kind] = effect
    return block


def test_effects_are_drawn_and_named(tmp_path: Path):
    document = rgb_document(tmp_path)
    layer = add(document, np.full((4, 4, 4), (255, 0, 0, 255), np.uint8), "painted")
    layer.tagged_blocks[Tag.OBJECT_BASED_EFFECTS_LAYER_INFO] = TaggedBlock(
        key=Tag.OBJECT_BASED_EFFECTS_LAYER_INFO, data=effects(b"SoFi", 0, 0, 255)
    )
    layer.opacity = 51
    stack = load_psd(saved(document, tmp_path))
    assert stack.warnings == ('Layer "painted": its effects are drawn approximately or not at all: ColorOverlay.',)
    assert stack.layers[0].opacity == 0.2 and stack.layers[0].pixels[1, 1].tolist() == [0, 0, 255, 255]


@pytest.mark.parametrize(
    ("kind", "name"),
    [(b"DrSh", "DropShadow"), (b"OrGl", "OuterGlow"), (b"IrSh", "InnerShadow"), (b"IrGl", "InnerGlow")],
)
def test_shadows_and_glows_are_named_and_not_drawn(kind, name, tmp_path: Path):
    document = rgb_document(tmp_path)
    pixels = noise(4, 4, 1, (255, 256))
    layer = add(document, pixels, "lit", 3, 3)
    block = effects(kind, 0, 0, 255)
    for key, pixels_wide in ((Key.Distance, 2.0), (Key.Blur, 5.0), (Key.ChokeMatte, 0.0)):
        block[kind][key] = UnitFloat(pixels_wide, unit=b"#Pxl")
    layer.tagged_blocks[Tag.OBJECT_BASED_EFFECTS_LAYER_INFO] = TaggedBlock(
        key=Tag.OBJECT_BASED_EFFECTS_LAYER_INFO, data=block
    )
    stack = load_psd(saved(document, tmp_path))
    assert stack.warnings == (f'Layer "lit": its effects are drawn approximately or not at all: {name}.',)
    assert stack.layers[0].box == (3, 3, 4, 4) and np.array_equal(stack.layers[0].pixels, pixels)


def test_blend_if_is_said(tmp_path: Path):
    document = rgb_document(tmp_path)
    layer = add(document, noise(4, 4, 1), "picky")
    layer._record.blending_ranges.composite_ranges = [(0, 30000), (0, 65535)]
    assert load_psd(saved(document, tmp_path)).warnings == ('Layer "picky": its "Blend If" ranges were left out.',)


def test_fill_opacity_joins_opacity(tmp_path: Path):
    document = rgb_document(tmp_path)
    layer = add(document, noise(4, 4, 1, (255, 256)), "a")
    layer.opacity, layer.fill_opacity = 128, 51
    (back,) = load_psd(saved(document, tmp_path)).layers
    assert back.opacity == pytest.approx(128 / 255 * 0.2)


def test_groups_and_their_masks(tmp_path: Path):
    document = rgb_document(tmp_path)
    group = document.create_group(name="g")
    group.append(add(document, np.full((4, 4, 4), 255, np.uint8), "inside", 2, 2))
    group.opacity, group.blend_mode, group.open_folder = 128, BlendMode.SCREEN, False
    mask_group(group, Image.new("L", (3, 10), 102))
    stack = load_psd(saved(document, tmp_path))
    (back,) = stack.layers
    assert (back.name, back.opacity, back.blend_mode, back.closed) == ("g", 128 / 255, "screen", True)
    assert back.layers[0].pixels[0, :, 3].tolist() == [102, 0, 0, 0]
    assert stack.warnings == ('Layer "g": the group\'s mask was applied to each of its layers.',)


def test_document_without_layers_is_one_background(tmp_path: Path):
    pixels = noise(5, 7, 3, (255, 256))[..., :3]
    PSDImage.frompil(Image.fromarray(pixels)).save(tmp_path / "flat.psd")
    (layer,) = load_psd(tmp_path / "flat.psd").layers
    assert layer.name == "Background" and np.array_equal(layer.pixels[..., :3], pixels)
    assert layer.pixels[..., 3].min() == 255


@pytest.mark.parametrize(
    ("mode", "color", "expected"),
    [
        ("L", (90,), (90, 90, 90)),
        ("CMYK", (255, 0, 0, 0), (0, 255, 255)),  # without a profile: the plain conversion
        ("CMYK", (0, 0, 0, 128), (127, 127, 127)),
        ("LAB", (153, 153, 153), (196, 126, 101)),  # Lab(60, 25, 25)
    ],
)
def test_other_colour_modes_become_srgb(mode, color, expected, tmp_path: Path):
    document = PSDImage.new(mode, (6, 4))
    image = Image.merge(mode, [Image.new("L", (6, 4), level) for level in color])
    added = document.create_pixel_layer(image, "a")
    if mode == "LAB":  # psd-tools takes the chroma band called A for an alpha channel
        added._channels[0].set_data(b"\xff" * 24, 6, 4, 8)
    stack = load_psd(saved(document, tmp_path))
    (layer,) = stack.layers
    assert layer.pixels.shape == (4, 6, 4)
    assert np.abs(layer.pixels[0, 0, :3].astype(int) - expected).max() <= 2
    assert layer.pixels[..., 3].min() == 255
    assert stack.warnings[0].startswith("The document is ")


@pytest.mark.parametrize("depth", [16, 32])
def test_deep_documents_become_8_bit(depth, tmp_path: Path):
    document = PSDImage.new("RGB", (6, 4), depth=depth)
    document.create_pixel_layer(Image.new("RGB", (6, 4), (255, 128, 0)), "a")
    stack = load_psd(saved(document, tmp_path))
    (layer,) = stack.layers
    middle = 128 if depth == 16 else 188  # 32-bit documents hold linear light
    assert np.abs(layer.pixels[0, 0].astype(int) - (255, middle, 0, 255)).max() <= 1
    assert stack.warnings == (
        f"The document is RGB with {depth} bits per channel; its layers were converted to 8-bit sRGB.",
    )


def test_other_rgb_profile_is_converted(tmp_path: Path):
    profile = gamma_one_profile()
    document = rgb_document(tmp_path)
    add(document, np.full((4, 4, 4), (128, 128, 128, 255), np.uint8), "a")
    document.image_resources[Resource.ICC_PROFILE] = ImageResource(key=Resource.ICC_PROFILE.value, data=profile)
    (layer,) = load_psd(saved(document, tmp_path)).layers
    assert np.abs(layer.pixels[0, 0, :3].astype(int) - 188).max() <= 2


def test_profile_is_looked_at_once_for_all_layers(tmp_path: Path, monkeypatch):
    """A profile whose description claims 2**24 records takes long to look at."""
    profile = bytearray(srgb_profile())
    profile[profile.index(b"mluc") + 8] = 1  # the first byte of the number of records
    document = rgb_document(tmp_path)
    for index in range(20):
        add(document, noise(4, 4, index), str(index))
    document.image_resources[Resource.ICC_PROFILE] = ImageResource(key=Resource.ICC_PROFILE.value, data=bytes(profile))
    look, looks = ImageCms.getProfileDescription, []
    monkeypatch.setattr(ImageCms, "getProfileDescription", lambda opened: looks.append(opened) or look(opened))
    stack = load_psd(saved(document, tmp_path))
    assert len(stack.layers) == 20 and len(looks) == 1


def gamma_one_profile() -> bytes:
    """Our sRGB profile with linear curves."""
    profile = bytearray(srgb_profile())
    for index in range(int.from_bytes(profile[128:132], "big")):
        tag = profile[132 + 12 * index : 144 + 12 * index]
        if tag[:4] in (b"rTRC", b"gTRC", b"bTRC"):
            offset = int.from_bytes(tag[4:8], "big")
            profile[offset : offset + 12] = b"curv" + bytes(4) + bytes(4)  # a curve without points is the identity
        if tag[:4] == b"desc":
            offset, size = int.from_bytes(tag[4:8], "big"), int.from_bytes(tag[8:12], "big")
            name = profile[offset : offset + size]
            profile[offset : offset + size] = name.replace("sRGB".encode("utf-16-be"), "Flat".encode("utf-16-be"))
    return bytes(profile)


def test_adjustment_layers_are_named_and_left_out(tmp_path: Path):
    document = rgb_document(tmp_path)
    add(document, noise(4, 4, 1), "a")
    add(document, noise(4, 4, 1), "Invert 1").tagged_blocks.set_data(Tag.INVERT)
    stack = load_psd(saved(document, tmp_path))
    assert [layer.name for layer in stack.layers] == ["a"]
    assert stack.warnings == (
        'Layer "Invert 1": it is an adjustment layer and was left out; the stored preview shows its effect.',
    )


def test_preview_is_the_stored_composite(tmp_path: Path):
    stack = torture_stack()
    save(stack, tmp_path / "a.psd")
    preview, ours = load_psd_preview(tmp_path / "a.psd").astype(int), composite(stack).astype(int)
    solid = ours[..., 3] > 250
    assert np.abs(preview[..., 3] - ours[..., 3]).max() <= 1
    assert np.abs(preview - ours)[solid].max() <= 2


def broken(tmp_path: Path, change) -> Path:
    save(torture_stack(), tmp_path / "a.psd")
    data = bytearray((tmp_path / "a.psd").read_bytes())
    path = tmp_path / "broken.psd"
    path.write_bytes(change(data))
    return path


@pytest.mark.parametrize("length", [0, 3, 4, 25, 26, 100, 5_000, 50_000])
def test_truncated_file_is_one_clear_error(length, tmp_path: Path):
    with pytest.raises(MRTError) as caught:
        load(broken(tmp_path, lambda data: data[:length]))
    message = str(caught.value)
    assert "\n" not in message and "broken.psd" in message and message.endswith(".")


def test_undecodable_channel_is_said_by_layer_name(tmp_path: Path):
    layer = Layer(noise(64, 64, 0, (255, 256)), 0, 0, "victim")
    save(LayerStack(Size(64, 64), (layer, Layer(noise(8, 8, 1), 0, 0, "bystander"))), tmp_path / "a.psd")
    document = PSDImage.open(tmp_path / "a.psd")
    document[0]._channels[1].data = b"\xff" * 90  # not even the row lengths are there
    buffer = io.BytesIO()
    document._record.write(buffer)
    (tmp_path / "b.psd").write_bytes(buffer.getvalue())
    stack = load(tmp_path / "b.psd")
    assert stack.warnings == ('Layer "victim": a part of it could not be decoded and is black.',)
    assert not stack.layers[0].pixels[..., 0].any() and stack.layers[0].pixels[..., 1].any()


def test_bomb_is_refused_before_it_is_unpacked(tmp_path: Path):
    """Five layers that claim 16,000 x 16,000 px each in a small file."""
    stack = LayerStack(Size(10, 10), tuple(Layer(noise(10, 10, 1), 0, 0, str(i)) for i in range(5)))
    save(stack, tmp_path / "a.psd")
    document = PSDImage.open(tmp_path / "a.psd")
    for layer in document:
        layer._record.bottom = layer._record.right = 16_000
    buffer = io.BytesIO()
    document._record.write(buffer)
    (tmp_path / "bomb.psd").write_bytes(buffer.getvalue())
    with pytest.raises(MRTError, match=r"With the 16000 x 16000 px of '0' the document unpacks to 256000000 pixels"):
        load(tmp_path / "bomb.psd")


def test_deep_nesting_is_one_clear_error(tmp_path: Path):
    document = rgb_document(tmp_path)
    save(LayerStack(Size(4, 4), (Group((), "g"),)), tmp_path / "a.psd")
    document = PSDImage.open(tmp_path / "a.psd")
    info = document._record.layer_and_mask_information.layer_info
    start, end = list(info.layer_records)
    first, last = list(info.channel_image_data)
    info.layer_records._items = [start] * 4000 + [end] * 4000
    info.channel_image_data._items = [first] * 4000 + [last] * 4000
    info.layer_count = 8000
    buffer = io.BytesIO()
    document._record.write(buffer)
    (tmp_path / "deep.psd").write_bytes(buffer.getvalue())
    with pytest.raises(MRTError):
        load(tmp_path / "deep.psd")


def test_wrong_files(tmp_path: Path):
    (tmp_path / "a.psd").write_bytes(b"\x89PNG")
    with pytest.raises(MRTError, match=r'is not a PSD file: it does not begin with "8BPS"'):
        load(tmp_path / "a.psd")
    with pytest.raises(MRTError, match="Cannot read .*missing.psd.*check the path"):
        load(tmp_path / "missing.psd")


def test_long_names_come_back(tmp_path: Path):
    save(LayerStack(Size(2, 2), (Layer(noise(2, 2, 0), 0, 0, LONG_NAME),)), tmp_path / "a.psd")
    assert load(tmp_path / "a.psd").layers[0].name == LONG_NAME
