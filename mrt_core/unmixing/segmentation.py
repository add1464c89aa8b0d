"""Which layer every pixel of an image shows: a soft segmentation that starts from predicted layers and their boxes.

As in GrabCut (Rother et al., 2004), but with a label for every layer and shares in place of a cut. Every layer has a histogram
of the colours that it shows; a pixel goes to the layers in whose boxes it lies by the prior from the prediction times the
likelihood of its colour, and the histograms are counted again. Then neighbours decide together: pixels of alike colour have
alike labels, a colour between those on either side is an outline inside their layer, and where two layers meet, the share of
each follows from the compositing equation with the colours that they have next to it.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

COLORS = 64  # of a palette
COLOR_SPREAD = 0.05  # distance of colours in 0..1 over which the counts of a palette are shared
SHARPNESS = 3  # power of the likelihood: neighbouring pixels agree, so that one counts for several
UNSEEN = 0.02  # likelihood of a colour that a layer has not shown yet
ITERATIONS = 6
PALETTE_PIXELS, FIT_PIXELS = 2**12, 2**16  # evenly spread pixels that are enough for a palette and for histograms
ALIKE, ALIKE_REACH = 0.08, 2  # distance of alike colours, and in px of the neighbours that they are looked for in
OUTLINE_REACH = 2  # px from an outline's pixel to the colours on either side
OUTLINE_TOLERANCE = 5e-4  # of squared colour differences
CERTAIN, UNCERTAIN = 0.9, 0.5  # from the second up, a share that both sides have counts, from the first fully
FLAT = 3e-3  # squared distance of two colours under which they cannot tell shares apart
UNMIX_REACH = 2  # px
REACH = OUTLINE_REACH + ALIKE_REACH + UNMIX_REACH  # px: labels depend on nothing farther away, but for the histograms
GOLDEN_RATIO = 0.5 * (5**0.5 - 1)


class ColorModel(NamedTuple):
    """The colours that layers show: a palette (M, 4), premultiplied RGBA, and every entry's likelihood by layer (M, K)."""

    palette: Tensor
    likelihood: Tensor

    def posterior(self, image: Tensor, prior: Tensor) -> Tensor:
        """Shares (K, H, W) of the layers in every pixel of `image` (4, H, W) given `prior` (K, H, W), each adding up to 1."""
        nearest = _nearest(image.flatten(1).T, self.palette).view(image.shape[1:])
        return _shares(prior * self.likelihood[nearest].permute(2, 0, 1))


def fit_colors(pixels: Tensor, prior: Tensor) -> ColorModel:
    """The colours of K layers from pixels (P, 4) and the prior (P, K) that each of them shows each layer."""
    palette = _palette(thinned(pixels, PALETTE_PIXELS))
    nearest = _nearest(pixels, palette)
    alike = torch.exp(-torch.cdist(palette, palette).square() / (2 * COLOR_SPREAD**2))  # (M, M)
    shares = prior
    for _ in range(ITERATIONS):
        counts = pixels.new_zeros(len(palette), prior.shape[1]).index_add_(0, nearest, shares)  # (M, K)
        likelihood = (alike @ counts / (counts.sum(0) + 1e-3) + UNSEEN) ** SHARPNESS
        shares = _shares(prior * likelihood[nearest], dim=1)
    return ColorModel(palette, likelihood)


def segment(model: ColorModel, image: Tensor, prior: Tensor) -> Tensor:
    """Shares (K, H, W) of the layers in every pixel of `image` (4, H, W), premultiplied RGBA; they add up to 1.

    `prior` (K, H, W) is how likely each layer is to be seen; where it is 0, its share is 0.
    """
    if len(prior) == 1:
        return torch.ones_like(prior)
    possible = prior > 0
    shares = model.posterior(image, prior)
    for step in (_join_outlines, _join_alike, _unmix):
        shares = _shares(step(shares, image, possible) * possible)
    return shares


def thinned(rows: Tensor, most: int) -> Tensor:
    """`most` rows, or all where there are no more: one out of every `most`-th part, at places that no image's width repeats."""
    if len(rows) <= most:
        return rows
    number = torch.arange(most, dtype=torch.float64)
    return rows[((number + (number * GOLDEN_RATIO).frac()) * len(rows) / most).long()]


def _shares(weights: Tensor, dim: int = 0) -> Tensor:
    return weights / weights.sum(dim, keepdim=True).clamp_min(1e-9)


def _nearest(pixels: Tensor, palette: Tensor) -> Tensor:
    return torch.cat([torch.cdist(some, palette).argmin(1) for some in pixels.split(FIT_PIXELS)])


