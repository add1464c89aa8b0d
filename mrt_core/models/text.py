"""The text of small models: token embeddings that are trained with the transformer, and where each token stands.

There is no encoder. A text state is the layer norm of a token's embedding plus that of its position in its caption; what
words mean together is left to the transformer's own text stream. Captions stand apart by their places on the canvas
(`sequence.text_positions`), so a model of a few million parameters need not learn which layer a word belongs to.
"""

import re
from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from tokenizers import Encoding, Tokenizer
from torch import Tensor, nn

from .configs import TextConfig
from .sequence import BOX_CENTRE, NO_CAPTION, TextAnchors
from .tokenizer import CLOSING_TAGS, END, OPENING_TAGS

LAYER_CAPTION = re.compile("<layer>.*?</layer>", re.DOTALL)
QUOTED = re.compile('"([^"<]*)"')


class TextEncoder(Protocol):
    """Prompts to text states: one tensor (tokens, width) per prompt, without padding.

    It is an nn.Module or holds one as `model`, which a pipeline moves between devices.
    """

    def encode_prompts(self, prompts: Sequence[str]) -> list[Tensor]: ...

    def anchors(self, prompts: Sequence[str]) -> list[TextAnchors] | None:
        """Where the tokens of each prompt stand; None: apart from the layers, one after another, as Qwen-Image's do."""


class TextEmbeddings(nn.Module):
    """Embeddings of tokens and of their positions in a caption; `tokenizer` belongs to the weights."""

    def __init__(self, config: TextConfig, tokenizer: Tokenizer, dtype=None, device=None, operations=nn):
        super().__init__()
        factory = {"dtype": dtype, "device": device}
        self.config, self.tokenizer = config, tokenizer
        self.tokens = operations.Embedding(config.vocabulary, config.width, **factory)
        self.positions = operations.Embedding(config.positions, config.width, **factory)

    def tokenize(self, prompt: str) -> list[int]:
        """Token ids of one prompt, closed by END."""
        return [*self._encoding(prompt).ids, self.tokenizer.token_to_id(END)]

    def encode_prompts(self, prompts: Sequence[str]) -> list[Tensor]:
        """Text states, one (tokens, width) per prompt."""
        return [self._states(self.tokenize(prompt)) for prompt in prompts]

    def anchors(self, prompts: Sequence[str]) -> list[TextAnchors]:
        """Where the tokens of each prompt stand: with their caption, the characters of quoted text each at its own place."""
        return [self._anchors(prompt) for prompt in prompts]

    def caption_positions(self, ids: Sequence[int]) -> list[int]:
        """The position of every token in its caption: 0 at an opening tag and after a closing one, at most the last known."""
        opening, closing = ({self.tokenizer.token_to_id(tag) for tag in tags} for tags in (OPENING_TAGS, CLOSING_TAGS))
        positions, following = [], 0
        for token in ids:
            position = 0 if token in opening else following
            positions.append(min(position, self.config.positions - 1))
            following = 0 if token in closing else position + 1
        return positions

    def _states(self, ids: list[int]) -> Tensor:
        device = self.tokens.weight.device
        tokens, positions = (torch.tensor(row, device=device) for row in (ids, self.caption_positions(ids)))
        embedded = self.tokens(tokens) + self.positions(positions)  # (T, width)
        return F.layer_norm(embedded, (self.config.width,), eps=1e-5)

    def _encoding(self, prompt: str) -> Encoding:
        return self.tokenizer.encode(prompt.strip())

    def _anchors(self, prompt: str) -> TextAnchors:
        # a token takes the blank before it along, so its end says where it belongs; END belongs to no caption
        spans = torch.tensor([*self._encoding(prompt).offsets, (0, 0)], dtype=torch.float32)
        starts, ends = spans.unbind(1)
        caption = torch.full((len(spans),), NO_CAPTION)
        along = torch.full((len(spans),), BOX_CENTRE)
        for number, match in enumerate(LAYER_CAPTION.finditer(prompt.strip())):
            caption[(ends > match.start()) & (ends <= match.end())] = number
        for match in QUOTED.finditer(prompt.strip()):
            first, last = match.span(1)
            quoted = (starts >= first) & (ends <= last) & (ends > starts)
            along[quoted] = ((starts + ends)[quoted] / 2 - first) / (last - first)
        return TextAnchors(caption, along)
