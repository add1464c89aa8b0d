"""Refinement of layers that were taken from an image: they change as little as needed to show that image together.

A pixel of the flattened stack is sum_k v_k (c_k, 1): straight colours c_k, visible shares v_k = a_k t_k, with t_k what the
layers above let through. Its derivative is v_k for the colour of layer k and t_k ((c_k, 1) - u_k) for its alpha a_k, where
u_k is what is below. Each Gauss-Newton step takes the smallest weighted change of all colours and alphas that brings the
pixel to the image's. Where a layer's own colour is known and differs from what lies below, this is the compositing equation
solved for alpha, so that outlines become as sharp as the image's; where it does not, the prediction stays.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import MRTError
from .geometry import Box
from .layers import Layer, LayerStack, paste, premultiply

STEPS = 5
ALPHA_WEIGHT = 16.0  # a predicted alpha is less certain than a predicted colour, by the ratio of the squared changes
BACKGROUND_WEIGHT = 1 / 16  # a background goes on beside its layers and is the most certain
DAMPING = 1e-3  # of squared values in 0..1
SURE_ALPHA = 0.25  # from here on, a pixel's own colour is its layer's
COARSE, SPREAD = 32, 4  # px a side of the image in which colours spread, and how far they do
BAND_PIXELS = 2**22  # values of pixels times layers at once


@dataclass
class _Planes:
    """All layers over one band of the frame, bottom to top: colours (K, P, 3), alphas (K, P) in 0..1, and whether each
    pixel lies inside each layer's box (K, P)."""

    color: Tensor
    alpha: Tensor
    inside: Tensor


def match_image(stack: LayerStack, image: np.ndarray) -> LayerStack:
    """The stack whose flattened frame is `image` (height, width, 4), straight RGBA uint8, as nearly as its boxes allow.

    The lowest layer is taken as the background. Pixels past the frame stay as they are. Where a layer is transparent it has
    the colours of its surroundings, so that no dark fringe comes up when it is scaled or its mask is changed. Raises
    MRTError for an image of another size than the frame.
    """
    height, width = image.shape[:2]
    if (width, height) != tuple(stack.frame):
        raise MRTError(
            f"the image to match is {width} x {height} px, but the layers' frame is {stack.frame.width} x "
            f"{stack.frame.height} px; scale the image to the frame"
        )
    filled = [spread_colors(layer.pixels) for layer in stack.layers]
    pixels = [
        np.where(layer.pixels[..., 3:] > 0, layer.pixels, spread)
        for layer, spread in zip(stack.layers, filled, strict=True)
    ]
    target = torch.from_numpy(premultiply(image))  # (H, W, 4)
    rows = max(1, BAND_PIXELS // (width * len(stack.layers)))
    for top in range(0, height, rows):
        area = Box(0, top, width, min(rows, height - top))
        planes = _planes(stack, filled, area)
        _refine(planes, target[top : top + int(area.height)].reshape(-1, 4))
        for layer, own, color, alpha in zip(stack.layers, pixels, planes.color, planes.alpha, strict=True):
            _write_back(layer, own, torch.cat([color, alpha[:, None]], -1).view(int(area.height), width, 4), area)
    return replace(stack, layers=tuple(replace(x, pixels=own) for x, own in zip(stack.layers, pixels, strict=True)))


def spread_colors(pixels: np.ndarray) -> np.ndarray:
    """Straight RGBA (h, w, 4) uint8 with colours of the neighbourhood where it is transparent; alpha stays."""
    size = pixels.shape[:2]
    image = torch.from_numpy(premultiply(pixels)).permute(2, 0, 1)[None]  # (1, 4, h, w)
    coarse = F.adaptive_avg_pool2d(image, [min(side, COARSE) for side in size])
    near = F.avg_pool2d(coarse, 2 * SPREAD + 1, 1, SPREAD) + 1e-6 * image.mean((2, 3), keepdim=True)
    near = F.interpolate(near, size=size, mode="bilinear")
    around = near[:, :3] / near[:, 3:].clamp_min(1e-12)
    alpha = image[:, 3:]
    own = image[:, :3] / alpha.clamp_min(1e-6)
    share = (alpha / SURE_ALPHA).clamp(max=1)
    color = own * share + around * (1 - share)  # (1, 3, h, w)
    spread = pixels.copy()
    spread[..., :3] = (255 * color[0]).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
    return spread


def _planes(stack: LayerStack, filled: list[np.ndarray], area: Box) -> _Planes:
    color, alpha, inside = [], [], []
    for layer, pixels in zip(stack.layers, filled, strict=True):
        opaque = pixels.copy()
        opaque[..., 3] = 255
        shown = torch.from_numpy(paste(replace(layer, pixels=opaque, opacity=1.0), area)).reshape(-1, 4)
        color.append(shown[:, :3])
        inside.append(shown[:, 3])
        alpha.append(torch.from_numpy(paste(replace(layer, opacity=1.0), area)[..., 3]).reshape(-1))
    return _Planes(torch.stack(color), torch.stack(alpha), torch.stack(inside))


def _refine(planes: _Planes, target: Tensor) -> None:
    """Change `planes` in place towards `target` (P, 4), premultiplied; the last step moves colours alone."""
    count = len(planes.color)
    weight = torch.ones(count, 1)
    weight[0] = BACKGROUND_WEIGHT
    for _ in range(STEPS):
        _step(planes, target, weight, ALPHA_WEIGHT * weight * planes.inside)
    _step(planes, target, torch.ones(count, 1), torch.zeros_like(planes.inside))


def _step(planes: _Planes, target: Tensor, color_weight: Tensor, alpha_weight: Tensor) -> None:
    color, alpha = planes.color, planes.alpha
    solid = F.pad(color, (0, 1), value=1.0)  # (K, P, 4): (c_k, 1)
    merged, below = torch.zeros_like(target), []
    for own, share in zip(solid, alpha, strict=True):
        below.append(merged)
        merged = merged + share[:, None] * (own - merged)
    above = torch.cumprod(1 - alpha.flip(0), 0).flip(0)  # (K, P): layer k and all above it
    through = torch.cat([above[1:], torch.ones_like(above[:1])])  # (K, P): t_k
    visible = alpha * through  # (K, P): v_k
    slope = through[..., None] * (solid - torch.stack(below))  # (K, P, 4): of the merged pixel in a_k
    gram = torch.einsum("kp,kpi,kpj->pij", alpha_weight, slope, slope)  # (P, 4, 4)
    colors = F.pad((color_weight * visible.square()).sum(0)[:, None].expand(-1, 3), (0, 1))  # (P, 4)
    gram += torch.diag_embed(colors + DAMPING)
    force = torch.linalg.solve(gram, target - merged)  # (P, 4)
    planes.alpha = (alpha + alpha_weight * torch.einsum("kpi,pi->kp", slope, force)).clamp(0, 1)
    planes.color = (color + (color_weight * visible)[..., None] * force[:, :3]).clamp(0, 1)


def _write_back(layer: Layer, pixels: np.ndarray, refined: Tensor, area: Box) -> None:
    """Put `refined` (h, w, 4) of `area` into the layer's own `pixels` where the two overlap."""
    x, y = layer.x, layer.y - int(area.y)  # the layer's corner in the area
    left, top = max(x, 0), max(y, 0)
    right, bottom = min(x + pixels.shape[1], int(area.width)), min(y + pixels.shape[0], int(area.height))
    if right > left and bottom > top:
        part = (255 * refined[top:bottom, left:right]).round().byte().numpy()
        pixels[top - y : bottom - y, left - x : right - x] = part
