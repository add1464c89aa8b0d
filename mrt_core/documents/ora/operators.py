"""Blend modes in OpenRaster: the specification's operators, Krita's names for its own, and spellings of others."""

from ...stacks.layers import BLEND_MODES, PASS_THROUGH

# Other programs take an operator that they do not know for "svg:src-over".
OPERATORS = {
    "normal": "svg:src-over",
    "multiply": "svg:multiply",
    "screen": "svg:screen",
    "overlay": "svg:overlay",
    "darken": "svg:darken",
    "lighten": "svg:lighten",
    "color-dodge": "svg:color-dodge",
    "color-burn": "svg:color-burn",
    "hard-light": "svg:hard-light",
    "soft-light": "svg:soft-light",
    "difference": "svg:difference",
    "color": "svg:color",
    "luminosity": "svg:luminosity",
    "hue": "svg:hue",
    "saturation": "svg:saturation",
    "linear-dodge": "svg:plus",
    # Krita's names for its own
    "dissolve": "krita:dissolve",
    "exclusion": "krita:exclusion",
    "subtract": "krita:subtract",
    "divide": "krita:divide",
    "linear-burn": "krita:linear_burn",
    "linear-light": "krita:linear light",
    "vivid-light": "krita:vivid_light",
    "pin-light": "krita:pin_light",
    "hard-mix": "krita:hard mix",
    "darker-color": "krita:darker color",
    "lighter-color": "krita:lighter color",
    "grain-extract": "krita:grain_extract",
    "grain-merge": "krita:grain_merge",
}
# What layers do to what lies below them in their stack instead of covering it (Compositing and Blending Level 1).
ATOP, ERASE, KEEP = "src-atop", "dst-out", "dst-in"
_SYNONYMS = {
    "src-over": "normal", "over": "normal", "plus": "linear-dodge", "add": "linear-dodge", "addition": "linear-dodge",
    "lighter": "linear-dodge", "dodge": "color-dodge", "burn": "color-burn", "diff": "difference", "mult": "multiply",
    "luminize": "luminosity", "luminance": "luminosity", "soft-light-svg": "soft-light", "minus": "subtract",
    "hard-mix-photoshop": "hard-mix", "colour": "color", "colour-dodge": "color-dodge", "colour-burn": "color-burn",
    "destination-out": ERASE, "erase": ERASE, "destination-in": KEEP, "source-atop": ATOP, "source-over": "normal",
}  # fmt: skip


def read_operator(text: str) -> str | None:
    """A blend mode, PASS_THROUGH, ATOP, ERASE or KEEP for an operator as any program spells it; None for an unknown one."""
    word = "-".join(text.rpartition(":")[2].lower().replace("_", " ").replace("-", " ").split())
    mode = _SYNONYMS.get(word, word)
    return mode if mode in (*BLEND_MODES, PASS_THROUGH, ATOP, ERASE, KEEP) else None
