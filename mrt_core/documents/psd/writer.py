"""Layer stack to PSD or PSB, streamed: memory stays near one layer's channel and one band of the composite.

The byte structures are psd-tools' low-level records. Source: Adobe file format, "Layer and Mask Information Section".
"""

import logging
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from psd_tools.compression import encode_prediction
from psd_tools.constants import BlendMode, ChannelID, Compression, SectionDivider, Tag
from psd_tools.psd.bin_utils import reserve_position, write_padding, write_position
from psd_tools.psd.color_mode_data import ColorModeData
from psd_tools.psd.header import FileHeader
from psd_tools.psd.layer_and_mask import ChannelInfo, LayerFlags, LayerRecord

from ...atomic import atomic_file
from ...errors import MRTError
from ...stacks.layers import Group, Layer, LayerStack, check_blend_modes, crop_to_content
from .merged import MergedImage
from .packbits import encode_plane, encoded_bytes_at_most
from .resources import image_resources
from .values import (
    BLEND_KEYS,
    MAX_RECORDS,
    NEAREST_MODES,
    PSB_MAX_SIDE,
    PSD_MAX_BYTES,
    PSD_MAX_SIDE,
    clean_name,
    pascal_name,
)

log = logging.getLogger(__name__)

DEFAULT_PPI = 72.0
COMPRESSIONS = {"rle": Compression.RLE, "zip": Compression.ZIP_WITH_PREDICTION}
_OTHER_BYTES = 2**26  # room for what is not pixels: 1 KiB for each of at most 2**15 records, and 32 MiB for the job
_BAND_ROWS = 128  # rows encoded at a time: small enough for the processor's cache
_CHANNELS = (ChannelID.TRANSPARENCY_MASK, ChannelID.CHANNEL_0, ChannelID.CHANNEL_1, ChannelID.CHANNEL_2)


class Entry(NamedTuple):
    """One layer record and the layer whose pixels follow it (None: a group's start or end, which has none)."""

    record: LayerRecord
    layer: Layer | None


def save_psd(stack: LayerStack, path: Path, overwrite: bool = False, compression: str = "rle") -> None:
    """Write `stack` to `path`, whole or not at all: PSB when its extension is .psb, else PSD.

    `compression` of the layers: "rle", which every reader has, or "zip", smaller, which some lack. Layers are cropped to
    what is not transparent; an empty layer is kept as one transparent pixel. Raises MRTError for a stack that the format
    cannot hold, for metadata that JSON cannot, and as `atomic_file` does.
    """
    path = Path(path)
    version = 2 if path.suffix.lower() == ".psb" else 1
    with atomic_file(path, overwrite) as file:
        write_psd(stack, file, version, compression, folder=path.parent)


def needs_psb(stack: LayerStack) -> bool:
    """Whether `stack` may be too large for PSD: by its sides, or by its bytes if its pixels turn out incompressible."""
    sizes = [stack.frame, *(_size(layer) for layer in stack.flat())]
    size = _OTHER_BYTES + sum(len(_CHANNELS) * encoded_bytes_at_most(*size) for size in sizes)
    return max(map(max, sizes)) > PSD_MAX_SIDE or size > PSD_MAX_BYTES


def write_psd(
    stack: LayerStack, file: BinaryIO, version: int = 1, compression: str = "rle", folder: Path | None = None
) -> None:
    """As `save_psd`, into an open seekable file; `version` is 1 (PSD) or 2 (PSB), `folder` holds temporary files."""
    if compression not in COMPRESSIONS:
        raise MRTError(f'Unknown PSD compression "{compression}"; use one of: {", ".join(COMPRESSIONS)}.')
    stack = replace(stack, layers=tuple(_as_stored(node) for node in stack.layers))
    check_blend_modes(stack.layers)
    entries, extras = _entries(stack)
    _check_limits(stack, entries, version)
    job = {"version": 1, "metadata": stack.metadata, "layers": extras}
    ppi = stack.metadata.get("ppi", DEFAULT_PPI)
    with MergedImage(stack, version, folder) as merged:
        FileHeader(version=version, channels=merged.channels, width=stack.frame.width, height=stack.frame.height).write(
            file
        )
        ColorModeData().write(file)
        image_resources(job, ppi, merged.thumbnail, merged.opaque).write(file)
        _write_layers(file, entries, version, COMPRESSIONS[compression], merged.opaque)
        merged.write_to(file)
    _check_bytes(file, version)


