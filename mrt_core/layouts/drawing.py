"""A picture of a layout, to check boxes and stacking order by eye."""

import colorsys
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from ..errors import MRTError
from ..geometry import Box, frame_box
from .layout import MAX_NAME_LENGTH, Layout

MIN_PICTURE_SIDE = 128  # px: less leaves no room for a name
GOLDEN_RATIO = 0.618034  # turns of hue between two layers: neighbours differ, and fifty hues stay apart
CHECKER_INSIDE, CHECKER_OUTSIDE = ((255, 255, 255), (226, 226, 226)), ((196, 196, 196), (180, 180, 180))
FRAME_COLOR, BACKGROUND_COLOR = (20, 20, 20), (90, 90, 90)
FILL_OPACITY = 0.22
LABEL_PADDING = 3  # px left and right of a label's text

Color = tuple[int, int, int]
Corners = tuple[int, int, int, int]  # left, top, right, bottom in picture px


class _Label(NamedTuple):
    text: str
    color: Color
    left: int
    top: int


def draw_layout(layout: Layout, max_side: int = 1024, backdrop: Image.Image | None = None) -> Image.Image:
    """An RGB picture whose longer side is `max_side` px: the canvas, the frame, and each box with its z and name.

    The checkerboard is bright inside the frame and dark outside it, where boxes overflow. z is 0 for the background and
    counts the layers from 1, the lowest. `backdrop`, an RGB picture of any size, takes the place of the bright one.
    """
    if max_side < MIN_PICTURE_SIDE:
        raise MRTError(f"max_side is {max_side}, but a picture needs at least {MIN_PICTURE_SIDE} px; make it larger.")
    font_size = max(10, max_side // 64)
    margin = font_size  # px around the canvas
    canvas = layout.canvas
    scale = (max_side - 2 * margin) / max(canvas.width, canvas.height)
    size = tuple(max(round(side * scale) + 2 * margin, MIN_PICTURE_SIDE) for side in (canvas.width, canvas.height))

    def to_picture(box: Box) -> Corners:
        """Left, top, right, bottom of a frame-px box, the last two included, at least one px wide."""
        left, top = margin + round((box.x - canvas.x) * scale), margin + round((box.y - canvas.y) * scale)
        right, bottom = margin + round((box.right - canvas.x) * scale), margin + round((box.bottom - canvas.y) * scale)
        return left, top, max(right - 1, left), max(bottom - 1, top)

    frame = to_picture(frame_box(layout.frame))
    cell = max(4, max_side // 64)
    picture = _checkerboard(size, cell, CHECKER_OUTSIDE)
    inside = _checkerboard(size, cell, CHECKER_INSIDE).crop(_area(frame))
    picture.paste(backdrop.resize(inside.size) if backdrop else inside, frame[:2])

    regions = [layout.background_region, *layout.regions]
    corners = [to_picture(region.box) for region in regions]
    colors = [BACKGROUND_COLOR, *(_layer_color(index) for index in range(len(layout.regions)))]
    for box, color in zip(corners[1:], colors[1:], strict=True):  # the background stays clear: it would tint everything
        tinted = picture.crop(_area(box))
        picture.paste(Image.blend(tinted, Image.new("RGB", tinted.size, color), FILL_OPACITY), box[:2])

    draw = ImageDraw.Draw(picture)
    line = max(1, max_side // 400)
    for box, color in zip(corners, colors, strict=True):
        draw.rectangle(box, outline=color, width=line)
    _dashed_rectangle(draw, frame, dash=4 * line, width=line)

    font = ImageFont.load_default(font_size)
    label_height = sum(font.getmetrics()) + 2
    labels = []
    for z, (region, box, color) in enumerate(zip(regions, corners, colors, strict=True)):
        above = box[3] - box[1] < 2 * label_height  # a label inside would hide a small box
        labels.append(_Label(f"{z} {region.name}", color, box[0], box[1] - label_height if above else box[1]))
    labels.append(_Label(f"frame {layout.frame.width} x {layout.frame.height} px", FRAME_COLOR, frame[0], frame[3]))
    _draw_labels(draw, labels, font, label_height, size)
    return picture


def _area(corners: Corners) -> Corners:
    """The corners with the last two excluded, as Pillow crops."""
    left, top, right, bottom = corners
    return left, top, right + 1, bottom + 1


def _checkerboard(size: tuple[int, int], cell: int, colors: tuple[Color, Color]) -> Image.Image:
    tile = Image.new("RGB", (2 * cell, 2 * cell), colors[0])
    tile.paste(colors[1], (cell, 0, 2 * cell, cell))
    tile.paste(colors[1], (0, cell, cell, 2 * cell))
    board = Image.new("RGB", size)
    for top in range(0, size[1], 2 * cell):
        for left in range(0, size[0], 2 * cell):
            board.paste(tile, (left, top))
    return board


def _layer_color(index: int) -> Color:
    """A saturated colour, different for each index."""
    red, green, blue = colorsys.hsv_to_rgb(index * GOLDEN_RATIO % 1, 0.85, 0.9)
    return round(red * 255), round(green * 255), round(blue * 255)


def _dashed_rectangle(draw: ImageDraw.ImageDraw, box: Corners, dash: int, width: int) -> None:
    left, top, right, bottom = box
    for x in range(left, right + 1, 2 * dash):
        for y in (top, bottom - width + 1):
            draw.rectangle((x, y, min(x + dash - 1, right), y + width - 1), fill=FRAME_COLOR)
    for y in range(top, bottom + 1, 2 * dash):
        for x in (left, right - width + 1):
            draw.rectangle((x, y, x + width - 1, min(y + dash - 1, bottom)), fill=FRAME_COLOR)


def _draw_labels(
    draw: ImageDraw.ImageDraw,
    labels: list[_Label],
    font: ImageFont.FreeTypeFont,
    height: int,
    size: tuple[int, int],
) -> None:
    """Each label near its corner, moved down (and from the bottom on to the top) until it covers no other one."""
    placed: list[Corners] = []
    for label in labels:
        text = _fit(label.text, font, size[0] // 2)
        width = round(font.getlength(text)) + 2 * LABEL_PADDING
        left = min(max(label.left, 0), size[0] - width)
        lowest = size[1] - height
        start = min(max(label.top, 0), lowest)
        tops = [*range(start, lowest + 1, height), *range(start % height, start, height)]
        places = [(left, top, left + width, top + height) for top in tops]
        place = next((p for p in places if not any(_overlap(p, other) for other in placed)), places[0])
        placed.append(place)
        draw.rectangle((place[0], place[1], place[2] - 1, place[3] - 1), fill=label.color)
        red, green, blue = label.color
        dark = 0.299 * red + 0.587 * green + 0.114 * blue < 140
        ink = (255, 255, 255) if dark else (0, 0, 0)
        draw.text((left + LABEL_PADDING, place[1] + 1), text, fill=ink, font=font)


def _fit(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """`text` on one line, what cannot be printed replaced, cut to `width` px."""
    line = "".join(character if character.isprintable() else " " for character in text[:MAX_NAME_LENGTH])
    if font.getlength(line) <= width:
        return line
    while line and font.getlength(line + "…") > width:
        line = line[:-1]
    return line + "…"


def _overlap(a: Corners, b: Corners) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
