"""PSD files of older and other programs: small files after public reports, and their kinds made here."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from psd_tools import PSDImage
from psd_tools.constants import BlendMode, Clipping, ColorMode, Compression, EffectOSType, Resource, SectionDivider, Tag
from psd_tools.psd import PSD
from psd_tools.psd.descriptor import Bool, Descriptor, DescriptorBlock, DescriptorBlock2
from psd_tools.psd.effects_layer import EffectsLayer, ShadowInfo
from psd_tools.psd.header import FileHeader
from psd_tools.psd.image_data import ImageData
from psd_tools.psd.image_resources import (
    AlphaIdentifiers,
    AlphaNamesUnicode,
    ImageResource,
    ImageResources,
    VersionInfo,
)
from psd_tools.psd.layer_and_mask import MaskParameters
from psd_tools.psd.tagged_blocks import ChannelBlendingRestrictionsSetting, TaggedBlock
from seeds import FOLDER
from torture import mask_by_path

from mrt_core.documents.psd import nodes
from mrt_core.documents.psd.names import guess_encoding
from mrt_core.documents.psd.reader import load_psd, load_psd_preview
from mrt_core.errors import MRTError
from mrt_core.geometry import Box, Size
from mrt_core.stacks.blending import blend
from mrt_core.stacks.layers import Group, LayerStack, composite

CASES = Path(__file__).parents[2] / "data" / "psd"
RED, GREEN, BLUE = (255, 0, 0, 255), (0, 255, 0, 255), (0, 0, 255, 255)


def case(name: str) -> LayerStack:
    return load_psd(CASES / name)


def plain(color: tuple[int, ...], width: int = 6, height: int = 6) -> Image.Image:
    return Image.new("RGBA", (width, height), color)


def add(document: PSDImage, color: tuple[int, ...], name: str, x: int = 0, y: int = 0, size: int = 6):
    return document.create_pixel_layer(plain(color, size, size), name, top=y, left=x)


def read(document: PSDImage, tmp_path: Path) -> LayerStack:
    document.save(tmp_path / "other.psd")
    return load_psd(tmp_path / "other.psd")


def test_case_group_whose_folded_state_cannot_be_read():
    (group,) = case("01_deep_group_lsdk.psd").layers
    assert (group.name, group.closed, [layer.name for layer in group.layers]) == ("deep", False, ["inside"])


@pytest.mark.parametrize("mode", [BlendMode.MULTIPLY, BlendMode.PASS_THROUGH])
def test_folded_group_deep_inside_others(mode, tmp_path: Path):
    document = PSDImage.open(CASES / "01_deep_group_lsdk.psd")
    divider = document[0].tagged_blocks.get_data(Tag.NESTED_SECTION_DIVIDER_SETTING)
    divider.kind, divider.signature, divider.blend_mode = SectionDivider.CLOSED_FOLDER, b"8BIM", mode
    document[0]._record.blend_mode = BlendMode.NORMAL
    (group,) = read(document, tmp_path).layers
    assert group.closed and group.blend_mode == ("multiply" if mode == BlendMode.MULTIPLY else "pass-through")


def test_case_legacy_brightness_is_named_and_left_out():
    stack = case("02_legacy_brightness.psd")
    assert [layer.name for layer in stack.layers] == ["photo"]
    assert stack.warnings == (
        'Layer "Brightness/Contrast 1": it is a brightness/contrast adjustment of older Photoshop and was left out; no '
        "preview is stored that would show it.",
    )


def test_case_effects_of_old_and_new_photoshop_are_alike():
    old, new = case("03_effect_old_photoshop.psd"), case("03b_effect_new_photoshop.psd")
    assert np.array_equal(composite(old), composite(new)) and old.warnings == new.warnings
    assert old.layers[1].pixels[4, 4].tolist() == list(RED)
    assert old.warnings == ('Layer "logo": its effects are drawn approximately or not at all: ColorOverlay.',)


def test_case_fill_opacity_in_linear_light():
    stack = case("04_fill_linear_light.psd")
    # Grey 128 + 2 x (red moved to 20 % of its distance from the middle) - 255, not a fifth of linear light.
    assert composite(stack)[8, 8].tolist() == [179, 77, 77, 255]
    assert stack.layers[1].opacity == 1 and "was worked into its colours" in stack.warnings[0]


def test_case_folder_clipped_to_the_layer_below():
    stack = case("06_clip_folder_flag_on_group.psd")
    _, folder = stack.layers
    assert folder.layers[0].box == Box(0, 0, 16, 16)
    shown = composite(stack)
    assert shown[8, 8].tolist() == list(RED) and shown[1, 1, 3] == 0 and shown[14, 8, 3] == 0
    assert stack.warnings == ('Layer "base": what is clipped to it was cut to its shape: "clipped folder".',)


def test_case_layer_clipped_to_a_folder_leaves_it_its_layers():
    stack = case("08_clip_on_group.psd")
    _, head, shade = stack.layers
    assert isinstance(head, Group) and [layer.name for layer in head.layers] == ["face", "hair"]
    expected = np.zeros((16, 16))
    for layer in head.layers:
        expected[layer.y : layer.y + layer.box.height, layer.x : layer.x + layer.box.width] = 255
    assert np.array_equal(shade.pixels[..., 3], expected)
    assert stack.warnings == ('Layer "head": what is clipped to it was cut to its shape: "shade".',)


def test_case_shift_jis_name_is_decoded_as_a_guess():
    stack = case("10_sjis_names.psd")
    assert stack.layers[0].name == "線画"
    assert stack.warnings == (
        'Layer "線画": its name does not say its script and was read as Shift-JIS, which is a guess.',
    )


def test_case_saved_selection_is_no_transparency():
    stack = case("13_flat_saved_selection.psd")
    assert (stack.layers[0].pixels == (200, 100, 50, 255)).all()
    assert stack.warnings == ('The document: its saved selections and spot channels were left out: "Alpha 1".',)
    assert (load_psd_preview(CASES / "13_flat_saved_selection.psd")[..., 3] == 255).all()


def test_case_blank_preview_is_not_offered():
    assert (case("15_blank_preview.psd").layers[0].pixels == (10, 20, 30, 255)).all()
    with pytest.raises(MRTError, match=r'stores no picture of its layers; save it again with "Maximize Compatibility"'):
        load_psd_preview(CASES / "15_blank_preview.psd")


def test_damaged_picture_is_not_offered_and_costs_nothing_else(tmp_path: Path):
    document = PSDImage.open(CASES / "02_legacy_brightness.psd")
    document._record.image_data = ImageData(Compression.RLE, b"\x00\x01\xff")
    buffer = io.BytesIO()
    document._record.write(buffer)
    (tmp_path / "a.psd").write_bytes(buffer.getvalue())
    stack = load_psd(tmp_path / "a.psd")
    assert len(stack.layers) == 1 and stack.warnings[0].endswith("no preview is stored that would show it.")


def test_white_page_that_claims_to_be_the_picture_is_not_offered():
    with pytest.raises(MRTError, match="stores no picture of its layers"):
        load_psd_preview(CASES / "08_clip_on_group.psd")


@pytest.mark.parametrize(
    ("mode", "size"), [("CMYK", (3508, 4961)), ("L", (6071, 8598))], ids=["A3 300 dpi CMYK", "B4 600 dpi gray"]
)
def test_ordinary_print_pages_are_read(mode, size, tmp_path: Path):
    level = (0, 255, 255, 0) if mode == "CMYK" else 90
    document = PSDImage.new(mode, size)
    document.create_pixel_layer(Image.new(mode, size, level), "pen", compression=Compression.RLE)
    (layer,) = read(document, tmp_path).layers
    assert layer.box == Box(0, 0, *size)
    assert layer.pixels[17, 23].tolist() == ([255, 0, 0, 255] if mode == "CMYK" else [90, 90, 90, 255])


@pytest.mark.parametrize("flags", [True, False])
@pytest.mark.parametrize("kind", [b"DrSh", b"ebbl", b"ChFX", b"XxFX"])
def test_every_effect_of_the_raw_block_is_named(kind, flags, tmp_path: Path):
    document = PSDImage.new("RGBA", (8, 8))
    layer = add(document, RED, "lit")
    block = DescriptorBlock2(name="", classID=b"null", version=0, data_version=16)
    effect = Descriptor(name="", classID=kind)
    if flags:
        block[b"masterFXSwitch"] = effect[b"enab"] = effect[b"present"] = Bool(True)
    block[kind] = effect
    tag = Tag.OBJECT_BASED_EFFECTS_LAYER_INFO
    layer.tagged_blocks[tag] = TaggedBlock(key=tag, data=block)
    name = {b"DrSh": "DropShadow", b"ebbl": "BevelEmboss", b"ChFX": "Satin", b"XxFX": "XxFX"}[kind]
    assert f"its effects are drawn approximately or not at all: {name}." in read(document, tmp_path).warnings[0]


@pytest.mark.parametrize("flag", [b"enab", b"present", b"masterFXSwitch"])
def test_effects_that_are_off_are_no_news(flag, tmp_path: Path):
    document = PSDImage.new("RGBA", (8, 8))
    layer = add(document, RED, "lit")
    block = DescriptorBlock2(name="", classID=b"null", version=0, data_version=16)
    block[b"DrSh"] = effect = Descriptor(name="", classID=b"DrSh")
    (block if flag == b"masterFXSwitch" else effect)[flag] = Bool(False)
    tag = Tag.OBJECT_BASED_EFFECTS_LAYER_INFO
    layer.tagged_blocks[tag] = TaggedBlock(key=tag, data=block)
    assert read(document, tmp_path).warnings == ()


def test_effects_of_photoshop_5_are_named(tmp_path: Path):
    document = PSDImage.new("RGBA", (8, 8))
    layer = add(document, RED, "lit")
    old = EffectsLayer(version=0, items=[(EffectOSType.DROP_SHADOW, ShadowInfo(enabled=1, version=0))])
    layer.tagged_blocks[Tag.EFFECTS_LAYER] = TaggedBlock(key=Tag.EFFECTS_LAYER, data=old)
    stack = read(document, tmp_path)
    assert stack.warnings == ('Layer "lit": its effects are drawn approximately or not at all: DropShadow.',)


def test_layer_without_pixels_and_with_an_unknown_block_is_named(tmp_path: Path):
    document = PSDImage.new("RGBA", (8, 8))
    add(document, RED, "a")
    for name, key in (("odd", b"zzzz"), ("empty", None)):
        layer = add(document, RED, name)
        layer._record.bottom = layer._record.right = 0
        for channel in layer._channels:
            channel.compression, channel.data = Compression.RAW, b""
        if key:
            layer.tagged_blocks[key] = TaggedBlock(key=key, data=b"\0\0\0\0")
    stack = read(document, tmp_path)
    assert [layer.name for layer in stack.layers] == ["a", "empty"]
    (warning,) = stack.warnings
    assert warning.startswith('Layer "odd": it is a layer without pixels and with blocks that are not known ("zzzz")')


@pytest.mark.parametrize(
    ("mode", "key"),
    [
        ("color-burn", BlendMode.COLOR_BURN), ("linear-burn", BlendMode.LINEAR_BURN),
        ("color-dodge", BlendMode.COLOR_DODGE), ("linear-dodge", BlendMode.LINEAR_DODGE),
        ("vivid-light", BlendMode.VIVID_LIGHT), ("linear-light", BlendMode.LINEAR_LIGHT),
        ("difference", BlendMode.DIFFERENCE),
    ],
)  # fmt: skip
def test_fill_opacity_in_the_special_modes(mode, key, tmp_path: Path):
    """Without fill nothing changes; half of it is not what half the opacity makes of the mode."""
    color, ground = np.array([230, 60, 128]) / 255, np.full(3, 100 / 255)
    shown = {}
    for fill in (0, 128, 255):
        document = PSDImage.new("RGBA", (6, 6))
        add(document, (100, 100, 100, 255), "ground")
        layer = add(document, (230, 60, 128, 255), "light")
        layer.blend_mode, layer.fill_opacity = key, fill
        stack = read(document, tmp_path)
        shown[fill] = composite(stack)[3, 3, :3].astype(int)
        assert stack.layers[1].opacity == 1 and len(stack.warnings) == (fill < 255)
    mixed = blend(mode, ground.reshape(3, 1, 1), color.reshape(3, 1, 1)).reshape(3) * 255
    assert np.abs(shown[0] - 100).max() <= 1 and np.abs(shown[255] - mixed).max() <= 1
    if mode == "linear-dodge":
        assert np.abs(shown[128] - np.minimum(255, 100 + color * 128)).max() <= 1


def test_fill_opacity_where_colours_cannot_hold_it(tmp_path: Path):
    document = PSDImage.new("RGBA", (6, 6))
    layer = add(document, RED, "hard")
    layer.blend_mode, layer.fill_opacity = BlendMode.HARD_MIX, 51
    group = document.create_group(name="g")
    group.append(add(document, RED, "in"))
    group.blend_mode, group.fill_opacity = BlendMode.PASS_THROUGH, 51
    stack = read(document, tmp_path)
    assert [node.opacity for node in stack.layers] == pytest.approx([0.2, 0.2])
    assert [warning.split(":")[0] for warning in stack.warnings] == ['Layer "hard"', 'Layer "g"']


def test_clipping_base_with_a_mode_becomes_a_group(tmp_path: Path):
    document = PSDImage.new("RGBA", (8, 8))
    add(document, (200, 200, 200, 255), "ground", size=8)
    base = add(document, BLUE, "base", 1, 1, 4)
    base.blend_mode, base.opacity = BlendMode.MULTIPLY, 128
    folder = document.create_group(name="folder")
    folder.append(add(document, RED, "in", 0, 0, 8))
    folder._record.clipping = Clipping.NON_BASE
    stack = read(document, tmp_path)
    _, group = stack.layers
    assert (group.name, group.blend_mode, group.opacity) == ("base", "multiply", 128 / 255)
    assert [node.name for node in group.layers] == ["base", "folder"]
    shown = composite(stack)
    assert shown[6, 6].tolist() == [200, 200, 200, 255]
    assert np.abs(shown[2, 2].astype(int) - (200, 100, 100, 255)).max() <= 1  # half of red multiplied


def test_what_is_clipped_to_a_layer_too_large_to_draw_keeps_its_place(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(nodes, "_DRAWN_BYTES", 2**30)
    document = PSDImage.new("RGBA", (12, 8))
    add(document, RED, "base")
    add(document, GREEN, "clip", 3, 0)._record.clipping = Clipping.NON_BASE
    stack = read(document, tmp_path)
    assert [layer.name for layer in stack.layers] == ["base", "clip"]
    assert stack.layers[1].pixels[0, :, 3].tolist() == [255, 255, 255, 0, 0, 0]
    assert stack.warnings == ('Layer "base": what is clipped to it was cut to its shape: "clip".',)


@pytest.mark.parametrize("width", [7, 8, 17])
def test_bitmaps_of_every_width(width, tmp_path: Path):
    black = np.random.default_rng(width).random((5, width)) < 0.5
    header = FileHeader(channels=1, height=5, width=width, depth=1, color_mode=ColorMode.BITMAP)
    image = ImageData(Compression.RAW)
    image.set_data([np.packbits(black, axis=1).tobytes()], header)
    buffer = io.BytesIO()
    PSD(header, image_data=image).write(buffer)
    (tmp_path / "a.psd").write_bytes(buffer.getvalue())
    (layer,) = load_psd(tmp_path / "a.psd").layers
    assert np.array_equal(layer.pixels[..., 0] == 0, black) and (layer.pixels[..., 3] == 255).all()


def test_what_is_drawn_and_not_stored_is_said(tmp_path: Path):
    document = PSDImage.open(FOLDER / "filled.psd")
    mask_by_path(document[0])
    assert read(document, tmp_path).warnings == (
        'Layer "fill": it is drawn from its description (solidcolorfill), which may not be exact.',
    )


def test_what_cannot_be_drawn_costs_that_layer(tmp_path: Path):
    document = PSDImage.new("RGBA", (8, 8))
    add(document, RED, "a")
    layer = add(document, RED, "ramp")
    layer._record.bottom = layer._record.right = 0
    for channel in layer._channels:
        channel.compression, channel.data = Compression.RAW, b""
    block = DescriptorBlock(name="", classID=b"null", version=16)  # a gradient fill without a gradient
    layer.tagged_blocks[Tag.GRADIENT_FILL_SETTING] = TaggedBlock(key=Tag.GRADIENT_FILL_SETTING, data=block)
    stack = read(document, tmp_path)
    assert np.array_equal(stack.layers[0].pixels, np.full((6, 6, 4), RED)) and not stack.layers[1].pixels.any()
    (warning,) = stack.warnings
    assert warning.startswith('Layer "ramp": it cannot be drawn (') and "only its stored pixels were read" in warning


def test_what_is_clipped_to_a_hidden_folder_is_hidden(tmp_path: Path):
    document = PSDImage.new("RGBA", (8, 8))
    folder = document.create_group(name="folder")
    folder.append(add(document, RED, "in", 0, 0, 4))
    folder.visible = False
    add(document, GREEN, "clip")._record.clipping = Clipping.NON_BASE
    stack = read(document, tmp_path)
    assert not composite(stack).any()
    assert (stack.layers[1].pixels[:4, :4, 3] == 255).all() and not stack.layers[1].visible


def test_settings_without_a_place_are_named(tmp_path: Path):
    document = PSDImage.new("RGBA", (8, 8))
    layer = add(document, RED, "a")
    layer.tagged_blocks.set_data(Tag.KNOCKOUT_SETTING, 2)
    channels = ChannelBlendingRestrictionsSetting([0])
    tag = Tag.CHANNEL_BLENDING_RESTRICTIONS_SETTING
    layer.tagged_blocks[tag] = TaggedBlock(key=tag, data=channels)
    layer.tagged_blocks.set_data(Tag.BLEND_CLIPPING_ELEMENTS, 0)
    add(document, GREEN, "clip")._record.clipping = Clipping.NON_BASE
    said = read(document, tmp_path).warnings
    assert said[:3] == (
        'Layer "a": its deep knockout was left out.',
        'Layer "a": that it changes only some of the channels was left out.',
        'Layer "a": "Blend Clipped Layers as Group" is off for it, and they were blended as a group.',
    )


def test_two_mask_densities_are_named(tmp_path: Path):
    document = PSDImage.new("RGB", (8, 8))
    layer = document.create_pixel_layer(Image.new("RGB", (6, 6), "red"), "a")
    layer.create_mask(Image.new("L", (6, 6), 0))
    layer._record.mask_data.parameters = MaskParameters(user_mask_density=51, vector_mask_density=255)
    layer._record.mask_data.flags.parameters_applied = True
    stack = read(document, tmp_path)
    assert stack.warnings == (
        'Layer "a": its two masks have the densities 20% and 100%, of which the first was used for both.',
    )


def flat(names: list[str], identifiers: list[int] | None, alpha: int) -> bytes:
    """A flat RGB document with a fourth channel of one level."""
    header = FileHeader(channels=4, height=4, width=4, color_mode=ColorMode.RGB)
    image = ImageData(Compression.RAW)
    image.set_data([bytes([level] * 16) for level in (200, 100, 50, alpha)], header)
    blocks = {}
    if names:
        blocks[Resource.ALPHA_NAMES_UNICODE] = AlphaNamesUnicode([f"{name}\0" for name in names])
    if identifiers is not None:
        blocks[Resource.ALPHA_IDENTIFIERS] = AlphaIdentifiers(identifiers)
    resources = ImageResources([(key, ImageResource(key=key.value, data=data)) for key, data in blocks.items()])
    buffer = io.BytesIO()
    PSD(header, image_resources=resources, image_data=image).write(buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("names", "identifiers", "clear"),
    [
        (["Alpha 1"], None, False), (["選択範囲"], None, False), (["Alpha 1"], [3], False),
        (["Transparency"], None, True), (["Transparenz"], [0], True), ([], None, True), ([], [0], True),
    ],
)  # fmt: skip
def test_which_extra_channel_is_the_transparency(names, identifiers, clear, tmp_path: Path):
    (tmp_path / "a.psd").write_bytes(flat(names, identifiers, 128))
    stack = load_psd(tmp_path / "a.psd")
    assert (stack.layers[0].pixels[..., 3] == (128 if clear else 255)).all()
    assert len(stack.warnings) == (not clear)


def test_flat_file_that_says_it_stores_no_picture(tmp_path: Path):
    document = PSDImage.open(io.BytesIO(flat([], None, 255)))
    info = VersionInfo(version=1, has_composite=False, writer="x", reader="x", file_version=1)
    document.image_resources[Resource.VERSION_INFO] = ImageResource(key=Resource.VERSION_INFO.value, data=info)
    buffer = io.BytesIO()
    document._record.write(buffer)
    (tmp_path / "a.psd").write_bytes(buffer.getvalue())
    assert "says that it stores no picture either" in load_psd(tmp_path / "a.psd").warnings[0]
    with pytest.raises(MRTError, match="stores no picture"):
        load_psd_preview(tmp_path / "a.psd")


@pytest.mark.parametrize(
    ("encoding", "names"),
    [
        ("cp932", ["レイヤー 1", "背景"]), ("cp932", ["線画"]), ("cp932", ["目"]), ("cp932", ["キャラ", "線"]),
        ("gbk", ["图层 1"]), ("gbk", ["人物", "头发", "阴影"]), ("gbk", ["新建图层", "图层 1 副本"]),
        ("mac-roman", ["Höhe"]), ("mac-roman", ["légende", "Ébène"]), ("mac-roman", ["Größe", "Übung"]),
        ("mac-roman", ["árbol", "niño"]), ("utf-8", ["線画"]), ("utf-8", ["été"]), ("utf-8", ["图层"]),
    ],
)  # fmt: skip
def test_scripts_of_names(encoding, names):
    assert guess_encoding([name.encode(encoding) for name in names]) == encoding


def test_name_that_was_cut_in_the_middle_of_a_character(tmp_path: Path):
    data = ("線画レイヤー" * 4).encode("cp932")[:31]
    assert guess_encoding([data]) == "cp932"


def test_frame_is_the_documents(tmp_path: Path):
    assert case("15_blank_preview.psd").frame == Size(16, 16)
