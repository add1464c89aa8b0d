"""JSON as language models and people write it: in prose, in fences, with comments, odd quotes, or cut off.

One pass from left to right: every character is read once, and where the text breaks off, what is whole stays. A library
would guess missing values and tell nobody; this reader leaves out and notes it.
"""

# ruff: noqa: RUF001  (full-width signs are what is read here)
import re
from collections import Counter
from typing import Any, NamedTuple

from ..errors import MRTError
from .fields import describe_key

MAX_DEPTH = 32  # levels of nesting; groups of groups need about ten
MAX_INTEGER_DIGITS = 18  # longer ones are read as floats: Python refuses to convert thousands of digits
TOO_DEEP = "the text is nested too deeply, but a layout has four levels; remove the nesting."

SPACE = re.compile(r"(?:[\s\u200b\ufeff]|//[^\n]*|/\*.*?(?:\*/|\Z)|\#[^\n]*)+", re.DOTALL)
COMMENT = re.compile(r"//|/\*|#")
START = re.compile(r"[\[{［｛]")
LISTS = {"[": "]］", "［": "]］", "(": ")"}
OBJECTS = {"{": "}｝", "｛": "}｝"}
QUOTES = {'"': '"“”', "“": '”"“', "”": '”"', "'": "'’", "‘": "’'", "’": "’'", "＂": "＂", "＇": "＇", "`": "`"}
STRING_END = re.compile(
    r"[^\S\n]*(?:[\n,:}\])，：、；;=｝］]|//|/\*|#|\Z)"
)  # what follows a quote that closes a string
ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}
NUMBER = re.compile(r"([+\-−－]?)(\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?)(\s*(?:px|%|％))?(?![\w.])")
WORD = re.compile(r"[+-]?[^\W\d][\w.$-]*")
LOOSE_VALUE = re.compile(r"[^,，}｝\])\n\"“:]+")  # an unquoted string, up to where its pair ends
WORDS = {"true": True, "false": False, "null": None, "none": None, "undefined": None, "nan": float("nan"),
         "infinity": float("inf"), "-infinity": float("-inf"), "inf": float("inf"), "-inf": float("-inf")}  # fmt: skip
NOTHING = object()  # in the place of a value that the text does not hold whole

REPAIRS = {  # what is read but not JSON, in the words of a note
    "comments": "comments",
    "quotes": 'other quotes than "',
    "unquoted": "words without quotes",
    "commas": "commas too many or too few",
    "width": "full-width punctuation",
    "tuples": "Python's tuples and calls",
    "ellipsis": "an ellipsis where something may have been left out",
}


class Found(NamedTuple):
    """The JSON objects and lists of a text in their order, and a sentence for each thing that was passed over."""

    values: tuple[Any, ...]
    notes: tuple[str, ...]


def find_values(text: str) -> Found:
    """Every object and list in `text` that could hold a box; MRTError for hundreds of levels or a key twice in an object."""
    reader = _Reader(text)
    values, breaks, position = [], [], 0
    while start := START.search(text, position):
        reader.begin(start.start())
        value = reader.value(0)
        position = max(reader.at, start.end())
        if reader.broken and (reader.keys or reader.numbers > 1):
            breaks.append(reader.at)
        if _holds_boxes(value) or value == []:
            values.append(value)
    return Found(tuple(values), (*_break_notes(text, breaks), *_repair_notes(reader.repairs)))


def place(text: str, position: int) -> str:
    """The place of a character in words: "line 2, column 7"."""
    before = text[:position]
    return f"line {before.count(chr(10)) + 1}, column {position - before.rfind(chr(10))}"


def _break_notes(text: str, breaks: list[int]) -> list[str]:
    if not breaks:
        return []
    more = f" and at {len(breaks) - 1} more places" if len(breaks) > 1 else ""
    if breaks[0] >= len(text.rstrip()):
        return [
            f"the text is cut off at {place(text, breaks[0])}; what is whole before it was kept, the rest left out."
        ]
    return [
        f"the text is not JSON at {place(text, breaks[0])}{more}; what is whole around it was kept, the rest left out."
    ]


