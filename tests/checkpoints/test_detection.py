"""What a file is told to be from its header: families, foreign files, quantised ones, and the full-size public models."""

import os

import pytest
import torch
from safetensors.torch import save_file
from tiny_checkpoints import header_bytes, public_state, tiny_checkpoint

from mrt_core.checkpoints.autoencoder_keys import wan_autoencoder_state
from mrt_core.checkpoints.checkpoint import Family, Sampling, inspect_checkpoint, load_checkpoint, save_checkpoint
from mrt_core.errors import MRTError
from mrt_core.models.autoencoder import Autoencoder
from mrt_core.models.configs import AutoencoderConfig, TransformerConfig
from mrt_core.models.transformer import MaskedRegionTransformer


def test_teacher_and_student_reports(tmp_path):
    saved = tmp_path / "mrt.safetensors"
    save_checkpoint(saved, tiny_checkpoint())
    report = inspect_checkpoint(saved)
    assert report.family is Family.TEACHER
    assert report.parts == ("autoencoder", "text encoder")
    assert report.size == saved.stat().st_size
    assert str(report).startswith("mrt.safetensors: MRT teacher, ")
    assert str(report).endswith(" MiB, with autoencoder and text encoder, complete")
    sampling = Sampling(steps=2, cfg=1.0, sigmas=(1.0, 0.5, 0.0), solver="renoise")
    path = tmp_path / "student.safetensors"
    save_checkpoint(path, tiny_checkpoint(student=True, sampling=sampling))
    report = inspect_checkpoint(path)
    assert report.family is Family.STUDENT
    assert report.info.sampling == sampling


FAMILIES = {
    "plain": (public_state(), Family.QWEN_IMAGE, "shared"),
    "edit 2511": (public_state() | {"__index_timestep_zero__": torch.zeros(0)}, Family.QWEN_IMAGE_EDIT_2511, "zero"),
    "layered": (public_state(layered=True), Family.QWEN_IMAGE_LAYERED, "shared"),
    "mrt": (public_state(condition=True), Family.TEACHER, "zero"),
}


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model.", "diffusion_model.", "transformer."])
@pytest.mark.parametrize("name", FAMILIES)
def test_public_files_are_told_by_their_keys(tmp_path, name, prefix):
    state, family, clean_timestep = FAMILIES[name]
    path = tmp_path / "public.safetensors"
    save_file({prefix + key: tensor for key, tensor in state.items()}, path)
    report = inspect_checkpoint(path)
    assert (report.family, report.differences) == (family, "")
    loaded = load_checkpoint(path)
    assert torch.equal(loaded.transformer.proj_out.weight, state["proj_out.weight"])
    config = loaded.info.transformer
    assert (config.num_layers, config.num_heads, config.head_dim, config.text_dim) == (1, 1, 128, 8)
    assert (config.rope_axes, config.clean_timestep) == ((16, 56, 56), clean_timestep)
    assert config.condition_embedding == (name == "mrt")


def test_all_in_one_file_with_wan_autoencoder(tmp_path):
    autoencoder = Autoencoder(AutoencoderConfig(4, 3, 3))
    state = {f"model.diffusion_model.{name}": tensor for name, tensor in public_state().items()}
    state |= {f"vae.{name}": tensor for name, tensor in wan_autoencoder_state(autoencoder.state_dict()).items()}
    state["text_encoders.qwen25_7b.model.norm.weight"] = torch.zeros(4)
    save_file(state, tmp_path / "all.safetensors")
    loaded = load_checkpoint(tmp_path / "all.safetensors")
    assert loaded.info.autoencoder == loaded.autoencoder.config == autoencoder.config
    assert torch.equal(loaded.autoencoder.encoder.conv_in.weight, autoencoder.encoder.conv_in.weight)
    assert loaded.text_encoder is None
    assert "another program's text encoder" in str(inspect_checkpoint(tmp_path / "all.safetensors"))


def test_fp8_weights_are_cast(tmp_path):
    state = {name: tensor.to(torch.float8_e4m3fn) for name, tensor in public_state().items()}
    save_file(state, tmp_path / "fp8.safetensors")
    loaded = load_checkpoint(tmp_path / "fp8.safetensors")
    assert torch.equal(loaded.transformer.proj_out.weight, state["proj_out.weight"].float())
    assert inspect_checkpoint(tmp_path / "fp8.safetensors").dtypes == ("F8_E4M3",)


