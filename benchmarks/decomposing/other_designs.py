"""A second generator of layered designs, unlike the one that we train on: for measuring alone, never for training.

Artwork drawn from parts (`drawings`), cut-outs of photographs, blobs, signs and panels, words in other fonts, soft shadows;
backgrounds of photographs, textures, gradients, stripes and noise. Photographs are scikit-image's samples, fonts those that
come with Matplotlib and Pillow. A design is fully determined by (seed, index, frame area).
"""

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
import skimage.data
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from mrt_core.designs.colors import PALETTE, color_distance
from mrt_core.designs.generator import pick_frame
from mrt_core.geometry import Box, Size
from mrt_core.layouts.layout import Layout, Region
from mrt_core.stacks.layers import Layer, LayerStack, composite_premultiplied, paste

from .drawings import LIGHT, MAIN, SECOND, Color, draw, pick_palette

FEWEST, MOST = 2, 8  # layers
SHARES = {"drawing": 0.42, "word": 0.2, "photograph": 0.12, "blob": 0.13, "sign": 0.13}
SHADOW_SHARE, OVERHANGING_SHARE, OVERHANG = 0.3, 0.2, 0.4
TRANSLUCENT_SHARE, OPACITIES = 0.3, (0.4, 0.85)  # of blobs and signs
MOST_HIDDEN = 0.6  # share of a box that all boxes above it may cover together
CLOSE_SHARE = 0.55  # of positions that are tried, those near a layer that is there
CANDIDATES, RETRIES = 40, 6
LEAST_CONTRAST = 0.1  # mean change of the picture's colours, in 0..1, where a layer shows
SMALLEST = 12  # px
PHOTOGRAPHS = {"astronaut": "an astronaut", "chelsea": "a cat's fur", "coffee": "a coffee cup", "rocket": "a night sky"}
TEXTURES = {"brick": "bricks", "grass": "grass", "gravel": "gravel"}
FONTS = (
    "DejaVuSans-Bold.ttf",
    "DejaVuSans-BoldOblique.ttf",
    "DejaVuSansMono-Bold.ttf",
    "DejaVuSerif-Bold.ttf",
    "DejaVuSerif-BoldItalic.ttf",
    "STIXGeneralBol.ttf",
    "STIXGeneralBolIta.ttf",
    "cmb10.ttf",
    "cmtt10.ttf",
    "cmss10.ttf",
    "",
)  # fmt: skip; the last one is Pillow's own, Aileron
WORDS = (
    "Atlas velvet Harbour 1987 NORDIC quartz lantern Studio9 Ember juniper Plum&Co TICKET archive Salt No.7 Verde "
    "copper Ridge KIOSK meadow Lumen paper Signal Drift bonfire Tide"
).split()
SIGNS = "speech bubble", "ticket", "burst", "pill", "crescent", "cross", "panel", "frame", "ribbon"


class OtherDesign(NamedTuple):
    """The truth, background first, its layout with captions, and the kind of every foreground layer."""

    stack: LayerStack
    layout: Layout
    kinds: tuple[str, ...]


class Element(NamedTuple):
    """What a layer shows: straight RGBA uint8 (height, width, 4), cropped to its content, its kind and its caption."""

    pixels: np.ndarray
    kind: str
    caption: str


def other_design(index: int, frame_area: int, seed: int = 0) -> OtherDesign:
    """Design number `index` of a seed, at a frame of about `frame_area` px."""
    rng = np.random.default_rng((seed, index))
    frame = pick_frame(rng, frame_area)
    ground, caption = draw_background(rng, frame)
    layers, kinds = [Layer(ground, 0, 0, "Background", caption)], []
    count = int(rng.integers(FEWEST, MOST + 1))
    size = min(frame) * min(0.62, 1.05 / math.sqrt(count))
    for _ in range(count):
        for attempt in range(RETRIES):
            element = draw_element(rng, round(size * rng.uniform(0.6, 1.15) * 0.9**attempt))
            box = place(rng, frame, element.pixels.shape[:2], [layer.box for layer in layers[1:]])
            if box is None:
                continue
            layer = Layer(element.pixels, int(box.x), int(box.y), element.caption, element.caption)
            if contrast(LayerStack(frame, tuple(layers)), layer) >= LEAST_CONTRAST:
                layers.append(layer)
                kinds.append(element.kind)
                break
    regions = tuple(Region(layer.name, layer.box, f"a {layer.caption}") for layer in layers[1:])
    listed = ", ".join(region.caption for region in regions)
    layout = Layout(frame, regions, f"{listed} on {caption}", Region("Background", layers[0].box, caption))
    return OtherDesign(LayerStack(frame, tuple(layers)), layout, tuple(kinds))


