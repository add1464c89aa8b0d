"""The prompts that a design is trained with: its captions in all forms that people's prompts take.

Mostly every caption stands in its own tags, as the default prompts have it; sentences about the whole stand beside them
or alone, so that free text is read too.
"""

import numpy as np

from ..designs.generator import Design
from ..layouts.layout import background_prompt, layer_prompt

PROMPTS_PER_SAMPLE = 3

# What a prompt is made of, in this order, and how often: `layers` and `background` are captions in their tags, `style` is
# the name of the design's style, `short` and `long` are sentences about the whole.
FORMS: tuple[tuple[float, tuple[str, ...]], ...] = (
    (0.45, ("layers", "background", "style")),
    (0.10, ("layers", "background", "short")),
    (0.15, ("layers", "short")),
    (0.10, ("layers", "style")),
    (0.05, ("layers", "background", "long")),
    (0.10, ("short",)),
    (0.05, ("long",)),
)
STYLE_SHARE = 0.85  # of prompts with a place for the style's name that give it
TEXT_SHARE = 0.35  # of prompts that say 'the text "..."', as the paper does, in place of 'the word "..."'


def training_prompts(design: Design, rng: np.random.Generator) -> tuple[str, ...]:
    """PROMPTS_PER_SAMPLE prompts for making the whole design, of random forms."""
    layout = design.layout
    parts = {
        "layers": layer_prompt(layout.regions),
        "background": background_prompt(layout.background_region),
        "style": design.style if design.short_caption.endswith(f", {design.style}") else "",
        "short": design.short_caption,
        "long": layout.caption,
    }
    shares = [share for share, _ in FORMS]
    return tuple(
        _prompt(FORMS[int(form)][1], parts, rng) for form in rng.choice(len(FORMS), PROMPTS_PER_SAMPLE, p=shares)
    )


def _prompt(form: tuple[str, ...], parts: dict[str, str], rng: np.random.Generator) -> str:
    named = rng.random() < STYLE_SHARE
    prompt = " ".join(parts[part] for part in form if parts[part] and (named or part != "style"))
    return prompt.replace('the word "', 'the text "') if rng.random() < TEXT_SHARE else prompt
