"""The tokenizer of the small models: learned on captions, and read from a checkpoint's metadata.

Byte-level BPE accepts any script. Tags are single tokens, which take the blank before them along, and quoted text is
split into single characters: letters are drawn one by one.
"""

from collections.abc import Iterable

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from ..errors import MRTError
from .configs import TextConfig

END = "<|end|>"  # closes every prompt, so that even an empty one has a token
OPENING_TAGS, CLOSING_TAGS = ("<layer>", "<background>"), ("</layer>", "</background>")

# A character with an odd number of quotation marks between it and the next tag or the end; quotes do not span tags.
QUOTED_CHARACTER = r'[^"\s<](?=[^"<]*"(?:[^"<]*"[^"<]*")*[^"<]*(?:<|$))'


def train_tokenizer(captions: Iterable[str], vocabulary: int) -> Tokenizer:
    """A byte-level BPE of at most `vocabulary` tokens learned on `captions`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(QUOTED_CHARACTER), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ])  # fmt: skip
    tokenizer.decoder = decoders.ByteLevel()
    tags = [AddedToken(tag, lstrip=True, special=True, normalized=False) for tag in (*OPENING_TAGS, *CLOSING_TAGS)]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END, *tags],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(captions, trainer)
    return tokenizer


def read_tokenizer(text: str | None, config: TextConfig) -> Tokenizer:
    """The tokenizer of a bundled model from the metadata; raises MRTError for one that does not fit."""
    try:
        tokenizer = Tokenizer.from_str(text or "")
    except Exception as error:  # the library raises nothing more specific
        raise MRTError(
            "there are text embeddings, but their metadata `tokenizer` is missing or damaged; download the file again"
        ) from error
    missing = [token for token in (END, *OPENING_TAGS, *CLOSING_TAGS) if tokenizer.token_to_id(token) is None]
    if missing or tokenizer.get_vocab_size() > config.vocabulary:
        raise MRTError(
            f"the tokenizer of {tokenizer.get_vocab_size()} tokens does not fit the text embeddings, which know "
            f"{config.vocabulary} with {END} and the tags among them; download the file again"
        )
    return tokenizer
