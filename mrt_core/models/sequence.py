"""Slots and the packed sequence: which tokens the transformer sees, where each one lies, and which are clean.

A slot holds the tokens of one region. Several samples, each with slots and text of its own, are packed one after another
without padding; attention keeps them apart (architecture: packed sequence).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor

from ..geometry import TokenBox
from .configs import LATENT_CHANNELS


class Role(StrEnum):
    """What a slot's tokens show."""

    COMPOSITE = "composite"
    BACKGROUND = "background"
    LAYER = "layer"
    CONDITION = "condition"


class Slot(NamedTuple):
    """One region's tokens: what they are, their index on the layer axis, their place on the canvas, and if they are clean.

    A clean slot is a condition (t = 0) and comes out as it went in; the others start as noise.
    """

    role: Role
    layer_index: int
    box: TokenBox
    clean: bool


def slot_latent_shape(slot: Slot) -> tuple[int, int, int]:
    """Channels, height and width of a slot's latent."""
    return LATENT_CHANNELS, 2 * slot.box.rows, 2 * slot.box.cols


def patchify(latent: Tensor) -> Tensor:
    """Latent (..., C, 2h, 2w) to tokens (..., h * w, 4C), row-major, channel index c * 4 + dy * 2 + dx
    (architecture: patches)."""
    return rearrange(latent, "... c (h dy) (w dx) -> ... (h w) (c dy dx)", dy=2, dx=2)


def unpatchify(tokens: Tensor, rows: int, cols: int) -> Tensor:
    """Tokens (..., rows * cols, 4C) to the latent (..., C, 2 * rows, 2 * cols): the inverse of `patchify`."""
    return rearrange(tokens, "... (h w) (c dy dx) -> ... c (h dy) (w dx)", h=rows, w=cols, dy=2, dx=2)


def slot_positions(slot: Slot, canvas_rows: int, canvas_cols: int) -> Tensor:
    """Positions (count, 3) of a slot's tokens: (layer index, row, col) on the centred canvas grid, cropped to its box."""
    return _grid(slot.box.rows, slot.box.cols) + torch.tensor(_first_position(slot, canvas_rows, canvas_cols))


@lru_cache(1024)
def _grid(rows: int, cols: int) -> Tensor:
    """(0, row, col) of every token of a box, row-major: (rows * cols, 3)."""
    return torch.cartesian_prod(torch.zeros(1, dtype=torch.long), torch.arange(rows), torch.arange(cols)).reshape(-1, 3)


