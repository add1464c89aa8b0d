"""The bundled artwork: an atlas of Noto Color Emoji drawings with captions, and open fonts.

The drawings are split by name into training and held-out artwork, so that evaluation never shows what was trained on.
"""

import json
import zlib
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np
from PIL import Image, ImageFont

ATLAS_FOLDER = Path(__file__).parent.parent / "data" / "artwork"
TILE = 128  # px
COLUMNS = 36
LATIN_FONTS = ("Comfortaa-Bold.ttf", "LobsterTwo-BoldItalic.otf", "OpenSans-ExtraBold.ttf", "RobotoSlab-Bold.otf")
CHINESE_FONT = "NotoSansCJKsc-Bold-Words.otf"  # holds the characters of words.py alone
HELD_OUT_SHARE = 10  # one drawing in ten is kept for evaluation

# Drawings that training shows more often than the others, as captions in the wild repeat too: a small model can learn to
# draw these from their names.
COMMON_NAMES = (
    "airplane", "anchor", "avocado", "balloon", "banana", "bear face", "bell", "bicycle", "bread", "butterfly",
    "cactus", "camera", "carrot", "cherries", "christmas tree", "cloud", "cow face", "crab", "crescent moon", "crown",
    "deciduous tree", "doughnut", "droplet", "fire", "fox face", "frog face", "ghost", "grapes", "green apple",
    "guitar", "hamburger", "heavy black heart", "house building", "ice cream", "key", "lemon", "lion face", "lock",
    "mushroom", "octopus", "panda face", "peach", "pear", "pig face", "pineapple", "rainbow", "red apple", "rocket",
    "sailboat", "slice of pizza", "smiling face with sunglasses", "snowflake", "snowman", "soccer ball", "strawberry",
    "sun with face", "sunflower", "tomato", "trophy", "tulip", "umbrella", "watermelon", "wine glass", "yellow heart",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Artwork:
    """One drawing: straight RGBA `pixels` (height, width, 4) uint8, cropped to its content, and its caption."""

    name: str
    pixels: np.ndarray

    @cached_property
    def premultiplied(self) -> Image.Image:
        """The drawing in Pillow's mode "RGBa", ready to be scaled."""
        return Image.fromarray(self.pixels, "RGBA").convert("RGBa")

    @cached_property
    def color(self) -> tuple[int, int, int]:
        """The mean colour of what is opaque."""
        weight = self.pixels[..., 3:].astype(np.float32)
        return tuple(round(level) for level in ((self.pixels[..., :3] * weight).sum((0, 1)) / weight.sum()).tolist())


def is_held_out(name: str) -> bool:
    """Whether a drawing belongs to the evaluation split: a fixed hash of its name."""
    return zlib.crc32(name.encode()) % HELD_OUT_SHARE == 0


@cache
def load_artwork(held_out: bool) -> tuple[Artwork, ...]:
    """All drawings of one split, in atlas order."""
    entries = json.loads((ATLAS_FOLDER / "emoji.json").read_text(encoding="utf-8"))
    with Image.open(ATLAS_FOLDER / "emoji.webp") as image:
        atlas = np.asarray(image.convert("RGBA"))
    drawings = []
    for index, entry in enumerate(entries):
        if is_held_out(entry["name"]) == held_out:
            width, height = entry["size"]
            row, col = index // COLUMNS * TILE, index % COLUMNS * TILE
            drawings.append(Artwork(entry["name"], atlas[row : row + height, col : col + width].copy()))
    return tuple(drawings)


@cache
def load_common_artwork() -> tuple[Artwork, ...]:
    """The training drawings of COMMON_NAMES, in atlas order."""
    return tuple(drawing for drawing in load_artwork(held_out=False) if drawing.name in COMMON_NAMES)


@cache
def load_font(name: str, size: int) -> ImageFont.FreeTypeFont:
    """One of the bundled fonts, by its file's name, at a size in px."""
    return ImageFont.truetype(str(ATLAS_FOLDER / name), size)
