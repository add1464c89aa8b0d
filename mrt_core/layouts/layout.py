"""The layout: a frame and an ordered list of named boxes, bottom to top.

`Layout` trusts what it is given. Untrusted input comes through `documents` (layout documents) or `boxes`
(boxes and elements of other nodes), which keep to the limits below.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from ..errors import MRTError
from ..geometry import Box, Size, canvas_box, frame_box

MAX_LAYERS = 50  # the paper evaluates 2 to 50 layers (its supplement, 1.2), and ComfyUI's native layers stop at 50
MIN_FRAME_SIDE = 16  # px, one token
MAX_FRAME_SIDE = 16384  # px, the limit of ComfyUI's native layer canvas
MIN_BOX_SIDE = 1  # px
MAX_NAME_LENGTH = 255  # characters, as in design tools
MAX_CAPTION_LENGTH = 10_000  # characters, far more than a text encoder reads
BACKGROUND_NAME = "Background"


@dataclass(frozen=True)
class Region:
    """One layer to be: a name, a box in frame pixels, and what is in it."""

    name: str
    box: Box
    caption: str = ""


@dataclass(frozen=True)
class Layout:
    """What is asked for: the frame, the layers' regions bottom to top, the background's box and a global caption.

    No regions at all is a background-only design: enough for text-to-layers, while the other tasks ask for a layer.
    """

    frame: Size
    regions: tuple[Region, ...]
    caption: str = ""
    background: Region | None = field(default=None)  # None: named "Background", over the whole frame

    @property
    def background_region(self) -> Region:
        """The background's region: the layout's own, or one over the frame."""
        return self.background or Region(BACKGROUND_NAME, frame_box(self.frame))

    @property
    def canvas(self) -> Box:
        """The frame united with every box, on the token grid, in frame coordinates."""
        return canvas_box(self.frame, [self.background_region.box, *(region.box for region in self.regions)])


def full_frame_layout(frame: Size, layers: int, caption: str = "") -> Layout:
    """`layers` layers, the lowest of which is the background, each as large as the frame: what a model that knows no boxes
    makes. Raises MRTError for a number out of 1..MAX_LAYERS."""
    if not 1 <= layers <= MAX_LAYERS:
        raise MRTError(f"{layers} layers were asked for, but it can be 1 to {MAX_LAYERS}; give a number in that range")
    regions = tuple(Region(f"Layer {place}", frame_box(frame)) for place in range(2, layers + 1))
    return Layout(frame, regions, caption, Region("Layer 1", frame_box(frame)))


def name_unnamed(regions: Iterable[Region]) -> tuple[Region, ...]:
    """The regions, bottom to top, where each one without a name is called "Layer N"; the lowest place is 1."""
    return tuple(
        region if region.name else replace(region, name=f"Layer {place}")
        for place, region in enumerate(regions, start=1)
    )


def layer_prompt(regions: Iterable[Region]) -> str:
    """The paper's layer-caption prompt, "<layer> caption </layer>" per region in layer order (architecture: prompts).

    The spaces inside the tags keep the tokens stable (architecture: Qwen's text); a region without a caption gives
    "<layer> </layer>".
    """
    return " ".join(" ".join(filter(None, ["<layer>", region.caption.strip(), "</layer>"])) for region in regions)


def background_prompt(background: Region) -> str:
    """ "<background> caption </background>", or nothing for a background without a caption."""
    caption = background.caption.strip()
    return f"<background> {caption} </background>" if caption else ""
