"""The models that a full-size transformer works with and that come in files of their own: autoencoder and text encoder."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import MRTError
from ..models.autoencoder import Autoencoder
from ..models.configs import AutoencoderConfig
from ..models.text import TextEncoder
from ..weights import WeightSource, open_weights
from ..weights.keys import AUTOENCODER_PREFIX
from ..weights.reading import read_weights
from ..weights.settings import autoencoder_settings
from .autoencoder_fit import LAYERED_VAE, require_alpha, require_same_channels, require_same_latents
from .autoencoder_keys import autoencoder_config, canonical_autoencoder_state
from .checkpoint import Checkpoint
from .detection import inspect_weights, split_names
from .info import CheckpointInfo
from .parameter_shapes import autoencoder_layers, tensor_shapes
from .qwen_text import load_qwen_text_encoder
from .report import CheckpointReport, require_loadable

log = logging.getLogger(__name__)


class AutoencoderWeights(NamedTuple):
    """An autoencoder as it is stored, by our names."""

    config: AutoencoderConfig
    state: dict[str, Tensor]


def read_autoencoder(path: Path | str) -> AutoencoderWeights:
    """A Wan 2.1 / Qwen-Image autoencoder from a file in either public naming, or from a diffusers folder.

    Its latent mean and deviation are those of a config.json beside the weights, else the public ones
    (architecture: latents). Raises MRTError for anything else.
    """
    path = Path(path)
    folder = path / "vae" if (path / "vae").is_dir() else path
    source = open_weights(folder)
    try:
        state = canonical_autoencoder_state(dict(read_weights(source, source.tensors)))
        config = autoencoder_config(state)
    except MRTError as error:
        raise MRTError(f"{path.name}: {error}") from error
    beside = (folder if folder.is_dir() else folder.parent) / "config.json"
    statistics = {name: value for name, value in autoencoder_settings(beside).items() if value is not None}
    if statistics:
        log.info("latent statistics from %s", beside)
    config = replace(config, **statistics)
    expected = tensor_shapes(autoencoder_layers(config))
    wrong = [name for name, shape in expected.items() if getattr(state.get(name), "shape", None) != shape]
    if wrong:
        raise MRTError(
            f"{path.name} is not a whole autoencoder: {len(wrong)} tensors are missing or of another shape "
            f"({', '.join(sorted(wrong)[:3])}); download it again"
        )
    extra = sorted(state.keys() - expected.keys())
    if extra:
        log.warning("%s has %d tensors that are not used, such as %s", path.name, len(extra), extra[0])
    state = {name: state[name] for name in expected}
    return AutoencoderWeights(config, state)


def read_bundled_autoencoder(source: WeightSource, report: CheckpointReport) -> AutoencoderWeights | None:
    """The autoencoder that is with a checkpoint's transformer, whose other weights are not read; None where there is none.

    `report` is of these weights and says that they can be loaded.
    """
    stored = split_names(source.tensors, report.prefix)[AUTOENCODER_PREFIX]
    if not stored:
        return None
    names = [name for name in stored if name not in set(report.unexpected)]
    state = {name.removeprefix(AUTOENCODER_PREFIX): tensor for name, tensor in read_weights(source, names)}
    return AutoencoderWeights(report.info.autoencoder, canonical_autoencoder_state(state))


def load_bundled_autoencoder(path: Path) -> tuple[Autoencoder, CheckpointInfo]:
    """A checkpoint's own autoencoder in fp32, and what the checkpoint says about itself; its other weights are not read.

    Raises MRTError for a checkpoint without one.
    """
    source = open_weights(path)
    report = inspect_weights(path, source)
    info = require_loadable(report)
    weights = read_bundled_autoencoder(source, report)
    if weights is None:
        raise MRTError(
            f"{path.name} comes without an autoencoder, which encodes the samples; make a checkpoint that has one with "
            "`mrt init --vae`"
        )
    return build_autoencoder(weights), info


def load_autoencoder(path: Path | str, dtype: torch.dtype = torch.float32) -> Autoencoder:
    """The autoencoder that `read_autoencoder` reads, ready to use; raises MRTError."""
    return build_autoencoder(read_autoencoder(path), dtype)


def build_autoencoder(weights: AutoencoderWeights, dtype: torch.dtype = torch.float32) -> Autoencoder:
    """An autoencoder of weights whose names and shapes fit."""
    model = Autoencoder(weights.config, device="meta")
    state = {name: tensor.to(dtype).contiguous() for name, tensor in weights.state.items()}
    model.load_state_dict(state, strict=True, assign=True)
    return model.eval().to(memory_format=torch.channels_last)


def find_autoencoder(checkpoint: Checkpoint, path: Path, given: Path | str | None, dtype: torch.dtype) -> Autoencoder:
    """The autoencoder that was `given`, else the one that is with the checkpoint at `path`.

    Raises MRTError where there is neither, for one that is given and of another kind than the transformer was trained with,
    and for one without alpha where layers are to be made.
    """
    info = checkpoint.info
    if given is not None:
        return _replacement(checkpoint, path, Path(given), dtype)
    if checkpoint.autoencoder is None:
        raise MRTError(
            f"{path.name} comes without an autoencoder, which turns layers into pictures; give one with --vae, such as "
            f"{LAYERED_VAE}"
        )
    if info.tasks:
        require_alpha(
            f"the one in {path.name}", info.autoencoder, f"give another one with --vae, such as {LAYERED_VAE}"
        )
    return checkpoint.autoencoder


def _replacement(checkpoint: Checkpoint, path: Path, given: Path, dtype: torch.dtype) -> Autoencoder:
    weights, info = read_autoencoder(given), checkpoint.info
    own = "leave --vae out to use its own" if checkpoint.autoencoder is not None else ""
    rgba = (info.autoencoder.in_channels, info.autoencoder.out_channels) == (4, 4)
    remedy = own or (f"give --vae {LAYERED_VAE}" if rgba else "give the one that belongs to it")
    if info.tasks:
        require_alpha(
            given.name, weights.config, remedy if info.autoencoder.out_channels == 4 else f"give --vae {LAYERED_VAE}"
        )
    if not info.tasks or info.autoencoder.out_channels == 4:
        require_same_channels(given.name, weights.config, info, path.name, remedy)
    require_same_latents(
        given.name, weights.config, info, path.name,
        own or "give the one that belongs to it, or put its config.json beside it",
    )  # fmt: skip
    return build_autoencoder(weights, dtype)


def find_text_encoder(
    checkpoint: Checkpoint, path: Path, given: Path | str | None, tokenizer: Path | str | None, dtype: torch.dtype
) -> TextEncoder:
    """The Qwen2.5-VL that was `given` or lies in the diffusers folder `path`, else the one in the checkpoint's own file.

    Raises MRTError where there is none, and for one whose states are not as wide as the transformer takes them.
    """
    if given is None and checkpoint.text_encoder is not None:
        return checkpoint.text_encoder
    if given is None and (path / "text_encoder").is_dir():
        given = path
    if given is None:
        raise MRTError(
            f"{path.name} comes without a text encoder, which reads prompts; give Qwen2.5-VL's file or folder with "
            "--text-encoder, and its tokenizer folder with --tokenizer"
        )
    encoder = load_qwen_text_encoder(given, tokenizer, dtype=dtype)
    expected = checkpoint.info.transformer.text_dim
    if encoder.width != expected:
        raise MRTError(
            f"{given} gives text states {encoder.width} wide, but {path.name} takes {expected}; give the text encoder that it "
            "was trained with, Qwen2.5-VL-7B for Qwen-Image"
        )
    return encoder
