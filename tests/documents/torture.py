"""A document that is hard on readers, and an independent float64 composite of it to compare with."""

import numpy as np
from PIL import Image
from psd_tools.api.layers import Group as PSDGroup
from psd_tools.api.layers import Layer as PSDLayer
from psd_tools.constants import Tag
from psd_tools.psd.layer_and_mask import ChannelDataList
from psd_tools.psd.tagged_blocks import TaggedBlock
from psd_tools.psd.vector import ClosedKnotLinked, ClosedPath, InitialFillRule, PathFillRule, VectorMaskSetting
from psd_tools.psd.vector import Path as VectorPath

from mrt_core.geometry import Size
from mrt_core.stacks.layers import Group, Layer, LayerStack

LONG_NAME = "長" * 126 + "🐈" * 64 + "z"  # 255 UTF-16 units


def noise(height: int, width: int, seed: int, alpha: tuple[int, int] = (0, 256)) -> np.ndarray:
    """Random RGBA with alpha in the half-open range `alpha`, colour 0 where alpha is 0: (height, width, 4)."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (height, width, 4), dtype=np.uint8)
    pixels[..., 3] = rng.integers(*alpha, (height, width))
    pixels[pixels[..., 3] == 0] = 0
    return pixels


def blob(height: int, width: int, color: tuple[int, int, int]) -> np.ndarray:
    """A soft-edged ellipse of one colour that touches all four sides: (height, width, 4)."""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    pixels = np.zeros((height, width, 4), np.uint8)
    pixels[..., 3] = np.rint(np.clip((1.02 - np.hypot(x, y)) * 4, 0, 1) * 255)
    pixels[pixels[..., 3] > 0, :3] = color
    return pixels


def torture_stack() -> LayerStack:
    """11 layers and 2 groups: offsets, names, opacities, visibility and modes of every awkward kind."""
    y, x = np.mgrid[0:240, 0:320]
    background = np.stack([x * 255 // 319, y * 255 // 239, 255 - x * 255 // 319, 96 + y * 159 // 239], -1).astype(
        np.uint8
    )
    inner = Group(
        (
            Layer(noise(50, 60, 6), 150, 60, "hidden", visible=False),
            Layer(
                blob(70, 90, (40, 200, 120)), 120, 70, "slash / back\\slash", opacity=204 / 255, blend_mode="multiply"
            ),
        ),
        "closed, nested",
        closed=True,
    )
    outer = Group(
        (
            Layer(blob(120, 120, (230, 60, 50)), 60, 40, "🐈‍⬛ emoji", caption="a red cat"),
            Layer(noise(40, 200, 5), 100, 130, LONG_NAME, opacity=128 / 255),
            inner,
        ),
        "组 一",
        opacity=153 / 255,
        blend_mode="normal",
    )
    layers = (
        Layer(background, 0, 0, "Background"),
        Layer(noise(80, 100, 2), -40, -30, "负偏移"),
        outer,
        Layer(noise(30, 30, 8, (255, 256)), 400, 300, "off the canvas"),
        Layer(np.array([[[9, 8, 7, 6]]], np.uint8), 319, 239, "1x1"),
        Layer(noise(300, 400, 10, (1, 60)), -40, -30, "larger than the frame", opacity=1 / 255),
        Layer(np.zeros((20, 20, 4), np.uint8), 11, 12, "nothing"),
        Layer(blob(60, 60, (20, 90, 240)), 230, 150, "opacity 254", opacity=254 / 255),
    )
    metadata = {
        "prompt": 'a "cat" & <dog> 猫',
        "seed": 2**53,
        "checkpoint": "mrt-tiny",
        "layout": {"boxes": [[0, 0, 320, 240]]},
    }
    return LayerStack(Size(320, 240), layers, metadata)


def stored(layer: Layer) -> Layer:
    """What a PSD holds of `layer`: cropped to its content, or one transparent pixel."""
    ys, xs = np.nonzero(layer.pixels[..., 3])
    if ys.size == 0:
        return Layer(np.zeros((1, 1, 4), np.uint8), layer.x, layer.y, layer.name)
    top, bottom, left, right = ys.min(), ys.max() + 1, xs.min(), xs.max() + 1
    pixels = layer.pixels[top:bottom, left:right].copy()
    pixels[pixels[..., 3] == 0] = 0
    return Layer(pixels, layer.x + int(left), layer.y + int(top), layer.name)


def mask_group(group: PSDGroup, levels: Image.Image) -> None:
    """Give a psd-tools group a mask at its document's origin."""
    group.create_mask(levels, top=0, left=0)
    info = group._psd._record.layer_and_mask_information.layer_info
    for index, (record, channels) in enumerate(zip(info.layer_records, info.channel_image_data, strict=True)):
        # The group's start shares its list of channels, and now has one more than its record says.
        info.channel_image_data[index] = ChannelDataList(list(channels)[: len(record.channel_info)])


def mask_by_path(layer: PSDLayer, disabled: bool = False) -> None:
    """Give a psd-tools layer a rectangular vector mask from 0.2 to 0.6 of the document's width and height."""
    corners = [(y, x) for y, x in ((0.2, 0.2), (0.2, 0.6), (0.6, 0.6), (0.6, 0.2))]
    knots = [ClosedKnotLinked(corner, corner, corner) for corner in corners]
    path = VectorPath([PathFillRule(), InitialFillRule(0), ClosedPath(items=knots, operation=1, index=0)])
    mask = VectorMaskSetting(path=path, flags=4 * disabled)
    layer.tagged_blocks[Tag.VECTOR_MASK_SETTING1] = TaggedBlock(key=Tag.VECTOR_MASK_SETTING1, data=mask)


def names(nodes: tuple[Layer | Group, ...]) -> list[str]:
    """The names of all layers and groups, bottom to top, a group after its content."""
    found = []
    for node in nodes:
        found += names(node.layers) if isinstance(node, Group) else []
        found.append(node.name)
    return found


def reference(stack: LayerStack) -> np.ndarray:
    """The stack's composite as premultiplied float64 (height, width, 4); knows "normal" and "multiply"."""
    canvas = np.zeros((stack.frame.height, stack.frame.width, 4))
    for node in stack.layers:
        canvas = _draw(canvas, node)
    return canvas


def over_white(premultiplied: np.ndarray) -> np.ndarray:
    """Premultiplied floats in 0..1 to RGB over white in 0..255: (height, width, 3) float64."""
    return (premultiplied[..., :3] + 1 - premultiplied[..., 3:]) * 255


def _draw(canvas: np.ndarray, node: Layer | Group) -> np.ndarray:
    if not node.visible:
        return canvas
    if isinstance(node, Group) and node.blend_mode == "pass-through":
        for child in node.layers:
            canvas = _draw(canvas, child)
        return canvas
    source = np.zeros_like(canvas)
    if isinstance(node, Group):
        for child in node.layers:
            source = _draw(source, child)
    else:
        height, width = canvas.shape[:2]
        for row in range(node.pixels.shape[0]):
            for col in range(node.pixels.shape[1]):
                y, x = node.y + row, node.x + col
                if 0 <= y < height and 0 <= x < width:
                    source[y, x] = node.pixels[row, col] / 255
        source[..., :3] *= source[..., 3:]
    source = source * node.opacity
    alpha, under = source[..., 3:], canvas[..., 3:]
    if node.blend_mode == "multiply":
        mixed = source[..., :3] * (1 - under) + source[..., :3] * canvas[..., :3]
    else:
        mixed = source[..., :3]
    return np.concatenate([canvas[..., :3] * (1 - alpha) + mixed, under + alpha - under * alpha], -1)
