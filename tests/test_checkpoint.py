"""Checkpoints: round trips, what a file is told to be, and one clear sentence for everything that is not one."""

import json
import os
import struct
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from mrt_core import checkpoint as checkpoint_module
from mrt_core.autoencoder import Autoencoder, AutoencoderConfig
from mrt_core.autoencoder_keys import wan_autoencoder_state
from mrt_core.checkpoint import (
    Checkpoint,
    CheckpointInfo,
    Family,
    Sampling,
    bundled_checkpoint,
    inspect_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from mrt_core.errors import MRTError
from mrt_core.tasks import Task
from mrt_core.text import SmallTextConfig, SmallTextEncoder, train_tokenizer
from mrt_core.transformer import MaskedRegionTransformer, TransformerConfig

TINY = TransformerConfig(num_layers=2, num_heads=2, head_dim=16, text_dim=16, rope_axes=(4, 6, 6))
PUBLIC = TransformerConfig(  # the smallest model with Qwen-Image's head size, which needs no metadata
    num_layers=1, num_heads=1, text_dim=8, condition_embedding=False, clean_timestep="shared"
)


def tiny_checkpoint(**info):
    torch.manual_seed(0)
    tokenizer = train_tokenizer(["a red cat", "a blue boat at sea"], 300)
    text_config = SmallTextConfig(vocabulary=300, width=16, num_layers=1, num_heads=2, max_tokens=24)
    autoencoder_config = AutoencoderConfig(
        4, latent_mean=tuple(k / 7 for k in range(16)), latent_std=tuple(1 + k / 9 for k in range(16))
    )
    transformer, autoencoder = MaskedRegionTransformer(TINY), Autoencoder(autoencoder_config)
    text_encoder = SmallTextEncoder(text_config, tokenizer)
    described = CheckpointInfo(TINY, autoencoder_config, text_config, frame_area=256 * 256, **info)
    return Checkpoint(transformer, autoencoder, text_encoder, described)


@pytest.fixture(scope="module")
def checkpoint():
    return tiny_checkpoint()


@pytest.fixture
def saved(checkpoint, tmp_path):
    path = tmp_path / "mrt.safetensors"
    save_checkpoint(path, checkpoint)
    return path


def rewrite(path, change_tensors=lambda tensors: None, **metadata):
    """Change a saved file's tensors and metadata; a metadata value of None removes the key."""
    report_metadata = raw_header(path)["__metadata__"] | metadata
    tensors = load_file(path)
    change_tensors(tensors)
    save_file(tensors, path, {key: value for key, value in report_metadata.items() if value is not None})


def raw_header(path):
    data = path.read_bytes()
    return json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])


# Round trips


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_round_trip_is_bit_exact(checkpoint, tmp_path, dtype):
    path = tmp_path / "new folder" / "mrt.safetensors"
    save_checkpoint(path, checkpoint, dtype)
    loaded = load_checkpoint(path, dtype=dtype)
    for name in ("transformer", "autoencoder", "text_encoder"):
        before, after = getattr(checkpoint, name).state_dict(), getattr(loaded, name).state_dict()
        assert before.keys() == after.keys()
        for key in before:
            assert after[key].dtype == dtype
            assert torch.equal(before[key].to(dtype), after[key]), key
    assert loaded.info == checkpoint.info
    prompt = "a red cat — 猫"
    assert loaded.text_encoder.tokenize(prompt) == checkpoint.text_encoder.tokenize(prompt)
    assert [entry.name for entry in path.parent.iterdir()] == ["mrt.safetensors"]


def test_weights_are_cast_as_they_load_and_can_be_trained(checkpoint, saved):
    loaded = load_checkpoint(saved)
    weight = loaded.transformer.img_in.weight
    assert weight.dtype == torch.float32
    assert torch.equal(weight, checkpoint.transformer.img_in.weight.bfloat16().float())
    assert weight.requires_grad
    stored = load_checkpoint(saved, dtype=torch.bfloat16).transformer.img_in.weight
    with torch.no_grad():
        stored.fill_(1.0)  # leaves the file alone
    assert not torch.equal(load_file(saved)["img_in.weight"], stored)


