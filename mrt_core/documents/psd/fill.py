"""Fill opacity, which eight of Photoshop's modes understand in a way of their own.

In them it moves the layer's colours toward the one that changes nothing, where opacity fades what comes out.
"""

import numpy as np

# The level that leaves the backdrop as it is, 0..255.
_NEUTRAL = {
    "color-burn": 255,
    "linear-burn": 255,
    "color-dodge": 0,
    "linear-dodge": 0,
    "vivid-light": 127.5,
    "linear-light": 127.5,
    "difference": 0,
}
HARD_MIX = "hard-mix"  # the eighth: its colours cannot hold its fill opacity
SPECIAL_MODES = (*_NEUTRAL, HARD_MIX)


def can_hold_fill(mode: str) -> bool:
    """Whether colours can take over the fill opacity of a layer in `mode`."""
    return mode in _NEUTRAL


def with_fill(pixels: np.ndarray, mode: str, fill: float) -> np.ndarray:
    """`pixels` (height, width, 4) uint8 with colours that do in `mode` what the layer did at the `fill` opacity 0..1."""
    neutral = _NEUTRAL[mode]
    levels = np.arange(256)
    moved = np.rint(neutral + fill * (levels - neutral)).astype(np.uint8)
    filled = pixels.copy()
    filled[..., :3] = moved[pixels[..., :3]]
    filled[pixels[..., 3] == 0] = 0
    return filled
