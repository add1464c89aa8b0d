"""What layers of the second generator show: drawings, words in other fonts, photographs, blobs, signs, and soft shadows.

The fonts are those that come with Matplotlib and Pillow.
"""

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from .drawings import LIGHT, SECOND, draw, pick_palette
from .paints import PHOTOGRAPHS, color_name, fill, gradient, photograph_crop, smooth_noise, with_alpha

SHARES = {"drawing": 0.42, "word": 0.2, "photograph": 0.12, "blob": 0.13, "sign": 0.13}
SHADOW_SHARE = 0.3
TRANSLUCENT_SHARE, OPACITIES = 0.3, (0.4, 0.85)  # of blobs and signs
SMALLEST = 12  # px
PILLOWS_OWN = ""  # Aileron
FONTS = (
    "DejaVuSans-Bold.ttf", "DejaVuSans-BoldOblique.ttf", "DejaVuSansMono-Bold.ttf", "DejaVuSerif-Bold.ttf",
    "DejaVuSerif-BoldItalic.ttf", "STIXGeneralBol.ttf", "STIXGeneralBolIta.ttf", "cmb10.ttf", "cmtt10.ttf", "cmss10.ttf",
    PILLOWS_OWN,
)  # fmt: skip
WORDS = (
    "Atlas velvet Harbour 1987 NORDIC quartz lantern Studio9 Ember juniper Plum&Co TICKET archive Salt No.7 Verde "
    "copper Ridge KIOSK meadow Lumen paper Signal Drift bonfire Tide"
).split()
SIGNS = "speech bubble", "ticket", "burst", "pill", "crescent", "cross", "panel", "frame", "ribbon"


class Element(NamedTuple):
    """What a layer shows: straight RGBA uint8 (height, width, 4), cropped to its content, its kind and its caption."""

    pixels: np.ndarray
    kind: str
    caption: str


def draw_element(rng: np.random.Generator, size: int) -> Element:
    """A random element about `size` px, some with a soft shadow."""
    kind = str(rng.choice(list(SHARES), p=list(SHARES.values())))
    pixels, caption = ELEMENTS[kind](rng, max(size, SMALLEST))
    if kind != "blob" and rng.random() < SHADOW_SHARE:
        pixels, caption = shadowed(rng, pixels), f"{caption} with a soft shadow"
    return Element(cropped(pixels), kind, caption)


def cropped(pixels: np.ndarray) -> np.ndarray:
    """Straight RGBA cut to where it is not fully transparent."""
    image = Image.fromarray(pixels)
    return np.asarray(image.crop(image.getchannel("A").getbbox()))


def shadowed(rng: np.random.Generator, pixels: np.ndarray) -> np.ndarray:
    """Straight RGBA on a blurred dark silhouette of itself; grown by it."""
    side = min(pixels.shape[:2])
    radius = max(1.0, side * rng.uniform(0.03, 0.08))
    shift = np.rint(side * rng.uniform((-0.08, 0.02), (0.08, 0.1))).astype(int).tolist()
    margin = math.ceil(3 * radius) + max(map(abs, shift)) + 1
    height, width = pixels.shape[:2]
    mask = Image.new("L", (width + 2 * margin, height + 2 * margin))
    mask.paste(Image.fromarray(pixels[..., 3]), (margin + shift[0], margin + shift[1]))
    strength = rng.uniform(0.4, 0.75)
    mask = mask.filter(ImageFilter.GaussianBlur(radius)).point([round(strength * level) for level in range(256)])
    under = Image.new("RGBA", mask.size, (18, 14, 24, 0))
    under.putalpha(mask)
    under.alpha_composite(Image.fromarray(pixels), (margin, margin))
    return np.asarray(under)


def drawing(rng: np.random.Generator, size: int) -> tuple[np.ndarray, str]:
    pixels, name, color = draw(rng, size)
    return pixels, f"{color_name(color)} {name}"