def test_file_layout_is_the_contract(saved):
    header = raw_header(saved)
    metadata = header.pop("__metadata__")
    assert {
        "img_in.weight",
        "cond_token_embed.weight",
        "vae.encoder.conv_in.weight",
        "text_encoder.tokens.weight",
    } <= set(header)
    info = json.loads(metadata["mrt"])
    assert info["grid"] == 16
    assert info["transformer"]["clean_timestep"] == "zero"
    assert len(info["autoencoder"]["latent_mean"]) == 16
    assert json.loads(metadata["tokenizer"])["model"]["type"] == "BPE"


def test_a_transformer_alone_keeps_its_latent_space(tmp_path):
    config = AutoencoderConfig(4, 3, 3)
    info = CheckpointInfo(TINY, config, tasks=(Task.IMAGE_TO_LAYERS,), region_mode="halo")
    save_checkpoint(tmp_path / "t.safetensors", Checkpoint(MaskedRegionTransformer(TINY), None, None, info))
    loaded = load_checkpoint(tmp_path / "t.safetensors")
    assert (loaded.autoencoder, loaded.text_encoder) == (None, None)
    assert loaded.info == info
    assert loaded.info.image_channels == 3


def test_info_that_contradicts_the_modules_is_not_saved(checkpoint, tmp_path):
    wrong = replace(checkpoint, info=replace(checkpoint.info, transformer=replace(TINY, num_layers=3)))
    with pytest.raises(MRTError, match="info describes"):
        save_checkpoint(tmp_path / "x.safetensors", wrong)
    with pytest.raises(MRTError, match="there is none"):
        save_checkpoint(tmp_path / "x.safetensors", replace(checkpoint, text_encoder=None))
    assert not list(tmp_path.iterdir())


# What a file is


def test_teacher_and_student_reports(tmp_path, saved):
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


def public_state(layered=False, condition=False):
    torch.manual_seed(0)
    config = replace(PUBLIC, additional_t_cond=layered, condition_embedding=condition)
    return MaskedRegionTransformer(config).state_dict()


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


@pytest.mark.parametrize(
    ("mark", "what"),
    [
        ("scaled_fp8", "scaled fp8"),
        ("transformer_blocks.0.attn.to_q.scale_weight", "scaled fp8"),
        ("transformer_blocks.0.attn.to_q.comfy_quant", "ComfyUI's mixed format"),
        ("transformer_blocks.0.attn.to_q.weight.absmax", "bitsandbytes"),
    ],
)
def test_quantised_files_are_refused(tmp_path, mark, what):
    path = tmp_path / "q.safetensors"
    save_file(public_state() | {mark: torch.zeros(2)}, path)
    report = inspect_checkpoint(path)
    assert (report.quantised, report.differences) == (what, "")
    with pytest.raises(MRTError, match=f"quantised as {what}.*bf16 version"):
        load_checkpoint(path)


def test_packed_integers_are_refused(tmp_path):
    state = public_state()
    state["transformer_blocks.0.attn.to_q.weight"] = torch.zeros(128, 64, dtype=torch.uint8)
    save_file(state, tmp_path / "q.safetensors")
    with pytest.raises(MRTError, match="quantised as U8"):
        load_checkpoint(tmp_path / "q.safetensors")


# Files that do not fit


def test_missing_unexpected_and_misshapen_tensors_are_named(saved):
    def change(tensors):
        del tensors["txt_in.bias"], tensors["vae.decoder.conv_in.weight"]
        tensors["extra.weight"] = torch.zeros(1)
        tensors["proj_out.bias"] = torch.zeros(3)

    rewrite(saved, change)
    report = inspect_checkpoint(saved)
    assert report.missing == ("txt_in.bias", "vae.decoder.conv_in.weight")
    assert report.unexpected == ("extra.weight",)
    assert report.misshapen == ("proj_out.bias [3] instead of [64]",)
    with pytest.raises(MRTError, match="2 missing.*txt_in.bias.*1 unexpected.*extra.weight.*1 of another shape"):
        load_checkpoint(saved)


