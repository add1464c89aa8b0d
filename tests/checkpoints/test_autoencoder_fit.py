"""An autoencoder of the wrong kind is refused by name: it fits in shape and cannot do the job."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from tiny_checkpoints import tiny_checkpoint

from mrt_core.checkpoints.autoencoder_keys import wan_autoencoder_state
from mrt_core.checkpoints.bundled import bundled_checkpoint
from mrt_core.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from mrt_core.checkpoints.components import find_autoencoder, load_autoencoder
from mrt_core.cli import main
from mrt_core.errors import MRTError
from mrt_core.models.autoencoder import Autoencoder
from mrt_core.models.configs import AutoencoderConfig


def save_autoencoder(path, *channels: int, config: AutoencoderConfig | None = None):
    torch.manual_seed(0)
    model = Autoencoder(config or AutoencoderConfig(4, *channels))
    state = wan_autoencoder_state(model.state_dict())
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    return path


def given_to(tmp_path, trained: AutoencoderConfig, *channels: int, bundled: bool = True) -> Autoencoder:
    """What comes of an autoencoder with these image channels beside a checkpoint that was trained with another."""
    checkpoint = tiny_checkpoint()
    checkpoint.info = replace(checkpoint.info, autoencoder=trained)
    checkpoint.autoencoder = Autoencoder(trained) if bundled else None
    save_checkpoint(tmp_path / "mrt.safetensors", checkpoint)
    path = save_autoencoder(tmp_path / "vae.safetensors", *channels)
    return find_autoencoder(
        load_checkpoint(tmp_path / "mrt.safetensors"), tmp_path / "mrt.safetensors", path, torch.float32
    )


RGBA, PAPER = AutoencoderConfig(4), AutoencoderConfig(4, 3, 4)


def test_an_rgb_autoencoder_is_refused_on_the_command_line(tmp_path, capsys):
    path = save_autoencoder(tmp_path / "vae_rgb.safetensors", 3, 3)
    layout = bundled_checkpoint().parent / "demo" / "text_layout.json"
    assert main(["text", str(layout), "--vae", str(path), "-o", str(tmp_path / "x.psd")]) == 1
    assert capsys.readouterr().err == (
        "mrt: vae_rgb.safetensors is an autoencoder of 3 (RGB) image channels, but layers need 4 (RGBA), since without alpha "
        "every one would be opaque; leave --vae out to use its own\n"
    )
    assert not (tmp_path / "x.psd").exists()


def test_beside_a_checkpoint_without_one_the_remedy_names_a_file(tmp_path):
    with pytest.raises(MRTError, match="vae.safetensors .*; give --vae qwen_image_layered_vae.safetensors"):
        given_to(tmp_path, RGBA, 3, 3, bundled=False)


def test_an_encoder_without_alpha_is_legitimate_where_the_checkpoint_says_so(tmp_path):
    assert given_to(tmp_path, PAPER, 3, 4).config == PAPER
    assert given_to(tmp_path, RGBA, 4, 4).config == RGBA


@pytest.mark.parametrize(("trained", "channels"), [(RGBA, (3, 4)), (PAPER, (4, 4))])
def test_a_replacement_of_other_channels_is_refused(tmp_path, trained, channels):
    message = r"vae.safetensors is an autoencoder of image channels .*, but mrt.safetensors was trained with"
    with pytest.raises(MRTError, match=message):
        given_to(tmp_path, trained, *channels)


def test_a_replacement_of_another_latent_space_is_refused(tmp_path):
    path = save_autoencoder(tmp_path / "vae.safetensors", 4, 4)  # with the public statistics, since none are beside it
    bundled = bundled_checkpoint()
    with pytest.raises(
        MRTError, match="vae.safetensors has latents of the mean -0.7571 .* those of another autoencoder; leave"
    ):
        find_autoencoder(load_checkpoint(bundled), bundled, path, torch.float32)


def test_an_rgb_autoencoder_inside_a_checkpoint_for_layers_is_refused(tmp_path):
    checkpoint = tiny_checkpoint()
    checkpoint.info = replace(checkpoint.info, autoencoder=AutoencoderConfig(4, 3, 3))
    checkpoint.autoencoder = Autoencoder(checkpoint.info.autoencoder)
    with pytest.raises(
        MRTError, match="the one in mrt.safetensors is an autoencoder of 3 .* give another one with --vae"
    ):
        find_autoencoder(checkpoint, tmp_path / "mrt.safetensors", None, torch.float32)
    with pytest.raises(MRTError, match="the one in .* is an autoencoder"):
        save_checkpoint(tmp_path / "mrt.safetensors", checkpoint)
        given_to_itself = load_checkpoint(tmp_path / "mrt.safetensors")
        find_autoencoder(given_to_itself, tmp_path / "mrt.safetensors", None, torch.float32)


def test_a_file_that_is_no_autoencoder_is_named(tmp_path):
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(MRTError, match="other.safetensors: these tensors are no Wan 2.1 / Qwen-Image autoencoder"):
        load_autoencoder(tmp_path / "other.safetensors")
