"""What a layer of a PSD has that a layer stack has not, named."""

from psd_tools.api.layers import Artboard
from psd_tools.api.layers import Group as PSDGroup
from psd_tools.api.layers import Layer as PSDLayer
from psd_tools.constants import Tag

from .effects import effect_names
from .reading import Reading

_ALL_LEVELS = [(0, 65535), (0, 65535)]
_KNOCKOUTS = {1: "shallow", 2: "deep"}
# Blocks that say nothing of what a layer shows. A layer without pixels that has another one is what that block says.
_IDLE_BLOCKS = {
    Tag.UNICODE_LAYER_NAME, Tag.LAYER_ID, Tag.LAYER_NAME_SOURCE_SETTING, Tag.BLEND_CLIPPING_ELEMENTS,
    Tag.BLEND_INTERIOR_ELEMENTS, Tag.KNOCKOUT_SETTING, Tag.PROTECTED_SETTING, Tag.SHEET_COLOR_SETTING,
    Tag.METADATA_SETTING, Tag.REFERENCE_POINT, Tag.LAYER_VERSION, Tag.TRANSPARENCY_SHAPES_LAYER,
    Tag.LAYER_MASK_AS_GLOBAL_MASK, Tag.VECTOR_MASK_AS_GLOBAL_MASK, Tag.BLEND_FILL_OPACITY,
    Tag.CHANNEL_BLENDING_RESTRICTIONS_SETTING, Tag.OBJECT_BASED_EFFECTS_LAYER_INFO,
    Tag.OBJECT_BASED_EFFECTS_LAYER_INFO_V0, Tag.OBJECT_BASED_EFFECTS_LAYER_INFO_V1, Tag.EFFECTS_LAYER,
    Tag.SECTION_DIVIDER_SETTING, Tag.NESTED_SECTION_DIVIDER_SETTING, Tag.USER_MASK, Tag.FOREIGN_EFFECT_ID,
    Tag.VECTOR_MASK_SETTING1, Tag.VECTOR_MASK_SETTING2, Tag.USING_ALIGNED_RENDERING, Tag.FILTER_MASK,
}  # fmt: skip
_BLOCK_NAMES = {
    Tag.BRIGHTNESS_AND_CONTRAST: "a brightness/contrast adjustment of older Photoshop",
    Tag.HUE_SATURATION_V4: "a hue/saturation adjustment of older Photoshop",
}


def deed_without_pixels(layer: PSDLayer) -> str | None:
    """What a layer is that has no pixels and is no kind that is read, such as an old adjustment; None for any other."""
    if isinstance(layer, PSDGroup) or layer.kind != "pixel" or (layer.width > 0 and layer.height > 0):
        return None
    blocks = [tag for tag in layer.tagged_blocks if tag not in _IDLE_BLOCKS]
    for tag in blocks:
        if tag in _BLOCK_NAMES:
            return _BLOCK_NAMES[tag]
    keys = ", ".join(f'"{_key(tag)}"' for tag in blocks)
    return f"without pixels and with blocks that are not known ({keys})" if keys else None


def _key(tag: Tag | bytes) -> str:
    return (tag.value if isinstance(tag, Tag) else bytes(tag)).decode("latin-1")


def warn_of_losses(layer: PSDLayer, clipped: list[PSDLayer], reading: Reading) -> None:
    """Name what of `layer`, to which `clipped` are clipped, is left out or not exact."""
    name, blocks = layer.name, layer.tagged_blocks
    if isinstance(layer, Artboard):
        reading.warn(name, "it is an artboard and was read as a group, without its background")
    if effects := effect_names(layer):
        reading.warn(name, f"its effects are drawn approximately or not at all: {', '.join(effects)}")
    _warn_of_masks(layer, reading)
    ranges = layer._record.blending_ranges
    if any(
        list(pair) != _ALL_LEVELS for pair in [ranges.composite_ranges or _ALL_LEVELS, *(ranges.channel_ranges or [])]
    ):
        reading.warn(name, 'its "Blend If" ranges were left out')
    if knockout := _value(blocks.get_data(Tag.KNOCKOUT_SETTING)):
        reading.warn(name, f"its {_KNOCKOUTS.get(knockout, '')} knockout was left out".replace("  ", " "))
    if Tag.CHANNEL_BLENDING_RESTRICTIONS_SETTING in blocks:
        channels = blocks.get_data(Tag.CHANNEL_BLENDING_RESTRICTIONS_SETTING)
        if channels is None or len(channels):
            reading.warn(name, "that it changes only some of the channels was left out")
    if clipped and _value(blocks.get_data(Tag.BLEND_CLIPPING_ELEMENTS, 1)) == 0:
        reading.warn(name, '"Blend Clipped Layers as Group" is off for it, and they were blended as a group')
    if effects and _value(blocks.get_data(Tag.TRANSPARENCY_SHAPES_LAYER, 1)) == 0:
        reading.warn(name, '"Transparency Shapes Layer" is off for it, which was left out')


def _warn_of_masks(layer: PSDLayer, reading: Reading) -> None:
    mask = layer.mask
    if mask is None or mask.disabled or not mask.parameters:
        return
    parameters = mask.parameters
    if parameters.user_mask_feather or parameters.vector_mask_feather:
        reading.warn(layer.name, "its mask's feather was left out")
    densities = parameters.user_mask_density, parameters.vector_mask_density
    if None not in densities and densities[0] != densities[1]:
        shown = " and ".join(f"{density / 255:.0%}" for density in densities)
        reading.warn(layer.name, f"its two masks have the densities {shown}, of which the first was used for both")


def _value(setting: object) -> int | None:
    """The number or truth value in a block; None without one."""
    value = getattr(setting, "value", setting)
    return int(value) if isinstance(value, int) else None
