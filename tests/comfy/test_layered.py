"""Qwen-Image-Layered through the nodes, without a layout: the latents are the library's, the layers the picture's size."""

import pytest
import torch
from safetensors.torch import save_file
from tiny_checkpoints import public_state
from worker import run_worker

from mrt_core.models.autoencoder import Autoencoder
from mrt_core.models.configs import AutoencoderConfig


@pytest.fixture(scope="module")
def report(comfy_installation, tmp_path_factory) -> dict:
    """What the worker found with a small random model, its autoencoder in the same file."""
    path = tmp_path_factory.mktemp("layered") / "report.json"
    torch.manual_seed(0)
    autoencoder = Autoencoder(AutoencoderConfig(8, 4, 4)).state_dict()
    state = public_state(layered=True) | {f"vae.{name}": tensor for name, tensor in autoencoder.items()}
    folder = path.parent / "models" / "mrt"
    folder.mkdir(parents=True)
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "layered.safetensors")
    return run_worker(comfy_installation, "layered_worker.py", path)


def test_latents_are_those_of_the_library(report):
    assert report["scale"] > 1
    assert report["difference"] < 1e-4


def test_layers_are_as_large_as_the_picture(report):
    assert report["names"] == ["Layer 1", "Layer 2", "Layer 3"]
    assert report["images"] == [3, 60, 90, 4]
    assert all(size == [60, 90] for size in report["sizes"])


def test_layers_show_the_picture_together(report):
    """The node matches the layers to the picture, as far as random weights let it."""
    assert report["composite"] < 0.05


def test_the_model_must_be_connected(report):
    assert report["unconnected"] == (
        "the latent was laid out for another kind of model, mrt and not qwen_image_layered; connect the sampler's model to "
        "the model input of the Region Latents node too"
    )


@pytest.mark.parametrize("place", ["rgb encoder", "rgb decoder"])
def test_a_vae_without_alpha_is_refused(report, place):
    assert report[place] == (
        "the VAE is an autoencoder of 3 (RGB) image channels, but layers need 4 (RGBA), since without alpha every one would be "
        "opaque; connect the VAE of Load MRT Model, or Load VAE with qwen_image_layered_vae"
    )


def test_a_vae_of_other_channels_than_the_models_is_refused(report):
    assert report["other encoder"].startswith(
        "the VAE is an autoencoder of image channels 3 (RGB) in and 4 (RGBA) out, but the model was trained with 4 (RGBA) in and "
    )


def test_a_clip_of_another_width_is_refused(report):
    assert report["other text"].startswith(
        "the text encoder gives states 9 wide, but the model takes 8; connect the CLIP"
    )
