"""Pictures of every kind, by the command line's reader and as layers: the right pixels, and what is said about them."""

import io
import logging
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms
from torture import noise

from mrt_core.cli.common import read_image as read_for_command
from mrt_core.documents import load, save
from mrt_core.documents.pictures import MAX_PIXELS, read_image
from mrt_core.errors import MRTError
from mrt_core.geometry import Size
from mrt_core.stacks.layers import Layer, LayerStack

CASES = Path(__file__).parents[1] / "data" / "pictures"
GREEN = (10, 200, 30)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(color: int, bits: int, width: int, row: bytes, *chunks: tuple[bytes, bytes], height: int = 1) -> bytes:
    """A PNG of equal rows, of a colour type and depth that Pillow may not write."""
    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress((b"\0" + row) * height)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def of_values(values: list, kind: type) -> bytes:
    return encoded(Image.fromarray(np.array([values], kind)), "TIFF")


def unsigned(values: list) -> bytes:
    """A TIFF of 32-bit unsigned integers."""
    signed = encoded(Image.fromarray(np.array([values], np.uint32).view(np.int32)), "TIFF")
    entry = struct.pack("<HHI", 339, 3, 1)  # tag SampleFormat, which Pillow writes as 2: signed
    assert entry + b"\2" in signed
    return signed.replace(entry + b"\2", entry + b"\1")


def wide_gamut() -> bytes:
    with Image.open(CASES / "wide_gamut.jpg") as image:
        return image.info["icc_profile"]


@pytest.fixture
def read(tmp_path: Path, caplog):
    """Reads bytes as a picture file: pixels and what was logged."""

    def _read(data: bytes) -> tuple[np.ndarray, str]:
        (tmp_path / "a.picture").write_bytes(data)
        with caplog.at_level(logging.WARNING):
            pixels = read_image(tmp_path / "a.picture")
        return pixels, caplog.text

    return _read


def test_the_command_line_has_no_decoder_of_its_own():
    assert read_for_command is read_image


def test_phone_picture_stands_upright():
    pixels = read_image(CASES / "exif_rot6.jpg")
    assert pixels.shape == (96, 48, 4)
    with Image.open(CASES / "exif_rot6.jpg") as stored:
        turned = np.asarray(stored.transpose(Image.Transpose.ROTATE_270).convert("RGBA"))
    assert np.array_equal(pixels, turned)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_of_every_format(kind, orientation, read):
    upright = np.zeros((3, 2, 4), np.uint8)
    upright[..., 0], upright[..., 3] = np.arange(6).reshape(3, 2) * 40, 255
    # How the camera stores it: the inverse of the turn that the tag asks for.
    stored = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.swapaxes(0, 1),
        6: np.rot90(upright), 7: np.rot90(upright, 2).swapaxes(0, 1), 8: np.rot90(upright, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    pixels, said = read(encoded(Image.fromarray(np.ascontiguousarray(stored)), kind, exif=exif, **options))
    assert np.array_equal(pixels, upright) and said == ""


def test_16_bit_gray_is_scaled():
    pixels = read_image(CASES / "gray16.png")
    with Image.open(CASES / "gray16.png") as stored:
        expected = np.rint(np.asarray(stored).astype(np.float64) / 257)
    assert np.array_equal(pixels[..., 0], expected) and len(np.unique(pixels[..., 0])) > 10
    assert (pixels[..., 3] == 255).all()


def test_embedded_profile_is_converted_whatever_it_calls_itself():
    pixels = read_image(CASES / "wide_gamut.jpg")
    assert np.abs(pixels[20, 20].astype(int) - (231, 30, 30, 255)).max() <= 1


def test_cut_off_download_is_one_sentence():
    with pytest.raises(
        MRTError, match=r"truncated.jpg cannot be read as an image \(.*\); download or save it again\.$"
    ):
        read_image(CASES / "truncated.jpg")


RED16 = struct.pack(">6H", 65535, 0x80FF, 0x8000, 1000, 2000, 3000)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (png(2, 16, 2, RED16), [(255, 128, 128, 255), (3, 7, 11, 255)]),
        (png(2, 16, 2, RED16, (b"tRNS", RED16[6:])), [(255, 128, 128, 255), (3, 7, 11, 0)]),
        (png(6, 16, 1, struct.pack(">4H", 65535, 0x80FF, 0x8000, 40000)), [(255, 128, 128, 156)]),
        (png(4, 16, 1, struct.pack(">2H", 32768, 40000)), [(128, 128, 128, 156)]),
        (
            png(0, 16, 2, struct.pack(">2H", 65535, 1000), (b"tRNS", struct.pack(">H", 1000))),
            [(255,) * 4, (4, 4, 4, 0)],
        ),
        (png(0, 4, 2, b"\x5f", (b"tRNS", b"\0\5")), [(85, 85, 85, 0), (255,) * 4]),
        (png(0, 2, 2, b"\x70", (b"tRNS", b"\0\1")), [(85, 85, 85, 0), (255,) * 4]),
        (png(0, 1, 2, b"\x40", (b"tRNS", b"\0\1")), [(0, 0, 0, 255), (255, 255, 255, 0)]),
        (png(0, 1, 2, b"\x40"), [(0, 0, 0, 255), (255,) * 4]),
        (png(3, 2, 2, b"\x40", (b"PLTE", bytes(range(1, 7))), (b"tRNS", b"\x09")), [(4, 5, 6, 255), (1, 2, 3, 9)]),
        (png(4, 8, 1, b"\x09\x08"), [(9, 9, 9, 8)]),
        (of_values([0, 257, 30000], np.uint16), [(v, v, v, 255) for v in (0, 1, 117)]),
    ],
    ids=range(12),
)
def test_depths_and_kinds_of_transparency(data, expected, read):
    pixels, said = read(data)
    assert pixels[0].tolist() == [list(pixel) for pixel in expected] and said == ""


