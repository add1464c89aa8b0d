"""What a layer can show: a drawing, a shape or a word, each as a captioned RGBA image."""

from typing import NamedTuple

import numpy as np
from PIL import Image

from .artwork import load_artwork, load_common_artwork
from .effects import NO_EFFECT, Effect, pick_effect
from .finishes import SEMI_TRANSPARENT_SHARE, SOFT_SHARE, SOLID, Drawing, pick_finish
from .legibility import Ground
from .shapes import draw_shape
from .words import draw_word


class Element(NamedTuple):
    """Straight RGBA `pixels` (height, width, 4) uint8 cropped to their content, an effect that lies under them when they
    have their style, and a caption of a few words."""

    pixels: np.ndarray
    effect: Effect
    caption: str


class ElementMix(NamedTuple):
    """Shares of what layers show, the share of drawings that are taken from the common ones, and of words in Chinese."""

    artwork: float = 0.55
    shape: float = 0.27
    word: float = 0.18
    common: float = 0.0
    chinese: float = 1 / 6


EVEN_MIX = ElementMix()
DRAWINGS_TRIED = 20


def draw_artwork(rng: np.random.Generator, size: int, held_out: bool, common: float, ground: Ground) -> Drawing:
    """A drawing scaled so that its longer side is `size` px; with chance `common` one of the common drawings.

    Of DRAWINGS_TRIED at random it is the first legible one, or else, where style and background hide them all, the last.
    """
    drawings = load_common_artwork() if common and rng.random() < common else load_artwork(held_out)
    for _ in range(DRAWINGS_TRIED):
        drawing = drawings[int(rng.integers(len(drawings)))]
        finish = pick_finish(rng, SEMI_TRANSPARENT_SHARE, SOFT_SHARE)
        if ground.is_legible(drawing.color, finish.opacity):
            break
    image = drawing.premultiplied
    scale = size / max(image.size)
    target = (max(4, round(image.width * scale)), max(4, round(image.height * scale)))
    scaled = image.resize(target, Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC).convert("RGBA")
    return Drawing(finish.apply(scaled, size), f"{finish.words} {drawing.name}".lstrip(), finish)


def draw_element(
    rng: np.random.Generator, size: int, ground: Ground, held_out: bool = False, mix: ElementMix = EVEN_MIX
) -> Element:
    """A random element about `size` px that stands out from the ground, cropped to its content."""
    chance = rng.random() * (mix.artwork + mix.shape + mix.word)
    if chance < mix.artwork:
        drawing = draw_artwork(rng, size, held_out, mix.common, ground)
    elif chance < mix.artwork + mix.shape:
        drawing = draw_shape(rng, size, ground)
    else:
        drawing = draw_word(rng, size, held_out, mix.chinese, ground)
    image = drawing.image.crop(drawing.image.getchannel("A").getbbox())
    effect = pick_effect(rng, min(image.size), ground.colors) if drawing.finish is SOLID else NO_EFFECT
    return Element(np.asarray(image), effect, f"{drawing.caption} {effect.words}".rstrip())
