"""An MRT checkpoint from public weights: Qwen-Image's or Qwen-Image-Layered's transformer with an RGBA autoencoder.

What MRT adds starts so that the source's own predictions stay as they are: a condition embedding of zeros,
and the noise level 0 for clean tokens, of which a public model has none (architecture: clean tokens). The paper starts
from Qwen-Image's weights in the same way and trains all of them (section 4.1).
"""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from ..errors import MRTError
from ..weights import WeightSource, open_weights
from ..weights.keys import AUTOENCODER_PREFIX, INFO_KEY
from ..weights.plain import read_plain, stored_dtype
from ..weights.safetensors_file import DTYPE_NAMES, save_streamed
from ..weights.safetensors_header import TensorEntry
from .components import AutoencoderWeights, read_autoencoder, read_bundled_autoencoder
from .detection import inspect_weights
from .info import CheckpointInfo
from .parameter_shapes import tensor_shapes, transformer_layers
from .report import CheckpointReport, Family, require_loadable

CONDITION_EMBEDDING = "cond_token_embed.weight"
OPAQUE = 1.0  # alpha in the autoencoder's range of -1..1
IMAGE_CHANNELS = {"encoder.conv_in.weight": 1, "decoder.conv_out.weight": 0, "decoder.conv_out.bias": 0}  # name: axis


class Initialisation(NamedTuple):
    """What was written, how the source was quantised, if it was, and whether its autoencoder had to be widened to RGBA."""

    info: CheckpointInfo
    quantised: str | None
    widened: bool


def initialise_checkpoint(
    source: Path | str,
    output: Path | str,
    autoencoder: Path | str | None = None,
    dtype: torch.dtype | None = None,
    region_mode: str = "halo",
) -> Initialisation:
    """Write an MRT checkpoint, or nothing, from a public model in any form that is read; memory holds one tensor at a time.

    The transformer's weights keep their names and, without `dtype`, their precision; quantised ones are unpacked, to bf16
    without `dtype`. The autoencoder is the one given, else the source's own. Raises MRTError, in one sentence, for another
    model, for weights that are damaged or do not fit, and where there is no autoencoder.
    """
    source, output = Path(source), Path(output)
    weights = open_weights(source)
    report = inspect_weights(source, weights)
    public = require_loadable(report)
    _require_public(report)
    given = read_autoencoder(autoencoder) if autoencoder else read_bundled_autoencoder(weights, report)
    if given is None:
        raise MRTError(
            f"{source.name} comes without an autoencoder, which an MRT checkpoint brings along; give one with --vae, such as "
            "qwen_image_layered_vae.safetensors"
        )
    rgba = widen_to_rgba(given)
    transformer = replace(public.transformer, condition_embedding=True, clean_timestep="zero")
    info = CheckpointInfo(transformer, rgba.config, frame_area=public.frame_area, region_mode=region_mode)
    _write(weights, report, rgba, info, output, dtype)
    return Initialisation(info, str(report.quantisation) if report.quantisation else None, rgba is not given)


def _require_public(report: CheckpointReport) -> None:
    if report.family in (Family.TEACHER, Family.STUDENT):
        raise MRTError(
            f"{report.path.name} is an {report.what} already, but Qwen-Image or Qwen-Image-Layered was expected; train it as it "
            "is with `mrt train finetune`"
        )


def widen_to_rgba(weights: AutoencoderWeights) -> AutoencoderWeights:
    """An autoencoder with four image channels in and out; one that has them already is returned as it is.

    As Qwen-Image-Layered's began (architecture: latents): alpha's weights are zero and its bias in the decoder is 1, so
    that alpha goes unseen and comes out opaque.
    """
    if (weights.config.in_channels, weights.config.out_channels) == (4, 4):
        return weights
    state = dict(weights.state)
    for name, axis in IMAGE_CHANNELS.items():
        if state[name].shape[axis] == 3:
            alpha = torch.zeros_like(state[name].narrow(axis, 0, 1))
            alpha += OPAQUE if name.endswith("bias") else 0.0
            state[name] = torch.cat([state[name], alpha], axis)
    return AutoencoderWeights(replace(weights.config, in_channels=4, out_channels=4), state)


def _write(
    source: WeightSource,
    report: CheckpointReport,
    autoencoder: AutoencoderWeights,
    info: CheckpointInfo,
    output: Path,
    dtype: torch.dtype | None,
) -> None:
    """Stream the checkpoint to `output`, the transformer tensor by tensor from its source."""
    shapes = tensor_shapes(transformer_layers(report.info.transformer))
    dtypes = {name: dtype or stored_dtype(source.tensors[report.prefix + name]) for name in shapes}
    small = {CONDITION_EMBEDDING: torch.zeros(1, info.transformer.width, dtype=dtypes["img_in.weight"])}
    small |= {AUTOENCODER_PREFIX + name: tensor.to(dtype or tensor.dtype) for name, tensor in autoencoder.state.items()}
    entries = {name: TensorEntry(DTYPE_NAMES[dtypes[name]], shape) for name, shape in shapes.items()}
    entries |= {name: TensorEntry(DTYPE_NAMES[tensor.dtype], tuple(tensor.shape)) for name, tensor in small.items()}
    _require_space(output, sum(entry.size for entry in entries.values()))

    def tensors():
        yield from small.items()
        yield from read_plain(source, report.prefix, report.quantisation, dtypes)

    save_streamed(output, entries, tensors(), {"format": "pt", INFO_KEY: info.to_json()})


def _require_space(output: Path, size: int) -> None:
    """Raise MRTError where the disk has less room than the weights, before most of them are written."""
    folder = next(folder for folder in output.absolute().parents if folder.is_dir())
    free = shutil.disk_usage(folder).free
    if size > free:
        raise MRTError(
            f"{output.name} will have {size / 1e9:.1f} GB, but {folder} has {free / 1e9:.1f} GB free; free some, write it "
            "elsewhere or give --dtype bf16"
        )