@pytest.mark.parametrize(
    ("data", "levels", "remark"),
    [
        (of_values([0, 0.5, 1], np.float32), [0, 128, 255], "from 0 to 1, which was read as black 0 and white 1."),
        (of_values([-1, 0.5, 2], np.float32), [0, 128, 255], "white 1, with what lies beyond clipped."),
        (of_values([0, 128, 255], np.float32), [0, 128, 255], "white 255."),
        (of_values([np.nan, 0.5, np.inf], np.float32), [0, 128, 255], "white 1."),
        (of_values([0, 128, 255], np.int32), [0, 128, 255], "white 255."),
        (of_values([0, 32768, 65535], np.int32), [0, 128, 255], "white 65535."),
        (of_values([0, 2**30, 2**31 - 1], np.int32), [0, 128, 255], "white 2.14748e+09."),
        (unsigned([0, 2**31, 2**32 - 1]), [0, 128, 255], "white 4.29497e+09."),
    ],
    ids=range(8),
)
def test_numbers_without_a_white_are_scaled_and_the_scale_is_said(data, levels, remark, read):
    pixels, said = read(data)
    assert pixels[0, :, 0].tolist() == levels and remark in said


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_without_a_profile_is_said_to_be_approximate(kind, read):
    pixels, said = read(encoded(Image.new("RGB", (2, 1), GREEN).convert("CMYK"), kind))
    assert np.abs(pixels[0, 0].astype(int) - (*GREEN, 255)).max() <= 2
    assert "it has no colour profile, so its CMYK colours are approximate" in said


def ink_profile() -> bytes:
    """A CMYK profile in which every ink is a gray: lightness falls by a third for C, M and Y each, and to 0 for K."""
    corners = [(c, m, y, k) for c in (0, 1) for m in (0, 1) for y in (0, 1) for k in (0, 1)]
    table = b"".join(bytes([round(255 * (1 - k) * (1 - (c + m + y) / 3)), 128, 128]) for c, m, y, k in corners)
    identity = struct.pack(">9i", *[65536 if i % 4 == 0 else 0 for i in range(9)])
    lut = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + identity + bytes(range(256)) * 4 + table + bytes(range(256)) * 3
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", 9) + b"Gray ink\0" + bytes(4 + 4 + 2 + 1 + 67),
        b"wtpt": b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061),
        b"A2B0": lut,
    }
    offset, entries, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, data in tags.items():
        data += bytes(-len(data) % 4)
        entries += name + struct.pack(">II", offset + len(body), len(data))
        body += data
    header = struct.pack(
        ">I4sI4s4s4s12s4s", offset + len(body), b"lcms", 0x02100000, b"prtr", b"CMYK", b"Lab ", bytes(12), b"acsp"
    )
    header += bytes(28) + struct.pack(">3i", 63190, 65536, 54061) + bytes(48)
    return header + struct.pack(">I", len(tags)) + entries + body


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_with_a_profile_is_converted_by_it(kind, read):
    for inks, lightness in (((0, 0, 0, 0), 255), ((0, 0, 0, 255), 0), ((255, 0, 0, 0), 161)):  # L* 66.7 is sRGB 161
        pixels, said = read(encoded(Image.new("CMYK", (8, 8), inks), kind, icc_profile=ink_profile()))
        assert np.abs(pixels[4, 4].astype(int) - (lightness, lightness, lightness, 255)).max() <= 3 and said == ""


