"""The tokenizer of the small text encoder: learned on captions, and read from a checkpoint's metadata."""

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from .configs import SmallTextConfig
from .errors import MRTError

END = "<|end|>"  # closes every prompt, so that even an empty one has a token
TOKENIZER_KEY = "tokenizer"  # of the file's metadata


def train_tokenizer(captions: Iterable[str], vocabulary: int) -> Tokenizer:
    """A byte-level BPE learned on `captions`; its last token is END."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(captions, trainer)
    return tokenizer


def read_tokenizer(text: str | None, config: SmallTextConfig) -> Tokenizer:
    """The tokenizer of a bundled text encoder from the metadata; raises MRTError for one that does not fit."""
    try:
        tokenizer = Tokenizer.from_str(text or "")
    except Exception as error:  # the library raises nothing more specific
        raise MRTError(
            f"there is a text encoder, but its metadata `{TOKENIZER_KEY}` is missing or damaged; download the file again"
        ) from error
    if tokenizer.token_to_id(END) is None or tokenizer.get_vocab_size() > config.vocabulary:
        raise MRTError(
            f"the tokenizer of {tokenizer.get_vocab_size()} tokens does not fit the text encoder, "
            f"which knows {config.vocabulary} with {END} among them; download the file again"
        )
    return tokenizer