@cache
def font(name: str, points: int) -> ImageFont.FreeTypeFont:
    """A font by its file's name, or Pillow's own, at a size in px."""
    if name == PILLOWS_OWN:
        return ImageFont.load_default(points)
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), points)


def word(rng: np.random.Generator, size: int) -> tuple[np.ndarray, str]:
    """A word up to about 1.8 x size px wide, in one colour or a gradient, some with a border."""
    text, name = WORDS[int(rng.integers(len(WORDS)))], FONTS[int(rng.integers(len(FONTS)))]
    measured = font(name, 100).getlength(text)
    points = max(11, round(min(1.8 * size / measured * 100, 0.8 * size)))
    palette = pick_palette(rng)
    first = palette[int(rng.integers(5))]
    bordered, shaded = rng.random() < 0.2, rng.random() < 0.3
    letters, stroke = font(name, 4 * points), 4 * max(1, points // 16) if bordered else 0
    left, top, right, bottom = letters.getbbox(text, stroke_width=stroke)
    page = Image.new("RGBA", (round(right - left) + 8, round(bottom - top) + 8))
    origin = (4 - left, 4 - top)
    mask = Image.new("L", page.size)
    ImageDraw.Draw(mask).text(origin, text, 255, letters)
    if bordered:
        ImageDraw.Draw(page).text(
            origin, text, palette[LIGHT], letters, stroke_width=stroke, stroke_fill=palette[LIGHT]
        )
    ink = (
        gradient(rng, *page.size, first, palette[SECOND]) if shaded else np.full((*page.size[::-1], 3), first, np.uint8)
    )
    page.alpha_composite(Image.fromarray(with_alpha(ink, np.asarray(mask))))
    return np.asarray(page.reduce(4)), f'word "{text}" in {color_name(first)}'


def cut_out(rng: np.random.Generator, size: int) -> tuple[np.ndarray, str]:
    """A photograph in an oval, a rounded rectangle, a blob or a white border."""
    name = str(rng.choice(list(PHOTOGRAPHS)))
    across = rng.uniform(0.75, 1.35)
    width, height = round(size * min(1, across)), round(size * min(1, 1 / across))
    image = photograph_crop(rng, name, width, height)
    form = rng.choice(["oval", "rounded", "bordered", "blob"])
    if form == "blob":
        alpha = blob_alpha(rng, width, height, 1.5)
    else:
        mask = Image.new("L", (4 * width, 4 * height))
        pen, outer = ImageDraw.Draw(mask), (0, 0, 4 * width - 1, 4 * height - 1)
        if form == "oval":
            pen.ellipse(outer, 255)
        else:
            pen.rounded_rectangle(outer, 0.6 * min(width, height) if form == "rounded" else 0, 255)
        alpha = np.asarray(mask.reduce(4))
    if form == "bordered":
        edge = max(2, size // 14)
        page = Image.new("RGB", image.size, (248, 247, 243))
        page.paste(image.resize((width - 2 * edge, height - 3 * edge)), (edge, edge))
        image = page
    return with_alpha(np.asarray(image), alpha), f"photograph of {PHOTOGRAPHS[name]}"


def blob_alpha(rng: np.random.Generator, width: int, height: int, softness: float) -> np.ndarray:
    """The alpha (height, width) uint8 of a smooth random blob whose edge is about `softness` px wide."""
    ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
    radius = np.hypot((xs + 0.5) / width - 0.5, (ys + 0.5) / height - 0.5)
    field = 0.36 - radius + 0.13 * smooth_noise(rng, int(rng.integers(4, 7)), width, height)
    field = np.minimum(field, 0.49 - radius)  # nothing reaches the edge of the page
    return np.rint(255 * np.clip(0.5 + field * max(width, height) / softness, 0, 1)).astype(np.uint8)


def blob(rng: np.random.Generator, size: int) -> tuple[np.ndarray, str]:
    """A smooth blob; its edge is sharp or soft, and it may be translucent."""
    across = rng.uniform(0.7, 1.4)
    width, height = round(1.2 * size * min(1, across)), round(1.2 * size * min(1, 1 / across))
    softness = 1.5 if rng.random() < 0.65 else size * rng.uniform(0.06, 0.2)
    alpha = blob_alpha(rng, width, height, softness)
    color, named = fill(rng, width, height)
    return with_opacity(rng, with_alpha(color, alpha), f"{color_name(named)} blob")


def with_opacity(rng: np.random.Generator, pixels: np.ndarray, caption: str) -> tuple[np.ndarray, str]:
    """The pixels, sometimes translucent."""
    translucent, opacity = rng.random() < TRANSLUCENT_SHARE, rng.uniform(*OPACITIES)
    if not translucent:
        return pixels, caption
    alpha = np.rint(pixels[..., 3] * opacity).astype(np.uint8)
    return with_alpha(pixels[..., :3], alpha), f"semi-transparent {caption}"


def sign(rng: np.random.Generator, size: int) -> tuple[np.ndarray, str]:
    """A sign or a panel of one fill; it may be translucent."""
    kind = SIGNS[int(rng.integers(len(SIGNS)))]
    across = rng.uniform(0.7, 1.2) if kind in ("burst", "crescent", "cross") else rng.uniform(1.1, 2.2)
    width, height = round(size * math.sqrt(across)), round(size / math.sqrt(across))
    mask = Image.new("L", (4 * width, 4 * height))
    _draw_sign(ImageDraw.Draw(mask), kind, 4 * width - 1, 4 * height - 1, int(rng.integers(9, 17)))
    color, named = fill(rng, width, height)
    return with_opacity(rng, with_alpha(color, np.asarray(mask.reduce(4))), f"{color_name(named)} {kind}")


def _draw_sign(pen: ImageDraw.ImageDraw, kind: str, right: int, bottom: int, points: int) -> None:
    """One of SIGNS on a mask from (0, 0) to (right, bottom); a burst has `points`."""
    side = min(right, bottom)
    if kind == "speech bubble":
        pen.rounded_rectangle((0, 0, right, 0.78 * bottom), side * 0.25, 255)
        pen.polygon([(0.2 * right, 0.7 * bottom), (0.42 * right, 0.7 * bottom), (0.18 * right, bottom)], 255)
    elif kind == "ticket":
        pen.rectangle((0, 0, right, bottom), 255)
        for x in (0, right):
            pen.ellipse((x - 0.18 * side, 0.32 * bottom, x + 0.18 * side, 0.68 * bottom), 0)
    elif kind == "burst":
        turns = [math.pi * i / points for i in range(2 * points)]
        reach = [0.5 if i % 2 else 0.38 for i in range(2 * points)]
        tips = zip(turns, reach, strict=True)
        pen.polygon([(right * (0.5 + r * math.sin(a)), bottom * (0.5 - r * math.cos(a))) for a, r in tips], 255)
    elif kind == "crescent":
        pen.ellipse((0, 0, right, bottom), 255)
        pen.ellipse((0.32 * right, -0.02 * bottom, 1.2 * right, 0.86 * bottom), 0)
    elif kind == "cross":
        pen.rectangle((0.34 * right, 0, 0.66 * right, bottom), 255)
        pen.rectangle((0, 0.34 * bottom, right, 0.66 * bottom), 255)
    elif kind == "ribbon":
        notch = 0.35 * side
        ends = [(0, 0), (right, 0), (right - notch, bottom / 2), (right, bottom), (0, bottom), (notch, bottom / 2)]
        pen.polygon(ends, 255)
    elif kind == "frame":
        pen.rectangle((0, 0, right, bottom), outline=255, width=max(8, side // 9))
    else:
        pen.rounded_rectangle((0, 0, right, bottom), side * (0.5 if kind == "pill" else 0.08), 255)


ELEMENTS: dict[str, Callable[[np.random.Generator, int], tuple[np.ndarray, str]]] = {
    "drawing": drawing, "word": word, "photograph": cut_out, "blob": blob, "sign": sign,
}  # fmt: skip
