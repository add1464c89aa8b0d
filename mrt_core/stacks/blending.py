"""Blend functions: the colour that a layer and its backdrop make together, in gamma space.

Formulas are those of the PDF 1.7 blend modes and of Photoshop for the modes that PDF does not have. Every function
takes the backdrop's and the source's straight colours as float arrays (3, height, width) with values 0..1 and returns
an array of that shape; values outside 0..1 are clipped by `blend`.
"""

from collections.abc import Callable

import numpy as np

_LUMINANCE = np.array([0.3, 0.59, 0.11], np.float32).reshape(3, 1, 1)  # PDF 1.7, non-separable blend modes
_TINY = np.float32(1e-6)


def _multiply(b: np.ndarray, s: np.ndarray) -> np.ndarray:
    return b * s


def _screen(b: np.ndarray, s: np.ndarray) -> np.ndarray:
    return b + s - b * s


def _hard_light(b: np.ndarray, s: np.ndarray) -> np.ndarray:
    return np.where(s <= 0.5, _multiply(b, 2 * s), _screen(b, 2 * s - 1))


def _overlay(b: np.ndarray, s: np.ndarray) -> np.ndarray:
    return _hard_light(s, b)


def _color_dodge(b: np.ndarray, s: np.ndarray) -> np.ndarray:
    return np.where(b <= 0, 0, np.minimum(1, b / np.maximum(1 - s, _TINY)))


def _color_burn(b: np.ndarray, s: np.ndarray) -> np.ndarray:
    return np.where(b >= 1, 1, 1 - np.minimum(1, (1 - b) / np.maximum(s, _TINY)))


def _soft_light(b: np.ndarray, s: np.ndarray) -> np.ndarray:
    curve = np.where(b <= 0.25, ((16 * b - 12) * b + 4) * b, np.sqrt(b))
    return np.where(s <= 0.5, b - (1 - 2 * s) * b * (1 - b), b + (2 * s - 1) * (curve - b))


def _vivid_light(b: np.ndarray, s: np.ndarray) -> np.ndarray:
    # Unlike plain burn and dodge, Photoshop lets the source's extremes win here whatever the backdrop is.
    burned = 1 - np.minimum(1, (1 - b) / np.maximum(2 * s, _TINY))
    dodged = np.minimum(1, b / np.maximum(2 - 2 * s, _TINY))
    mixed = np.where(s <= 0.5, burned, dodged)
    return np.where(s <= 0, 0, np.where(s >= 1, 1, mixed))


def _pin_light(b: np.ndarray, s: np.ndarray) -> np.ndarray:
    return np.where(s <= 0.5, np.minimum(b, 2 * s), np.maximum(b, 2 * s - 1))


def _hard_mix(b: np.ndarray, s: np.ndarray) -> np.ndarray:
    return ((b + s > 1) | ((b + s == 1) & (b > 0.5))).astype(np.float32)


def _divide(b: np.ndarray, s: np.ndarray) -> np.ndarray:
    return b / np.maximum(s, _TINY)


def _luminance(c: np.ndarray) -> np.ndarray:
    return (c * _LUMINANCE).sum(0, keepdims=True)  # (1, h, w)


def _with_luminance(c: np.ndarray, luminance: np.ndarray) -> np.ndarray:
    """`c` moved to `luminance`, then pulled back into 0..1 without changing it (PDF: SetLum, ClipColor)."""
    c = c + (luminance - _luminance(c))
    low, high = c.min(0, keepdims=True), c.max(0, keepdims=True)
    lifted = luminance + (c - luminance) * luminance / np.maximum(luminance - low, _TINY)
    c = np.where(low < 0, lifted, c)
    lowered = luminance + (c - luminance) * (1 - luminance) / np.maximum(high - luminance, _TINY)
    return np.where(high > 1, lowered, c)


def _saturation(c: np.ndarray) -> np.ndarray:
    return c.max(0, keepdims=True) - c.min(0, keepdims=True)


def _with_saturation(c: np.ndarray, saturation: np.ndarray) -> np.ndarray:
    """`c` stretched so that its largest channel is `saturation` and its smallest is 0 (PDF: SetSat)."""
    return (c - c.min(0, keepdims=True)) * saturation / np.maximum(_saturation(c), _TINY)


def _hue(b: np.ndarray, s: np.ndarray) -> np.ndarray:
    return _with_luminance(_with_saturation(s, _saturation(b)), _luminance(b))


def _saturate(b: np.ndarray, s: np.ndarray) -> np.ndarray:
    return _with_luminance(_with_saturation(b, _saturation(s)), _luminance(b))


def _color(b: np.ndarray, s: np.ndarray) -> np.ndarray:
    return _with_luminance(s, _luminance(b))


def _luminosity(b: np.ndarray, s: np.ndarray) -> np.ndarray:
    return _with_luminance(b, _luminance(s))


BLEND_FUNCTIONS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "normal": lambda b, s: s,
    "dissolve": lambda b, s: s,  # its dither is each program's own: here it is as smooth as "normal"
    "darken": np.minimum,
    "multiply": _multiply,
    "color-burn": _color_burn,
    "linear-burn": lambda b, s: b + s - 1,
    "darker-color": lambda b, s: np.where(_luminance(s) < _luminance(b), s, b),
    "lighten": np.maximum,
    "screen": _screen,
    "color-dodge": _color_dodge,
    "linear-dodge": lambda b, s: b + s,
    "lighter-color": lambda b, s: np.where(_luminance(s) > _luminance(b), s, b),
    "overlay": _overlay,
    "soft-light": _soft_light,
    "hard-light": _hard_light,
    "vivid-light": _vivid_light,
    "linear-light": lambda b, s: b + 2 * s - 1,
    "pin-light": _pin_light,
    "hard-mix": _hard_mix,
    "difference": lambda b, s: np.abs(b - s),
    "exclusion": lambda b, s: b + s - 2 * b * s,
    "subtract": lambda b, s: b - s,
    "divide": _divide,
    "hue": _hue,
    "saturation": _saturate,
    "color": _color,
    "luminosity": _luminosity,
    "grain-extract": lambda b, s: b - s + 0.5,
    "grain-merge": lambda b, s: b + s - 0.5,
}


def blend(mode: str, backdrop: np.ndarray, source: np.ndarray) -> np.ndarray:
    """The mixed colour of `source` on `backdrop`, both straight (3, height, width) in 0..1, by a `BLEND_FUNCTIONS` name."""
    return BLEND_FUNCTIONS[mode](backdrop, source).clip(0, 1)
