"""Layer names of old or small programs: bytes in an encoding that the file does not name.

Photoshop writes a Unicode name beside the bytes; where it is missing, the encoding is told from all such names of the
document together.
"""

import unicodedata
from collections.abc import Iterable

from psd_tools.api.layers import Layer as PSDLayer
from psd_tools.constants import Tag

from .values import MAX_PASCAL_BYTES

_PARSED_AS = "macroman"  # psd-tools decodes the bytes so; every byte has a character there, so they can be had back
_SCRIPTS = {"utf-8": "UTF-8", "cp932": "Shift-JIS", "gbk": "GBK", "mac-roman": "MacRoman"}


def restore_names(layers: Iterable[PSDLayer]) -> dict[int, str]:
    """Decode the names of `layers` anew in place; returns for each layer (by id()) the script that was guessed for it.

    UTF-8 is no guess: hardly any other text is valid as such.
    """
    named = {}
    for layer in layers:
        data = layer._record.name.encode(_PARSED_AS, "replace")
        if Tag.UNICODE_LAYER_NAME not in layer.tagged_blocks and not data.isascii():
            named[id(layer)] = layer, data
    encoding = guess_encoding([data for _, data in named.values()])
    for layer, data in named.values():
        layer._record.name = _decode(data, encoding)
    return {key: _SCRIPTS[encoding] for key in named} if encoding != "utf-8" else {}


def guess_encoding(names: list[bytes]) -> str:
    """The Python name of the encoding in which `names` look most like words: utf-8, cp932, gbk or mac-roman."""
    scores = {}
    for encoding in _SCRIPTS:
        try:
            texts = [_decode(name, encoding) for name in names]
        except UnicodeDecodeError:
            continue
        if encoding == "utf-8":
            if all(unicodedata.category(character) != "Cn" for text in texts for character in text):
                return encoding
            continue
        scores[encoding] = sum(_likeness(text, encoding) for text in texts) / sum(map(len, names) or [1])
    return max(scores, key=scores.__getitem__)


def _decode(data: bytes, encoding: str) -> str:
    """The text in `data`, whose last character may be cut where the old field ends; raises UnicodeDecodeError."""
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        if len(data) < MAX_PASCAL_BYTES or error.start < len(data) - 3:
            raise
        return data[: error.start].decode(encoding)


def _likeness(text: str, encoding: str) -> float:
    """How much `text` looks like words in the script of `encoding`: bytes that fit, less bytes that do not."""
    score = 0.0
    for before, character, after in zip(" " + text, text, text[1:] + " ", strict=False):
        if character.isascii():
            continue
        data = character.encode(encoding)
        if encoding == "mac-roman":
            # Accented letters stand alone among plain ones.
            alone = before.isascii() and after.isascii() and (before.isalpha() or after.isalpha())
            score += (1.5 if alone else -0.5) if character.isalpha() else -1
        elif len(data) == 1:
            score -= 0.5  # half-width kana, which any Chinese bytes also look like
        elif encoding == "cp932":
            common = data[0] in (0x81, 0x82, 0x83) or 0x88 <= data[0] <= 0x97  # punctuation, kana, kanji of level 1
            score += _written(data, before, after) * 2 if common else -1
        else:
            common = 0xB0 <= data[0] <= 0xD7 and data[1] >= 0xA1  # GB 2312, level 1
            score += 2 if common else 0.5 if data[0] <= 0xA9 and data[1] >= 0xA1 else -1
    return score


def _written(data: bytes, before: str, after: str) -> float:
    """1, or less where a pair of bytes may as well be an accented letter and a plain one inside a word."""
    beside = any(character.isascii() and character.isalpha() for character in (before, after))
    return -0.5 if beside and data[1:].isalpha() else 1.0
