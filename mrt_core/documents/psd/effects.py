"""Layer effects as the file holds them, whatever psd-tools lists: newer and older Photoshop, and what has no reader.

Source: Adobe file format, "Object-based effects layer info" (lfx2) and "Effects Layer" (lrFX, Photoshop 5 and 6).
"""

from collections.abc import Iterator

from psd_tools.api.layers import Layer as PSDLayer
from psd_tools.constants import EffectOSType, Tag
from psd_tools.psd.descriptor import Bool, Descriptor, List
from psd_tools.psd.effects_layer import EffectsLayer

_BLOCKS = (
    Tag.OBJECT_BASED_EFFECTS_LAYER_INFO,
    Tag.OBJECT_BASED_EFFECTS_LAYER_INFO_V0,
    Tag.OBJECT_BASED_EFFECTS_LAYER_INFO_V1,
)
_MASTER, _PRESENT, _ENABLED = b"masterFXSwitch", b"present", b"enab"
_NAMES = {
    b"DrSh": "DropShadow", b"IrSh": "InnerShadow", b"OrGl": "OuterGlow", b"IrGl": "InnerGlow", b"ebbl": "BevelEmboss",
    b"ChFX": "Satin", b"SoFi": "ColorOverlay", b"GrFl": "GradientOverlay", b"patternFill": "PatternOverlay",
    b"FrFX": "Stroke",
}  # fmt: skip
_OLD_NAMES = {
    EffectOSType.DROP_SHADOW: "DropShadow",
    EffectOSType.INNER_SHADOW: "InnerShadow",
    EffectOSType.OUTER_GLOW: "OuterGlow",
    EffectOSType.INNER_GLOW: "InnerGlow",
    EffectOSType.BEVEL: "BevelEmboss",
    EffectOSType.SOLID_FILL: "ColorOverlay",
}


def complete_effects(layer: PSDLayer) -> None:
    """Give the effects of older Photoshop the flags that newer ones have and psd-tools asks for.

    An effect without "present" is one that is there: the flag tells apart what newer Photoshop keeps in its list.
    """
    for block in _blocks(layer):
        if isinstance(block, Descriptor):
            block.setdefault(_MASTER, Bool(True))
            for _, effect in _entries(block):
                effect.setdefault(_PRESENT, Bool(True))
                effect.setdefault(_ENABLED, Bool(True))


def effect_names(layer: PSDLayer) -> list[str]:
    """The names of all effects that are switched on, sorted; the file's own key for one that has no name here."""
    names: set[str] = set()
    blocks = list(_blocks(layer))
    for block in blocks:
        if not isinstance(block, Descriptor):
            names.add("effects that cannot be read")
        elif block.get(_MASTER, True):
            names |= {
                _NAMES.get(effect.classID) or _NAMES.get(key) or _text(effect.classID)
                for key, effect in _entries(block)
                if effect.get(_ENABLED, True) and effect.get(_PRESENT, True)
            }
    if not blocks and Tag.EFFECTS_LAYER in layer.tagged_blocks:
        old = layer.tagged_blocks.get_data(Tag.EFFECTS_LAYER)
        if not isinstance(old, EffectsLayer):
            return ["effects that cannot be read"]
        names = {_OLD_NAMES[key] for key, effect in old.items() if key in _OLD_NAMES and effect.enabled}
    return sorted(names)


def _blocks(layer: PSDLayer) -> Iterator[object]:
    return (layer.tagged_blocks.get_data(tag) for tag in _BLOCKS if tag in layer.tagged_blocks)


def _entries(block: Descriptor) -> Iterator[tuple[bytes, Descriptor]]:
    """The effects with their keys; newer Photoshop holds several of a kind in a list."""
    for key, value in block.items():
        for item in value if isinstance(value, List) else [value]:
            if isinstance(item, Descriptor):
                yield key, item


def _text(key: bytes | str) -> str:
    return key.decode("latin-1") if isinstance(key, bytes) else str(key)
