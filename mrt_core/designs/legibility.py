"""Which colours can be told from what lies behind them."""

from dataclasses import dataclass

import numpy as np

from .colors import COLOR_NAMES, PALETTE, Color, color_distance, jittered
from .styles import Style

MIN_CONTRAST = 40  # levels of `color_distance`


@dataclass(frozen=True, eq=False)
class Ground:
    """What elements stand on: the background's `colors`, and the style in which the elements are shown there."""

    colors: tuple[Color, ...]
    style: Style

    def contrast(self, colors: np.ndarray) -> np.ndarray:
        """How well colours (N, 3) stand out, natural and in the style: (N,) levels, the least over the ground's colours."""
        opaque = np.concatenate([colors, np.full((len(colors), 1), 255)], 1).astype(np.uint8)[:, None]  # (N, 1, 4)
        shown = np.stack([opaque, self.style.apply(opaque)])[..., :3].astype(np.float32)  # (2, N, 1, 3)
        return color_distance(shown, np.float32(self.colors)).min((0, 2))

    def is_legible(self, color: Color, opacity: float = 1.0) -> bool:
        """Whether a colour stands out by MIN_CONTRAST levels."""
        return bool(self.contrast(np.asarray([color]))[0] * opacity >= MIN_CONTRAST)

    def pick_color(self, rng: np.random.Generator, opacity: float) -> tuple[str, Color]:
        """A palette name that is legible at `opacity`, or else the most legible one, and a colour near it."""
        contrast = self.contrast(np.asarray(list(PALETTE.values()))) * opacity
        legible = np.flatnonzero(contrast >= MIN_CONTRAST)
        index = int(legible[rng.integers(len(legible))]) if len(legible) else int(contrast.argmax())
        return COLOR_NAMES[index], jittered(rng, PALETTE[COLOR_NAMES[index]])