def contrast(stack: LayerStack, layer: Layer) -> float:
    """How much a layer on top of a stack changes the picture where it shows: mean over its pixels, in 0..1."""
    area = Box(0, 0, *stack.frame)
    own = paste(layer, area)
    alpha = own[..., 3]
    under = composite_premultiplied(stack)[..., :3]
    changed = np.abs(own[..., :3] - under * alpha[..., None]).mean(-1)
    return float(changed.sum() / max(alpha.sum(), 1.0))


def place(rng: np.random.Generator, frame: Size, size: tuple[int, int], boxes: list[Box]) -> Box | None:
    """A position for a new top layer of `size` (height, width) px, often near another; None where each hides too much."""
    height, width = size
    margin = OVERHANG if rng.random() < OVERHANGING_SHARE else 0.0
    low = np.asarray([-margin * width, -margin * height])
    high = np.maximum(low, [frame.width - (1 - margin) * width, frame.height - (1 - margin) * height])
    for _ in range(CANDIDATES):
        corner = rng.uniform(low, high)
        near, shift = rng.random() < CLOSE_SHARE, rng.uniform(-0.75, 0.75, 2)
        if near and boxes:
            other = boxes[int(rng.integers(len(boxes)))]
            middle = np.asarray([other.x + other.width / 2, other.y + other.height / 2])
            corner = np.clip(middle + shift * (other.width, other.height) - np.asarray([width, height]) / 2, low, high)
        x, y = np.rint(corner).astype(int).tolist()
        box = Box(x, y, width, height)
        if all(_hidden(low_box, [*boxes[i + 1 :], box]) <= MOST_HIDDEN for i, low_box in enumerate(boxes)):
            return box
    return None


def _hidden(box: Box, above: list[Box]) -> float:
    """The share of a box that other boxes cover, or more where these overlap."""
    covered = 0.0
    for other in above:
        across = min(box.right, other.right) - max(box.x, other.x)
        down = min(box.bottom, other.bottom) - max(box.y, other.y)
        covered += max(across, 0) * max(down, 0)
    return covered / box.area


# Fills


@cache
def photograph(name: str) -> Image.Image:
    """A sample photograph or texture of scikit-image, RGB."""
    return Image.fromarray(getattr(skimage.data, name)()).convert("RGB")


def photograph_crop(rng: np.random.Generator, name: str, width: int, height: int) -> Image.Image:
    """A random crop of a photograph, scaled to width x height px."""
    image = photograph(name)
    most = min(image.width / width, image.height / height)
    scale = most * rng.uniform(0.45, 1.0)
    w, h = scale * width, scale * height
    x, y = rng.uniform(0, 1, 2) * (image.width - w, image.height - h)
    return image.resize((width, height), Image.Resampling.BICUBIC, (x, y, x + w, y + h))


def smooth_noise(rng: np.random.Generator, cells: int, width: int, height: int) -> np.ndarray:
    """Low-frequency noise (height, width) from about -1 to 1, `cells` bumps a side."""
    coarse = Image.fromarray(rng.uniform(-1, 1, (cells, cells)).astype(np.float32))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))


def mixed(first: Color, second: Color, weight: np.ndarray) -> np.ndarray:
    """Two colours mixed by a weight (h, w), clipped to 0..1: (h, w, 3) uint8."""
    share = np.clip(weight, 0, 1)[..., None]
    return np.rint(np.float32(first) * (1 - share) + np.float32(second) * share).astype(np.uint8)


def gradient(rng: np.random.Generator, width: int, height: int, first: Color, second: Color) -> np.ndarray:
    """Two colours from side to side, or from a point outwards: (height, width, 3) uint8."""
    ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
    xs, ys = xs / width - 0.5, ys / height - 0.5
    angle, (x, y), radial = rng.uniform(0, 2 * math.pi), rng.uniform(-0.4, 0.4, 2), rng.random() < 0.4
    weight = np.hypot(xs - x, ys - y) * 1.3 if radial else 0.5 + xs * math.cos(angle) + ys * math.sin(angle)
    return mixed(first, second, weight)


