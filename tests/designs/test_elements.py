"""Elements: legible colours, finishes, shadows and glows inside a layer's own image, Chinese words."""

import numpy as np
import pytest
from PIL import Image, ImageFont

from mrt_core.designs.artwork import ATLAS_FOLDER, CHINESE_FONT
from mrt_core.designs.colors import PALETTE, color_distance
from mrt_core.designs.effects import GLOW_COLOR, NO_EFFECT, SHADOW_COLOR, Effect, pick_effect
from mrt_core.designs.elements import ElementMix, draw_element
from mrt_core.designs.finishes import Finish, soften
from mrt_core.designs.legibility import MIN_CONTRAST, Ground
from mrt_core.designs.styles import NATURAL, Style, greyscale, outline
from mrt_core.designs.words import CHINESE_HELD_OUT_WORDS, CHINESE_TRAINING_WORDS, word_mask

WHITE = Ground((PALETTE["white"],), NATURAL)


def square(side: int, color: tuple[int, int, int] = (200, 30, 30)) -> np.ndarray:
    return np.full((side, side, 4), (*color, 255), np.uint8)


def border(pixels: np.ndarray) -> int:
    """The greatest alpha on an image's border."""
    alpha = pixels[..., 3]
    return int(max(alpha[0].max(), alpha[-1].max(), alpha[:, 0].max(), alpha[:, -1].max()))


# Drawings


def test_a_ground_on_which_no_drawing_is_legible_still_gets_one():
    greys = tuple((level, level, level) for level in range(0, 256, 32))
    hopeless = Ground(greys, Style("flat grey", lambda pixels: np.full_like(pixels, 128)))
    assert not any(hopeless.is_legible(color) for color in PALETTE.values())
    element = draw_element(np.random.default_rng(0), 32, hopeless, mix=ElementMix(artwork=1, shape=0, word=0))
    assert element.pixels[..., 3].any()


# Shadows and glows


@pytest.mark.parametrize("radius", [1.2, 2.5, 6.0])
@pytest.mark.parametrize("offset", [(0, 0), (-2, 2), (2, 1)])
def test_a_shadow_is_whole(radius, offset):
    pixels = square(24)
    shown = Effect("with a soft shadow", SHADOW_COLOR, 0.7, radius, offset).apply(pixels)
    assert border(shown) <= 4 and shown.shape[0] > 24 + radius
    assert (shown[..., 3] == 255).sum() == 24 * 24  # the element itself, on top
    assert (shown[shown[..., 3] == 255] == pixels[0, 0]).all()
    rows, cols = np.nonzero(shown[..., 3] == 255)
    shadow = np.where(shown[..., 3] == 255, 0, shown[..., 3]).astype(float)
    y, x = (
        np.average(np.arange(shown.shape[0]), weights=shadow.sum(1)),
        np.average(np.arange(shown.shape[1]), weights=shadow.sum(0)),
    )
    assert np.sign(round(x - cols.mean(), 1)) == np.sign(offset[0])
    assert np.sign(round(y - rows.mean(), 1)) == np.sign(offset[1])
    assert shown[..., 3].astype(int).sum() > pixels[..., 3].astype(int).sum() * 1.05


def test_an_effect_keeps_its_colour_in_every_style_and_its_alpha_too():
    effect, pixels = Effect("with a glow", GLOW_COLOR, 2.0, 2.0, (0, 0)), square(20)
    natural, grey = effect.apply(pixels), effect.apply(greyscale(pixels))
    assert np.array_equal(natural[..., 3], grey[..., 3])
    halo = (natural[..., 3] > 60) & (natural[..., 3] < 255)
    assert halo.sum() > 60 and np.abs(natural[halo][:, :3].astype(int) - GLOW_COLOR).max() <= 3
    assert np.array_equal(natural[halo], grey[halo])
    assert NO_EFFECT.apply(pixels) is pixels