def test_profile_keeps_alpha_and_serves_palettes_and_gray(read):
    profile, red = wide_gamut(), (200, 30, 30)
    rgba = encoded(Image.new("RGBA", (2, 1), (*red, 77)), "PNG", icc_profile=profile)
    palette = encoded(Image.new("RGB", (2, 1), red).quantize(4), "PNG", icc_profile=profile)
    assert read(rgba)[0][0, 0].tolist() == [231, 30, 30, 77]
    assert read(palette)[0][0, 0].tolist() == [231, 30, 30, 255]
    pixels, said = read(encoded(Image.new("L", (2, 1), 77), "PNG", icc_profile=profile))
    assert pixels[0, 0].tolist() == [77, 77, 77, 255] and said == ""


def test_profile_of_srgb_changes_nothing(read):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    colors = np.arange(3 * 256, dtype=np.uint8).reshape(1, 256, 3)
    pixels, said = read(encoded(Image.fromarray(colors), "PNG", icc_profile=profile))
    assert np.array_equal(pixels[..., :3], colors) and said == ""


def test_profile_that_cannot_be_used_is_named(read):
    pixels, said = read(encoded(Image.new("RGB", (2, 1), GREEN), "PNG", icc_profile=b"junk" * 40))
    assert pixels[0, 0].tolist() == [*GREEN, 255] and "its colour profile of 160 bytes cannot be read" in said
    assert " object at " not in said
    said = read(encoded(Image.new("CMYK", (2, 1)), "JPEG", icc_profile=wide_gamut()))[1]
    assert "its colour profile 'sRGB built-in' is not one for CMYK pictures" in said


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_first_frame_of_several(kind, read):
    frames = [Image.new("RGB", (4, 3), color) for color in ("red", "blue", "lime")]
    options = {"lossless": True} if kind == "WEBP" else {}
    pixels, said = read(encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options))
    assert (pixels == (255, 0, 0, 255)).all() and "it has 3 frames, of which the first was read" in said


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it is empty"),
        (b"8BPS" + bytes(40), "it is a layered document"),
        (b"no picture", "it holds no picture of a known kind"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "it holds no picture of a known kind"),
        (png(2, 8, 60_000, b"", height=60_000), "too many pixels"),
        (png(2, 8, 12_000, b"", height=12_000), "12000 x 12000 px, and .* pixels are allowed"),
        (encoded(Image.fromarray(noise(40, 40, 0)), "PNG")[:3000], "download or save it again"),
    ],
    ids=range(7),
)
def test_what_is_no_picture_is_refused_in_one_sentence_with_its_name(data, message, read):
    with pytest.raises(MRTError, match=message) as refused:
        read(data)
    text = str(refused.value)
    assert "a.picture" in text and text.endswith(".") and "\n" not in text and " object at " not in text


def test_missing_file_and_folder_name_themselves(tmp_path: Path):
    with pytest.raises(MRTError, match=r"nothing.png cannot be read as an image \(No such file or directory\)"):
        read_image(tmp_path / "nothing.png")
    with pytest.raises(MRTError, match="check the path"):
        read_image(tmp_path)


def test_a_print_of_a0_at_300_dpi_is_allowed():
    assert MAX_PIXELS >= 9933 * 14043


def test_layer_that_another_program_saved_again_is_converted_and_said(tmp_path: Path):
    save(LayerStack(Size(2, 1), (Layer(np.full((1, 2, 4), 255, np.uint8), 0, 0, "a"),)), tmp_path / "folder")
    (file,) = (tmp_path / "folder").glob("*.png")
    file.write_bytes(of_values([0, 128], np.int32))
    back = load(tmp_path / "folder")
    assert back.layers[0].pixels[0, :, 0].tolist() == [0, 128]
    assert back.warnings == ('Layer "a": its values go from 0 to 128, which was read as black 0 and white 255.',)
