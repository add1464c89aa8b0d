"""PackBits, the run-length coding of PSD's channels, by psd-tools' compiled row encoder.

Source: Adobe file format, "Image Data Section": the byte lengths of all rows, then the rows.
"""

import array
import sys

import numpy as np
from psd_tools.compression import rle_impl


def encode_plane(plane: np.ndarray, version: int) -> tuple[bytes, bytes]:
    """A uint8 plane (height, width) as (row lengths, rows); lengths have 16 bits in PSD (1), 32 in PSB (2)."""
    rows: list[bytes] = []
    previous = encoded = b""
    for row in map(np.ndarray.tobytes, plane):
        if row != previous:  # designs are full of equal rows
            previous, encoded = row, rle_impl.encode(row)
        rows.append(encoded)
    lengths = array.array("H" if version == 1 else "I", map(len, rows))
    if sys.byteorder == "little":
        lengths.byteswap()
    return lengths.tobytes(), b"".join(rows)


def encoded_bytes_at_most(width: int, height: int) -> int:
    """What a plane may take in a PSD: each row its bytes, a head for every 125 of them, 2 to spare and 2 for its length."""
    return height * (width + width // 125 + 4)
