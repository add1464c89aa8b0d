"""The seed corpus of the reader's fuzzing: small documents of every kind that the reader knows.

python tests/documents/seeds.py        writes tests/documents/seeds/, the same bytes each time
"""

import io
from pathlib import Path

from PIL import Image
from psd_tools import PSDImage
from psd_tools.constants import Clipping, ColorMode, Compression, Tag
from psd_tools.psd import PSD
from psd_tools.psd.color_mode_data import ColorModeData
from psd_tools.psd.descriptor import Descriptor, DescriptorBlock, Double
from psd_tools.psd.header import FileHeader
from psd_tools.psd.image_data import ImageData
from psd_tools.terminology import Key
from torture import mask_by_path, mask_group, noise

from mrt_core.documents import save
from mrt_core.documents.psd.writer import write_psd
from mrt_core.geometry import Size
from mrt_core.stacks.layers import BLEND_MODES, Group, Layer, LayerStack

FOLDER = Path(__file__).with_name("seeds")


def small_stack() -> LayerStack:
    """Groups, modes, names and offsets in few bytes."""
    inner = Group((Layer(noise(3, 4, 1), -2, 5, "猫 🐈", "a cat"),), "inner", 0.5, "screen", closed=True)
    modes = tuple(Layer(noise(2, 2, i), i, i, mode, blend_mode=mode) for i, mode in enumerate(BLEND_MODES[::5]))
    layers = (Layer(noise(9, 11, 0, (200, 256)), 0, 0, "Background"), Group((inner, *modes), "outer", visible=False))
    return LayerStack(Size(11, 9), layers, {"prompt": "seed", "seed": 1})


def written(version: int = 1, compression: str = "rle") -> bytes:
    buffer = io.BytesIO()
    write_psd(small_stack(), buffer, version, compression)
    return buffer.getvalue()


def other(document: PSDImage) -> bytes:
    buffer = io.BytesIO()
    document.save(buffer)
    return buffer.getvalue()


def picture(mode: str = "RGB", seed: int = 0) -> Image.Image:
    rgba = Image.fromarray(noise(6, 7, seed))
    return rgba if mode == "RGBA" else Image.fromarray(noise(6, 7, seed)[..., :3]).convert(mode)


def of_mode(mode: str, depth: int = 8) -> bytes:
    document = PSDImage.new(mode, (7, 6), depth=depth)
    document.create_pixel_layer(picture("L" if mode == "1" else mode), "a")
    return other(document)


def masked() -> bytes:
    document = PSDImage.new("RGB", (12, 10))
    layer = document.create_pixel_layer(picture(), "masked", top=2, left=1)
    layer.create_mask(picture("L", 3), top=1, left=2)
    group = document.create_group(name="group")
    group.append(document.create_pixel_layer(picture(seed=5), "inside"))
    mask_group(group, picture("L", 4))
    return other(document)


def cut() -> bytes:
    document = PSDImage.new("RGBA", (12, 10))
    mask_by_path(document.create_pixel_layer(picture("RGBA"), "cut", top=2, left=1))
    return other(document)


def clipped() -> bytes:
    document = PSDImage.new("RGBA", (12, 10))
    document.create_pixel_layer(picture("RGBA"), "base")
    document.create_pixel_layer(picture("RGBA", 1), "clip", top=3)._record.clipping = Clipping.NON_BASE
    document.create_pixel_layer(picture("RGBA", 2), "invert").tagged_blocks.set_data(Tag.INVERT)
    return other(document)


def filled() -> bytes:
    document = PSDImage.new("RGBA", (12, 10))
    layer = document.create_pixel_layer(picture("RGBA"), "fill")
    color = Descriptor(name="", classID=b"RGBC")
    for key, value in ((Key.Red, 10.0), (Key.Green, 200.0), (Key.Blue, 90.0)):
        color[key] = Double(value)
    block = DescriptorBlock(name="", classID=b"null", version=16)
    block[Key.Color] = color
    layer.tagged_blocks.set_data(Tag.SOLID_COLOR_SHEET_SETTING, version=16)
    layer.tagged_blocks[Tag.SOLID_COLOR_SHEET_SETTING].data = block
    layer._record.bottom = layer._record.right = layer._record.top = layer._record.left = 0
    for channel in layer._channels:
        channel.compression, channel.data = Compression.RAW, b""
    return other(document)


def indexed() -> bytes:
    header = FileHeader(channels=1, height=6, width=7, color_mode=ColorMode.INDEXED)
    image = ImageData(Compression.RLE)
    image.set_data([bytes(range(42))], header)
    buffer = io.BytesIO()
    PSD(header, ColorModeData(bytes(range(256)) * 3), image_data=image).write(buffer)
    return buffer.getvalue()


def archive(suffix: str) -> bytes:
    path = FOLDER / f"temporary{suffix}"
    save(small_stack(), path, overwrite=True)
    data = path.read_bytes()
    path.unlink()
    return data


def corpus() -> dict[str, bytes]:
    """File names and contents."""
    return {
        "ours.psd": written(),
        "ours-zip.psd": written(compression="zip"),
        "ours.psb": written(version=2),
        "flat.psd": other(PSDImage.frompil(picture())),
        "gray.psd": of_mode("L"),
        "cmyk.psd": of_mode("CMYK"),
        "lab.psd": of_mode("LAB"),
        "deep-16.psd": of_mode("RGB", 16),
        "deep-32.psd": of_mode("RGB", 32),
        "bitmap.psd": other(PSDImage.frompil(picture("1"))),
        "indexed.psd": indexed(),
        "masked.psd": masked(),
        "clipped.psd": clipped(),
        "cut.psd": cut(),
        "filled.psd": filled(),
        "ours.ora": archive(".ora"),
        "ours.zip": archive(".zip"),
    }


def main() -> None:
    """Write the corpus."""
    FOLDER.mkdir(exist_ok=True)
    for name, data in corpus().items():
        (FOLDER / name).write_bytes(data)


if __name__ == "__main__":
    main()