def _as_stored(node: Layer | Group) -> Layer | Group:
    """`node` with the values that the file will hold, so that the merged image is what a reader makes of the layers."""
    opacity = round(min(max(node.opacity, 0.0), 1.0) * 255) / 255
    if isinstance(node, Group):
        return replace(node, opacity=opacity, layers=tuple(_as_stored(child) for child in node.layers))
    if node.pixels.dtype != np.uint8 or node.pixels.ndim != 3 or node.pixels.shape[2] != 4:
        raise MRTError(
            f'Layer "{node.name}" has pixels of shape {node.pixels.shape} and type {node.pixels.dtype}; '
            "give 8-bit RGBA of shape (height, width, 4)."
        )
    empty = replace(node, pixels=np.zeros((1, 1, 4), np.uint8))
    return replace(crop_to_content(node) or empty, opacity=opacity)


def _entries(stack: LayerStack) -> tuple[list[Entry], dict[str, dict[str, Any]]]:
    """The records bottom to top, and by layer id what a PSD record cannot hold (caption, exact blend mode)."""
    entries: list[Entry] = []
    extras: dict[str, dict[str, Any]] = {}
    for entry, node in _walk(stack.layers):
        number = len(entries) + 1
        entries.append(entry)
        entry.record.tagged_blocks.set_data(Tag.LAYER_ID, number)
        if node is None:
            continue
        name = clean_name(node.name, f"Layer {number}")
        entry.record.name = pascal_name(name, f"Layer {number}")
        entry.record.tagged_blocks.set_data(Tag.UNICODE_LAYER_NAME, name)
        extra = {"caption": node.caption} if isinstance(node, Layer) and node.caption else {}
        if node.blend_mode in NEAREST_MODES:
            extra["blend_mode"] = node.blend_mode
            log.warning(
                'Layer "%s": PSD has no blend mode "%s"; other programs will show "%s".',
                node.name,
                node.blend_mode,
                NEAREST_MODES[node.blend_mode],
            )
        if extra:
            extras[str(number)] = extra
    return entries, extras


def _walk(nodes: tuple[Layer | Group, ...]) -> Iterator[tuple[Entry, Layer | Group | None]]:
    """Records and their nodes bottom to top; a group is a nameless start, its content and its own record."""
    for node in nodes:
        if isinstance(node, Layer):
            yield Entry(_layer_record(node), node), node
            continue
        start = _record(LayerRecord(name="</Layer group>"), BlendMode.NORMAL, 1.0, True)
        start.flags = LayerFlags(pixel_data_irrelevant=True)
        start.tagged_blocks.set_data(Tag.UNICODE_LAYER_NAME, "</Layer group>")
        start.tagged_blocks.set_data(Tag.SECTION_DIVIDER_SETTING, SectionDivider.BOUNDING_SECTION_DIVIDER)
        yield Entry(start, None), None
        yield from _walk(node.layers)
        yield Entry(_group_record(node), None), node


def _record(record: LayerRecord, mode: BlendMode, opacity: float, visible: bool) -> LayerRecord:
    record.blend_mode = mode
    record.opacity = round(opacity * 255)
    record.flags = LayerFlags(visible=visible)
    record.channel_info = [ChannelInfo(id=channel, length=2) for channel in _CHANNELS]
    return record


def _layer_record(layer: Layer) -> LayerRecord:
    height, width = layer.pixels.shape[:2]
    record = LayerRecord(layer.y, layer.x, layer.y + height, layer.x + width)
    return _record(record, _blend_key(layer.blend_mode), layer.opacity, layer.visible)


def _group_record(group: Group) -> LayerRecord:
    key = _blend_key(group.blend_mode)
    record = _record(LayerRecord(), key, group.opacity, group.visible)
    record.flags.pixel_data_irrelevant = True
    kind = SectionDivider.CLOSED_FOLDER if group.closed else SectionDivider.OPEN_FOLDER
    record.tagged_blocks.set_data(Tag.SECTION_DIVIDER_SETTING, kind, signature=b"8BIM", blend_mode=key)
    return record


