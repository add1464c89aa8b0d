"""Which colours can be told from what lies behind them."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .colors import COLOR_NAMES, PALETTE, Color, color_distance, jittered
from .styles import NATURAL, Style

MIN_CONTRAST = 40  # levels of `color_distance`


@dataclass(frozen=True, eq=False)
class Ground:
    """What elements stand on: the background's `colors`, and the style in which the elements are shown there."""

    colors: tuple[Color, ...]
    style: Style

    def contrast(self, colors: np.ndarray) -> np.ndarray:
        """How well colours (N, 3) stand out, natural and in the style: (N,) levels, the least over the ground's colours."""
        opaque = np.concatenate([colors, np.full((len(colors), 1), 255)], 1).astype(np.uint8)[
            :, None, None
        ]  # (N, 1, 1, 4)
        styled = opaque if self.style is NATURAL else [self.style.apply(pixel) for pixel in opaque]
        shown = np.stack([opaque, styled])[..., 0, :3].astype(np.float32)  # (2, N, 1, 3)
        return color_distance(shown, np.float32(self.colors)).min((0, 2))

    @cached_property
    def palette_contrast(self) -> np.ndarray:
        """The contrast of every colour of the palette, in its order."""
        return self.contrast(np.asarray(list(PALETTE.values())))

    def is_legible(self, color: Color, opacity: float = 1.0) -> bool:
        """Whether a colour stands out by MIN_CONTRAST levels."""
        return bool(self.contrast(np.asarray([color]))[0] * opacity >= MIN_CONTRAST)

    def pick_color(self, rng: np.random.Generator, opacity: float) -> tuple[str, Color]:
        """A palette name that is legible at `opacity`, or else the most legible one, and a colour near it."""
        contrast = self.palette_contrast * opacity
        legible = np.flatnonzero(contrast >= MIN_CONTRAST)
        index = int(legible[rng.integers(len(legible))]) if len(legible) else int(contrast.argmax())
        return COLOR_NAMES[index], jittered(rng, PALETTE[COLOR_NAMES[index]])
