"""The small text encoder of the bundled checkpoint: a byte-level BPE and a bidirectional transformer.

Byte-level BPE accepts any script. The encoder is trained before the transformer that reads it (`training.text`).
"""

import math
import re
from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from .configs import SmallTextConfig
from .tokenizer import END

LAYER_CAPTION = re.compile("<layer>.*?</layer>", re.DOTALL)
NO_CAPTION = -1


class TextEncoder(Protocol):
    """Prompts to text states: one tensor (tokens, width) per prompt, without padding.

    It is an nn.Module or holds one as `model`, which a pipeline moves between devices.
    """

    def encode_prompts(self, prompts: Sequence[str]) -> list[Tensor]: ...

    def caption_indices(self, prompts: Sequence[str]) -> list[Tensor] | None:
        """Per prompt, which `<layer> caption </layer>` each token belongs to (tokens,), counted from 0, or NO_CAPTION.

        None: the model was trained with text that stands apart from the layers, as Qwen-Image's does.
        """


class TextBlock(nn.Module):
    """Pre-norm self-attention and MLP."""

    def __init__(self, config: SmallTextConfig, operations, **factory):
        super().__init__()
        width, self.heads = config.width, config.num_heads
        self.norm1 = operations.LayerNorm(width, **factory)
        self.qkv = operations.Linear(width, 3 * width, **factory)
        self.out = operations.Linear(width, width, **factory)
        self.norm2 = operations.LayerNorm(width, **factory)
        self.up = operations.Linear(width, 4 * width, **factory)
        self.down = operations.Linear(4 * width, width, **factory)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:  # (B, T, width), (B, 1, 1, T) True = token
        q, k, v = (
            self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        )  # (B, heads, T, dim)
        scores = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).masked_fill(~mask, -torch.inf)  # (B, heads, T, T)
        attended = (scores.softmax(-1).to(v.dtype) @ v).transpose(1, 2).flatten(2)
        x = x + self.out(attended)
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class SmallTextEncoder(nn.Module):
    """Token and position embeddings, then a few bidirectional blocks; `tokenizer` belongs to the weights."""

    def __init__(self, config: SmallTextConfig, tokenizer: Tokenizer, dtype=None, device=None, operations=nn):
        super().__init__()
        factory = {"dtype": dtype, "device": device}
        self.config, self.tokenizer = config, tokenizer
        self.tokens = operations.Embedding(config.vocabulary, config.width, **factory)
        self.positions = operations.Embedding(config.max_tokens, config.width, **factory)
        self.blocks = nn.ModuleList([TextBlock(config, operations, **factory) for _ in range(config.num_layers)])
        self.norm = operations.LayerNorm(config.width, **factory)

    def tokenize(self, prompt: str) -> list[int]:
        """Token ids of one prompt, closed by END."""
        return [*self.tokenizer.encode(prompt.strip()).ids, self.tokenizer.token_to_id(END)]

    def caption_indices(self, prompts: Sequence[str]) -> list[Tensor]:
        """Which layer caption each token of each prompt belongs to (see `TextEncoder`)."""
        return [self._caption_index(prompt.strip()) for prompt in prompts]

    def _caption_index(self, prompt: str) -> Tensor:
        # not their starts: a token takes the blank before it along
        ends = torch.tensor([end for _, end in self.tokenizer.encode(prompt).offsets], dtype=torch.long)
        index = torch.full((len(ends) + 1,), NO_CAPTION)  # END belongs to none
        for number, match in enumerate(LAYER_CAPTION.finditer(prompt)):
            index[:-1][(ends > match.start()) & (ends <= match.end())] = number
        return index

    def encode_prompts(self, prompts: Sequence[str]) -> list[Tensor]:
        """Text states, one (tokens, width) per prompt; tokens see those of their own piece of a long prompt."""
        rows = [torch.tensor(self.tokenize(prompt)) for prompt in prompts]
        pieces = [row.tensor_split(math.ceil(len(row) / self.config.max_tokens)) for row in rows]
        states = iter(self._encode([piece for few in pieces for piece in few]))
        return [torch.cat([next(states) for _ in few]) for few in pieces]

    def _encode(self, rows: Sequence[Tensor]) -> list[Tensor]:
        """The states (T, width) of rows of at most `max_tokens` ids (T,)."""
        device = self.tokens.weight.device
        ids = nn.utils.rnn.pad_sequence(rows, batch_first=True).to(device)  # (B, T)
        lengths = torch.tensor([len(row) for row in rows], device=device)
        index = torch.arange(ids.shape[1], device=device)
        mask = (index < lengths[:, None])[:, None, None]  # (B, 1, 1, T)
        x = self.tokens(ids) + self.positions(index)
        for block in self.blocks:
            x = block(x, mask)
        return [states[: len(row)] for states, row in zip(self.norm(x), rows, strict=True)]