def _first_position(slot: Slot, canvas_rows: int, canvas_cols: int) -> tuple[int, int, int]:
    """The position of a slot's first token; the middle of the canvas is row 0, column 0."""
    top = slot.box.row - (canvas_rows - canvas_rows // 2)
    left = slot.box.col - (canvas_cols - canvas_cols // 2)
    return slot.layer_index, top, left


def text_start(slots: Sequence[Slot], canvas_rows: int, canvas_cols: int) -> int:
    """The first text token's position on all three axes: past the centred canvas and past every layer index."""
    layers = 1 + max(slot.layer_index for slot in slots)
    return max(canvas_rows // 2, canvas_cols // 2, layers)


NO_CAPTION = -1  # of text that stands in no layer's caption
BOX_CENTRE = -1.0  # of tokens that stand at the centre of their box


class TextAnchors(NamedTuple):
    """What the T tokens of a prompt stand beside.

    `caption` (T,): the `<layer> caption </layer>` that a token belongs to, counted from 0, or NO_CAPTION. `along` (T,) fp32:
    its place along the width of that layer's box in 0..1, or BOX_CENTRE.
    """

    caption: Tensor
    along: Tensor


def text_positions(sample: "SlotLayout", count: int, anchors: TextAnchors | None = None) -> Tensor:
    """Positions (count, 3) fp32 of a sample's text: one after another on all axes, from `text_start` on
    (architecture: positions).

    With `anchors`, text stands where what it describes lies: the n-th caption's tokens in the box of the n-th layer that is
    made, all other text in the background's; at its centre, or in its middle row at their place along it. So a region finds
    its caption, and a letter of it its strokes, by their place.
    """
    start = text_start(sample.slots, sample.canvas_rows, sample.canvas_cols)
    positions = torch.arange(start, start + count, dtype=torch.float32)[:, None].repeat(1, 3)
    if anchors is None:
        return positions
    slots = captioned_slots(sample)
    described = (
        anchors.caption.clamp(min=NO_CAPTION) + 1
    )  # among the slots; a prompt may have more captions than there are
    known = described < len(slots)
    described = described.where(known, 0)
    first = torch.tensor([_first_position(slot, sample.canvas_rows, sample.canvas_cols) for slot in slots])[described]
    rows, cols = torch.tensor([(slot.box.rows, slot.box.cols) for slot in slots])[described].unbind(1)
    layer, top, left = first.unbind(1)
    col = torch.where(anchors.along < 0, cols // 2, anchors.along * cols - 0.5)
    anchored = torch.stack([layer, top + rows // 2, left + col], dim=1)
    return torch.where(known[:, None], anchored, positions)


def captioned_slots(sample: "SlotLayout") -> list[Slot]:
    """What a prompt describes: the background, then every layer that is made, bottom to top."""
    background = next(slot for slot in sample.slots if slot.role is Role.BACKGROUND)
    return [background, *(slot for slot in sample.slots if slot.role is Role.LAYER and not slot.clean)]


class SlotLayout(NamedTuple):
    """The slots of one sample on a canvas of rows x cols tokens."""

    slots: tuple[Slot, ...]
    canvas_rows: int
    canvas_cols: int

    @property
    def token_count(self) -> int:
        return sum(slot.box.count for slot in self.slots)

    def expand(self, values: Sequence[bool] | Sequence[float]) -> Tensor:
        """One value per slot to one per token (token_count,)."""
        counts = torch.tensor([slot.box.count for slot in self.slots])
        return torch.tensor(list(values)).repeat_interleave(counts)


@dataclass(frozen=True)
class PackedBatch:
    """Everything about a batch of samples but their latents, noise levels and weights. N and M sum over the samples."""

    positions: Tensor  # (N, 3) int: layer index, row, col of every image token
    clean: Tensor  # (N,) bool: conditions
    condition: Tensor  # (N,) bool: tokens that get the condition-token embedding
    lengths: tuple[int, ...]  # image tokens per sample
    text: Tensor  # (M, text width): text states
    text_positions: Tensor  # (M, 3) fp32: letters stand between the columns of tokens
    text_lengths: tuple[int, ...]  # text tokens per sample

    def sample_of_token(self) -> Tensor:
        """The sample index (N,) of every image token."""
        return _repeat_index(self.lengths, self.positions.device)

    def sample_of_text(self) -> Tensor:
        """The sample index (M,) of every text token."""
        return _repeat_index(self.text_lengths, self.positions.device)


def _repeat_index(lengths: tuple[int, ...], device: torch.device) -> Tensor:
    counts = torch.tensor(lengths, device=device)
    return torch.arange(len(lengths), device=device).repeat_interleave(counts)


def pack_samples(
    samples: Sequence[SlotLayout], text: Sequence[Tensor], anchors: Sequence[TextAnchors] | None = None
) -> PackedBatch:
    """Pack samples with their text states, each (T_i, text width), in order; everything lies on the text's device.

    `anchors` may say, per sample, what each text token stands beside; see `text_positions`.
    """
    device = text[0].device
    positions, clean, condition, places = [], [], [], []
    for sample, states, beside in zip(samples, text, anchors or [None] * len(text), strict=True):
        rows, cols = sample.canvas_rows, sample.canvas_cols
        positions += [slot_positions(slot, rows, cols) for slot in sample.slots]
        clean.append(sample.expand([slot.clean for slot in sample.slots]))
        condition.append(sample.expand([slot.role is Role.CONDITION for slot in sample.slots]))
        places.append(text_positions(sample, len(states), beside))
    return PackedBatch(
        positions=torch.cat(positions).to(device),
        clean=torch.cat(clean).to(device),
        condition=torch.cat(condition).to(device),
        lengths=tuple(sample.token_count for sample in samples),
        text=torch.cat(list(text)),
        text_positions=torch.cat(places).to(device),
        text_lengths=tuple(len(states) for states in text),
    )


def split_slots(tokens: Tensor, sample: SlotLayout) -> list[Tensor]:
    """One sample's packed tokens (N, 4C) to a latent (C, 2 * rows, 2 * cols) per slot."""
    pieces = tokens.split([slot.box.count for slot in sample.slots])
    return [unpatchify(piece, slot.box.rows, slot.box.cols) for piece, slot in zip(pieces, sample.slots, strict=True)]
