"""Refinement of layers that were taken from an image, so that together they show it.

Where the prediction shows the image already, it is trusted. Where it does not, `segmentation` says which layer every pixel
shows, and alphas follow from the top layer down; what is hidden stays as predicted. Then all change as little as needed,
`wholeness` closes opaque layers and completes what is hidden, and colours settle so that the image is shown again.
A pixel of the flattened stack is sum_k v_k (c_k, 1): straight colours c_k, visible shares v_k = a_k t_k, with t_k what the
layers above let through. Its derivative is v_k for the colour of layer k and t_k ((c_k, 1) - u_k) for its alpha a_k, where
u_k is what is below. Each Gauss-Newton step takes the smallest weighted change of all colours and alphas that brings the
pixel to the image's. Inside a layer that is seen alone only its colours change; on outlines this is the compositing equation
solved for alpha.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import MRTError
from ..geometry import Box, intersection
from ..stacks.layers import Layer, LayerStack, paste, premultiply
from .segmentation import FIT_PIXELS, REACH, ColorModel, fit_colors, segment, thinned
from .wholeness import is_opaque, make_whole

TRUSTED = 0.1  # error of the shown colours, in 0..1, at which a prediction is believed by 1/e
TRUST_REACH = 2  # px over which that error is averaged
SLACK = 0.04  # how much too small a box may be, in parts of the frame's mean side
PAST_BOX = 0.1  # prior of a layer past its box, relative to that inside
FAINT = 0.1  # alpha under which a layer does not count as shown past its box
TRACE = 0.01  # share of what a layer shows that may be cut off at its box
UNEXPECTED = 0.1  # prior of a layer where it was not predicted to be seen
# What the layers above let through: alphas stay as predicted below the first, and are found in the image above the second.
HIDDEN, SEEN = 0.3, 0.7
OPAQUE, TRANSPARENT = 0.98, 0.02  # alphas outside these are not an outline's
MARGIN = max(REACH, TRUST_REACH)  # rows around a band that its labels and its trust depend on
STEPS = 5  # of Gauss-Newton; three leave random full-frame layers up to 0.065 off the image
HALF_LEVEL = 0.5 / 255  # a pixel that is off by no more shows the image
SETTLING = 5  # such steps at the end, on outlines alone, before a last one of colours alone
BACKGROUND_WEIGHT = 1 / 16  # a background goes on beside its layers and is the most certain
DAMPING = 1e-3  # of squared values in 0..1
SURE_ALPHA = 0.25  # from here on, a pixel's own colour is its layer's
COARSE, SPREAD = 32, 4  # px a side of the image in which colours spread, and how far they do
BAND_PIXELS = 2**22  # pixels times layers in a band, without the rows around it


@dataclass
class _Planes:
    """All layers over one band of the frame, bottom to top: colours (K, H, W, 3), alphas (K, H, W) in 0..1, and whether each
    pixel lies inside each layer's box (K, H, W)."""

    color: Tensor
    alpha: Tensor
    inside: Tensor


def match_image(stack: LayerStack, image: np.ndarray, slack: float = SLACK) -> LayerStack:
    """The stack whose flattened frame is `image` (height, width, 4), straight RGBA uint8, as nearly as its boxes allow.

    The lowest layer is taken as the background, and all as they come from a model: visible, blended normally, of opacity 1.
    Boxes may be too small by `slack`, in parts of the frame's mean side: a layer that the image shows past its box grows there.
    Pixels past the frame stay as they are. Where a layer is transparent it has the colours of its surroundings, so that no
    dark fringe comes up when it is scaled or its mask is changed. Raises MRTError for an image of another size than the
    frame.
    """
    height, width = image.shape[:2]
    if (width, height) != tuple(stack.frame):
        raise MRTError(
            f"the image to match is {width} x {height} px, but the layers' frame is {stack.frame.width} x "
            f"{stack.frame.height} px; scale the image to the frame"
        )
    target = torch.from_numpy(premultiply(image))  # (H, W, 4)
    grown = grow(stack, round(slack * (width * height) ** 0.5))
    opaque = [is_opaque(layer.pixels[..., 3].astype(np.float32) / 255) for layer in stack.layers]
    shown = _with_pixels(grown, [spread_colors(layer.pixels) for layer in grown.layers])  # no colour is that of nothing
    whole = make_whole(_segmented(grown, stack, target), shown, image, opaque)
    cut = [cut_back(layer, own.box) for layer, own in zip(whole.layers, stack.layers, strict=True)]
    return _settled(_with_layers(whole, cut), target)


