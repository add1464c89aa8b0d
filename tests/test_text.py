"""The small text encoder: which caption each token belongs to."""

import pytest
import torch

from mrt_core.configs import SmallTextConfig
from mrt_core.text import SmallTextEncoder
from mrt_core.tokenizer import END, train_tokenizer

PROMPTS = ["<layer> a red sun </layer> <layer> </layer> <layer> the word 夏 </layer> a card", "no tags at all", ""]


@pytest.fixture(scope="module")
def encoder() -> SmallTextEncoder:
    tokenizer = train_tokenizer(PROMPTS * 3, 400)
    return SmallTextEncoder(SmallTextConfig(vocabulary=400, width=16, num_heads=2, max_tokens=40), tokenizer)


def test_every_token_knows_its_caption(encoder):
    prompt = PROMPTS[0]
    ids, index = encoder.tokenize(prompt), encoder.caption_indices([prompt])[0].tolist()
    assert len(index) == len(ids)
    for number, caption in enumerate(
        ["<layer> a red sun </layer>", "<layer> </layer>", "<layer> the word 夏 </layer>"]
    ):
        tokens = [token for token, owner in zip(ids, index, strict=True) if owner == number]
        assert encoder.tokenizer.decode(tokens).strip() == caption
    outside = [token for token, owner in zip(ids, index, strict=True) if owner == -1]
    assert encoder.tokenizer.decode(outside, skip_special_tokens=False).strip().replace(END, "").strip() == "a card"


@pytest.mark.parametrize("prompt", PROMPTS[1:])
def test_text_without_tags_belongs_to_no_caption(encoder, prompt):
    assert set(encoder.caption_indices([prompt])[0].tolist()) == {-1}


def test_a_long_prompt_is_read_to_its_end_in_pieces(encoder):
    prompt = "<layer> a red sun </layer> " * 20
    (states,), (index,) = encoder.encode_prompts([prompt]), encoder.caption_indices([prompt])
    tokens = encoder.tokenize(prompt)
    assert len(states) == len(index) == len(tokens) > 2 * 40
    assert index[-2] == 19  # the last caption counts as the first does; behind it comes END
    (other,) = encoder.encode_prompts([prompt.strip().removesuffix("sun </layer>") + "red </layer>"])
    changed = (other - states).abs().amax(1) > 1e-4
    assert len(other) == len(states) and not changed[:40].any()  # tokens of other pieces are not seen
    assert changed[-2:].all()


@pytest.mark.parametrize("words", [1, 7])
def test_prompts_side_by_side_do_not_see_each_other(encoder, words):
    few, many = "a red sun" * words, "<layer> a red sun </layer> " * 20
    alone, beside = encoder.encode_prompts([few])[0], encoder.encode_prompts([many, few, many])[1]
    assert torch.allclose(alone, beside, atol=1e-5)