def test_missing_tensors_that_tell_the_size(tmp_path):
    state = public_state()
    del state["img_in.weight"]
    path = tmp_path / "diffusion_pytorch_model-00001-of-00009.safetensors"
    save_file(state, path)
    with pytest.raises(MRTError, match=r"1 missing \(img_in.weight\); it is one of several shards: join them"):
        load_checkpoint(path)


def test_unknown_head_size_needs_metadata(saved):
    rewrite(saved, mrt=None)
    report = inspect_checkpoint(saved)
    assert report.info is None
    assert all(name.startswith("text_encoder.") for name in report.unexpected)
    rewrite(saved, lambda tensors: [tensors.pop(name) for name in report.unexpected])
    with pytest.raises(MRTError, match="only heads of 128 channels are known"):
        load_checkpoint(saved)


def changed(info, **changes):
    """The info's JSON with values replaced; a key such as transformer__num_layers is a path."""
    values = json.loads(info.to_json())
    for name, value in changes.items():
        *sections, last = name.split("__")
        target = values
        for section in sections:
            target = target[section]
        target[last] = value
    return json.dumps(values)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, "version is 2, but it must be 1"),
        ({"new": 1}, "new is 1, but it must be absent"),
        ({"transformer__num_layers": 10**6}, "promises 1000000 layers"),
        ({"transformer__num_layers": 10**30}, "num_layers"),
        ({"transformer__num_layers": 3}, "missing .transformer_blocks.2"),
        ({"transformer__num_heads": 0}, "num_heads is 0"),
        ({"transformer__text_dim": 2**24}, "of another shape"),
        ({"transformer__num_heads": 2**24}, "width"),
        ({"transformer__rope_axes": [4, 6, 8]}, "add up to head_dim, 16"),
        ({"transformer__clean_timestep": "one"}, "one of zero, shared"),
        ({"transformer": None}, "transformer is None"),
        ({"autoencoder__latent_std": [0.0] * 16}, "latent_std"),
        ({"autoencoder__latent_mean": [float("nan")] * 16}, "latent_mean"),
        ({"autoencoder__in_channels": 5}, "3 or 4 each"),
        ({"text_encoder__num_heads": 3}, "a divisor of 16"),
        ({"text_encoder__vocabulary": 100}, "tokenizer of 274 tokens does not fit"),
        ({"tasks": ["fly"]}, "tasks is .'fly'."),
        ({"grid": 8}, "grid is 8, but it must be 16 px"),
        ({"frame_area": 1}, "frame_area"),
        ({"region_mode": "whole"}, "one of crop, halo, full"),
        ({"student": True}, "cfg is 4.0, but it must be 1"),
        ({"sampling__steps": 0}, "steps is 0"),
        ({"sampling__shift": -1}, "shift is -1"),
        ({"sampling__sigmas": [1.0, 0.0]}, "steps . 1 falling numbers"),
        ({"sampling__solver": "heun"}, "one of euler, renoise"),
    ],
)
def test_bad_metadata_is_one_sentence(checkpoint, saved, changes, message):
    rewrite(saved, mrt=changed(checkpoint.info, **changes))
    with pytest.raises(MRTError, match=message) as caught:
        load_checkpoint(saved)
    assert str(caught.value).startswith("mrt.safetensors")


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, '{"version": 1}'])
def test_metadata_that_is_no_info(saved, text):
    rewrite(saved, mrt=text)
    with pytest.raises(MRTError, match="mrt.safetensors: the checkpoint's"):
        inspect_checkpoint(saved)


@pytest.mark.parametrize("tokenizer", [None, "{}", "not json"])
def test_missing_or_damaged_tokenizer(saved, tokenizer):
    rewrite(saved, tokenizer=tokenizer)
    with pytest.raises(MRTError, match="metadata `tokenizer` is missing or damaged"):
        load_checkpoint(saved)


