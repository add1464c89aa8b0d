"""The peer without a model: GrabCut in every box (Rother et al., 2004), and inpainting of what was taken out (Telea, 2004).

From the top layer down, what GrabCut finds in a layer's box becomes the layer, with the picture's colours; it is inpainted,
and the next layer is looked for in the picture that this leaves. What remains at last is the background. Nothing is known of
what lies past the frame.
"""

import cv2
import numpy as np

from mrt_core.evaluation.metrics import over_white
from mrt_core.geometry import Box, intersection, whole_pixels
from mrt_core.layouts.layout import Layout, Region
from mrt_core.stacks.layers import Layer, LayerStack

ITERATIONS = 5
INPAINT_RADIUS = 3  # px
SMALLEST_SIDE = 4  # px; a smaller box is taken whole
EDGE, EDGE_SIGMA = (3, 3), 0.45  # px, of the blur that softens the mask; of those tried the one that is best for it


def take_apart(image: np.ndarray, layout: Layout, seed: int = 0) -> LayerStack:
    """The layers of `image` (height, width, 4), straight RGBA uint8 of the frame's size; `seed` is for GrabCut's clustering."""
    cv2.setRNGSeed(seed)
    picture, layers = image.copy(), []
    for region in reversed(layout.regions):
        alpha = found_alpha(picture, region.box)
        layers.append(_layer(region, picture, alpha))
        picture = inpainted(picture, alpha > 0)
    background = _layer(layout.background_region, picture, picture[..., 3])
    return LayerStack(layout.frame, (background, *reversed(layers)))


def found_alpha(picture: np.ndarray, box: Box) -> np.ndarray:
    """The alpha (height, width) uint8 of what GrabCut finds in a box of a picture: straight RGBA uint8 (height, width, 4).

    All of the box where it is too small, leaves nothing around it, or holds nothing that GrabCut tells from its surroundings.
    """
    height, width = picture.shape[:2]
    mask = np.zeros((height, width), np.uint8)
    shown = intersection(whole_pixels(box), Box(0, 0, width, height))
    if shown is None:
        return mask
    left, top, right, bottom = (int(edge) for edge in (shown.x, shown.y, shown.right, shown.bottom))
    inside = np.s_[top:bottom, left:right]
    if min(right - left, bottom - top) < SMALLEST_SIDE or (right - left, bottom - top) == (width, height):
        mask[inside] = 255
        return mask
    colors = np.rint(255 * over_white(picture)).astype(np.uint8)[..., ::-1].copy()
    models = np.zeros((2, 1, 65))
    rectangle = (left, top, right - left, bottom - top)
    cv2.grabCut(colors, mask, rectangle, models[0], models[1], ITERATIONS, cv2.GC_INIT_WITH_RECT)
    found = np.isin(mask, (cv2.GC_FGD, cv2.GC_PR_FGD))
    if not found.any():
        found[inside] = True
    softened = cv2.GaussianBlur(255 * found.astype(np.uint8), EDGE, EDGE_SIGMA)
    alpha = np.zeros_like(softened)
    alpha[inside] = softened[inside]
    return alpha


def inpainted(picture: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """The picture (height, width, 4) with what `hole` (height, width) marks filled in from around it; a copy of it where
    nothing is around."""
    filled = picture.copy()
    if hole.all() or not hole.any():
        return filled
    hole = hole.astype(np.uint8)
    filled[..., :3] = cv2.inpaint(np.ascontiguousarray(picture[..., :3]), hole, INPAINT_RADIUS, cv2.INPAINT_TELEA)
    filled[..., 3] = cv2.inpaint(np.ascontiguousarray(picture[..., 3]), hole, INPAINT_RADIUS, cv2.INPAINT_TELEA)
    return filled


def _layer(region: Region, picture: np.ndarray, alpha: np.ndarray) -> Layer:
    """The picture's colours with an alpha, both of the frame's size, cut to a region's box."""
    box = whole_pixels(region.box)
    pixels = np.zeros((int(box.height), int(box.width), 4), np.uint8)
    shown = intersection(box, Box(0, 0, alpha.shape[1], alpha.shape[0]))
    if shown is not None:
        left, top, right, bottom = (int(edge) for edge in (shown.x, shown.y, shown.right, shown.bottom))
        x, y = int(box.x), int(box.y)
        part = pixels[top - y : bottom - y, left - x : right - x]
        part[..., :3] = picture[top:bottom, left:right, :3]
        part[..., 3] = alpha[top:bottom, left:right]
    return Layer(pixels, int(box.x), int(box.y), region.name, region.caption)