def stripes(rng: np.random.Generator, width: int, height: int, first: Color, second: Color) -> np.ndarray:
    """Stripes of two colours with soft edges: (height, width, 3) uint8."""
    ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
    angle, period = rng.uniform(0, math.pi), rng.uniform(0.08, 0.3) * min(width, height)
    distance = np.abs(((xs * math.cos(angle) + ys * math.sin(angle)) / period) % 1 - 0.5) - 0.25
    return mixed(first, second, 0.5 + distance * period)


def fill(rng: np.random.Generator, width: int, height: int) -> tuple[np.ndarray, Color]:
    """What a blob or a sign is filled with: (height, width, 3) uint8, and the colour that names it."""
    palette = pick_palette(rng)
    kind = rng.choice(["flat", "gradient", "stripes", "texture"], p=[0.35, 0.35, 0.12, 0.18])
    if kind == "flat":
        return np.full((height, width, 3), palette[MAIN], np.uint8), palette[MAIN]
    if kind == "texture":
        name = rng.choice([*PHOTOGRAPHS, *TEXTURES])
        pixels = np.asarray(photograph_crop(rng, str(name), width, height))
        tinted = pixels * (np.float32(palette[MAIN]) / 255 * 0.7 + 0.3)
        return np.rint(tinted).astype(np.uint8), tuple(int(c) for c in tinted.mean((0, 1)))
    paint = gradient if kind == "gradient" else stripes
    return paint(rng, width, height, palette[MAIN], palette[SECOND]), palette[MAIN]


def color_name(color: Color) -> str:
    """The palette's name that is nearest to a colour."""
    return min(PALETTE, key=lambda name: color_distance(PALETTE[name], color))


# Backgrounds


def draw_background(rng: np.random.Generator, frame: Size) -> tuple[np.ndarray, str]:
    """An opaque background, straight RGBA uint8 (height, width, 4), and its caption."""
    width, height = frame
    kind = rng.choice(
        ["photograph", "blurred", "texture", "gradient", "stripes", "noise", "flat"],
        p=[0.16, 0.14, 0.14, 0.2, 0.12, 0.14, 0.1],
    )
    palette = pick_palette(rng)
    first, second = palette[MAIN], palette[rng.choice([SECOND, LIGHT])]
    words = f"{color_name(first)} and {color_name(second)}"
    if kind in ("photograph", "blurred"):
        name = str(rng.choice(list(PHOTOGRAPHS)))
        image = photograph_crop(rng, name, width, height)
        caption = f"a photograph of {PHOTOGRAPHS[name]}"
        if kind == "blurred":
            image = image.filter(ImageFilter.GaussianBlur(min(frame) * rng.uniform(0.02, 0.06)))
            caption = f"a blurred {caption[2:]}"
        pixels = np.asarray(image)
    elif kind == "texture":
        name = str(rng.choice(list(TEXTURES)))
        pixels = np.rint(np.asarray(photograph_crop(rng, name, width, height)) * (np.float32(palette[LIGHT]) / 255))
        caption = f"a background of {TEXTURES[name]}"
    elif kind == "gradient":
        pixels, caption = gradient(rng, width, height, first, second), f"a gradient background of {words}"
    elif kind == "stripes":
        pixels, caption = stripes(rng, width, height, first, second), f"a background of {words} stripes"
    elif kind == "noise":
        clouds = 0.5 + 0.6 * smooth_noise(rng, int(rng.integers(3, 9)), width, height)
        grain = rng.normal(0, 1, (256, 256)).astype(np.float32)
        grain = np.asarray(Image.fromarray(grain).resize((width, height), Image.Resampling.BILINEAR))
        pixels = mixed(first, second, clouds) + rng.uniform(2, 9) * grain[..., None]
        caption = f"a cloudy background of {words}"
    else:
        pixels, caption = np.full((height, width, 3), first), f"a flat {color_name(first)} background"
    return with_alpha(np.clip(pixels, 0, 255).astype(np.uint8), np.full((height, width), 255, np.uint8)), caption


# Elements


def with_alpha(color: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Straight RGBA uint8 (h, w, 4) from colours (h, w, 3) and alpha (h, w), both uint8."""
    return np.concatenate([color, alpha[..., None]], -1)


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
    if not name:
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