# Files that are not safetensors, or not whole


def header_bytes(header, length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text


DAMAGED = {
    "empty": (b"", "not a whole .safetensors file"),
    "short": (b"\x08\x00", "not a whole .safetensors file"),
    "length lies": (header_bytes({}, 2**62), "not a whole .safetensors file"),
    "length beyond the limit": (header_bytes({}, 100_000_001), "not a whole .safetensors file"),
    "not json": (header_bytes(b"{]" * 10), "not a whole .safetensors file"),
    "deep json": (header_bytes(b"[" * 100_000), "not a whole .safetensors file"),
    "no object": (header_bytes([1, 2]), "damaged .safetensors header"),
    "bad metadata": (header_bytes({"__metadata__": {"a": 1}}), "damaged .safetensors header"),
    "bad entry": (header_bytes({"a": 1}), "damaged .safetensors header"),
    "bad shape": (header_bytes({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}), "damaged"),
    "huge shape": (
        header_bytes({"a": {"dtype": "F32", "shape": [2**40, 2**40, 0], "data_offsets": [0, 0]}}),
        "damaged",
    ),
    "wrong bytes": (header_bytes({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}) + b"1234", "damaged"),
    "cut short": (header_bytes({"a": {"dtype": "F32", "shape": [2**28], "data_offsets": [0, 2**30]}}), "cut short"),
    "pickle": (b"\x80\x02}q\x00.", "a Python pickle.*use the model's .safetensors file"),
    "zip pickle": (b"PK\x03\x04\x00\x00\x08\x08" + bytes(64), "a PyTorch pickle or a zip archive"),
    "gguf": (b"GGUF\x03\x00\x00\x00" + bytes(64), "a GGUF file"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer.*git lfs pull"),
    "json": (b'{"weight_map": {}}', "a JSON file.*shards"),
    "html": (b"<!doctype html><html></html>", "a web page"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_and_foreign_files(tmp_path, name):
    data, message = DAMAGED[name]
    path = tmp_path / "bad.safetensors"
    path.write_bytes(data)
    for function in (inspect_checkpoint, load_checkpoint):
        with pytest.raises(MRTError, match=f"bad.safetensors.*{message}"):
            function(path)


def test_truncated_file(saved):
    saved.write_bytes(saved.read_bytes()[:-1000])
    with pytest.raises(MRTError, match="mrt.safetensors is cut short"):
        load_checkpoint(saved)


def test_overlapping_tensors_are_refused(tmp_path):
    state = public_state()
    path = tmp_path / "overlap.safetensors"
    save_file(state, path)
    header, data = raw_header(path), path.read_bytes()
    first, second = "transformer_blocks.0.attn.to_q.weight", "transformer_blocks.0.attn.to_k.weight"
    header[first]["data_offsets"] = header[second]["data_offsets"]
    path.write_bytes(header_bytes(header) + data[8 + int.from_bytes(data[:8], "little") :])
    with pytest.raises(MRTError, match="overlap.safetensors is damaged"):
        load_checkpoint(path)


def test_paths_that_are_no_files(tmp_path):
    with pytest.raises(MRTError, match="does not exist"):
        inspect_checkpoint(tmp_path / "nothing.safetensors")
    with pytest.raises(MRTError, match="is a folder"):
        inspect_checkpoint(tmp_path)


def test_bundled_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint_module, "__file__", str(tmp_path / "checkpoint.py"))
    with pytest.raises(MRTError, match="mrt-tiny.safetensors is missing; install"):
        bundled_checkpoint()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mrt-tiny.safetensors").touch()
    assert bundled_checkpoint() == tmp_path / "data" / "mrt-tiny.safetensors"


# The public model at its full size, without its weights


def qwen_image_shapes(layers, layered):
    """The tensors of Qwen-Image, restated from its public listing (spec 1.2)."""
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
