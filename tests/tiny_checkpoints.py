"""Small checkpoints that the tests of checkpoints and of their detection share."""

import json
import struct
from dataclasses import replace

import torch

from mrt_core.checkpoints.checkpoint import Checkpoint, CheckpointInfo
from mrt_core.models.autoencoder import Autoencoder
from mrt_core.models.configs import AutoencoderConfig, TextConfig, TransformerConfig
from mrt_core.models.text import TextEmbeddings
from mrt_core.models.tokenizer import train_tokenizer
from mrt_core.models.transformer import MaskedRegionTransformer

TINY = TransformerConfig(num_layers=2, num_heads=2, head_dim=16, text_dim=16, rope_axes=(4, 6, 6))
PUBLIC = TransformerConfig(  # the smallest model with Qwen-Image's head size, which needs no metadata
    num_layers=1, num_heads=1, text_dim=8, condition_embedding=False, clean_timestep="shared"
)


def tiny_checkpoint(**info) -> Checkpoint:
    """A random checkpoint of all three parts; `info` are more fields of its CheckpointInfo."""
    torch.manual_seed(0)
    tokenizer = train_tokenizer(["a red cat", "a blue boat at sea"], 300)
    text_config = TextConfig(vocabulary=300, width=16, positions=24)
    autoencoder_config = AutoencoderConfig(
        4, latent_mean=tuple(k / 7 for k in range(16)), latent_std=tuple(1 + k / 9 for k in range(16))
    )
    transformer, autoencoder = MaskedRegionTransformer(TINY), Autoencoder(autoencoder_config)
    text_encoder = TextEmbeddings(text_config, tokenizer)
    described = CheckpointInfo(TINY, autoencoder_config, text_config, frame_area=256 * 256, **info)
    return Checkpoint(transformer, autoencoder, text_encoder, described)


def public_state(layered: bool = False, condition: bool = False) -> dict[str, torch.Tensor]:
    """The weights of a small public model, as its files hold them."""
    torch.manual_seed(0)
    config = replace(PUBLIC, additional_t_cond=layered, condition_embedding=condition)
    return MaskedRegionTransformer(config).state_dict()


def header_bytes(header, length: int | None = None) -> bytes:
    """The start of a safetensors file: the header's length, or a lie about it, and the header, as JSON or raw bytes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text
