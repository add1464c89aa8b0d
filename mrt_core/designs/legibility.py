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

    def contrast(self, color: Color) -> float:
        """How well a colour stands out, as it is and in the style: levels, the least over the ground's colours."""
        looks = [color]
        if self.style is not NATURAL:
            looks.append(tuple(self.style.apply(np.uint8([[[*color, 255]]]))[0, 0, :3].tolist()))
        return min(color_distance(look, behind) for look in looks for behind in self.colors)

    @cached_property
    def palette_contrast(self) -> list[float]:
        """The contrast of every colour of the palette, in its order."""
        return [self.contrast(color) for color in PALETTE.values()]

    def is_legible(self, color: Color, opacity: float = 1.0) -> bool:
        """Whether a colour stands out by MIN_CONTRAST levels."""
        return self.contrast(color) * opacity >= MIN_CONTRAST

    def pick_color(self, rng: np.random.Generator, opacity: float) -> tuple[str, Color]:
        """A palette name that is legible at `opacity`, or else the most legible one, and a colour near it."""
        contrast = self.palette_contrast
        legible = [name for name, value in zip(PALETTE, contrast, strict=True) if value * opacity >= MIN_CONTRAST]
        names = legible or [COLOR_NAMES[contrast.index(max(contrast))]]
        name = names[int(rng.integers(len(names)))]
        return name, jittered(rng, PALETTE[name])