def _segmented(stack: LayerStack, boxed: LayerStack, target: Tensor) -> LayerStack:
    """The stack with the outlines and colours that its layers have in `target` (H, W, 4), premultiplied; `boxed` is the same
    one, grown by nothing."""
    height, width = target.shape[:2]
    filled = [spread_colors(layer.pixels) for layer in stack.layers]
    pixels = [
        np.where(layer.pixels[..., 3:] > 0, layer.pixels, spread)
        for layer, spread in zip(stack.layers, filled, strict=True)
    ]
    for spread in filled:
        spread[..., 3] = 255
    bands = _bands(stack)
    boxes = [layer.box for layer in boxed.layers]
    colors = _fit_colors(stack, filled, boxes, target, bands)
    for top, bottom in bands:
        start, end = max(top - MARGIN, 0), min(bottom + MARGIN, height)
        planes = _planes(stack, filled, Box(0, start, width, end - start))
        likely = _likely(boxes, Box(0, start, width, end - start))
        _take_apart(planes, target[start:end], colors, likely)
        refined = torch.cat([planes.color, planes.alpha[..., None]], -1)[:, top - start : bottom - start]
        for layer, own, shown in zip(stack.layers, pixels, refined, strict=True):
            _write_back(layer, own, shown, Box(0, top, width, bottom - top))
    return _with_pixels(stack, pixels)


def _settled(stack: LayerStack, target: Tensor) -> LayerStack:
    """The stack with its colours, and alphas on outlines, changed as little as shows `target` (H, W, 4), premultiplied."""
    width = target.shape[1]
    pixels = [layer.pixels.copy() for layer in stack.layers]
    filled = [_opaque(layer.pixels) for layer in stack.layers]
    for top, bottom in _bands(stack):
        planes = _planes(stack, filled, Box(0, top, width, bottom - top))
        weight = torch.ones(len(pixels), 1, 1)
        with _wrong_pixels(planes, target[top:bottom]) as (part, shown, _):
            for _ in range(SETTLING):
                _step(part, shown, weight, part.inside * _outline(part.alpha))
            _step(part, shown, weight, torch.zeros_like(part.alpha))
        refined = torch.cat([planes.color, planes.alpha[..., None]], -1)
        for layer, own, shown in zip(stack.layers, pixels, refined, strict=True):
            _write_back(layer, own, shown, Box(0, top, width, bottom - top))
    return _with_pixels(stack, pixels)


@contextmanager
def _wrong_pixels(planes: _Planes, target: Tensor) -> Iterator[tuple[_Planes, Tensor, Tensor]]:
    """The P pixels at which the flattened layers do not show `target` (H, W, 4), to be changed: their planes (K, 1, P), what
    they are to show (1, P, 4), and which they are (H, W)."""
    wrong = (_flatten(_solid(planes.color), planes.alpha)[1] - target).abs().amax(-1) > HALF_LEVEL  # (H, W)
    part = _Planes(*(plane[:, wrong][:, None] for plane in (planes.color, planes.alpha, planes.inside)))
    yield part, target[wrong][None], wrong
    planes.color[:, wrong], planes.alpha[:, wrong] = part.color[:, 0], part.alpha[:, 0]


def _show_alone(planes: _Planes, target: Tensor) -> None:
    """Give layers the colours of `target` (H, W, 4) where they are seen alone."""
    share, layer = (planes.alpha * _let_through(planes.alpha)).max(0)  # (H, W)
    alone = (share > OPAQUE) & (target[..., 3] > OPAQUE)
    planes.color[layer[alone], *alone.nonzero(as_tuple=True)] = target[alone][:, :3]


