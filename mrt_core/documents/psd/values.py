"""How names, blend modes and limits are spelled in a PSD file."""

from psd_tools.constants import BlendMode

from ...stacks.layers import PASS_THROUGH

PSD_MAX_SIDE = 30_000  # px; a wider or taller document, or layer, needs PSB (Adobe file format: File Header Section)
PSB_MAX_SIDE = 300_000
PSD_MAX_BYTES = 2**31 - 1
MAX_RECORDS = 2**15 - 1  # the layer count is a signed 16-bit number
MAX_NAME_UNITS = 255  # UTF-16 units that Photoshop shows
MAX_PASCAL_BYTES = 31  # longer ones break readers that take the old 31-byte limit for granted

BLEND_KEYS: dict[str, BlendMode] = {
    PASS_THROUGH: BlendMode.PASS_THROUGH,
    "normal": BlendMode.NORMAL,
    "dissolve": BlendMode.DISSOLVE,
    "darken": BlendMode.DARKEN,
    "multiply": BlendMode.MULTIPLY,
    "color-burn": BlendMode.COLOR_BURN,
    "linear-burn": BlendMode.LINEAR_BURN,
    "darker-color": BlendMode.DARKER_COLOR,
    "lighten": BlendMode.LIGHTEN,
    "screen": BlendMode.SCREEN,
    "color-dodge": BlendMode.COLOR_DODGE,
    "linear-dodge": BlendMode.LINEAR_DODGE,
    "lighter-color": BlendMode.LIGHTER_COLOR,
    "overlay": BlendMode.OVERLAY,
    "soft-light": BlendMode.SOFT_LIGHT,
    "hard-light": BlendMode.HARD_LIGHT,
    "vivid-light": BlendMode.VIVID_LIGHT,
    "linear-light": BlendMode.LINEAR_LIGHT,
    "pin-light": BlendMode.PIN_LIGHT,
    "hard-mix": BlendMode.HARD_MIX,
    "difference": BlendMode.DIFFERENCE,
    "exclusion": BlendMode.EXCLUSION,
    "subtract": BlendMode.SUBTRACT,
    "divide": BlendMode.DIVIDE,
    "hue": BlendMode.HUE,
    "saturation": BlendMode.SATURATION,
    "color": BlendMode.COLOR,
    "luminosity": BlendMode.LUMINOSITY,
}
BLEND_NAMES: dict[BlendMode, str] = {key: name for name, key in BLEND_KEYS.items()}

# Modes that PSD does not have, and the nearest that it has. The exact name travels in the document's metadata.
NEAREST_MODES = {"grain-extract": "subtract", "grain-merge": "linear-light"}


def clean_name(name: str, fallback: str) -> str:
    """`name` as every reader can hold it: no NUL, no lone surrogates, at most 255 UTF-16 units; `fallback` when empty."""
    text = "".join(c for c in name if c != "\0" and not 0xD800 <= ord(c) <= 0xDFFF)
    units = text.encode("utf-16-be")[: 2 * MAX_NAME_UNITS]
    return units.decode("utf-16-be", errors="ignore") or fallback  # "ignore" drops half of a pair that was cut


def pascal_name(name: str, fallback: str) -> str:
    """The name for readers that only know the old one: `name` itself when short printable ASCII, else `fallback`."""
    return name if name.isascii() and name.isprintable() and len(name) <= MAX_PASCAL_BYTES else fallback
