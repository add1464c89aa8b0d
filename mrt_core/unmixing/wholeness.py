"""Whole layers: a layer that its model made opaque is opaque inside its outline, and goes on where it is hidden.

A segmentation decides pixel by pixel, so solid drawings come out with holes where they have a colour of what is below, and
what lies on them leaks into them. Here the model's own alpha says which layers are opaque. From the top one down, such a
layer takes what its outline encloses; under other layers it is completed to its convex hull, or to what the model drew if
that is more. Words, soft and semi-transparent layers stay as they were found. The background under layers is the model's,
moved to meet the picture where it can be seen.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

from ..geometry import Box, frame_box, intersection
from ..stacks.layers import Layer, LayerStack

SHOWN = 0.5  # alpha from which on a pixel counts as the layer's, and as covering what is below
OPAQUE_MEAN = 0.85  # mean alpha, where it is above SHOWN, of a layer that its model made opaque
OPAQUE_SHARE = 0.38  # of its box that such a layer at least shows: less is writing or a thin frame
SURE = 0.9  # the model's alpha from which on it is believed about a hole,
ALIKE = 30  # where its colours are off by fewer levels of 255
RIM = 2  # px inside an outline that keep the alpha they were found with
SOLID = 0.98  # alpha from which on nothing is seen through, and share of light that nothing lies before
SMOOTH = 15 / 256  # deviation of the background's correction, in parts of the frame's mean side
REACHES = (8, 4, 2, 1)  # the same, in turn: what stands in the middle of a large layer is far from all that can be seen
LITTLE = 0.02  # share of visible pixels under which the wider reach counts
COARSE = 256  # px a side at which that correction is computed


def make_whole(found: LayerStack, predicted: LayerStack, image: np.ndarray, opaque: Sequence[bool]) -> LayerStack:
    """`found`, layers as a segmentation of `image` (height, width, 4) gave them, with opaque layers whole.

    `predicted` is the same stack as its model made it, the background lowest, with colours where it is transparent too; `opaque`
    says which layers are (`is_opaque`). Only pixels inside the frame change, where the image is opaque. Flattened, the result
    shows the image no longer exactly.
    """
    opaque_image = image[..., 3] >= 255 * SOLID  # (H, W)
    through = np.ones(image.shape[:2], np.float32)  # what the layers above let through
    layers = []
    for layer, own, solid in zip(*(reversed(x[1:]) for x in (found.layers, predicted.layers, opaque)), strict=True):
        area = intersection(layer.box, frame_box(found.frame))
        if area is None:
            layers.append(layer)
            continue
        rows, columns = (slice(int(a), int(a + b)) for a, b in ((area.y, area.height), (area.x, area.width)))
        part = _Part(layer, own, area)
        pixels = part.seen(through[rows, columns])
        if solid:
            pixels = part.whole(pixels, image[rows, columns], through[rows, columns], opaque_image[rows, columns])
        layers.append(part.replaced(pixels))
        through[rows, columns] *= 1 - pixels[..., 3] / np.float32(255)
    ground = _continued(found.layers[0], predicted.layers[0], found, image, through * opaque_image)
    return replace(found, layers=(ground, *reversed(layers)))


class _Part:
    """What of a layer lies inside the frame: as it was found and as it was predicted, (h, w, 4) uint8 each."""

    def __init__(self, layer: Layer, predicted: Layer, area: Box):
        self.layer = layer
        y, x = int(area.y) - layer.y, int(area.x) - layer.x
        self.place = slice(y, y + int(area.height)), slice(x, x + int(area.width))
        self.found, self.predicted = layer.pixels[self.place], predicted.pixels[self.place]

    def replaced(self, pixels: np.ndarray) -> Layer:
        """The whole layer with `pixels` (h, w, 4) here."""
        whole = self.layer.pixels.copy()
        whole[self.place] = pixels
        return replace(self.layer, pixels=whole)

    def seen(self, through: np.ndarray) -> np.ndarray:
        """As found where the layers above let enough `through` (h, w), elsewhere as predicted."""
        return np.where((through < SHOWN)[..., None], self.predicted, self.found)

    def whole(self, pixels: np.ndarray, image: np.ndarray, through: np.ndarray, opaque_image: np.ndarray) -> np.ndarray:
        """`pixels` (h, w, 4) of an opaque layer made whole, given `image` (h, w, 4) and what the layers above let through."""
        model, hidden = self.predicted[..., 3].astype(np.float32) / 255, through < SHOWN
        shown = (self.found[..., 3] > 255 * SHOWN) & ~hidden
        near = np.abs(self.predicted[..., :3].astype(np.int16) - image[..., :3]).max(-1) < ALIKE
        shown |= convex_hull(shown) & (model > SURE) & near & ~hidden
        core = _eroded(shown | hidden & (model > SHOWN)) & ~hidden & opaque_image
        pixels[core] = image[core]
        around = ~_dilated(shown) & ~hidden & opaque_image
        pixels[around, 3] = 0
        completed = hidden & convex_hull(shown | (model > SHOWN))
        pixels[completed, 3] = 255
        return pixels


def is_opaque(alpha: np.ndarray) -> bool:
    """Whether a model meant a layer to be opaque, by its alpha (h, w) in 0..1 inside the layer's box."""
    shown = alpha[alpha > SHOWN]
    return len(shown) >= OPAQUE_SHARE * alpha.size and float(shown.mean()) > OPAQUE_MEAN


