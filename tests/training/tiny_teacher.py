"""A teacher of width 64 for the training tests, the same in every process."""

import torch

from mrt_core.models.configs import TextConfig, TransformerConfig
from mrt_core.models.tokenizer import train_tokenizer
from mrt_core.training.teacher import TeacherModel

TRANSFORMER = TransformerConfig(num_layers=2, num_heads=2, head_dim=32, text_dim=32, rope_axes=(8, 12, 12))


def make_teacher(seed: int, noise: float = 0.05) -> TeacherModel:
    """A fresh teacher; `noise` is added to every weight, since an untrained one predicts 0 whatever it sees."""
    tokenizer = train_tokenizer(["a red cat on a sunny hill", "a blue boat at sea"], 300)
    torch.manual_seed(seed)
    model = TeacherModel(TRANSFORMER, TextConfig(tokenizer.get_vocab_size(), 32, 24), tokenizer)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=noise)
    return model
