"""Whether an autoencoder can do the job of the one that a transformer was trained with; shapes alone do not tell."""

import math

from ..errors import MRTError
from ..models.configs import AutoencoderConfig
from .info import CheckpointInfo

RGBA = 4
TOLERANCE = 1e-3  # of a latent mean or deviation: config files round them
LAYERED_VAE = "qwen_image_layered_vae.safetensors"
WORDS = {3: "3 (RGB)", RGBA: "4 (RGBA)"}


def require_alpha(name: str, config: AutoencoderConfig, remedy: str) -> None:
    """Raise MRTError for an autoencoder, called `name`, whose decoder knows no transparency."""
    if config.out_channels != RGBA:
        raise MRTError(
            f"{name} is an autoencoder of {WORDS[config.out_channels]} image channels, but layers need {WORDS[RGBA]}, since "
            f"without alpha every one would be opaque; {remedy}"
        )


def require_same_channels(name: str, config: AutoencoderConfig, info: CheckpointInfo, model: str, remedy: str) -> None:
    """Raise MRTError for an autoencoder, called `name`, with other image channels than `model` was trained with."""
    found, trained = ((one.in_channels, one.out_channels) for one in (config, info.autoencoder))
    if found != trained:
        words = [f"{WORDS[encoder]} in and {WORDS[decoder]} out" for encoder, decoder in (found, trained)]
        raise MRTError(
            f"{name} is an autoencoder of image channels {words[0]}, but {model} was trained with {words[1]}; {remedy}"
        )


def require_same_latents(name: str, config: AutoencoderConfig, info: CheckpointInfo, model: str, remedy: str) -> None:
    """Raise MRTError for an autoencoder, called `name`, of another latent space than `model` was trained in."""
    found = config.latent_mean + config.latent_std
    trained = info.autoencoder.latent_mean + info.autoencoder.latent_std
    if not all(math.isclose(*pair, rel_tol=TOLERANCE, abs_tol=TOLERANCE) for pair in zip(found, trained, strict=True)):
        raise MRTError(
            f"{name} has latents of the mean {found[0]:g} and the deviation {config.latent_std[0]:g} in the first channel, but "
            f"{model} was trained with {trained[0]:g} and {info.autoencoder.latent_std[0]:g}, those of another autoencoder; "
            f"{remedy}"
        )
