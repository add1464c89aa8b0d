"""The merged image of a PSD: the composite, flattened band by band, encoded and waiting in temporary files.

Photoshop stores the merged colour over white and the composite's alpha as a channel of its own; a document whose
composite is opaque has no such channel. Source: Adobe file format, "Image Data Section".
"""

import math
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, Self

import numpy as np
from PIL import Image

from ...geometry import Box
from ...stacks.layers import LayerStack, composite_planes
from .packbits import encode_plane

BAND_ROWS = 64  # rows composited at a time
THUMBNAIL_SIDE = 160  # px, as Photoshop's own
_SPOOL_BYTES = 1 << 20  # a channel's encoded rows stay in memory up to here
_COPY_BYTES = 1 << 20


class MergedImage:
    """The encoded composite of `stack`: `opaque`, `thumbnail` (a small RGB image over white) and `write_to`.

    `version` is 1 for PSD and 2 for PSB; `folder` holds the temporary files (None: the system's choice). Memory: one band
    of `BAND_ROWS` rows. Use as a context manager.
    """

    def __init__(self, stack: LayerStack, version: int, folder: Path | None = None) -> None:
        self._counts = [bytearray() for _ in range(4)]
        self.opaque = True
        with ExitStack() as files:
            self._rows = [files.enter_context(_spool(folder)) for _ in range(4)]
            self.thumbnail = self._encode(stack, version)
            self._files = files.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    @property
    def channels(self) -> int:
        """3 when the composite is opaque, else 4."""
        return 3 if self.opaque else 4

    def write_to(self, file: BinaryIO) -> None:
        """Append the image data section to `file`: compression 1 (PackBits), row lengths, rows; channel after channel."""
        file.write(b"\x00\x01")
        file.writelines(self._counts[: self.channels])
        for rows in self._rows[: self.channels]:
            rows.seek(0)
            while chunk := rows.read(_COPY_BYTES):
                file.write(chunk)

    def _encode(self, stack: LayerStack, version: int) -> Image.Image:
        width, height = stack.frame
        shrink = math.ceil(max(width, height) / THUMBNAIL_SIDE)
        band_rows = math.ceil(BAND_ROWS / shrink) * shrink  # whole thumbnail rows
        thumbnail = Image.new("RGB", (math.ceil(width / shrink), math.ceil(height / shrink)))
        for top in range(0, height, band_rows):
            rows = min(band_rows, height - top)
            merged = _flatten(composite_planes(stack, Box(0, top, width, rows)))  # (4, rows, width) uint8
            self.opaque = self.opaque and bool((merged[3] == 255).all())
            for plane, counts, spool in zip(merged, self._counts, self._rows, strict=True):
                lengths, data = encode_plane(plane, version)
                counts += lengths
                spool.write(data)
            strip = Image.fromarray(np.ascontiguousarray(np.moveaxis(merged[:3], 0, -1)))
            thumbnail.paste(strip.reduce(shrink), (0, top // shrink))
        return thumbnail


def _spool(folder: Path | None) -> tempfile.SpooledTemporaryFile:
    return tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES, dir=folder)


def _flatten(planes: np.ndarray) -> np.ndarray:
    """Premultiplied float planes (4, h, w) in 0..1 to uint8: colour over white, and alpha; each rounded once."""
    white = 1 - planes[3]
    planes[:3] += white
    planes *= 255
    np.rint(planes, out=planes)
    return planes.clip(0, 255, out=planes).astype(np.uint8)
