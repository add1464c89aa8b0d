"""Qwen2.5-VL's language model as the text encoder of full-size checkpoints, through transformers
(architecture: Qwen's text).

Given text alone, the language model is a plain Qwen2: its three rotary axes then count the same positions. Everything is
read from local files; nothing here reaches for the network.
"""

import logging
import math
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import MRTError
from ..weights import WeightSource, open_weights
from ..weights.plain import as_scale, dequantise
from ..weights.quantisation import Quantisation, belongs_to_packed, find_quantisation, our_name
from ..weights.reading import read_weights

log = logging.getLogger(__name__)

TEMPLATE_START = (
    "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, quantity, text, spatial "
    "relationships of the objects and background:<|im_end|>\n<|im_start|>user\n"
)
TEMPLATE_END = "<|im_end|>\n<|im_start|>assistant\n"
TURN_START = "<|im_start|>"
USER_HEADER = ("user", "Ċ")  # what follows TURN_START in the user's turn; Ċ is the byte-level spelling of a line feed
LONGEST_PROMPT = 1024  # tokens, the template's end included; what Qwen-Image was trained with

HEAD_DIM = 128  # of every Qwen2.5-VL
ROPE_THETA = 1e6
NORM_EPSILON = 1e-6
LANGUAGE_PREFIXES = ("model.language_model.", "language_model.model.", "language_model.", "model.", "")
VISION_TOWER = re.compile(r"(^|\.)visual\.")
LANGUAGE_PARTS = ("embed_tokens.", "layers.", "norm.")


class QwenTextEncoder:
    """Prompts to the last hidden states of Qwen2.5-VL, in the template that Qwen-Image was trained with.

    `model` is a transformers Qwen2Model and `tokenizer` its tokenizer; `max_tokens` bounds the states of a prompt, the
    five tokens that close the template included. Raises MRTError for a foreign tokenizer or a bound out of 1..1024.
    """

    def __init__(self, model: Any, tokenizer: Any, max_tokens: int = 512):
        if not 1 <= max_tokens <= LONGEST_PROMPT:
            raise MRTError(f"max_tokens is {max_tokens}, but it must lie in 1..{LONGEST_PROMPT}; 512 is usual")
        self.model, self.tokenizer, self.max_tokens = model, tokenizer, max_tokens
        self.dropped = _template_tokens(tokenizer)

    @property
    def width(self) -> int:
        """Channels of a text state: 3584 for the 7B model."""
        return self.model.config.hidden_size

    def tokenize(self, prompt: str) -> list[int]:
        """Token ids of a prompt in its template, cut so that at most `max_tokens` follow the dropped ones."""
        ids = self.tokenizer(TEMPLATE_START + prompt + TEMPLATE_END)["input_ids"]
        return ids[: self.dropped + self.max_tokens]

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> list[Tensor]:
        """Text states, one (tokens, width) per prompt: the last hidden states after the final norm, without the system turn."""
        states = []
        for prompt in prompts:
            ids = torch.tensor([self.tokenize(prompt)], device=self.model.device)  # (1, T)
            hidden = self.model(input_ids=ids, use_cache=False).last_hidden_state  # (1, T, width)
            states.append(hidden[0, self.dropped :])
        return states

    def anchors(self, prompts: Sequence[str]) -> None:
        """None: Qwen-Image's text stands apart from the layers."""


def _template_tokens(tokenizer: Any) -> int:
    """How many tokens stand before the prompt, 34 in the public tokenizer: up to the user's turn and its three tokens."""
    ids = tokenizer(TEMPLATE_START + TEMPLATE_END)["input_ids"]
    turn = tokenizer.convert_tokens_to_ids(TURN_START)
    turns = [index for index, token in enumerate(ids) if token == turn]
    if len(turns) == 3:
        cut = turns[1] + 1 + len(USER_HEADER)
        if tuple(tokenizer.convert_ids_to_tokens(ids[turns[1] + 1 : cut])) == USER_HEADER:
            return cut
    raise MRTError(
        f"this tokenizer does not read {TURN_START} and the user's turn as Qwen2.5's does; give the tokenizer folder of "
        "Qwen-Image or Qwen2.5-VL"
    )


def load_qwen_text_encoder(
    weights: Path | str,
    tokenizer: Path | str | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.bfloat16,
    max_tokens: int = 512,
) -> QwenTextEncoder:
    """Load Qwen2.5-VL's language model from local files; its vision tower is left out, and fp8 weights become plain ones.

    `weights` is one .safetensors file, a folder of shards, or a Qwen-Image folder with `text_encoder` and `tokenizer`
    inside; `tokenizer` is a folder with vocab.json and merges.txt, needed in the first two cases. Raises MRTError.
    """
    transformers = _import_transformers()
    weights = Path(weights)
    if (weights / "text_encoder").is_dir():
        weights, inside = weights / "text_encoder", weights / "tokenizer"
        tokenizer = tokenizer or inside
    if tokenizer is None:
        raise MRTError(
            f"{weights} comes without a tokenizer; give the tokenizer folder of Qwen-Image or Qwen2.5-VL too"
        )
    reader = _load_tokenizer(transformers, Path(tokenizer))
    model = _load_model(transformers, weights, open_weights(weights), device, dtype)
    return QwenTextEncoder(model, reader, max_tokens)


def _import_transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise MRTError(
            "the package transformers, which reads Qwen2.5-VL, is not installed; run `pip install transformers`"
        ) from error
    return transformers


def _load_tokenizer(transformers: Any, folder: Path) -> Any:
    if not all((folder / name).is_file() for name in ("vocab.json", "merges.txt")):
        raise MRTError(
            f"{folder} is not a Qwen tokenizer folder, which holds vocab.json and merges.txt; give the tokenizer folder of "
            "Qwen-Image or Qwen2.5-VL"
        )
    try:
        return transformers.Qwen2Tokenizer.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MRTError(f"the tokenizer in {folder} cannot be read ({error}); download it again") from error