def _blend_key(mode: str) -> BlendMode:
    return BLEND_KEYS[NEAREST_MODES.get(mode, mode)]


def _check_limits(stack: LayerStack, entries: list[Entry], version: int) -> None:
    kind, limit = ("PSD", PSD_MAX_SIDE) if version == 1 else ("PSB", PSB_MAX_SIDE)
    remedy = "save it as .psb" if version == 1 else "make it smaller"
    if min(stack.frame) < 1:
        raise MRTError(f"The frame is {stack.frame.width} x {stack.frame.height} px; a document needs at least 1 x 1.")
    for name, size in [("frame", stack.frame), *((f'layer "{layer.name}"', _size(layer)) for layer in stack.flat())]:
        if max(size) > limit:
            raise MRTError(f"The {name} is {size[0]} x {size[1]} px and {kind} holds at most {limit}; {remedy}.")
    if len(entries) > MAX_RECORDS:
        raise MRTError(
            f"The document has {len(entries)} layer records and {kind} holds at most {MAX_RECORDS}; merge some."
        )


def _check_bytes(file: BinaryIO, version: int) -> None:
    if version == 1 and file.tell() > PSD_MAX_BYTES:
        raise MRTError(f"The document takes more than the {PSD_MAX_BYTES} bytes that PSD can hold; save it as .psb.")


def _size(layer: Layer) -> tuple[int, int]:
    return layer.pixels.shape[1], layer.pixels.shape[0]


def _write_layers(file: BinaryIO, entries: list[Entry], version: int, compression: Compression, opaque: bool) -> None:
    """The layer and mask section. Records come before the pixels whose lengths they hold, so they are written twice."""
    length_format = ("I", "Q")[version - 1]
    section = reserve_position(file, length_format)
    section_start = file.tell()
    if entries:
        info = reserve_position(file, length_format)
        info_start = file.tell()
        # A negative count says that the merged image's first alpha channel is the document's transparency.
        file.write((len(entries) if opaque else -len(entries)).to_bytes(2, "big", signed=True))
        records = file.tell()
        for record, _ in entries:
            record.write(file, version=version)
        for record, layer in entries:
            for channel, data in zip(record.channel_info, _channel_data(layer, version, compression), strict=True):
                channel.length = len(data)
                file.write(data)
            _check_bytes(file, version)  # not later: the lengths that follow hold 32 bits
        write_padding(file, file.tell() - info_start, 4)
        end = file.tell()
        file.seek(records)
        for record, _ in entries:
            record.write(file, version=version)
        file.seek(end)
        write_position(file, info, end - info_start, length_format)
    else:
        file.write(bytes(4 * version))
    file.write(bytes(4))  # no global layer mask
    write_position(file, section, file.tell() - section_start, length_format)


def _channel_data(layer: Layer | None, version: int, compression: Compression) -> Iterator[bytes]:
    """The channels as stored, in the order of `_CHANNELS`: compression, then the encoded plane."""
    if layer is None:
        yield from [Compression.RAW.to_bytes(2, "big")] * len(_CHANNELS)
        return
    height, width = layer.pixels.shape[:2]
    shown = layer.pixels[..., 3] != 0
    for channel in (3, 0, 1, 2):
        if compression == Compression.RLE:
            bands = [
                encode_plane(_shown_plane(layer, channel, shown, slice(top, top + _BAND_ROWS)), version)
                for top in range(0, height, _BAND_ROWS)
            ]
            data = b"".join(lengths for lengths, _ in bands) + b"".join(rows for _, rows in bands)
        else:
            plane = _shown_plane(layer, channel, shown, slice(height))
            data = zlib.compress(encode_prediction(plane.tobytes(), width, height, 8))
        yield compression.to_bytes(2, "big") + data


def _shown_plane(layer: Layer, channel: int, shown: np.ndarray, rows: slice) -> np.ndarray:
    """Some rows of one channel, 0 where the layer is transparent: invisible colour would not compress."""
    return layer.pixels[rows, :, channel] * shown[rows]
