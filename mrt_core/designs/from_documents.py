"""Designs from a user's own layered documents, for fine-tuning: what `generate_design` draws, read from PSD, PSB or ORA.

A document is reduced to the training frame. Its lowest visible layer is the background where that covers the frame, else
the background is transparent; every other visible layer is a region. Captions are the ones that our own documents keep,
else the layers' names without what programs put there ("Layer 3", "copy 2").
"""

import logging
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from .. import documents
from ..errors import MRTError
from ..geometry import TOKEN_PX, Box, Size, covers, frame_box, intersection, union
from ..layouts.layout import BACKGROUND_NAME, Layout, Region
from ..stacks.layers import Layer, LayerStack, crop_to_content
from ..tasks.scaling import TOLERATED_GROWTH, scale_layer
from ..tasks.slots import describe
from .generator import Design
from .grouping import are_close, merge_with_next
from .styles import NATURAL, Style, pick_style

log = logging.getLogger(__name__)

SUFFIXES = (".psd", ".psb", ".ora")
MAX_LAYERS = 20  # foreground layers of a design; neighbours are merged until there are no more
MIN_SIDE = 4  # px in the reduced frame; a smaller layer shows nothing that could be learned
OVERHANG = 0.5  # of the frame's sides that layers may run past it; what lies farther out is cut off
MAX_CAPTION = 80  # characters
TRANSPARENT = "a transparent background"

_EXTENSION = re.compile(r"\.(psd|psb|png|jpe?g|webp|gif|svg|tiff?|ai|eps|pdf)$", re.IGNORECASE)
_COPY = re.compile(r"\s*(\b(copy|kopie|copie|copia)(\s+\d+)?|#\d+|\(\d+\))$", re.IGNORECASE)
_SHAPE = re.compile(
    r"^(rounded rectangle|rectangle|ellipse|circle|triangle|polygon|star|line|shape|curve|arrow)\s*\d*$", re.IGNORECASE
)
_NAMELESS = re.compile(
    r"^(background|hintergrund|layer|ebene|calque|capa|livello|group|gruppe|groupe|grupo|folder|frame|image|picture|bitmap|"
    r"raster|path|object|(vector )?smart object|pasted layer|untitled|img|dsc)\s*\d*$",
    re.IGNORECASE,
)


def caption_from_name(name: str) -> str:
    """What a layer's name says of its content; "" where a program chose the name ("Layer 3", "Group 1 copy")."""
    text = " ".join(_EXTENSION.sub("", name.strip()).replace("_", " ").split())
    while (shorter := _COPY.sub("", text)) != text:
        text = shorter
    if _NAMELESS.match(text):
        return ""
    shape = _SHAPE.match(text)
    return shape[1].lower() if shape else text[:MAX_CAPTION].strip()


def training_frame(frame: Size, area: int) -> Size:
    """The frame in multiples of 16 px, reduced to about `area` px where it is much larger; its proportions stay."""
    factor = math.sqrt(area / (frame.width * frame.height))
    factor = 1.0 if factor**2 * TOLERATED_GROWTH >= 1 else factor
    return Size(*(max(TOKEN_PX, round(side * factor / TOKEN_PX) * TOKEN_PX) for side in frame))


def read_designs(folder: Path, frame_area: int, seed: int) -> list[Design]:
    """The designs of all documents in a folder and its subfolders, by name; what cannot be used is logged.

    Raises MRTError where the folder has no document that can be used.
    """
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    designs = []
    for index, path in enumerate(paths):
        try:
            designs.append(design_from_stack(documents.load(path), path.name, frame_area, (7, seed, index)))
        except MRTError as error:
            log.warning("%s was left out: %s", path.name, error)
    if not designs:
        found = f"{len(paths)} documents, none of which can be used" if paths else "no document"
        raise MRTError(f"{folder} holds {found}, but training needs at least one {', '.join(SUFFIXES)} with layers")
    return designs


