"""Render the artwork atlas from Noto Color Emoji: `python tools/build_artwork.py FONT.ttf`.

Needed only to renew the bundled atlas; it takes the font of the Debian package fonts-noto-color-emoji and `fonttools`.
"""

import json
import sys
import unicodedata

import numpy as np
from fontTools.ttLib import TTFont
from PIL import Image, ImageDraw, ImageFont

from mrt_core.designs.artwork import ATLAS_FOLDER, COLUMNS, TILE

BITMAP_SIZE = 109  # the font holds one bitmap strike, 136 x 128 px, under this nominal size
SKIPPED_WORDS = ("REGIONAL INDICATOR", "FITZPATRICK", "TAG ", "JOINER", "SELECTOR", "KEYCAP", "DIGIT", "CLOCK FACE")


def emoji_names(font_path: str) -> list[tuple[str, str]]:
    """(character, Unicode name in lower case) of every artwork that stands alone, in code-point order."""
    characters = [chr(code) for code in sorted(TTFont(font_path).getBestCmap()) if code > 0x200]
    named = [(character, unicodedata.name(character, "")) for character in characters]
    return [(c, name.lower()) for c, name in named if name and not any(word in name for word in SKIPPED_WORDS)]


def render(character: str, font: ImageFont.FreeTypeFont) -> Image.Image | None:
    """The artwork alone, cropped to its alpha and fitted into one tile, or None where the font draws nothing."""
    page = Image.new("RGBA", (2 * TILE, 2 * TILE))
    ImageDraw.Draw(page).text((TILE // 4, TILE // 4), character, font=font, embedded_color=True)
    if page.getbbox() is None:
        return None
    artwork = page.crop(page.getbbox())
    artwork.thumbnail((TILE, TILE), Image.Resampling.LANCZOS)
    return artwork


def main(font_path: str) -> None:
    font = ImageFont.truetype(font_path, BITMAP_SIZE)
    rendered = [(name, render(character, font)) for character, name in emoji_names(font_path)]
    drawn = [(name, artwork) for name, artwork in rendered if artwork is not None]
    atlas = Image.new("RGBA", (COLUMNS * TILE, -(-len(drawn) // COLUMNS) * TILE))
    for index, (_, artwork) in enumerate(drawn):
        atlas.paste(artwork, (index % COLUMNS * TILE, index // COLUMNS * TILE))
    pixels = np.asarray(atlas).copy()
    pixels[pixels[..., 3] == 0] = 0
    Image.fromarray(pixels).save(ATLAS_FOLDER / "emoji.webp", quality=90, alpha_quality=100, method=6)
    entries = [{"name": name, "size": list(artwork.size)} for name, artwork in drawn]
    (ATLAS_FOLDER / "emoji.json").write_text(json.dumps(entries, indent=0) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
