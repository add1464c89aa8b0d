"""A tiny Qwen2.5-VL in its public files, which the tests of the text encoder and of whole folders share."""

import json
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

from mrt_core.checkpoints.qwen_text import TEMPLATE_END, TEMPLATE_START

CHAT_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
SPLIT = (
    r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"  # Qwen2's, but contractions
)


def write_tokenizer(folder: Path) -> Path:
    """A byte-level BPE in Qwen's files, with ChatML tokens; the template's words are single tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(SPLIT), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=600, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([(TEMPLATE_START + TEMPLATE_END).replace("<|im_", " ")] * 3, trainer)
    tokenizer.model.save(str(folder))
    first = tokenizer.get_vocab_size()
    added = {str(first + k): {"content": token, "special": True} for k, token in enumerate(CHAT_TOKENS)}
    settings = {"tokenizer_class": "Qwen2Tokenizer", "added_tokens_decoder": added}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def tiny_qwen(vocabulary: int, **sizes):
    """A random Qwen2.5-VL of transformers, vision tower and all; `sizes` are the language model's."""
    import transformers

    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}
    text = dict(**sizes, vocab_size=vocabulary, rms_norm_eps=1e-6, rope_parameters=rope)
    vision = dict(depth=1, hidden_size=16, intermediate_size=16, num_heads=2, out_hidden_size=sizes["hidden_size"])
    return transformers.Qwen2_5_VLForConditionalGeneration(
        transformers.Qwen2_5_VLConfig(text_config=text, vision_config=vision)
    )
