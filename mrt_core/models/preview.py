"""Colours for previews: what a latent looks like without decoding it, as a linear map that is fitted to the encoder."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..geometry import LATENT_PX
from .autoencoder import Autoencoder

IMAGES, SIDE = 24, 96  # random pictures that the map is fitted to, and their sides in px
RIDGE = 1e-3  # of the number of samples: keeps the factors small where several explain a colour


def random_pictures(count: int, side: int) -> Tensor:
    """Pictures (count, 3, side, side) in -1..1: colour gradients under blocks of flat colour."""
    generator = torch.Generator().manual_seed(0)

    def noise(cells: int, mode: str) -> Tensor:
        return F.interpolate(torch.rand(count, 3, cells, cells, generator=generator), (side, side), mode=mode)

    blocks = F.interpolate((torch.rand(count, 1, 6, 6, generator=generator) < 0.4).float(), (side, side))
    return 2 * torch.where(blocks > 0, noise(6, "nearest"), noise(3, "bilinear")) - 1


@torch.no_grad()
def fit_preview_colors(autoencoder: Autoencoder) -> tuple[Tensor, Tensor]:
    """Factors (16, 3) and bias (3,) that take the latents of `autoencoder.encode` to RGB in -1..1, by ridge regression."""
    pictures = random_pictures(IMAGES, SIDE)
    image = torch.cat([pictures, torch.ones_like(pictures[:, :1])], 1)[:, : autoencoder.config.in_channels]
    latents = autoencoder.encode(image.to(autoencoder.quant_conv.weight)).float().cpu()  # (IMAGES, 16, h, w)
    known = latents.movedim(1, -1).flatten(0, 2)  # (samples, 16)
    colors = F.avg_pool2d(pictures, LATENT_PX).movedim(1, -1).flatten(0, 2)  # (samples, 3)
    mean, deviation = known.mean(0), known.std(0)
    scaled = (known - mean) / deviation
    gram = scaled.T @ scaled + RIDGE * len(scaled) * torch.eye(scaled.shape[1])
    factors = torch.linalg.solve(gram, scaled.T @ (colors - colors.mean(0))) / deviation[:, None]
    return factors, colors.mean(0) - mean @ factors