def _palette(pixels: Tensor) -> Tensor:
    """COLORS colours (M, 4) of pixels (P, 4): the farthest from all taken so far, one by one, then three steps of k-means."""
    distance = (pixels - pixels.mean(0)).square().sum(1)
    taken = []
    for _ in range(COLORS):
        taken.append(pixels[distance.argmax()])
        distance = torch.minimum(distance, (pixels - taken[-1]).square().sum(1))
    palette = torch.stack(taken)
    for _ in range(3):
        nearest = _nearest(pixels, palette)
        count = torch.bincount(nearest, minlength=COLORS)[:, None]
        means = torch.zeros_like(palette).index_add_(0, nearest, pixels) / count.clamp_min(1)
        palette = torch.where(count > 0, means, palette)
    return palette


def _neighbours(maps: Tensor, reach: int) -> Callable[[int, int], Tensor]:
    """A function of (dy, dx), each up to `reach`, that gives the neighbour there for every pixel of `maps` (C, H, W)."""
    height, width = maps.shape[-2:]
    padded = F.pad(maps[None], (reach,) * 4, mode="replicate")[0]
    return lambda dy, dx: padded[:, reach + dy : reach + dy + height, reach + dx : reach + dx + width]


def _join_outlines(shares: Tensor, image: Tensor, possible: Tensor) -> Tensor:
    """Give pixels whose colour lies between those on either side, in any direction, to the layer that both sides show."""
    color, share = _neighbours(image, OUTLINE_REACH), _neighbours(shares, OUTLINE_REACH)
    joined = torch.zeros_like(shares)
    for (dy, dx), (ey, ex) in _opposites():
        beyond = ((image - color(dy, dx)) * (image - color(ey, ex))).sum(0) > OUTLINE_TOLERANCE
        joined = torch.maximum(joined, torch.minimum(share(dy, dx), share(ey, ex)).masked_fill(beyond, 0))
    joined = joined * possible
    certain = (joined.amax(0) - UNCERTAIN).div(CERTAIN - UNCERTAIN).clamp(0, 1)  # (H, W)
    return shares + certain * (_shares(joined) - shares)


def _opposites() -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Pairs of offsets (dy, dx) to either side of a pixel, in four directions and up to OUTLINE_REACH away."""
    reaches = range(1, OUTLINE_REACH + 1)
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
        yield from (((dy * near, dx * near), (-dy * far, -dx * far)) for near in reaches for far in reaches)


def _join_alike(shares: Tensor, image: Tensor, possible: Tensor) -> Tensor:
    """Average over neighbours of alike colour (a bilateral filter of the shares, guided by the image), `possible` or not."""
    color, share = _neighbours(image, ALIKE_REACH), _neighbours(shares, ALIKE_REACH)
    joined = torch.zeros_like(shares)
    offsets = range(-ALIKE_REACH, ALIKE_REACH + 1)
    for dy in offsets:
        for dx in offsets:
            joined += torch.exp(-(color(dy, dx) - image).square().sum(0) / (2 * ALIKE**2)) * share(dy, dx)
    return joined


def _unmix(shares: Tensor, image: Tensor, possible: Tensor) -> Tensor:
    """Where two layers meet, the shares by which their colours next to the pixel mix to its own.

    They meet where both are there within 3 x 3 px and the share of each passes one half from one pixel to the next.
    """
    inner = F.avg_pool2d(F.pad(shares[None], (1,) * 4, mode="replicate"), 3, 1)[0]  # (K, H, W): low at outlines
    weight = shares * inner.square()
    sums = _sum3(torch.cat([weight[:, None] * image, weight[:, None]], 1))  # (K, 5, H, W)
    color = (sums[:, :4] / sums[:, 4:].clamp_min(1e-9)).transpose(0, 1)  # (4, K, H, W): what layers show around
    presence = _sum3((shares * inner)[:, None])[:, 0] * possible
    amount, pair = presence.topk(2, 0)  # (2, H, W)
    edge = F.max_pool2d((shares < 0.5).float()[None], 3, 1, 1) * F.max_pool2d((shares > 0.5).float()[None], 3, 1, 1)
    meet = (amount[1] > 0.5) & (edge[0].gather(0, pair) > 0).all(0)  # (H, W)
    first, second = color.gather(1, pair.expand(4, -1, -1, -1)).unbind(1)  # (4, H, W)
    own, other = shares.gather(0, pair)
    between = first - second
    mixed = ((image - second) * between).sum(0) + FLAT * own / (own + other).clamp_min(1e-6)
    mixed = (mixed / (between.square().sum(0) + FLAT)).clamp(0, 1)  # the first's share of both
    unmixed = shares.scatter(0, pair, torch.stack([mixed, 1 - mixed]) * (own + other))
    return torch.where(meet, unmixed, shares)


def _sum3(maps: Tensor) -> Tensor:
    """Sums over 3 x 3 px."""
    return 9 * F.avg_pool2d(maps, 3, 1, 1)
