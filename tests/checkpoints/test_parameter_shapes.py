"""The layers that are listed from a model's sizes are those of the model itself, name by name and in its order."""

import pytest
from torch import nn

from mrt_core.checkpoints.parameter_shapes import (
    autoencoder_layers,
    tensor_shapes,
    text_encoder_layers,
    transformer_layers,
)
from mrt_core.models.autoencoder import Autoencoder
from mrt_core.models.configs import AutoencoderConfig, TextConfig, TransformerConfig
from mrt_core.models.text import TextEmbeddings
from mrt_core.models.transformer import MaskedRegionTransformer
from mrt_core.models.unfilled import UNFILLED

PUBLIC = {"condition_embedding": False, "clean_timestep": "shared"}
UNEVEN = {"num_layers": 3, "num_heads": 3, "head_dim": 16, "text_dim": 20, "in_channels": 36, "rope_axes": (4, 6, 6)}
TRANSFORMERS = {
    "teacher or student": TransformerConfig(),
    "Qwen-Image": TransformerConfig(**PUBLIC),
    "Qwen-Image-Layered": TransformerConfig(**PUBLIC, additional_t_cond=True),
    "no two sizes alike": TransformerConfig(**UNEVEN),
    "both embeddings": TransformerConfig(**UNEVEN, additional_t_cond=True),
}
AUTOENCODERS = [
    AutoencoderConfig(),
    AutoencoderConfig(96, 3, 3),
    AutoencoderConfig(4, 3, 4),
    AutoencoderConfig(6, 4, 3),
]
TEXT = TextConfig(vocabulary=50, width=12, positions=7)


def shapes_of(module: nn.Module) -> list:
    return [(name, tuple(tensor.shape)) for name, tensor in module.state_dict().items()]


def linears_of(module: nn.Module) -> set:
    return {name for name, layer in module.named_modules() if isinstance(layer, nn.Linear)}


def require_same(layers, module):
    assert list(tensor_shapes(layers).items()) == shapes_of(module)
    assert {name for name, layer in layers.items() if layer.linear} == linears_of(module)
    assert all(name == layer.name for name, layer in layers.items())


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transformers(name):
    config = TRANSFORMERS[name]
    require_same(transformer_layers(config), MaskedRegionTransformer(config, device="meta", operations=UNFILLED))


@pytest.mark.parametrize("config", AUTOENCODERS, ids=lambda config: f"{config.base_width} wide")
def test_autoencoders(config):
    require_same(autoencoder_layers(config), Autoencoder(config, device="meta"))


@pytest.mark.parametrize("config", [TextConfig(), TEXT], ids=["default", "uneven"])
def test_text_embeddings(config):
    require_same(text_encoder_layers(config), TextEmbeddings(config, None, device="meta", operations=UNFILLED))
