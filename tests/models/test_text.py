"""Text embeddings: what a prompt's tokens are, where each one stands, and their states."""

import pytest
import torch

from mrt_core.models.configs import TextConfig
from mrt_core.models.sequence import BOX_CENTRE, NO_CAPTION
from mrt_core.models.text import TextEmbeddings
from mrt_core.models.tokenizer import CLOSING_TAGS, END, OPENING_TAGS, train_tokenizer

PROMPT = (
    "<layer> a red sun </layer> <layer> </layer> <layer> the word 夏 </layer> <background> blue </background> a card"
)
PROMPTS = [PROMPT, "no tags at all", ""]


@pytest.fixture(scope="module")
def embeddings() -> TextEmbeddings:
    tokenizer = train_tokenizer(PROMPTS * 3, 400)
    return TextEmbeddings(TextConfig(tokenizer.get_vocab_size(), width=16, positions=8), tokenizer)


def spelled(embeddings, ids) -> list[str]:
    return [embeddings.tokenizer.decode([token], skip_special_tokens=False).strip() for token in ids]


def decoded(embeddings, ids) -> str:
    """The text of tokens, without blanks."""
    return embeddings.tokenizer.decode(ids, skip_special_tokens=False).replace(" ", "")


def test_every_token_knows_its_caption(embeddings):
    ids, (anchors,) = embeddings.tokenize(PROMPT), embeddings.anchors([PROMPT])
    assert len(anchors.caption) == len(anchors.along) == len(ids)
    for number, caption in enumerate(
        ["<layer> a red sun </layer>", "<layer> </layer>", "<layer> the word 夏 </layer>"]
    ):
        tokens = [token for token, owner in zip(ids, anchors.caption.tolist(), strict=True) if owner == number]
        assert decoded(embeddings, tokens) == caption.replace(" ", "")
    outside = [token for token, owner in zip(ids, anchors.caption.tolist(), strict=True) if owner == NO_CAPTION]
    assert decoded(embeddings, outside) == f"<background>blue</background>acard{END}"


@pytest.mark.parametrize("prompt", PROMPTS[1:])
def test_text_without_tags_belongs_to_no_caption(embeddings, prompt):
    assert set(embeddings.anchors([prompt])[0].caption.tolist()) == {NO_CAPTION}


@pytest.mark.parametrize("tag", [*OPENING_TAGS, *CLOSING_TAGS])
def test_a_tag_is_one_token_with_the_blank_before_it(embeddings, tag):
    assert embeddings.tokenizer.encode(f"  {tag}").ids == [embeddings.tokenizer.token_to_id(tag)]


def test_characters_of_quoted_text_stand_along_the_box(embeddings):
    prompt = '<layer> the text "Sale 夏!" in red </layer>'
    ids, (anchors,) = embeddings.tokenize(prompt), embeddings.anchors([prompt])
    letters = [(token, place) for token, place in zip(ids, anchors.along.tolist(), strict=True) if place != BOX_CENTRE]
    assert "".join(spelled(embeddings, [token for token, _ in letters[:4]])) == "Sale"
    places = torch.tensor([place for _, place in letters])
    assert torch.allclose(places[:4], (torch.arange(4) + 0.5) / 7)  # of the seven characters, the blank among them
    assert places[-1] == pytest.approx(6.5 / 7)
    ends = spelled(embeddings, ids).index('"'), len(ids) - spelled(embeddings, ids)[::-1].index('"') - 1
    assert set(anchors.along[: ends[0] + 1].tolist()) == set(anchors.along[ends[1] :].tolist()) == {BOX_CENTRE}


def test_positions_count_from_the_tags(embeddings):
    ids = embeddings.tokenize("<layer> a red </layer> <background> blue </background> on a")
    positions = dict(enumerate(embeddings.caption_positions(ids)))
    tokens = spelled(embeddings, ids)
    for tag in OPENING_TAGS:
        assert positions[tokens.index(tag)] == 0
    after = tokens.index("</background>") + 1
    assert [positions[place] for place in range(after, len(ids))] == list(range(len(ids) - after))
    assert positions[tokens.index("</layer>")] == tokens.index("</layer>")


def test_late_tokens_share_the_last_position(embeddings):
    ids = embeddings.tokenize("a red sun on a red card in a red word")
    assert embeddings.caption_positions(ids)[7:] == [7] * (len(ids) - 7)


def test_states_are_normalised_sums(embeddings):
    prompt = PROMPTS[0]
    (states,), ids = embeddings.encode_prompts([prompt]), embeddings.tokenize(prompt)
    assert states.shape == (len(ids), 16)
    assert torch.allclose(states.mean(1), torch.zeros(len(ids)), atol=1e-5)
    assert torch.allclose(states.std(1, correction=0), torch.ones(len(ids)), atol=1e-3)
    summed = embeddings.tokens.weight[ids[0]] + embeddings.positions.weight[0]
    assert torch.allclose(states[0], (summed - summed.mean()) / summed.std(correction=0), atol=1e-4)


def test_prompts_side_by_side_do_not_see_each_other(embeddings):
    alone, beside = embeddings.encode_prompts(["a red sun"])[0], embeddings.encode_prompts([PROMPT, "a red sun"])[1]
    assert torch.equal(alone, beside)


def test_an_empty_prompt_is_its_end_alone(embeddings):
    assert embeddings.tokenize(" ") == [embeddings.tokenizer.token_to_id(END)]
    assert embeddings.encode_prompts([" "])[0].shape == (1, 16)
