"""Colours for previews: what a latent looks like without decoding it, as a linear map that is fitted to the encoder."""

import torch
from torch import Tensor

from .autoencoder import Autoencoder
from .geometry import TOKEN_PX

TILES = 128  # flat colours that the map is fitted to: several for each of the 17 unknowns of a channel


@torch.no_grad()
def fit_preview_colors(autoencoder: Autoencoder) -> tuple[Tensor, Tensor]:
    """Factors (16, 3) and bias (3,) that take a normalised latent to RGB in -1..1, by least squares over flat colours."""
    generator = torch.Generator().manual_seed(0)
    colors = 2 * torch.rand(TILES, 3, generator=generator) - 1
    image = torch.ones(TILES, autoencoder.config.in_channels, TOKEN_PX, TOKEN_PX)
    image[:, :3] = colors[:, :, None, None]
    weight = autoencoder.quant_conv.weight
    latents = autoencoder.encode(image.to(weight)).float().cpu().mean((2, 3))  # (TILES, 16)
    known = torch.cat([latents, torch.ones(TILES, 1)], dim=1)
    solution = torch.linalg.lstsq(known, colors).solution  # (17, 3)
    return solution[:-1], solution[-1]