@pytest.mark.parametrize(
    ("ground", "words"),
    [
        (("white",), {"", "with a soft shadow"}),
        (("black",), {"", "with a glow"}),
        (("black", "white"), {""}),
        (("orange",), {"", "with a soft shadow", "with a glow"}),
    ],
)
def test_effects_are_where_they_can_be_seen(ground, words):
    rng = np.random.default_rng(0)
    colors = tuple(PALETTE[name] for name in ground)
    assert {pick_effect(rng, 30, colors).words for _ in range(200)} == words


# Finishes


def test_softening_blurs_edges_and_carries_colours_on():
    soft = np.asarray(soften(Image.fromarray(square(30), "RGBA"), 2.0))
    assert border(soft) <= 2 and soft.shape[0] > 34
    shown = soft[..., 3] > 32
    assert np.abs(soft[shown][:, :3].astype(int) - (200, 30, 30)).max() <= 12
    middle = soft[soft.shape[0] // 2, :, 3].astype(int)
    assert np.abs(np.diff(middle)).max() < 80 and middle.max() == 255


def test_semi_transparency_scales_alpha_alone():
    pixels = square(8)
    seen = np.asarray(Finish("semi-transparent", 0.5).apply(Image.fromarray(pixels.copy(), "RGBA"), 8))
    assert (seen[..., 3] == 128).all() and np.array_equal(seen[..., :3], pixels[..., :3])


# Legibility


@pytest.mark.parametrize(
    "style", [NATURAL, Style("greyscale", greyscale), Style("outline", outline)], ids=lambda style: style.name
)
def test_picked_colours_stand_out_in_the_style(style):
    rng = np.random.default_rng(0)
    for name in PALETTE:
        ground = Ground((PALETTE[name],), style)
        for opacity in (1.0, 0.5):
            picked = [PALETTE[ground.pick_color(rng, opacity)[0]] for _ in range(30)]
            styled = [style.apply(np.uint8([[[*color, 255]]]))[0, 0, :3].tolist() for color in picked]
            apart = np.asarray([[color_distance(color, PALETTE[name]) for color in look] for look in (picked, styled)])
            apart = apart.min(0)
            if apart.min() * opacity < MIN_CONTRAST:  # nothing is legible: always the most legible one
                assert opacity < 1 and len(set(picked)) == 1
                assert apart.max() == pytest.approx(max(ground.palette_contrast))


def test_elements_stand_out():
    rng = np.random.default_rng(0)
    for color in ((252, 252, 252), (24, 24, 28), (240, 200, 60)):
        ground = Ground((color,), NATURAL)
        for _ in range(25):
            pixels = draw_element(rng, 24, ground).pixels.astype(float)
            mean = np.average(pixels[..., :3].reshape(-1, 3), axis=0, weights=pixels[..., 3].ravel())
            assert color_distance(mean, color) > 20  # jitter and gradients move colours a little


# Words


def test_the_font_draws_every_chinese_word():
    path = ATLAS_FOLDER / CHINESE_FONT
    assert path.stat().st_size < 60_000
    missing = ImageFont.truetype(str(path), 64).getmask("\uffff").getbbox()
    characters = set("".join(CHINESE_TRAINING_WORDS + CHINESE_HELD_OUT_WORDS))
    drawn = {character: np.asarray(word_mask(character, CHINESE_FONT, 32)).tobytes() for character in characters}
    assert missing is None and len(set(drawn.values())) == len(characters) and all(any(d) for d in drawn.values())


def test_one_word_in_six_is_chinese():
    rng, mix = np.random.default_rng(0), ElementMix(artwork=0.0, shape=0.0, word=1.0)
    captions = [draw_element(rng, 30, WHITE, mix=mix).caption for _ in range(400)]
    assert 0.11 < np.mean([not caption.isascii() for caption in captions]) < 0.22
    chinese = draw_element(rng, 30, WHITE, mix=mix._replace(chinese=1.0)).caption
    assert chinese.startswith('the word "') and chinese.split('"')[1] in CHINESE_TRAINING_WORDS