def _bands(stack: LayerStack) -> list[tuple[int, int]]:
    """First and last row of the bands that the frame is worked on in, so that memory stays bounded."""
    width, height = stack.frame
    rows = max(1, BAND_PIXELS // (width * len(stack.layers)))
    return [(top, min(top + rows, height)) for top in range(0, height, rows)]


def _with_pixels(stack: LayerStack, pixels: list[np.ndarray]) -> LayerStack:
    return _with_layers(stack, [replace(x, pixels=own) for x, own in zip(stack.layers, pixels, strict=True)])


def _with_layers(stack: LayerStack, layers: list[Layer]) -> LayerStack:
    return replace(stack, layers=tuple(layers))


def grow(stack: LayerStack, margin: int) -> LayerStack:
    """The stack with `margin` px of transparency around every layer but the background."""
    ground, *layers = stack.layers
    grown = [
        replace(
            x, pixels=np.pad(x.pixels, ((margin, margin), (margin, margin), (0, 0))), x=x.x - margin, y=x.y - margin
        )
        for x in layers
    ]
    return _with_layers(stack, [ground, *grown])


def cut_back(layer: Layer, box: Box) -> Layer:
    """A layer cut to its `box`, or to that and what it shows past it where that is more than a trace."""
    alpha = layer.pixels[..., 3]
    shown = alpha > 255 * FAINT
    rows, columns = np.flatnonzero(shown.any(1)), np.flatnonzero(shown.any(0))
    top, left = int(box.y) - layer.y, int(box.x) - layer.x
    bottom, right = top + int(box.height), left + int(box.width)
    inside = alpha[top:bottom, left:right].sum(dtype=np.int64)
    if alpha.sum(dtype=np.int64) - inside > TRACE * inside:
        top, bottom = min(top, int(rows[0])), max(bottom, int(rows[-1]) + 1)
        left, right = min(left, int(columns[0])), max(right, int(columns[-1]) + 1)
    return replace(layer, pixels=layer.pixels[top:bottom, left:right].copy(), x=layer.x + left, y=layer.y + top)


def _opaque(pixels: np.ndarray) -> np.ndarray:
    opaque = pixels.copy()
    opaque[..., 3] = 255
    return opaque


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
    """The layers over `area`; `filled` are their pixels made opaque."""
    color, alpha, inside = [], [], []
    for layer, pixels in zip(stack.layers, filled, strict=True):
        shown = torch.from_numpy(paste(replace(layer, pixels=pixels), area))
        color.append(shown[..., :3])
        inside.append(shown[..., 3])
        alpha.append(torch.from_numpy(paste(layer, area)[..., 3]))
    return _Planes(torch.stack(color), torch.stack(alpha), torch.stack(inside))


def _fit_colors(
    stack: LayerStack, filled: list[np.ndarray], boxes: list[Box], target: Tensor, bands: list[tuple[int, int]]
) -> ColorModel:
    """The colours that layers show in `target` (H, W, 4), from pixels of all bands, which are drawn band by band."""
    pixels, prior, most = [], [], max(FIT_PIXELS // len(bands), 1)
    for top, bottom in bands:
        area = Box(0, top, target.shape[1], bottom - top)
        likely = _prior(_planes(stack, filled, area)) * _likely(boxes, area)
        prior.append(thinned(likely.flatten(1).T, most))  # (P, K)
        pixels.append(thinned(target[top:bottom].flatten(0, 1), most))  # (P, 4)
    return fit_colors(torch.cat(pixels), torch.cat(prior))


def _let_through(alpha: Tensor) -> Tensor:
    """What the layers above each of (K, ...) let through (K, ...)."""
    above = torch.cumprod(1 - alpha.flip(0), 0).flip(0)  # layer k and all above it
    return torch.cat([above[1:], torch.ones_like(above[:1])])


def _flatten(solid: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
    """What lies below each of the layers `solid` (K, H, W, 4), and all of them flattened (H, W, 4), both premultiplied."""
    merged, below = torch.zeros_like(solid[0]), []
    for own, share in zip(solid, alpha, strict=True):
        below.append(merged)
        merged = merged + share[..., None] * (own - merged)
    return torch.stack(below), merged


def _solid(color: Tensor) -> Tensor:
    """Colours (K, H, W, 3) as opaque layers (K, H, W, 4): (c_k, 1)."""
    return F.pad(color, (0, 1), value=1.0)


def _prior(planes: _Planes) -> Tensor:
    """How likely each layer is to be seen (K, H, W), not normalised: only inside its box; the background everywhere."""
    through = _let_through(planes.alpha)
    seen = torch.cat([through[:1], (planes.alpha * through)[1:]])
    return (seen + UNEXPECTED) * torch.cat([torch.ones_like(through[:1]), planes.inside[1:]])


def _likely(boxes: list[Box], area: Box) -> Tensor:
    """How much likelier a layer is seen in its box than past it: (K, H, W) over `area`, 1 or PAST_BOX."""
    maps = torch.full((len(boxes), int(area.height), int(area.width)), PAST_BOX)
    for own, box in zip(maps, boxes, strict=True):
        inside = intersection(box, area)
        if inside is not None:
            y, x = int(inside.y - area.y), int(inside.x - area.x)
            own[y : y + int(inside.height), x : x + int(inside.width)] = 1
    return maps


def _trust(planes: _Planes, target: Tensor) -> Tensor:
    """How far the prediction is to be believed (H, W), in 0..1, by how nearly it shows `target` (H, W, 4)."""
    merged = _flatten(_solid(planes.color), planes.alpha)[1]
    error = (merged - target).square().sum(-1)[None]  # (1, H, W)
    error = F.avg_pool2d(error, 2 * TRUST_REACH + 1, 1, TRUST_REACH, count_include_pad=False)[0]
    return torch.exp(-error / TRUSTED**2)


def _take_apart(planes: _Planes, target: Tensor, colors: ColorModel, likely: Tensor) -> None:
    """Change `planes` in place so that they nearly show `target` (H, W, 4), premultiplied."""
    trust = _trust(planes, target)
    shares = segment(colors, target.permute(2, 0, 1), _prior(planes) * likely) * target[..., 3]
    planes.alpha += (1 - trust) * (_alphas(shares, planes) - planes.alpha)
    _show_alone(planes, target)
    weight = torch.ones(len(shares), 1, 1)
    weight[0] = BACKGROUND_WEIGHT
    with _wrong_pixels(planes, target) as (part, shown, wrong):
        free = torch.where(_outline(part.alpha), 1.0, trust[wrong])  # (K, 1, P)
        for _ in range(STEPS):
            _step(part, shown, weight, weight * part.inside * free)


def _outline(alpha: Tensor) -> Tensor:
    """Where alphas are neither those of nothing nor of everything."""
    return (alpha > TRANSPARENT) & (alpha < OPAQUE)


def _alphas(shares: Tensor, planes: _Planes) -> Tensor:
    """The alphas (K, H, W) at which layers have these shares of the image, from the top one down; as predicted where hidden."""
    alpha, left = planes.alpha.clone(), torch.ones_like(shares[0])
    for k in reversed(range(len(alpha))):
        known = (left - HIDDEN).div(SEEN - HIDDEN).clamp(0, 1)
        alpha[k] += known * ((shares[k] / left.clamp_min(1e-3)).clamp(max=1) - alpha[k])
        left = (left - shares[k]).clamp_min(0)
    return alpha * planes.inside


def _step(planes: _Planes, target: Tensor, color_weight: Tensor, alpha_weight: Tensor) -> None:
    """One Gauss-Newton step; weights (K, 1, 1) and (K, H, W) say how readily colours and alphas change."""
    color, alpha = planes.color, planes.alpha
    solid = _solid(color)
    below, merged = _flatten(solid, alpha)
    through = _let_through(alpha)  # (K, H, W): t_k
    visible = alpha * through  # (K, H, W): v_k
    slope = through[..., None] * (solid - below)  # (K, H, W, 4): of the merged pixel in a_k
    gram = torch.einsum("k...,k...i,k...j->...ij", alpha_weight, slope, slope)  # (H, W, 4, 4)
    colors = F.pad((color_weight * visible.square()).sum(0)[..., None].expand(-1, -1, 3), (0, 1))  # (H, W, 4)
    gram += torch.diag_embed(colors + DAMPING)
    force = torch.linalg.solve(gram, target - merged)  # (H, W, 4)
    planes.alpha = (alpha + alpha_weight * torch.einsum("k...i,...i->k...", slope, force)).clamp(0, 1)
    planes.color = (color + (color_weight * visible)[..., None] * force[..., :3]).clamp(0, 1)


def _write_back(layer: Layer, pixels: np.ndarray, refined: Tensor, area: Box) -> None:
    """Put `refined` (h, w, 4) of `area` into the layer's own `pixels` where the two overlap."""
    x, y = layer.x, layer.y - int(area.y)  # the layer's corner in the area
    left, top = max(x, 0), max(y, 0)
    right, bottom = min(x + pixels.shape[1], int(area.width)), min(y + pixels.shape[0], int(area.height))
    if right > left and bottom > top:
        part = (255 * refined[top:bottom, left:right]).round().byte().numpy()
        pixels[top - y : bottom - y, left - x : right - x] = part
