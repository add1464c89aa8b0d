"""Which layer every pixel shows, from predictions that are wrong in the ways that small models are."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFilter

from mrt_core.unmixing.segmentation import COLORS, fit_colors, segment, thinned

SIDE = 64
SKY, RED, YELLOW, BLUE = (0.2, 0.4, 0.8, 1.0), (0.9, 0.1, 0.1, 1.0), (0.9, 0.9, 0.2, 1.0), (0.1, 0.1, 0.8, 1.0)


def disc(radius: float, center: tuple[float, float] = (SIDE / 2, SIDE / 2), blur: float = 0) -> torch.Tensor:
    """Coverage (SIDE, SIDE) in 0..1 with an outline of one pixel, or blurred by a Gaussian of `blur` px."""
    x, y = center
    image = Image.new("L", (8 * SIDE, 8 * SIDE))
    ImageDraw.Draw(image).ellipse([8 * (x - radius), 8 * (y - radius), 8 * (x + radius), 8 * (y + radius)], fill=255)
    image = image.resize((SIDE, SIDE), Image.Resampling.BOX).filter(ImageFilter.GaussianBlur(blur))
    return torch.from_numpy(np.asarray(image) / 255).float()


def over(color: tuple[float, ...], coverage: torch.Tensor, below: torch.Tensor) -> torch.Tensor:
    return below + coverage * (torch.tensor(color)[:, None, None] - below)


def blank(color: tuple[float, ...] = SKY) -> torch.Tensor:
    return torch.tensor(color)[:, None, None].expand(4, SIDE, SIDE).clone()


def prior_of(*guesses: torch.Tensor) -> torch.Tensor:
    """The prior of a background and layers on boxes of 48 px around the middle."""
    box = torch.zeros(SIDE, SIDE)
    box[8:56, 8:56] = 1
    seen = torch.stack([guess * box for guess in guesses])
    return torch.cat([1 - seen.sum(0, keepdim=True), seen]) + 0.1 * torch.stack(
        [torch.ones_like(box), *[box] * len(guesses)]
    )


def segmented(image: torch.Tensor, prior: torch.Tensor) -> torch.Tensor:
    return segment(fit_colors(image.flatten(1).T, prior.flatten(1).T), image, prior)


@pytest.fixture(scope="module")
def emoji() -> tuple[torch.Tensor, torch.Tensor]:
    """A yellow disc with red eyes on the sky, and its coverage."""
    face, eyes = disc(20), disc(4, (25.3, 28.2)) + disc(4, (39.1, 28.6))
    return over(RED, eyes, over(YELLOW, face, blank())), face


def test_shares_add_up_and_stay_in_boxes(emoji):
    image, face = emoji
    prior = prior_of(0.5 * face)
    shares = segmented(image, prior)
    torch.testing.assert_close(shares.sum(0), torch.ones(SIDE, SIDE))
    assert (shares >= 0).all() and not shares[1][prior[1] == 0].any()


@pytest.mark.parametrize("radius", [12, 16, 24], ids=lambda radius: f"predicted radius {radius}")
def test_a_wrong_outline_moves_to_that_of_the_image(emoji, radius):
    """The prediction is too small or too large and knows nothing of the eyes; the layer is the disc, all of it."""
    image, face = emoji
    error = (segmented(image, prior_of(0.9 * disc(radius)))[1] - face).abs()
    assert error.mean() < 0.01 < (0.9 * disc(radius) - face).abs().mean()


def test_outlines_have_the_shares_that_mix_their_colours(emoji):
    image, face = emoji
    outline = (face > 0.1) & (face < 0.9)
    error = (segmented(image, prior_of(0.9 * disc(18)))[1] - face)[outline].abs()
    assert outline.sum() > 60 and error.mean() < 0.1


@pytest.mark.parametrize("blur", [0, 0.8], ids=["sharp outline", "outline of two pixels"])
def test_a_colour_between_its_layers_own_colours_stays_in_the_layer(blur):
    """Around a blue pupil in a yellow disc on grey, outlines have the background's grey."""
    grey = (0.5, 0.5, 0.5, 1.0)  # half way from yellow to blue
    face, pupil = disc(20), disc(6.5, (32.4, 32.7), blur)
    image = over(BLUE, pupil, over(YELLOW, face, blank(grey)))
    shares = segmented(image, prior_of(0.9 * disc(18)))
    assert ((image[2] - grey[2]).abs() < 0.05)[disc(12) == 1].any()
    assert shares[1][disc(12) == 1].min() > 0.7


def test_layers_that_overlap_share_by_colour():
    """Two predicted blobs in the same box: each layer gets what has its colour."""
    left, right = disc(10, (22, 32)), disc(10, (42, 32))
    image = over(RED, right, over(YELLOW, left, blank()))
    shares = segmented(image, prior_of(0.6 * disc(9, (25, 34)), 0.6 * disc(8, (38, 30))))
    assert (shares[1] - left).abs().mean() < 0.01 and (shares[2] - right).abs().mean() < 0.01


def test_a_background_alone_has_it_all():
    image = blank()
    assert (segmented(image, torch.ones(1, SIDE, SIDE)) == 1).all()


def test_neighbours_of_one_colour_outvote_single_pixels():
    """Where colours tell nothing, the prediction decides, but not one pixel alone."""
    guess = disc(16)
    wrong = torch.rand(SIDE, SIDE, generator=torch.Generator().manual_seed(0)) < 0.1
    shares = segmented(blank(), prior_of(torch.where(wrong, 1 - guess, guess)))
    inner, outer = disc(13) == 1, (disc(19) == 0) & (prior_of(guess)[1] > 0)
    assert wrong[inner].sum() > 20 and wrong[outer].sum() > 20
    assert (shares[1][inner] > 0.5).all() and (shares[1][outer] < 0.5).all()


def test_a_palette_has_the_rare_colours_too():
    pixels = blank().flatten(1).T.clone()
    pixels[7] = torch.tensor(RED)
    palette = fit_colors(pixels, torch.ones(len(pixels), 1)).palette
    assert palette.shape == (COLORS, 4)
    assert (palette - torch.tensor(RED)).abs().amax(1).min() < 1e-6


@pytest.mark.parametrize("width", [96, 160, 1020, 1080, 1920])
def test_thinned_pixels_come_from_all_columns(width):
    columns = thinned(torch.arange(width * 500) % width, 4096)
    assert len(columns) == 4096 and len(columns.unique()) > 0.8 * width
    assert len(thinned(columns, 4096)) == 4096
