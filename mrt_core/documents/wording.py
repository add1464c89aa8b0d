"""Foreign text in our messages: names and reasons that may be of any length and hold anything."""

import re

_OBJECT = re.compile(r"<[^<>]* at 0x[0-9a-fA-F]+>")  # how Python shows an object without a text of its own
_REASON_CHARACTERS = 160
_NAME_CHARACTERS = 60


def reason(error: BaseException) -> str:
    """What a library's error says, on one line and short; its kind where it says nothing."""
    text = " ".join(_OBJECT.sub("the file", str(error)).split())
    return _cut(text, _REASON_CHARACTERS).rstrip(".") or type(error).__name__


def shown(name: object) -> str:
    """A name in quotes, without line breaks and short."""
    return _cut(repr(name), _NAME_CHARACTERS)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