def _load_model(
    transformers: Any, weights: Path, source: WeightSource, device: str | torch.device, dtype: torch.dtype
) -> Any:
    prefix = next((start for start in LANGUAGE_PREFIXES if f"{start}embed_tokens.weight" in source.tensors), None)
    if prefix is None:
        raise MRTError(
            f"{weights} is not Qwen2.5-VL: embed_tokens.weight is missing; give its file or its text_encoder folder"
        )
    parts = tuple(prefix + part for part in LANGUAGE_PARTS)
    names = [name.removeprefix(prefix) for name in source.tensors if name.startswith(parts)]
    scheme = find_quantisation(source, prefix, names) or Quantisation("plain numbers", {})
    if scheme.refused:
        raise MRTError(
            f"{weights.name} is quantised as {scheme}, but plain or fp8 weights were expected; use the bf16 version of the file"
        )
    shapes = {name: source.tensors[prefix + name].shape for name in names if name not in scheme.sidecars}
    config = _language_config(transformers, weights, shapes)
    with torch.device("meta"):
        model = transformers.Qwen2Model(config)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    wrong = {name for name, shape in expected.items() if shapes.get(name) != shape}
    scales = {our_name(name): prefix + name for name in scheme.sidecars}
    wrong |= {
        name
        for name in _scale_names(scheme, expected)
        if not _is_scale(source, scales.get(name), expected[_weight(name)])
    }
    extra = sorted(shapes.keys() - expected.keys())
    stored = {name: source.tensors[prefix + name] for name in names}
    wrong |= {name for name in extra if belongs_to_packed(name, stored)}
    if wrong:
        raise MRTError(
            f"{weights} is not a whole Qwen2.5-VL: {len(wrong)} tensors are missing, unknown or of another shape "
            f"({', '.join(sorted(wrong)[:3])}); download it again"
        )
    if extra:
        log.warning("%s has %d tensors that are not used, such as %s", weights.name, len(extra), extra[0])
    if not any(VISION_TOWER.search(name) for name in source.tensors):
        log.warning(
            "%s has no vision tower and may be a Qwen2.5 without pictures, which prompts fit worse", weights.name
        )
    model.load_state_dict(
        _plain_weights(source, prefix, expected, scheme, scales, device, dtype), strict=True, assign=True
    )
    model.rotary_emb = type(model.rotary_emb)(config=config).to(device)  # its frequencies are computed, not stored
    return model.eval().requires_grad_(False)


def _scale_names(scheme: Quantisation, names: Collection[str]) -> list[str]:
    """The scales that the fp8 weights among `names` must have; a file may describe layers of its vision tower too."""
    layers = (name for name, layer in scheme.layers.items() if layer.dtype and f"{name}.weight" in names)
    return [f"{name}.weight_scale" for name in layers]


def _weight(scale: str) -> str:
    return scale.removesuffix("_scale")


def _is_scale(source: WeightSource, name: str | None, weight: tuple[int, ...]) -> bool:
    """Whether there is one number for a weight of this shape, or one per row."""
    return name is not None and math.prod(source.tensors[name].shape) in (1, weight[0])


def _plain_weights(
    source: WeightSource,
    prefix: str,
    names: Collection[str],
    scheme: Quantisation,
    scales: Mapping[str | None, str],
    device: str | torch.device,
    dtype: torch.dtype,
) -> dict[str, Tensor]:
    """The weights `names` as plain numbers, read one at a time; `scales` says where the scales of fp8 layers are."""
    needed = [scales[name] for name in _scale_names(scheme, names)]
    numbers = {name: as_scale(tensor) for name, tensor in read_weights(source, needed, device)}
    state = {}
    for stored, tensor in read_weights(source, [prefix + name for name in names], device):
        name = stored.removeprefix(prefix)
        layer = name.removesuffix(".weight")
        if layer in scheme.layers:
            scale = numbers.get(scales.get(f"{layer}.weight_scale", ""))
            tensor = dequantise(tensor, scheme.layers[layer], scale, source.tensors[stored].shape, dtype)
        state[name] = tensor.to(dtype)
    return state


def _language_config(transformers: Any, weights: Path, shapes: dict[str, tuple[int, ...]]) -> Any:
    """Sizes from the shapes, and the constants of the Qwen2.5-VL family."""
    sources = ("embed_tokens", "layers.0.self_attn.q_proj", "layers.0.self_attn.k_proj", "layers.0.mlp.gate_proj")
    matrices = [shapes.get(f"{name}.weight", ()) for name in sources]
    if not all(len(shape) == 2 and min(shape) > 0 for shape in matrices):
        raise MRTError(f"{weights} is not a whole Qwen2.5-VL: its first layer is missing; download it again")
    (vocabulary, width), (queries, _), (keys, _), (hidden, _) = matrices
    if queries != width or width % HEAD_DIM or keys % HEAD_DIM or (width // HEAD_DIM) % (keys // HEAD_DIM):
        raise MRTError(
            f"{weights} is {width} wide with queries of {queries} and keys of {keys}, but Qwen2.5-VL has heads of {HEAD_DIM}; "
            "give Qwen2.5-VL's file"
        )
    return transformers.Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=hidden,
        num_hidden_layers=len({name.split(".")[1] for name in shapes if name.startswith("layers.")}),
        num_attention_heads=width // HEAD_DIM,
        num_key_value_heads=keys // HEAD_DIM,
        rms_norm_eps=NORM_EPSILON,
        rope_theta=ROPE_THETA,
        max_position_embeddings=128_000,
    )