def _repair_notes(repairs: Counter) -> list[str]:
    names = [REPAIRS[name] for name in REPAIRS if repairs[name]]
    return [f"the text is not strict JSON and was read all the same: it has {', '.join(names)}."] if names else []


def _holds_boxes(value: Any) -> bool:
    """Whether a top-level value is more than a bracket in prose: an object, or a list of four numbers, objects or lists."""
    if isinstance(value, dict):
        return bool(value)
    return isinstance(value, list) and (
        len(value) >= 4 or any(isinstance(item, (dict, list)) and item for item in value)
    )


def _is_item(value: Any) -> bool:
    """Whether an element of a list that breaks off is whole by itself: an object, a text, a box, a list of points."""
    if isinstance(value, list):
        return len(value) >= 4 or any(isinstance(item, (dict, list)) for item in value)
    return isinstance(value, (dict, str))


def _holds_items(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_holds_items(item) for item in value.values())
    return isinstance(value, list) and any(isinstance(item, (dict, list)) and _is_item(item) for item in value)


class _Reader:
    """A cursor in a text. `broken` is set where the text stops being readable; every open container then ends there."""

    def __init__(self, text: str):
        self.text = text
        self.repairs: Counter[str] = Counter()
        self.begin(0)

    def begin(self, position: int) -> None:
        self.at, self.broken, self.keys, self.numbers = position, False, 0, 0

    def value(self, depth: int, in_object: bool = False) -> Any:
        if depth > MAX_DEPTH:
            raise MRTError(TOO_DEEP)
        first = self._skip_space()
        if first in LISTS:
            self.repairs["tuples"] += first == "("
            return self._list(depth)
        if first in OBJECTS:
            self.at += 1
            return self._pairs(depth, OBJECTS[first])
        if first in QUOTES:
            return self._string(QUOTES[first])
        if number := NUMBER.match(self.text, self.at):
            return self._number(number)
        if word := WORD.match(self.text, self.at):
            return self._word(word, depth, in_object)
        return self._loose_value() if in_object and first == "<" else self._break()

    def _break(self) -> Any:
        self.broken = True
        return NOTHING

    def _skip_space(self) -> str:
        """The next character that counts, "" at the end."""
        first = self.text[self.at : self.at + 1]
        if first > "#" and first not in "/\u200b\ufeff" and not first.isspace():
            return first
        if space := SPACE.match(self.text, self.at):
            self.repairs["comments"] += bool(COMMENT.search(self.text, self.at, space.end()))
            self.at = space.end()
        return self.text[self.at : self.at + 1]

    def _skip_commas(self, first: bool) -> str:
        """As `_skip_space`, over commas too; between two elements there should be one."""
        commas = 0
        if not first and self.text[self.at : self.at + 1] == ",":  # the common case
            self.at, commas = self.at + 1, 1
        while (character := self._skip_space()) and character in ",，、;；…." and not NUMBER.match(self.text, self.at):
            self.at += 1
            commas += character not in "…."
            self.repairs["ellipsis"] += character in "…."
            self.repairs["width"] += character in "，、；"
        self.repairs["commas"] += commas != (0 if first else 1) and not (commas == 0 and character in tuple("]］}｝)"))
        self.repairs["commas"] += commas == 1 and character in tuple("]］}｝")
        return character

    def _close(self, character: str) -> None:
        self.repairs["width"] += character in "］｝"
        self.at += 1

    def _list(self, depth: int) -> Any:
        closers, items = LISTS[self.text[self.at]], []
        self.at += 1
        while character := self._skip_commas(first=not items):
            if character in closers:
                self._close(character)
                return items
            item = self.value(depth + 1)
            if item is not NOTHING:
                items.append(item)
            if self.broken:
                break
        self._break()
        return [item for item in items if _is_item(item)] or NOTHING

    def _pairs(self, depth: int, closers: str) -> Any:
        pairs: dict[str, Any] = {}
        while character := self._skip_commas(first=not pairs):
            if character in closers:
                self._close(character)
                return pairs
            key = self._key(character)
            if key is NOTHING:
                break
            value = self.value(depth + 1, in_object=True)
            if value is not NOTHING:
                if key in pairs:
                    raise MRTError(key_twice(key))
                pairs[key] = value
            if self.broken:
                return pairs if _holds_items(value) or any(_holds_items(item) for item in pairs.values()) else NOTHING
        self._break()
        return pairs if any(_holds_items(item) for item in pairs.values()) else NOTHING

    def _key(self, character: str) -> Any:
        if character in QUOTES:
            key = self._string(QUOTES[character])
        elif word := re.compile(r"\w[\w.$-]*").match(self.text, self.at):
            key, self.at = word[0], word.end()
            self.repairs["unquoted"] += 1
        else:
            return NOTHING
        colon = self._skip_space()
        if key is NOTHING or not colon or colon not in ":：=":
            return NOTHING
        self.at += 1
        self.repairs["width"] += colon == "："
        self.keys += 1
        return key

    def _string(self, closers: str) -> Any:
        """A string; a quote inside it that no comma, colon or bracket follows belongs to it."""
        self.repairs["quotes"] += self.text[self.at] != '"'
        start, position = self.at + 1, self.at + 1
        ends = re.compile(rf"[\\{closers}]")
        while found := ends.search(self.text, position):
            position = found.end()
            if found[0] == "\\":
                position += 1
            elif STRING_END.match(self.text, position):
                self.at = position
                return unescape(self.text[start : found.start()])
        self.at = len(self.text)
        return self._break()

    def _number(self, found: re.Match[str]) -> Any:
        sign, digits, unit = found[1].replace("−", "-").replace("－", "-"), found[2], (found[3] or "").strip()
        self.at = found.end()
        self.numbers += 1
        if self.at >= len(self.text):  # more digits may have followed
            return self._break()
        if unit in ("%", "％"):
            return f"{sign}{digits}%"
        whole = digits.isdecimal() and len(digits) <= MAX_INTEGER_DIGITS
        return int(sign + digits) if whole else float(sign + digits)

    def _word(self, found: re.Match[str], depth: int, in_object: bool) -> Any:
        word, after = found[0], found.end()
        if self.text[after : after + 1] == "(":
            self.at = after
            return self._call(depth)
        if word.lower() in WORDS:
            self.at = after
            return WORDS[word.lower()]
        return self._loose_value() if in_object else self._break()

    def _loose_value(self) -> Any:
        loose = LOOSE_VALUE.match(self.text, self.at)
        if not loose or loose.end() == len(self.text):
            return self._break()
        self.at = loose.end()
        self.repairs["unquoted"] += 1
        return loose[0].strip()

    def _call(self, depth: int) -> Any:
        """What Python prints for an object: tensor([...], device='cpu') is its first value, Box(x=1, y=2) its pairs."""
        self.repairs["tuples"] += 1
        self.at += 1
        if self._skip_space() and re.compile(r"\w+\s*=").match(self.text, self.at):
            return self._pairs(depth, ")")
        value = self.value(depth + 1)
        if not self.broken:
            self._pairs(depth, ")")
        return value


def key_twice(key: str) -> str:
    """The sentence for a key that an object has twice."""
    return f"the key {describe_key(key)} stands twice in one object, but only one can count; remove the other."


def unescape(text: str) -> str:
    """A JSON string's text without its backslashes; halves of a surrogate pair that stand alone become U+FFFD."""
    if "\\" not in text:
        return text
    text = ESCAPE.sub(lambda m: chr(int(m[1][1:], 16)) if len(m[1]) == 5 else ESCAPED.get(m[1], m[1]), text)
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
