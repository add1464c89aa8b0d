"""How a drawing is finished: solid, semi-transparent, or soft at its edges."""

import math
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter

SEMI_TRANSPARENT_SHARE, SOFT_SHARE = 0.05, 0.03  # of drawings and of words
OPACITIES = (0.4, 0.75)


class Finish(NamedTuple):
    """Opacity in 0..1 and whether its edges are soft; `words` say so in its caption, or are empty."""

    words: str = ""
    opacity: float = 1.0
    soft: bool = False

    def apply(self, image: Image.Image, size: int) -> Image.Image:
        """An RGBA image about `size` px in this finish."""
        if self.soft:
            return soften(image, max(0.7, size / 20))
        if self.opacity < 1:
            image.putalpha(image.getchannel("A").point(scaled_levels(self.opacity)))
        return image


SOLID = Finish()


class Drawing(NamedTuple):
    """An RGBA image in its finish, with a caption of a few words that names the finish."""

    image: Image.Image
    caption: str
    finish: Finish


def pick_finish(rng: np.random.Generator, semi_transparent: float, soft: float) -> Finish:
    """A finish: semi-transparent or soft with these chances, else solid."""
    chance = rng.random()
    if chance < semi_transparent:
        return Finish("semi-transparent", rng.uniform(*OPACITIES))
    return Finish("soft-edged", soft=True) if chance < semi_transparent + soft else SOLID


def scaled_levels(factor: float) -> list[int]:
    """A table for Pillow's `point` that multiplies levels by `factor`, up to 255."""
    return np.minimum(np.rint(np.arange(256) * factor), 255).astype(int).tolist()


def grown(image: Image.Image, margin: int) -> Image.Image:
    """The image with `margin` px of transparency on every side."""
    page = Image.new(image.mode, (image.width + 2 * margin, image.height + 2 * margin))
    page.paste(image, (margin, margin))
    return page


def blur_margin(radius: float) -> int:
    """How far a blur of `radius` px reaches: Pillow's is three box filters, each about `radius` px to a side."""
    return math.ceil(3 * radius) + 1


def soften(image: Image.Image, radius: float) -> Image.Image:
    """An RGBA image whose alpha is blurred, with its colours carried on past the old edge; it grows by the blur."""
    page = grown(image, blur_margin(radius))
    blurred = page.convert("RGBa").filter(ImageFilter.GaussianBlur(radius)).convert("RGBA")
    alpha = blurred.getchannel("A")
    blurred.putalpha(255)
    blurred.alpha_composite(page)
    blurred.putalpha(alpha)
    return blurred
