"""The 2D autoencoder against diffusers' AutoencoderKLQwenImage, the public model, in both namings
(architecture: autoencoder)."""

import pytest
import torch

from mrt_core.checkpoints.autoencoder_keys import autoencoder_config, canonical_autoencoder_state, wan_autoencoder_state
from mrt_core.errors import MRTError
from mrt_core.models.autoencoder import Autoencoder

diffusers = pytest.importorskip("diffusers", reason="parity tests need diffusers: pip install -e .[dev]")
from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers  # noqa: E402

WIDTH = 8


def reference_model(channels, seed=0):
    torch.manual_seed(seed)
    model = diffusers.AutoencoderKLQwenImage(base_dim=WIDTH, input_channels=channels)
    for name, parameter in model.named_parameters():  # gammas and biases too, so that every tensor matters
        parameter.data += (0.02 if name.endswith("weight") else 0.1) * torch.randn_like(parameter)
    return model.eval()


def in_wan_naming(state):
    """A diffusers state dict renamed by the inverse of diffusers' own conversion, all temporal taps kept."""
    wan_names = wan_autoencoder_state(our_model(state).state_dict())
    theirs = convert_wan_vae_to_diffusers({name: name for name in wan_names})
    assert theirs.keys() == state.keys()
    return {wan: state[name] for name, wan in theirs.items()}


def our_model(state):
    model = Autoencoder(autoencoder_config(state))
    model.load_state_dict(canonical_autoencoder_state(state), strict=True)
    return model.eval()


def unnormalised(model, latent):
    mean, std = (torch.tensor(values)[:, None, None] for values in (model.config.latent_mean, model.config.latent_std))
    return latent * std + mean


def assert_same_numbers(model, reference, channels):
    """Encode mode and decode of both models within 1e-5; our latents are the normalised ones."""
    torch.manual_seed(1)
    image, latent = torch.rand(2, channels, 32, 48) * 2 - 1, torch.randn(2, 16, 4, 6)
    mode = reference.encode(image[:, :, None]).latent_dist.mode()[:, :, 0]  # (B, 16, h, w)
    assert (unnormalised(model, model.encode(image)) - mode).abs().max() < 1e-5
    decoded = reference.decode(unnormalised(model, latent)[:, :, None]).sample[:, :, 0]  # (B, C, H, W)
    assert decoded.abs().median() < 1  # not all clamped: the comparison means something
    assert (model.decode(latent) - decoded).abs().max() < 1e-5


@pytest.mark.parametrize("naming", ["diffusers", "wan"])
@pytest.mark.parametrize("channels", [3, 4])
@torch.no_grad()
def test_equals_diffusers(channels, naming):
    reference = reference_model(channels)
    state = reference.state_dict() if naming == "diffusers" else in_wan_naming(reference.state_dict())
    model = our_model(state)
    assert (model.config.base_width, model.config.in_channels, model.config.out_channels) == (WIDTH, channels, channels)
    assert_same_numbers(model, reference, channels)


@torch.no_grad()
def test_written_wan_state_runs_in_the_public_model():
    model = our_model(reference_model(4).state_dict())
    public = reference_model(4, seed=5)
    public.load_state_dict(convert_wan_vae_to_diffusers(wan_autoencoder_state(model.state_dict())), strict=True)
    assert_same_numbers(model, public, 4)


def test_wan_state_round_trip_is_exact():
    state = our_model(reference_model(4).state_dict()).state_dict()
    back = canonical_autoencoder_state(wan_autoencoder_state(state))
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)


def test_our_own_state_stays_as_it_is():
    state = our_model(reference_model(3).state_dict()).state_dict()
    again = canonical_autoencoder_state(state)
    assert list(again) == list(state)
    assert all(again[name].shape == state[name].shape for name in state)


def test_unknown_names_are_kept_for_strict_loading():
    state = reference_model(4).state_dict() | {"encoder.extra.weight": torch.zeros(1)}
    assert "encoder.extra.weight" in canonical_autoencoder_state(state)


@pytest.mark.parametrize(
    "state",
    [
        {"decoder.conv1.weight": torch.zeros(8, 48, 3, 3, 3)},
        {"decoder.conv_in.weight": torch.zeros(8, 48, 3, 3, 3)},
        {"decoder.upsamples.0.upsamples.0.residual.2.weight": torch.zeros(8, 8, 3, 3, 3)},
    ],
)
def test_wan22_is_refused(state):
    with pytest.raises(MRTError, match="Wan 2.2"):
        canonical_autoencoder_state(state)


def test_other_models_are_refused():
    with pytest.raises(MRTError, match="no Wan 2.1 / Qwen-Image autoencoder"):
        autoencoder_config({"img_in.weight": torch.zeros(4, 64)})
    state = reference_model(4).state_dict()
    state["encoder.conv_in.weight"] = torch.zeros(WIDTH, 12, 3, 3, 3)
    with pytest.raises(MRTError, match="12 image channels in and 4 out"):
        autoencoder_config(state)
