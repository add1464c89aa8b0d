"""Shadows and glows: a blurred silhouette under an element, inside its own layer."""

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter

from .colors import Color, color_distance
from .finishes import blur_margin, grown, scaled_levels

SHADOW_SHARE, GLOW_SHARE = 0.12, 0.08  # of solid elements, on grounds where they can be seen
SHADOW_COLOR, GLOW_COLOR = (16, 16, 24), (255, 253, 240)
MIN_CONTRAST = 90  # levels of `color_distance` between an effect and every colour of the ground


class Effect(NamedTuple):
    """A blurred silhouette under an element, in its own image, which grows by it; the element's style leaves it as it is."""

    words: str
    color: Color
    strength: float  # of the blurred silhouette's alpha
    radius: float  # px of blur
    offset: tuple[int, int]  # px, right and down

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """Straight RGBA (h, w, 4) uint8 with the effect, cropped to its content; its alpha follows from the alpha alone."""
        if self is NO_EFFECT:
            return pixels
        margin = blur_margin(self.radius) + max(map(abs, self.offset))
        page = grown(Image.fromarray(pixels, "RGBA"), margin)
        mask = Image.new("L", page.size)
        mask.paste(page.getchannel("A"), self.offset)
        mask = mask.filter(ImageFilter.GaussianBlur(self.radius)).point(scaled_levels(self.strength))
        under = Image.new("RGB", page.size, self.color)
        under.putalpha(mask)
        under.alpha_composite(page)
        return np.asarray(under.crop(under.getchannel("A").getbbox()))


NO_EFFECT = Effect("", (0, 0, 0), 0.0, 0.0, (0, 0))


def pick_effect(rng: np.random.Generator, size: int, ground: tuple[Color, ...]) -> Effect:
    """A shadow or a glow for an element whose shorter side is `size` px, if it can be seen on all colours of the ground."""
    chance = rng.random()
    if chance >= SHADOW_SHARE + GLOW_SHARE:
        return NO_EFFECT
    color = SHADOW_COLOR if chance < SHADOW_SHARE else GLOW_COLOR
    if min(color_distance(color, behind) for behind in ground) < MIN_CONTRAST:
        return NO_EFFECT
    if color is GLOW_COLOR:
        return Effect("with a glow", color, 2.0, max(1.5, size / 12), (0, 0))
    side = max(1, round(size * rng.uniform(0.03, 0.07)))
    offset = (int(rng.integers(-1, 2)) * side, side)
    return Effect("with a soft shadow", color, rng.uniform(0.5, 0.75), max(1.2, size / rng.uniform(16, 28)), offset)
