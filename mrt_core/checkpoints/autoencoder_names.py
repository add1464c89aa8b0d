"""The two public namings of the Wan/Qwen autoencoder, told apart and brought to ours by names and shapes
(architecture: autoencoder).

Ours are the diffusers names with 2D convolutions. The other naming is Wan's, which ComfyUI reads.
"""

import math
import re
from collections.abc import Mapping
from functools import cache

from ..errors import MRTError
from ..models.configs import LATENT_CHANNELS, AutoencoderConfig
from .parameter_shapes import Shape, autoencoder_layers, tensor_shapes

REMEDY = "use qwen_image_vae or qwen_image_layered_vae"
# What Wan calls each part of a name, in the order in which the replacements must run.
WAN_PARTS = (
    (r"^quant_conv\.", "conv1."),
    (r"^post_quant_conv\.", "conv2."),
    (r"\.down_blocks\.", ".downsamples."),
    (r"\.up_blocks\.(\d+)\.resnets\.(\d+)\.", lambda match: f".upsamples.{4 * int(match[1]) + int(match[2])}."),
    (r"\.up_blocks\.(\d+)\.upsamplers\.0\.", lambda match: f".upsamples.{4 * int(match[1]) + 3}."),
    (r"\.mid_block\.resnets\.(\d+)\.", lambda match: f".middle.{2 * int(match[1])}."),
    (r"\.mid_block\.attentions\.0\.", ".middle.1."),
    (r"\.norm1\.", ".residual.0."),
    (r"\.conv1\.", ".residual.2."),
    (r"\.norm2\.", ".residual.3."),
    (r"\.conv2\.", ".residual.6."),
    (r"\.conv_shortcut\.", ".shortcut."),
    (r"\.conv_in\.", ".conv1."),
    (r"\.norm_out\.", ".head.0."),
    (r"\.conv_out\.", ".head.2."),
)


def wan_name(name: str) -> str:
    """The Wan/ComfyUI name of one of our parameters."""
    for pattern, replacement in WAN_PARTS:
        name = re.sub(pattern, replacement, name)
    return name


@cache
def _our_names() -> dict[str, str]:
    """Wan name to ours; they are the same at every width."""
    return {wan_name(name): name for name in tensor_shapes(autoencoder_layers(AutoencoderConfig()))}


def canonical_name(name: str) -> str | None:
    """What we call a tensor of either public naming, or of ours; None for `time_conv`, which a single frame never runs.

    A name that belongs to neither stays as it is, so that strict loading reports it.
    """
    return None if ".time_conv." in name else _our_names().get(name, name)


def canonical_shapes(shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """The shapes that `canonical_autoencoder_state` makes of these; raises MRTError for the autoencoder of Wan 2.2."""
    refuse_wan22(shapes)
    ours = {name: canonical_name(name) for name in shapes}
    return {ours[name]: _canonical_shape(name, shape) for name, shape in shapes.items() if ours[name] is not None}


def _canonical_shape(name: str, shape: Shape) -> Shape:
    if name.endswith(".gamma"):
        return (math.prod(shape),)  # (C,)
    return (*shape[:2], *shape[3:]) if len(shape) == 5 else shape  # (O, I, kh, kw)


def refuse_wan22(shapes: Mapping[str, Shape]) -> None:
    """Raise MRTError for the shapes of the autoencoder of Wan 2.2, in any of the namings."""
    names = ("decoder.conv_in.weight", "decoder.conv1.weight")
    channels = next((shapes[name][1] for name in names if len(shapes.get(name, ())) > 1), LATENT_CHANNELS)
    if channels != LATENT_CHANNELS or "decoder.upsamples.0.upsamples.0.residual.2.weight" in shapes:
        raise MRTError(
            f"this autoencoder is Wan 2.2's or alike, with {channels} latent channels, but the {LATENT_CHANNELS} of Wan 2.1 and "
            f"Qwen-Image are needed; {REMEDY}"
        )


def autoencoder_config_of_shapes(shapes: Mapping[str, Shape]) -> AutoencoderConfig:
    """Base width and image channels of tensors in any of the namings, with the public latent mean and std.

    Raises MRTError when it is not an autoencoder of the Wan 2.1 / Qwen-Image family.
    """
    shapes = canonical_shapes(shapes)
    first, last = (shapes.get(name, ()) for name in ("encoder.conv_in.weight", "decoder.conv_out.weight"))
    if len(first) != 4 or len(last) != 4:
        raise MRTError(
            "these tensors are no Wan 2.1 / Qwen-Image autoencoder: the first convolution of the encoder or the last of the "
            f"decoder (encoder.conv1 and decoder.head.2 in Wan's naming) is missing or no convolution; {REMEDY}"
        )
    channels = first[1], last[0]
    if not set(channels) <= {3, 4}:
        raise MRTError(
            f"this autoencoder has {channels[0]} image channels in and {channels[1]} out, but 3 (RGB) or 4 (RGBA) are "
            f"needed; {REMEDY}"
        )
    return AutoencoderConfig(first[0], *channels)
