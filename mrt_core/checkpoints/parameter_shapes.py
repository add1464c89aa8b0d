"""Which layers each model has, and the shapes of their weights, told from its sizes: what a file must hold to fit.

The modules themselves would tell the same, but only after PyTorch is imported, which takes longer than looking at a file.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from ..models.configs import (
    LATENT_CHANNELS,
    LEVEL_MULTIPLES,
    MLP_RATIO,
    TIME_CHANNELS,
    AutoencoderConfig,
    TextConfig,
    TransformerConfig,
)

Shape = tuple[int, ...]


class ParameterGroup(NamedTuple):
    """A module that has weights; `linear` ones multiply, so that they may be quantised and take low-rank pairs."""

    name: str
    linear: bool
    shapes: dict[str, Shape]  # by parameter: `weight` and, where there is one, `bias`; or `gamma`


def transformer_layers(config: TransformerConfig) -> dict[str, ParameterGroup]:
    """The layers of a `MaskedRegionTransformer` by name, in the order of its state dict
    (architecture: parameter names)."""
    return _by_name(_transformer(config))


def text_encoder_layers(config: TextConfig) -> dict[str, ParameterGroup]:
    """The layers of a `TextEmbeddings` by name, in the order of its state dict."""
    return _by_name(_text_encoder(config))


def autoencoder_layers(config: AutoencoderConfig) -> dict[str, ParameterGroup]:
    """The layers of an `Autoencoder` by name, in the order of its state dict (architecture: autoencoder)."""
    return _by_name(_autoencoder(config))


def tensor_shapes(layers: Mapping[str, ParameterGroup]) -> dict[str, Shape]:
    """The shape of every tensor of these layers, by its name."""
    return {f"{name}.{part}": shape for name, layer in layers.items() for part, shape in layer.shapes.items()}


def _by_name(layers: Iterable[ParameterGroup]) -> dict[str, ParameterGroup]:
    return {layer.name: layer for layer in layers}


def _linear(name: str, inputs: int, outputs: int) -> ParameterGroup:
    return ParameterGroup(name, True, {"weight": (outputs, inputs), "bias": (outputs,)})


def _convolution(name: str, inputs: int, outputs: int, side: int) -> ParameterGroup:
    return ParameterGroup(name, False, {"weight": (outputs, inputs, side, side), "bias": (outputs,)})


def _embedding(name: str, rows: int, width: int) -> ParameterGroup:
    return ParameterGroup(name, False, {"weight": (rows, width)})


def _rms_norm(name: str, width: int) -> ParameterGroup:
    return ParameterGroup(name, False, {"weight": (width,)})


def _channel_norm(name: str, channels: int) -> ParameterGroup:
    return ParameterGroup(name, False, {"gamma": (channels,)})


def _transformer(config: TransformerConfig) -> Iterator[ParameterGroup]:
    width = config.width
    yield _linear("img_in", config.in_channels, width)
    yield _rms_norm("txt_norm", config.text_dim)
    yield _linear("txt_in", config.text_dim, width)
    yield _linear("time_text_embed.timestep_embedder.linear_1", TIME_CHANNELS, width)
    yield _linear("time_text_embed.timestep_embedder.linear_2", width, width)
    if config.additional_t_cond:
        yield _embedding("time_text_embed.addition_t_embedding", 2, width)
    if config.condition_embedding:
        yield _embedding("cond_token_embed", 1, width)
    for number in range(config.num_layers):
        yield from _transformer_block(f"transformer_blocks.{number}.", width, config.head_dim)
    yield _linear("norm_out.linear", width, 2 * width)
    yield _linear("proj_out", width, config.in_channels)


def _transformer_block(block: str, width: int, head_dim: int) -> Iterator[ParameterGroup]:
    for stream in ("img", "txt"):
        yield _linear(f"{block}{stream}_mod.1", width, 6 * width)
    for name in ("to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out", "to_out.0"):
        yield _linear(f"{block}attn.{name}", width, width)
    for name in ("norm_q", "norm_k", "norm_added_q", "norm_added_k"):
        yield _rms_norm(f"{block}attn.{name}", head_dim)
    for stream in ("img", "txt"):
        yield _linear(f"{block}{stream}_mlp.net.0.proj", width, MLP_RATIO * width)
        yield _linear(f"{block}{stream}_mlp.net.2", MLP_RATIO * width, width)


def _text_encoder(config: TextConfig) -> Iterator[ParameterGroup]:
    yield _embedding("tokens", config.vocabulary, config.width)
    yield _embedding("positions", config.positions, config.width)


def _autoencoder(config: AutoencoderConfig) -> Iterator[ParameterGroup]:
    widths = [config.base_width * multiple for multiple in LEVEL_MULTIPLES]
    yield from _encoder(config.in_channels, widths)
    yield _convolution("quant_conv", 2 * LATENT_CHANNELS, 2 * LATENT_CHANNELS, 1)
    yield _convolution("post_quant_conv", LATENT_CHANNELS, LATENT_CHANNELS, 1)
    yield from _decoder(config.out_channels, widths[::-1])


def _encoder(in_channels: int, widths: list[int]) -> Iterator[ParameterGroup]:
    last = widths[-1]
    yield _convolution("encoder.conv_in", in_channels, widths[0], 3)
    for level, (below, width) in enumerate(zip([widths[0], *widths], widths, strict=False)):
        first = 3 * level  # two residual blocks and a downsampler per level
        yield from _residual_block(f"encoder.down_blocks.{first}.", below, width)
        yield from _residual_block(f"encoder.down_blocks.{first + 1}.", width, width)
        if level < len(widths) - 1:
            yield _convolution(f"encoder.down_blocks.{first + 2}.resample.1", width, width, 3)
    yield from _mid_block("encoder.mid_block.", last)
    yield _channel_norm("encoder.norm_out", last)
    yield _convolution("encoder.conv_out", last, 2 * LATENT_CHANNELS, 3)


def _decoder(out_channels: int, widths: list[int]) -> Iterator[ParameterGroup]:
    yield _convolution("decoder.conv_in", LATENT_CHANNELS, widths[0], 3)
    yield from _mid_block("decoder.mid_block.", widths[0])
    below = widths[0]
    for level, width in enumerate(widths):
        block = f"decoder.up_blocks.{level}."
        for number, inputs in enumerate((below, width, width)):
            yield from _residual_block(f"{block}resnets.{number}.", inputs, width)
        if level < len(widths) - 1:
            yield _convolution(f"{block}upsamplers.0.resample.1", width, width // 2, 3)
        below = width // 2
    yield _channel_norm("decoder.norm_out", widths[-1])
    yield _convolution("decoder.conv_out", widths[-1], out_channels, 3)


def _mid_block(block: str, channels: int) -> Iterator[ParameterGroup]:
    for number in range(2):
        yield from _residual_block(f"{block}resnets.{number}.", channels, channels)
    yield _channel_norm(f"{block}attentions.0.norm", channels)
    yield _convolution(f"{block}attentions.0.to_qkv", channels, 3 * channels, 1)
    yield _convolution(f"{block}attentions.0.proj", channels, channels, 1)


def _residual_block(block: str, inputs: int, outputs: int) -> Iterator[ParameterGroup]:
    yield _channel_norm(f"{block}norm1", inputs)
    yield _convolution(f"{block}conv1", inputs, outputs, 3)
    yield _channel_norm(f"{block}norm2", outputs)
    yield _convolution(f"{block}conv2", outputs, outputs, 3)
    if inputs != outputs:
        yield _convolution(f"{block}conv_shortcut", inputs, outputs, 1)
