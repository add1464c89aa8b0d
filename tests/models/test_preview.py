"""Linear preview colours of the bundled autoencoder."""

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from mrt_core.checkpoints.bundled import bundled_checkpoint
from mrt_core.checkpoints.checkpoint import load_checkpoint
from mrt_core.geometry import TokenBox
from mrt_core.models.preview import fit_preview_colors
from mrt_core.tasks.region_codec import CanvasRegion, RegionCodec


def test_previews_look_like_the_picture():
    autoencoder = load_checkpoint(bundled_checkpoint()).autoencoder
    factors, bias = fit_preview_colors(autoencoder)
    picture = np.asarray(Image.open(bundled_checkpoint().parent / "demo" / "image.png").convert("RGBA"))
    rows, cols = picture.shape[0] // 16, picture.shape[1] // 16
    (latent,) = RegionCodec(autoencoder).encode([picture], [CanvasRegion(TokenBox(0, 0, rows, cols), rows, cols)])
    shown = (latent.movedim(0, -1) @ factors + bias + 1) / 2  # (h, w, 3)
    small = F.avg_pool2d(torch.tensor(picture[..., :3] / 255).movedim(-1, 0)[None].float(), 8)[0].movedim(0, -1)
    assert (shown - small).abs().mean() < 0.12
    assert np.corrcoef(shown.flatten(), small.flatten())[0, 1] > 0.8
