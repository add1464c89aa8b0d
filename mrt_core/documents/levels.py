"""Gray levels of more than 8 bits, integers and floats, to 8 bits: scaled, never clipped for want of a scale."""

import numpy as np

_EIGHT, _SIXTEEN = 255, 65535
_HIGHLIGHTS = 4  # floats up to here are taken for 0..1 with highlights above white


def to_levels(values: np.ndarray, bits: int | None) -> tuple[np.ndarray, str]:
    """`values` (height, width), integers or floats, as uint8 levels, and a remark that says the scale where it was guessed.

    `bits` is how many the file stores for a value, where that is 16: white is then 65535. Integers of 32 bits and floats
    do not say what white is; it is the smallest usual one (1 for floats, 255, 65535, the type's largest) that holds them.
    """
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    white, remark = float(_SIXTEEN), ""
    if bits != 16:
        white = _white(values.dtype, high)
        remark = f"its values go from {low:.6g} to {high:.6g}, which was read as black 0 and white {white:.6g}"
        if low < 0 or high > white:
            remark += ", with what lies beyond clipped"
    elif low < 0:
        remark = f"its values go down to {low:.6g} and were clipped at 0"
    scaled = np.nan_to_num(values.astype(np.float64) / white, nan=0.0, posinf=1.0, neginf=0.0)
    return np.rint(scaled.clip(0, 1) * 255).astype(np.uint8), remark


def _white(kind: np.dtype, high: float) -> float:
    if kind.kind == "f" and high <= _HIGHLIGHTS:
        return 1.0
    for white in (_EIGHT, _SIXTEEN):
        if high <= white:
            return float(white)
    return high if kind.kind == "f" else float(np.iinfo(kind).max)
