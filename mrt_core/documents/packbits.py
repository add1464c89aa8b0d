"""PackBits, the run-length coding of PSD's channels, by psd-tools' compiled row encoder.

Source: Adobe file format, "Image Data Section": the byte lengths of all rows, then the rows.
"""

import array
import sys

import numpy as np
from psd_tools.compression import rle_impl


def encode_plane(plane: np.ndarray, version: int) -> tuple[bytes, bytes]:
    """A contiguous uint8 plane (height, width) as (row lengths, rows); lengths have 16 bits in PSD (1), 32 in PSB (2)."""
    repeats = np.zeros(len(plane), bool)
    repeats[1:] = (plane[1:] == plane[:-1]).all(axis=1)  # designs are full of equal rows
    rows: list[bytes] = []
    for row, repeated in zip(plane, repeats.tolist(), strict=True):
        rows.append(rows[-1] if repeated else rle_impl.encode(row.tobytes()))
    lengths = array.array("H" if version == 1 else "I", map(len, rows))
    if sys.byteorder == "little":
        lengths.byteswap()
    return lengths.tobytes(), b"".join(rows)
