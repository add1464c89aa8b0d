"""Small random models and a small layered design that several test files share."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mrt_core.checkpoints.checkpoint import Checkpoint, CheckpointInfo, Sampling
from mrt_core.geometry import Box, Size
from mrt_core.layouts.layout import Layout, Region
from mrt_core.models.autoencoder import Autoencoder
from mrt_core.models.configs import AutoencoderConfig, TextConfig, TransformerConfig
from mrt_core.models.text import TextEmbeddings
from mrt_core.models.tokenizer import train_tokenizer
from mrt_core.models.transformer import MaskedRegionTransformer
from mrt_core.stacks.layers import Layer, LayerStack

TRANSFORMER = TransformerConfig(num_layers=2, num_heads=2, head_dim=32, text_dim=48, rope_axes=(8, 12, 12))


def random_transformer(seed: int = 0, **changes) -> MaskedRegionTransformer:
    """A transformer of width 64 in which every tensor matters, norms, biases and the condition embedding too."""
    torch.manual_seed(seed)
    model = MaskedRegionTransformer(replace(TRANSFORMER, **changes))
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model.eval().requires_grad_(False)


def random_autoencoder(channels: int = 4) -> Autoencoder:
    torch.manual_seed(channels)
    return Autoencoder(AutoencoderConfig(8, channels, channels)).eval().requires_grad_(False)


def noise_image(seed: int, height: int, width: int) -> np.ndarray:
    """Random straight RGBA, a fifth of it fully transparent."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (height, width, 4), dtype=np.uint8)
    pixels[rng.random((height, width)) < 0.2] = 0
    return pixels


@pytest.fixture(scope="session")
def make_transformer():
    return random_transformer


@pytest.fixture(scope="session")
def make_image():
    return noise_image


@pytest.fixture(scope="session")
def autoencoder() -> Autoencoder:
    return random_autoencoder()


@pytest.fixture(scope="session")
def rgb_autoencoder() -> Autoencoder:
    return random_autoencoder(channels=3)


@pytest.fixture(scope="session")
def tokenizer():
    return train_tokenizer(["a red cat on a sunny hill", "a blue boat at sea", "the word sale in white"], 320)


@pytest.fixture(scope="session")
def checkpoint(autoencoder, tokenizer) -> Checkpoint:
    """Transformer, autoencoder and text encoder, all random; two steps with guidance by default."""
    transformer = random_transformer()
    text_config = TextConfig(tokenizer.get_vocab_size(), TRANSFORMER.text_dim, positions=32)
    text_encoder = TextEmbeddings(text_config, tokenizer).eval().requires_grad_(False)
    info = CheckpointInfo(
        TRANSFORMER, autoencoder.config, text_config, frame_area=64 * 64, sampling=Sampling(steps=2, cfg=2.0)
    )
    return Checkpoint(transformer, autoencoder, text_encoder, info)


@pytest.fixture(scope="session")
def layout() -> Layout:
    """Three layers, of which the lowest and the topmost run past the frame; the canvas is 7 x 6 tokens at (-16, -16)."""
    regions = (
        Region("Sonne ☀", Box(-10, -6, 30, 20), "a sun"),
        Region("cat", Box(20, 8, 24, 30), "a red cat"),
        Region("label", Box(41, 35, 45, 33), "the word sale"),
    )
    return Layout(Size(64, 48), regions, "a cat in the sun", Region("Sky", Box(0, 0, 64, 48), "blue sky"))


@pytest.fixture(scope="session")
def stack(layout) -> LayerStack:
    """Random pixels in the layout's layers."""
    regions = [layout.background_region, *layout.regions]
    layers = []
    for number, region in enumerate(regions):
        x, y, width, height = (int(value) for value in region.box)
        layers.append(Layer(noise_image(number, height, width), x, y, region.name, region.caption))
    return LayerStack(layout.frame, tuple(layers))
