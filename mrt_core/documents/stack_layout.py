"""The layout that a layer stack shows: what a user's document asks for when it is made again."""

from ..geometry import Box, covers, frame_box
from ..layouts.layout import Layout, Region
from ..stacks.layers import LayerStack


def stack_layout(stack: LayerStack) -> Layout:
    """Frame, boxes, names and captions of the stack's layers, bottom to top, hidden ones included.

    The bottom layer is the background when it covers the frame; else every layer is a region and the background is the
    layout's default.
    """
    regions = [Region(layer.name, Box(*layer.box), layer.caption) for layer in stack.flat()]
    has_background = bool(regions) and covers(regions[0].box, frame_box(stack.frame))
    caption = stack.metadata.get("prompt")
    return Layout(
        stack.frame,
        tuple(regions[1:] if has_background else regions),
        caption if isinstance(caption, str) else "",
        regions[0] if has_background else None,
    )
