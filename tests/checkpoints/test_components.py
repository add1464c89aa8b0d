"""Text encoder and autoencoder from files of their own, beside a transformer that bundles neither."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from qwen_files import tiny_qwen, write_tokenizer
from safetensors.torch import save_file
from tiny_checkpoints import public_state

from mrt_core.checkpoints.autoencoder_keys import wan_autoencoder_state
from mrt_core.checkpoints.components import load_autoencoder
from mrt_core.checkpoints.qwen_text import QwenTextEncoder
from mrt_core.cli import main
from mrt_core.documents import load
from mrt_core.errors import MRTError
from mrt_core.geometry import Box
from mrt_core.models.autoencoder import Autoencoder
from mrt_core.models.configs import AutoencoderConfig
from mrt_core.pipeline import Pipeline

transformers = pytest.importorskip("transformers", reason="Qwen2.5-VL is read through transformers")
diffusers = pytest.importorskip("diffusers", reason="the folder is written by diffusers: pip install -e .[dev]")

TEXT_WIDTH = 128
TRANSFORMER = {"num_layers": 1, "attention_head_dim": 32, "num_attention_heads": 1, "joint_attention_dim": TEXT_WIDTH}
LANGUAGE = {
    "hidden_size": TEXT_WIDTH, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 1,
    "num_key_value_heads": 1,
}  # fmt: skip


def message_of(run) -> str:
    with pytest.raises(MRTError) as caught:
        run()
    return str(caught.value)


def random_autoencoder(seed: int = 0, channels: int = 4) -> Autoencoder:
    torch.manual_seed(seed)
    return Autoencoder(AutoencoderConfig(4, channels, channels)).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Qwen-Image-Layered as its public folder, with random weights of tiny models."""
    folder = tmp_path_factory.mktemp("layered")
    torch.manual_seed(0)
    transformer = diffusers.QwenImageTransformer2DModel(
        **TRANSFORMER, patch_size=2, in_channels=64, out_channels=16, axes_dims_rope=(8, 12, 12),
        use_additional_t_cond=True, use_layer3d_rope=True,
    )  # fmt: skip
    transformer.save_pretrained(folder / "transformer", max_shard_size="200KB")
    diffusers.AutoencoderKLQwenImage(base_dim=4, input_channels=4).save_pretrained(folder / "vae")
    tokenizer = transformers.Qwen2Tokenizer.from_pretrained(
        str(write_tokenizer(folder / "tokenizer")), local_files_only=True
    )
    state = tiny_qwen(len(tokenizer), **LANGUAGE).state_dict()
    (folder / "text_encoder").mkdir()
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "text_encoder" / "m.safetensors")
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "QwenImageLayeredPipeline"}))
    return folder


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("picture") / "picture.png"
    y, x = np.mgrid[:60, :90]
    Image.fromarray(np.stack([x * 2, y * 4, x + y], -1).astype(np.uint8)).save(path)
    return path


def test_a_public_folder_runs_from_the_command_line(folder, picture, tmp_path):
    output = tmp_path / "layers.psd"
    arguments = ["--checkpoint", str(folder), "--layers", "3", "--size", "64", "--steps", "2", "--cfg", "4"]
    assert not main(["image", str(picture), *arguments, "--prompt", "a slope", "-o", str(output)])
    stack = load(output)
    assert [layer.name for layer in stack.layers] == ["Layer 1", "Layer 2", "Layer 3"]
    assert all(layer.box == Box(0, 0, 90, 60) for layer in stack.layers)


def test_parts_of_a_folder_are_used(folder):
    pipeline = Pipeline.load(folder)
    assert isinstance(pipeline.text_encoder, QwenTextEncoder) and pipeline.text_encoder.width == TEXT_WIDTH
    assert pipeline.codec.autoencoder.config.base_width == 4 and pipeline.codec.mode == "full"


@pytest.mark.parametrize("naming", ["wan", "ours"])
def test_an_autoencoder_in_a_file_of_its_own(tmp_path, naming):
    model = random_autoencoder()
    state = model.state_dict() if naming == "ours" else wan_autoencoder_state(model.state_dict())
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, tmp_path / "vae.safetensors")
    loaded = load_autoencoder(tmp_path / "vae.safetensors")
    assert loaded.config == model.config
    assert all(
        torch.equal(a, b) for a, b in zip(loaded.state_dict().values(), model.state_dict().values(), strict=True)
    )


def test_the_config_beside_an_autoencoder_gives_its_statistics(folder, tmp_path):
    state = {name: tensor.contiguous() for name, tensor in random_autoencoder().state_dict().items()}
    save_file(state, tmp_path / "vae.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"latents_mean": [0.5] * 16, "latents_std": [2.0] * 16}))
    config = load_autoencoder(tmp_path / "vae.safetensors").config
    assert config.latent_mean == (0.5,) * 16 and config.latent_std == (2.0,) * 16


def test_what_is_missing_or_does_not_fit_is_said(folder, tmp_path, caplog):
    alone = tmp_path / "qwen_image_layered.safetensors"
    save_file(public_state(layered=True), alone)
    assert message_of(lambda: Pipeline.load(alone)) == (
        "qwen_image_layered.safetensors comes without an autoencoder, which turns layers into pictures; give one with --vae, "
        "such as qwen_image_layered_vae.safetensors"
    )
    assert message_of(lambda: Pipeline.load(alone, autoencoder=folder)) == (
        "qwen_image_layered.safetensors comes without a text encoder, which reads prompts; give Qwen2.5-VL's file or folder "
        "with --text-encoder, and its tokenizer folder with --tokenizer"
    )
    assert message_of(lambda: Pipeline.load(alone, autoencoder=folder, text_encoder=folder)) == (
        f"{folder} gives text states 128 wide, but qwen_image_layered.safetensors takes 8; give the text encoder that it was "
        "trained with, Qwen2.5-VL-7B for Qwen-Image"
    )
    whole = {name: tensor.contiguous() for name, tensor in random_autoencoder().state_dict().items()}
    save_file(whole | {"extra": torch.zeros(1)}, tmp_path / "more.safetensors")
    load_autoencoder(tmp_path / "more.safetensors")
    assert "more.safetensors has 1 tensors that are not used, such as extra" in caplog.text
    part = {
        name: tensor.contiguous() for name, tensor in random_autoencoder().state_dict().items() if "mid" not in name
    }
    save_file(part, tmp_path / "part.safetensors")
    message = message_of(lambda: load_autoencoder(tmp_path / "part.safetensors"))
    assert message.startswith("part.safetensors is not a whole autoencoder: ") and "download it again" in message