def convex_hull(mask: np.ndarray) -> np.ndarray:
    """The pixels (h, w) bool of the convex hull of a mask (h, w) bool; of an empty one, none."""
    rows = np.flatnonzero(mask.any(1))
    if not len(rows):
        return np.zeros_like(mask)
    first, last = mask[rows].argmax(1), mask.shape[1] - 1 - mask[rows, ::-1].argmax(1)
    left = _chain(np.stack([first, rows], 1).tolist(), 1)
    right = _chain(np.stack([last, rows], 1).tolist(), -1)
    page = Image.new("1", mask.shape[::-1])
    ImageDraw.Draw(page).polygon([tuple(point) for point in (*left, *reversed(right))], fill=1, outline=1)
    return np.asarray(page) | mask


def _chain(points: list[list[int]], side: int) -> list[list[int]]:
    """The points (x, y), from top to bottom, that bound all of them on the left (`side` 1) or on the right (-1)."""
    chain: list[list[int]] = []
    for point in points:
        while len(chain) > 1 and side * _turn(chain[-2], chain[-1], point) <= 0:
            chain.pop()
        chain.append(point)
    return chain


def _turn(a: list[int], b: list[int], c: list[int]) -> int:
    """Above 0 where the way from a over b to c, y pointing down, leaves b to the left of the line from a to c."""
    return (b[1] - a[1]) * (c[0] - a[0]) - (b[0] - a[0]) * (c[1] - a[1])


def _dilated(mask: np.ndarray) -> np.ndarray:
    """`mask` (h, w) bool and RIM px around it."""
    maps = torch.from_numpy(mask.astype(np.float32))[None]
    return F.max_pool2d(maps, 2 * RIM + 1, 1, RIM)[0].numpy() > 0


def _eroded(mask: np.ndarray) -> np.ndarray:
    """`mask` (h, w) bool without the RIM px inside its outline; what leaves the box has no outline there."""
    return ~_dilated(~mask)


def _continued(found: Layer, predicted: Layer, stack: LayerStack, image: np.ndarray, visible: np.ndarray) -> Layer:
    """The background as found where it is `visible` (H, W), elsewhere the model's, moved by a smooth continuation of the
    difference between image and model from where nothing is near."""
    area = frame_box(stack.frame)
    if not (predicted.box == area and found.box == area):  # a background of another size is left as it was found
        return found
    free = torch.from_numpy(_eroded(visible > SOLID).astype(np.float32))[None, None]  # (1, 1, H, W)
    picture, model = (torch.from_numpy(x[..., :3].astype(np.float32)) for x in (image, predicted.pixels))
    difference = (picture - model).permute(2, 0, 1)[None] * free  # (1, 3, H, W)
    size = [min(side, COARSE) for side in free.shape[2:]]
    coarse = F.adaptive_avg_pool2d(torch.cat([difference, free], 1), size)  # (1, 4, h, w)
    correction = torch.zeros_like(coarse[:, :3])
    for reach in REACHES:  # what is near counts where there is something near
        near = _blurred(coarse, max(1, round(reach * SMOOTH * (size[0] * size[1]) ** 0.5)))
        correction = (near[:, :3] + LITTLE * correction) / (near[:, 3:] + LITTLE)
    correction = F.interpolate(correction, size=free.shape[2:], mode="bilinear")
    moved = (model + correction[0].permute(1, 2, 0)).round().clamp(0, 255).byte().numpy()
    pixels, share = found.pixels.copy(), visible[..., None]
    pixels[..., :3] = np.rint(share * pixels[..., :3] + (1 - share) * moved)
    return replace(found, pixels=pixels)


def _blurred(maps: Tensor, deviation: int) -> Tensor:
    """Maps (1, C, h, w) blurred nearly as by a Gaussian of `deviation` px: three box filters, with zeros around."""
    side = 2 * deviation + 1  # three of them have the variance of `deviation` squared, and a little more
    for _ in range(3):
        maps = F.avg_pool2d(F.avg_pool2d(maps, (side, 1), 1, (deviation, 0)), (1, side), 1, (0, deviation))
    return maps
