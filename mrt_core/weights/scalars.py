"""One number from the bytes that a file stores it in, for looking at a file without PyTorch."""

import math
import struct

STRUCT_FORMS = {"F64": "d", "F32": "f", "F16": "e", "I64": "q", "I32": "i"}  # the file format's name: struct's
UPPER_HALVES = {"BF16": "f", "F8_E5M2": "e"}  # of a wider number of this form, whose lower bytes are 0


def decode_scalar(data: bytes, dtype: str) -> float:
    """The value of one number of a dtype in the format's spelling: a float of 8 to 64 bit, or a whole number of 32 or 64."""
    if dtype in UPPER_HALVES:
        return struct.unpack("<" + UPPER_HALVES[dtype], bytes(len(data)) + data)[0]
    if dtype == "F8_E4M3":
        return _decode_e4m3(data[0])
    return float(struct.unpack("<" + STRUCT_FORMS[dtype], data)[0])


def _decode_e4m3(byte: int) -> float:
    """A sign, four bits of exponent and three of mantissa, without infinities (OCP 8-bit floating point, section 5.1)."""
    sign, exponent, mantissa = -1.0 if byte & 128 else 1.0, byte >> 3 & 15, byte & 7
    if byte & 127 == 127:
        return math.nan
    return sign * (math.ldexp(8 + mantissa, exponent - 10) if exponent else math.ldexp(mantissa, -9))
