"""GGUF's tensor types: their names, and how many bytes the weights of those that we read take.

A row of weights is a row of blocks; a block holds its small integers and the half-precision scales that they share. The
sizes are those of ggml, the library behind GGUF (ggml-common.h: block_q4_0 to block_iq4_xs).
"""

from typing import NamedTuple

TYPE_NAMES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 9: "Q8_1", 10: "Q2_K", 11: "Q3_K", 12: "Q4_K",
    13: "Q5_K", 14: "Q6_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S",
    22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 29: "IQ1_M", 30: "BF16", 34: "TQ1_0",
    35: "TQ2_0", 39: "MXFP4", 40: "NVFP4", 41: "Q1_0",
}  # fmt: skip
PLAIN_TYPES = {"F32", "F16", "BF16"}


class BlockFormat(NamedTuple):
    """Weights and bytes per block."""

    weights: int
    bytes: int


BLOCK_FORMATS = {
    "Q4_0": BlockFormat(32, 18),
    "Q4_1": BlockFormat(32, 20),
    "Q5_0": BlockFormat(32, 22),
    "Q5_1": BlockFormat(32, 24),
    "Q8_0": BlockFormat(32, 34),
    "IQ4_NL": BlockFormat(32, 18),
    "Q2_K": BlockFormat(256, 84),
    "Q3_K": BlockFormat(256, 110),
    "IQ4_XS": BlockFormat(256, 136),
    "Q4_K": BlockFormat(256, 144),
    "Q5_K": BlockFormat(256, 176),
    "Q6_K": BlockFormat(256, 210),
}


def packed_columns(name: str, columns: int) -> int:
    """Bytes of a row of `columns` weights."""
    block = BLOCK_FORMATS[name]
    return columns // block.weights * block.bytes
