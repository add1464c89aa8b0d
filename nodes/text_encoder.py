"""The text embeddings of a small checkpoint as a ComfyUI CLIP, for the stock text nodes."""

import comfy.ops
import comfy.sd
import comfy.supported_models_base
import torch
from tokenizers import Tokenizer
from torch import Tensor

from ..mrt_core.models.configs import TextConfig
from ..mrt_core.models.sequence import TextAnchors
from ..mrt_core.models.text import TextEmbeddings
from .diffusion_model import ANCHORS


class PromptText:
    """ComfyUI's tokenizer: it hands the prompt on as it is, since the encoder holds the tokenizer of its weights."""

    def __init__(self, embedding_directory=None, tokenizer_data=None):
        pass

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, **_) -> dict[str, list[str]]:
        """The prompt; weights like (word:1.2) are part of the text, as in all models with a language model in front."""
        return {"mrt": [text]}

    def state_dict(self) -> dict:
        """Nothing: the tokenizer is saved with the checkpoint."""
        return {}


def load_text_encoder(config: TextConfig, tokenizer: Tokenizer, state: dict[str, Tensor]) -> comfy.sd.CLIP:
    """The CLIP of a checkpoint's text embeddings; they stay in fp32, being small."""

    class TextModel(torch.nn.Module):
        """ComfyUI's text model around the encoder; its one sub-module gives the keys that LoRAs are found by."""

        def __init__(self, dtype=None, device=None, model_options=None):
            super().__init__()
            operations = comfy.ops.disable_weight_init
            self.transformer = TextEmbeddings(config, tokenizer, dtype, device, operations)
            self.dtypes = {dtype}

        def set_clip_options(self, options: dict) -> None:
            pass

        def reset_clip_options(self) -> None:
            pass

        def encode_token_weights(self, tokens: dict[str, list[str]]) -> tuple[Tensor, None, dict]:
            """Text states (1, T, width), no pooled output, and what every token stands beside, as `TextAnchors` of tuples."""
            prompts = tokens["mrt"]
            states = self.transformer.encode_prompts(prompts)[0][None]
            anchors = self.transformer.anchors(prompts)[0]
            return states, None, {ANCHORS: TextAnchors(*(tuple(column.tolist()) for column in anchors))}

        def load_sd(self, state: dict[str, Tensor]):
            return self.transformer.load_state_dict(state, strict=False)

    target = comfy.supported_models_base.ClipTarget(PromptText, TextModel)
    size = sum(tensor.numel() for tensor in state.values())
    options = {"dtype": torch.float32}
    return comfy.sd.CLIP(target, parameters=size, state_dict=[state], model_options=options, disable_dynamic=True)
