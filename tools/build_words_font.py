"""Cut the font of the Chinese words from Noto Sans CJK: `python tools/build_words_font.py NotoSansCJK-Bold.ttc`.

Needed only when the words change; it takes the font of the Debian package fonts-noto-cjk and `fonttools`.
"""

import sys

from fontTools.subset import Options, Subsetter
from fontTools.ttLib import TTCollection

from mrt_core.designs.artwork import ATLAS_FOLDER, CHINESE_FONT
from mrt_core.designs.words import CHINESE_HELD_OUT_WORDS, CHINESE_TRAINING_WORDS

FULL_NAME = "Noto Sans CJK SC Bold"  # of the collection's fonts, the one with the forms of simplified Chinese


def main(collection_path: str) -> None:
    options = Options(layout_features=[], hinting=False, notdef_outline=False, name_IDs=["*"], name_languages=[0x409])
    subsetter = Subsetter(options)
    subsetter.populate(text="".join(CHINESE_TRAINING_WORDS + CHINESE_HELD_OUT_WORDS))
    (font,) = (font for font in TTCollection(collection_path) if font["name"].getDebugName(4) == FULL_NAME)
    font.recalcTimestamp = False  # the same file every time
    subsetter.subset(font)
    font.save(ATLAS_FOLDER / CHINESE_FONT)


if __name__ == "__main__":
    main(sys.argv[1])