def design_from_stack(stack: LayerStack, name: str, frame_area: int, seed: tuple[int, ...]) -> Design:
    """A layer stack as a design at about `frame_area` px; `seed` draws the style of its restyle assets.

    What is hidden, empty or too small is left out, and blend modes are taken as normal; the log says so under `name`.
    Raises MRTError for a document without a layer besides its background.
    """
    frame = training_frame(stack.frame, frame_area)
    layers = _usable_layers(stack, frame, name)
    has_background = bool(layers) and covers(Box(*layers[0].box), frame_box(frame))
    background = _background(layers[0] if has_background else None, frame)
    layers = layers[1:] if has_background else layers
    if not layers:
        raise MRTError(f"{name} has no visible layer besides its background, but a design needs one; add one")
    regions = tuple(Region(layer.name, Box(*layer.box), layer.caption) for layer in layers)
    base = Region(BACKGROUND_NAME, frame_box(frame), background.caption)
    layout = Layout(frame, regions, "", base)
    described, prompt = describe(layout), stack.metadata.get("prompt")
    is_caption = isinstance(prompt, str) and prompt.strip() and "<layer>" not in prompt
    style = _other_style(np.random.default_rng(seed))
    design = Design(
        LayerStack(frame, (background, *layers)),
        replace(layout, caption=prompt if is_caption else described),
        described,
        NATURAL.name,
        style.name,
        tuple(style.apply(layer.pixels) for layer in layers),
    )
    return _with_few_layers(design)


def _usable_layers(stack: LayerStack, frame: Size, name: str) -> list[Layer]:
    """The visible layers in the reduced frame, opacity in their pixels, cropped to what they show."""
    reach = Box(-OVERHANG * frame.width, -OVERHANG * frame.height, *((1 + 2 * OVERHANG) * side for side in frame))
    usable, dropped = [], {"hidden": 0, "empty": 0, "too small": 0}
    blended = 0
    for layer in stack.flat():
        reduced = scale_layer(layer, stack.frame, frame) if frame != stack.frame else layer
        cropped = _cut_to(reduced, reach)
        if not layer.visible or layer.opacity <= 0:
            dropped["hidden"] += 1
        elif cropped is None:
            dropped["empty"] += 1
        elif min(cropped.pixels.shape[:2]) < MIN_SIDE:
            dropped["too small"] += 1
        else:
            blended += layer.blend_mode != "normal"
            usable.append(_plain(cropped))
    said = [f"{count} {kind}" for kind, count in dropped.items() if count]
    if said:
        log.warning("%s: left out %s layers", name, ", ".join(said))
    if blended:
        log.warning("%s: took the blend mode of %d layers as normal", name, blended)
    return usable


def _cut_to(layer: Layer, reach: Box) -> Layer | None:
    """What a layer shows within `reach`, without transparent margins; None where that is nothing."""
    inside = intersection(Box(*layer.box), reach)
    if inside is None:
        return None
    left, top = round(inside.x - layer.x), round(inside.y - layer.y)
    pixels = layer.pixels[top : top + round(inside.height), left : left + round(inside.width)]
    return crop_to_content(replace(layer, pixels=pixels, x=layer.x + left, y=layer.y + top))


def _plain(layer: Layer) -> Layer:
    """The layer at full opacity in normal mode, with a caption."""
    pixels = layer.pixels.copy()
    pixels[..., 3] = np.rint(pixels[..., 3] * layer.opacity)
    caption = layer.caption.strip() or caption_from_name(layer.name)
    return Layer(pixels, layer.x, layer.y, layer.name, caption)


def _background(layer: Layer | None, frame: Size) -> Layer:
    """The background over exactly the frame."""
    if layer is None:
        return Layer(np.zeros((frame.height, frame.width, 4), np.uint8), 0, 0, BACKGROUND_NAME, TRANSPARENT)
    pixels = layer.pixels[-layer.y : frame.height - layer.y, -layer.x : frame.width - layer.x]
    return replace(layer, pixels=pixels, x=0, y=0)


def _other_style(rng: np.random.Generator) -> Style:
    """A style for assets, which must differ from the document's own."""
    while (style := pick_style(rng)).name == NATURAL.name:
        pass
    return style


def _with_few_layers(design: Design) -> Design:
    """The design with neighbours merged until it has at most MAX_LAYERS; close ones that grow least come first."""
    while len(design.assets) > MAX_LAYERS:
        boxes = [region.box for region in design.layout.regions]
        design = merge_with_next(design, min(range(len(boxes) - 1), key=lambda i: _merge_cost(boxes, i)))
    return design


def _merge_cost(boxes: Sequence[Box], index: int) -> tuple[bool, float]:
    low, high = boxes[index : index + 2]
    return not are_close(low, high), union([low, high]).area - low.area - high.area
