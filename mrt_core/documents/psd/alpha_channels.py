"""What the channels beyond colour in the merged image are: the document's transparency, or selections that were saved.

Source: Adobe file format, "Layer info" (a negative count), resources 1006 and 1045 (names) and 1053 (identifiers).
"""

from typing import NamedTuple

from psd_tools import PSDImage
from psd_tools.constants import ColorMode, Resource

_TRANSPARENCY = "transparency"
_COLORS = {
    ColorMode.RGB: 3, ColorMode.CMYK: 4, ColorMode.LAB: 3, ColorMode.GRAYSCALE: 1, ColorMode.DUOTONE: 1,
    ColorMode.INDEXED: 1, ColorMode.BITMAP: 1,
}  # fmt: skip


class AlphaChannels(NamedTuple):
    """Whether the first extra channel is the transparency, and the names of those that are not, where they have any."""

    transparency: bool
    selections: tuple[str, ...]


def alpha_channels(document: PSDImage) -> AlphaChannels:
    """The extra channels of the merged image of `document`."""
    count = document.channels - _COLORS.get(document.color_mode, document.channels)
    if count < 1:
        return AlphaChannels(False, ())
    resources = document.image_resources
    stored = resources.get_data(Resource.ALPHA_NAMES_UNICODE) or resources.get_data(Resource.ALPHA_NAMES_PASCAL) or []
    names = [str(name).rstrip("\0") for name in stored]
    identifiers = list(resources.get_data(Resource.ALPHA_IDENTIFIERS) or [])
    info = document._record.layer_and_mask_information.layer_info
    if info is not None and info.layer_count < 0:
        transparency = True
    elif identifiers:
        transparency = identifiers[0] == 0
    else:  # who names the channels names them all; who does not has written the transparency and nothing else
        transparency = not names or names[0].lower() == _TRANSPARENCY
    first = int(transparency)
    if names and transparency and names[0].lower() != _TRANSPARENCY and len(names) < count:
        first = 0  # the transparency itself has no name here
    return AlphaChannels(transparency, tuple(names[first:][: count - int(transparency)]))
