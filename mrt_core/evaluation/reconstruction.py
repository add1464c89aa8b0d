"""What an autoencoder does to held-out layers before any model has touched them: encoded and decoded as regions are."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import count, islice
from typing import NamedTuple

import numpy as np

from ..designs.elements import EVEN_MIX, ElementMix
from ..designs.generator import Design, DesignSettings, generate_design
from ..geometry import token_box_pixels
from ..models.sequence import Role, Slot
from ..stacks.layers import premultiply
from ..tasks.region_codec import RegionCodec, canvas_regions, slot_pixels
from ..tasks.slots import Task, slot_layout
from .held_out import HELD_OUT_SEED
from .metrics import psnr
from .tables import markdown, percent

CLEAR = 2  # largest 8-bit alpha at which a pixel still counts as transparent
# Rows of the table: which slots of which designs.
SOURCES: Mapping[str, tuple[ElementMix, Role]] = {
    "artwork": (ElementMix(artwork=1.0, shape=0.0, word=0.0), Role.LAYER),
    "shapes and words": (ElementMix(artwork=0.0, shape=0.6, word=0.4), Role.LAYER),
    "backgrounds": (EVEN_MIX, Role.BACKGROUND),
    "flattened designs": (EVEN_MIX, Role.COMPOSITE),
}


class Reconstruction(NamedTuple):
    """Mean PSNR (dB) of premultiplied RGBA per image, mean absolute error of alpha in 0..1, and of all pixels whose true
    alpha is 0 the share whose reconstructed alpha is at most CLEAR of 255 (None where there are none)."""

    psnr: float
    alpha_error: float
    stays_clear: float | None


def reconstructed_layers(codec: RegionCodec, design: Design) -> list[np.ndarray]:
    """A design's foreground layers encoded and decoded as regions, straight RGBA uint8 of the sizes of their boxes."""
    pictures = []
    for (_, output, slot), layer in zip(
        _reconstructed(codec, design, Role.LAYER), design.stack.layers[1:], strict=True
    ):
        area = token_box_pixels(slot.box, design.layout.canvas)
        top, left = round(layer.y - area.y), round(layer.x - area.x)
        height, width = layer.pixels.shape[:2]
        pictures.append(output[top : top + height, left : left + width])
    return pictures


def _reconstructed(codec: RegionCodec, design: Design, role: Role) -> Iterator[tuple[np.ndarray, np.ndarray, Slot]]:
    """For every slot of a role what it shows on the token grid, straight RGBA uint8, what comes out, and the slot."""
    sample = slot_layout(Task.TEXT_TO_LAYERS, design.layout)
    slots = [slot for slot in sample.slots if slot.role is role]
    truths, where = [slot_pixels(slot, design.layout, design.stack) for slot in slots], canvas_regions(sample, slots)
    yield from zip(truths, codec.decode(codec.encode(truths, where), where), slots, strict=True)


def reconstructions(
    codec: RegionCodec, images: int, frame_area: int
) -> Iterator[tuple[str, tuple[np.ndarray, np.ndarray]]]:
    """What goes in and what comes out, for the first `images` held-out images of each of SOURCES, as they come."""
    for name, (mix, role) in SOURCES.items():
        settings = DesignSettings(frame_area=frame_area, mix=mix, held_out=True)
        designs = (generate_design((HELD_OUT_SEED, index), settings) for index in count())
        pairs = (pair for design in designs for pair in _reconstructed(codec, design, role))
        for truth, output, _ in islice(pairs, images):
            yield name, (truth, output)


def compare(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> Reconstruction:
    """The figures of pairs of a true and a reconstructed image, straight RGBA uint8."""
    quality = [psnr(premultiply(output), premultiply(truth)) for truth, output in pairs]
    truth, output = (np.concatenate([image[..., 3].ravel() for image in images]) for images in zip(*pairs, strict=True))
    error = np.abs(output.astype(np.float64) - truth).mean() / 255
    clear = output[truth == 0] <= CLEAR
    return Reconstruction(float(np.mean(quality)), float(error), float(clear.mean()) if clear.size else None)


def reconstruction_table(rows: Mapping[str, Reconstruction]) -> str:
    """A Markdown table of an autoencoder's figures."""
    heads = ("PSNR (dB)", "alpha error", "transparent stays transparent")
    return markdown(
        heads, {n: [f"{r.psnr:.2f}", f"{r.alpha_error:.4f}", percent(r.stays_clear)] for n, r in rows.items()}
    )