OTHERS = {
    "a LoRA": {"transformer_blocks.0.attn.to_q.lora_A.weight": (4, 8)},
    "a LoRA ": {"transformer_blocks.0.img_mod.1.lokr_w1": (4, 4), "transformer_blocks.0.img_mod.1.lokr_w2": (6, 1)},
    "a ControlNet": {
        "img_in.weight": (4, 4), "txt_norm.weight": (8,), "transformer_blocks.0.img_mod.1.weight": (24, 4),
        "controlnet_blocks.0.weight": (4, 4), "controlnet_x_embedder.weight": (4, 4),
    },
    "a ControlNet ": {"control_model.input_blocks.0.0.weight": (4, 4)},
    "a file quantised as DFloat11": {"blocks.0.encoded_exponent": (4,)},
    "an autoencoder alone": {"decoder.middle.0.residual.0.gamma": (4, 1, 1, 1)},
    "a language model alone": {"model.layers.0.self_attn.q_proj.weight": (4, 4)},
    "a FLUX or HunyuanVideo model": {"double_blocks.0.img_attn.qkv.weight": (4, 4)},
    "a Mage-Flow model": {
        "txt_norm.weight": (2560,), "proj_out.weight": (128, 4), "transformer_blocks.0.attn.norm_q.weight": (4,),
    },
    "a part of a Qwen-Image model": {"transformer_blocks.7.img_mod.1.weight": (24, 4)},
    "a file of unknown tensors": {"weight": (4,)},
}  # fmt: skip


@pytest.mark.parametrize("what", OTHERS)
def test_other_files_are_named(tmp_path, what):
    path = tmp_path / "other.safetensors"
    save_file({name: torch.zeros(shape) for name, shape in OTHERS[what].items()}, path)
    what = what.strip()
    report = inspect_checkpoint(path)
    assert report.family is Family.OTHER
    assert report.what.startswith(what)
    with pytest.raises(MRTError, match=f"other.safetensors is {what}.* MRT or Qwen-Image transformer was expected"):
        load_checkpoint(path)


def test_a_training_state_is_named(tmp_path):
    path = tmp_path / "state.safetensors"
    save_file({f"model.{name}": tensor for name, tensor in public_state().items()}, path, {"training": "{}"})
    with pytest.raises(MRTError, match="is the state of a training run.*export it"):
        load_checkpoint(path)


# The public model at its full size, without its weights


def qwen_image_shapes(layers, layered):
    """The tensors of Qwen-Image, restated from its public listing (architecture: parameter names)."""
    width, text = 3072, 3584

    def linear(name, outputs, inputs):
        return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}

    shapes = linear("img_in", width, 64) | {"txt_norm.weight": (text,)} | linear("txt_in", width, text)
    shapes |= linear("time_text_embed.timestep_embedder.linear_1", width, 256)
    shapes |= linear("time_text_embed.timestep_embedder.linear_2", width, width)
    if layered:
        shapes["time_text_embed.addition_t_embedding.weight"] = (2, width)
    for index in range(layers):
        block = f"transformer_blocks.{index}."
        for name in ("to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj", "to_out.0", "to_add_out"):
            shapes |= linear(f"{block}attn.{name}", width, width)
        for name in ("norm_q", "norm_k", "norm_added_q", "norm_added_k"):
            shapes[f"{block}attn.{name}.weight"] = (128,)
        for stream in ("img", "txt"):
            shapes |= linear(f"{block}{stream}_mod.1", 6 * width, width)
            shapes |= linear(f"{block}{stream}_mlp.net.0.proj", 4 * width, width)
            shapes |= linear(f"{block}{stream}_mlp.net.2", width, 4 * width)
    return shapes | linear("norm_out.linear", 2 * width, width) | linear("proj_out", 64, width)


@pytest.mark.skipif(os.name == "nt", reason="the file of 38 GiB takes no space only where files are sparse")
@pytest.mark.parametrize(
    ("layered", "count", "family"), [(False, 1933, Family.QWEN_IMAGE), (True, 1934, Family.QWEN_IMAGE_LAYERED)]
)
def test_full_size_public_models(tmp_path, layered, count, family):
    shapes = qwen_image_shapes(60, layered)
    header, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * torch.Size(shape).numel()
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    path = tmp_path / "qwen_image_bf16.safetensors"
    with path.open("wb") as file:
        file.write(header_bytes(header))
        file.truncate(file.tell() + end)
    report = inspect_checkpoint(path)
    assert (report.family, report.tensor_count, report.differences) == (family, count, "")
    assert f"{count} tensors, BF16, 38.1 GiB, complete" in str(report)
    expected = TransformerConfig(additional_t_cond=layered, condition_embedding=False, clean_timestep="shared")
    assert report.info.transformer == expected
    model = MaskedRegionTransformer(expected, device="meta")
    assert {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()} == shapes
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert parameters == 20_430_401_088 + (6_144 if layered else 0)
