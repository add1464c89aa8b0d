"""Words, Latin and Chinese, in open fonts; evaluation has words of its own that training never sees."""

import re
from functools import cache, lru_cache

import numpy as np
from PIL import Image, ImageDraw

from .artwork import CHINESE_FONT, LATIN_FONTS, load_artwork, load_font
from .finishes import SEMI_TRANSPARENT_SHARE, SOFT_SHARE, Drawing, pick_finish
from .legibility import Ground

SUPERSAMPLING = 4
MIN_POINTS = 10  # px of letter height that can still be read; Chinese characters need MIN_CHINESE_POINTS
MIN_CHINESE_POINTS = 14
MASKS_KEPT = 4096  # of a few kB each

TRAINING_WORDS = (
    "sale hello love summer music party coffee bakery happy birthday open today new best fresh dream travel yoga pizza "
    "garden winter spring autumn light night thanks welcome family friends sport dance film radio market design studio "
    "beauty health energy power smile future magic ocean forest river mountain sunny cloud rain star moon free 50% off"
).split()
HELD_OUT_WORDS = "festival kitchen weekend holiday urban cafe jazz poster gallery picnic 2026 go".split()

# Letters are learned from many words, not from a few: those of the artwork's names and made-up ones stand beside these.
TRAINING_WORD_WEIGHT, NAME_WEIGHT, MADE_UP_WORDS = 12, 3, 6000
CONSONANTS, VOWELS, MARKS = "bcdfghjklmnpqrstvwxyz", "aeiou", "!%?&"

# The bundled font holds the characters of these words alone: tools/build_words_font.py makes it again when they change.
CHINESE_TRAINING_WORDS = (
    "你好 谢谢 欢迎 咖啡 音乐 生日 快乐 春天 夏天 秋天 冬天 月亮 太阳 星星 大海 森林 河流 高山 花园 电影 "
    "设计 市场 健康 美食 茶 家 爱 福 新年 今天 免费 打折 早安 晚安 朋友 家人 旅行 运动 梦想 未来"
).split()
CHINESE_HELD_OUT_WORDS = "幸福 天空 书店 周末 节日 画展 公园 好运".split()


def draw_word(rng: np.random.Generator, size: int, held_out: bool, chinese: float, ground: Ground) -> Drawing:
    """A legible word about 1.6 x `size` px wide, in one colour; with chance `chinese` a Chinese one."""
    if rng.random() < chinese:
        words = CHINESE_HELD_OUT_WORDS if held_out else CHINESE_TRAINING_WORDS
        font, least = CHINESE_FONT, MIN_CHINESE_POINTS
    else:
        words = HELD_OUT_WORDS if held_out else latin_training_words()
        font, least = LATIN_FONTS[int(rng.integers(len(LATIN_FONTS)))], MIN_POINTS
    word = words[int(rng.integers(len(words)))]
    word = word.upper() if rng.random() < 0.6 else word
    finish = pick_finish(rng, SEMI_TRANSPARENT_SHARE, SOFT_SHARE)
    name, color = ground.pick_color(rng, finish.opacity)
    points = max(least, min(round(1.6 * size / word_width(word, font)), size))
    mask = word_mask(word, font, points)
    image = Image.new("RGB", mask.size, color)
    image.putalpha(mask)
    finished = finish.apply(image, points // 3)
    return Drawing(finished, f'the word "{word}" in {" ".join(filter(None, (finish.words, name)))}', finish)


@cache
def latin_training_words() -> tuple[str, ...]:
    """The words to draw from in training, each as often as it counts; none is held out."""
    rng = np.random.default_rng(77)
    names = sorted(
        {word.lower() for drawing in load_artwork(False) for word in re.findall("[A-Za-z]{2,9}", drawing.name)}
    )
    words = [
        *TRAINING_WORDS * TRAINING_WORD_WEIGHT,
        *names * NAME_WEIGHT,
        *(made_up_word(rng) for _ in range(MADE_UP_WORDS)),
    ]
    return tuple(word for word in words if word not in HELD_OUT_WORDS)


def made_up_word(rng: np.random.Generator) -> str:
    """One to four syllables, or sometimes a number; some with a closing consonant or mark."""
    letter = lambda letters: letters[int(rng.integers(len(letters)))]  # noqa: E731
    word = "".join(letter(CONSONANTS) + letter(VOWELS) for _ in range(int(rng.integers(1, 5))))
    word += letter(CONSONANTS) if rng.random() < 0.5 else ""
    word = word[1:] if rng.random() < 0.3 else word
    if rng.random() < 0.12:
        return str(int(rng.integers(10_000)))
    return word + (letter(MARKS) if rng.random() < 0.05 else "")


@cache
def word_width(word: str, name: str) -> float:
    """The width of a word in the font of a file's `name`, relative to the font's size."""
    left, _, right, _ = load_font(name, 64).getbbox(word)
    return (right - left) / 64


@lru_cache(MASKS_KEPT)
def word_mask(word: str, name: str, points: int) -> Image.Image:
    """An anti-aliased "L" mask of a word in the font of a file's `name`, at a size of `points` px."""
    font = load_font(name, points * SUPERSAMPLING)
    left, top, right, bottom = font.getbbox(word)
    page = Image.new("L", (right - left + 2 * SUPERSAMPLING, bottom - top + 2 * SUPERSAMPLING))
    ImageDraw.Draw(page).text((SUPERSAMPLING - left, SUPERSAMPLING - top), word, font=font, fill=255)
    return page.reduce(SUPERSAMPLING)
