"""Pictures of layer stacks for the eye: every layer on a checkerboard with its name, overflow drawn outside the frame."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..atomic import atomic_file
from ..geometry import Box, frame_box, intersection, union
from ..stacks.layers import LayerStack, composite

TILE = 192  # px, the side of a tile's picture
_GAP = 8
_TEXT = 13
_LINE = 18
_MAX_COLUMNS = 8
_PAGE, _OUTSIDE, _FRAME, _INK, _FAINT = "#ffffff", "#8c96a6", "#1464ff", "#1a1a1a", "#6b6b6b"
_CHECKS = (255, 218)
_CHECK_SIDE = 8
# Pillow's own font has ASCII. For other names one of these, where the system has it, and else a bundled font with Latin,
# Greek and Cyrillic.
_WIDE_FONTS = (
    "NotoSansCJK-Regular.ttc",
    "NotoSansSC-Regular.otf",
    "msyh.ttc",
    "PingFang.ttc",
    "DroidSansFallbackFull.ttf",
    str(Path(__file__).parents[1] / "data" / "artwork" / "OpenSans-ExtraBold.ttf"),
)


class Row(NamedTuple):
    """One titled row of a sheet: a stack (its composite, then every layer) or captioned RGB(A) uint8 images (h, w, 3 or 4)."""

    title: str
    content: LayerStack | Sequence[tuple[str, np.ndarray]]


class _Tile(NamedTuple):
    name: str
    note: str
    picture: Image.Image


def contact_sheet(stack: LayerStack, title: str = "", tile: int = TILE) -> Image.Image:
    """An RGB picture of the composite and of every layer in its place, bottom to top."""
    return assemble_sheet([Row(title, stack)], tile)


def assemble_sheet(rows: Sequence[Row], tile: int = TILE) -> Image.Image:
    """One RGB picture of several stacks and images, one titled row each; long rows wrap."""
    laid_out = [(row.title, list(_tiles(row.content, tile))) for row in rows]
    columns = max(1, min(_MAX_COLUMNS, max((len(tiles) for _, tiles in laid_out), default=1)))
    cell_height = tile + 2 * _LINE + _GAP
    heights = [
        (_LINE + _GAP if title else 0) + math.ceil(len(tiles) / columns) * cell_height for title, tiles in laid_out
    ]
    sheet = Image.new("RGB", (_GAP + columns * (tile + _GAP), _GAP + sum(heights)), _PAGE)
    draw = ImageDraw.Draw(sheet)
    top = _GAP
    for (title, tiles), height in zip(laid_out, heights, strict=True):
        if title:
            _write(draw, (_GAP, top), title, sheet.width - 2 * _GAP, _INK)
        first = top + (_LINE + _GAP if title else 0)
        for index, item in enumerate(tiles):
            x = _GAP + index % columns * (tile + _GAP)
            y = first + index // columns * cell_height
            sheet.paste(item.picture, (x + (tile - item.picture.width) // 2, y + (tile - item.picture.height) // 2))
            _write(draw, (x, y + tile + 2), item.name, tile, _INK)
            _write(draw, (x, y + tile + 2 + _LINE), item.note, tile, _FAINT)
        top += height
    return sheet


def save_sheet(sheet: Image.Image, path: str | Path, overwrite: bool = False) -> None:
    """Write a sheet as PNG, whole or not at all; raises MRTError as `atomic_file` does."""
    with atomic_file(Path(path), overwrite) as file:
        sheet.save(file, "PNG")


def _tiles(content: LayerStack | Sequence[tuple[str, np.ndarray]], tile: int) -> Iterator[_Tile]:
    if not isinstance(content, LayerStack):
        for caption, pixels in content:
            picture = _shrink(_rgba(pixels), tile)
            yield _Tile(
                caption, f"{pixels.shape[1]} x {pixels.shape[0]}", _on_checks(picture, Box(0, 0, *picture.size))
            )
        return
    layers = list(content.flat())
    area = _shown_area(content)
    yield _tile(
        content, area, tile, "Composite", f"{content.frame.width} x {content.frame.height}, {len(layers)} layers"
    )
    for layer in layers:
        note = f"{layer.box.width} x {layer.box.height} at {layer.x}, {layer.y}"
        marks = [] if layer.visible else ["hidden"]
        marks += [f"{layer.opacity:.0%}"] if layer.opacity < 1 else []
        marks += [layer.blend_mode] if layer.blend_mode != "normal" else []
        alone = replace(content, layers=(replace(layer, visible=True, blend_mode="normal"),))
        yield _tile(alone, area, tile, layer.name, ", ".join([note, *marks]))


def _shown_area(stack: LayerStack) -> Box:
    """The frame and all that hangs out of it, at most a frame's size to each side."""
    width, height = stack.frame
    boxes = [layer.box for layer in stack.flat() if layer.box.area > 0]
    nearby = Box(-width, -height, 3 * width, 3 * height)
    return intersection(union([frame_box(stack.frame), *boxes]), nearby) or frame_box(stack.frame)


def _tile(stack: LayerStack, area: Box, tile: int, name: str, note: str) -> _Tile:
    picture = _shrink(Image.fromarray(composite(stack, area)), tile)
    scale = picture.width / area.width, picture.height / area.height
    frame = Box(-area.x * scale[0], -area.y * scale[1], stack.frame.width * scale[0], stack.frame.height * scale[1])
    return _Tile(name, note, _on_checks(picture, frame))


def _shrink(picture: Image.Image, tile: int) -> Image.Image:
    """`picture` (RGBA) scaled to fit the tile, its colour weighted by alpha."""
    scale = tile / max(picture.size)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    method = Image.Resampling.BOX if scale < 1 else Image.Resampling.NEAREST
    return picture.convert("RGBa").resize(size, method).convert("RGBA")


def _on_checks(picture: Image.Image, frame: Box) -> Image.Image:
    """`picture` over a checkerboard inside `frame` and a plain ground outside, with the frame's outline on top."""
    left, top, right, bottom = round(frame.x), round(frame.y), round(frame.right), round(frame.bottom)
    ground = Image.new("RGBA", picture.size, _OUTSIDE)
    rows, cols = np.indices((max(bottom - top, 1), max(right - left, 1))) // _CHECK_SIDE
    checks = np.where((rows + cols) % 2 == 0, *_CHECKS).astype(np.uint8)
    ground.paste(Image.fromarray(checks), (left, top))
    ground.alpha_composite(picture)
    if (right - left, bottom - top) != picture.size:
        ImageDraw.Draw(ground).rectangle((left, top, right - 1, bottom - 1), outline=_FRAME)
    return ground.convert("RGB")


def _rgba(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(pixels)).convert("RGBA")


def _write(draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, width: int, color: str) -> None:
    """`text` on one line, shortened to `width` px."""
    text = "".join(c if c.isprintable() else " " for c in text.encode("utf-8", "replace").decode("utf-8"))
    font = _font(text.isascii())
    shown = text
    while shown and draw.textlength(shown if shown == text else shown + "…", font) > width:
        shown = shown[:-1]
    draw.text(at, shown if shown == text else shown + "…", color, font)


@lru_cache(maxsize=2)
def _font(latin: bool) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    for name in () if latin else _WIDE_FONTS:
        try:
            return ImageFont.truetype(name, _TEXT)
        except OSError:
            continue
    return ImageFont.load_default(_TEXT)
