"""Shards, diffusers folders and GGUF files: read as one checkpoint, or one clear sentence about what is wrong."""

import json
import os
import struct
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from quantised_files import save_gguf, wide_state
from safetensors.torch import save_file
from tiny_checkpoints import PUBLIC, header_bytes, public_state

from mrt_core.checkpoints.checkpoint import Family, inspect_checkpoint, load_checkpoint
from mrt_core.errors import MRTError
from mrt_core.models.autoencoder import Autoencoder
from mrt_core.models.configs import WAN_LATENT_STD, AutoencoderConfig
from mrt_core.models.transformer import MaskedRegionTransformer
from mrt_core.models.unfilled import UNFILLED
from mrt_core.weights import open_weights
from mrt_core.weights.reading import read_weights

STEM = "diffusion_pytorch_model"
INDEX = f"{STEM}.safetensors.index.json"


def shard(number, count=3):
    return f"{STEM}-{number:05d}-of-{count:05d}.safetensors"


def save_shards(folder, state, index=True, count=3):
    """A state dict in `count` files, with an index or without."""
    folder.mkdir(parents=True, exist_ok=True)
    names = list(state)
    weight_map = {name: shard(1 + position * count // len(names), count) for position, name in enumerate(names)}
    for file in set(weight_map.values()):
        save_file({name: state[name] for name in names if weight_map[name] == file}, folder / file)
    if index:
        (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))


def save_diffusers(folder, state, pipeline="QwenImagePipeline", transformer=None, vae=None, autoencoder=None):
    """A diffusers folder with sharded transformer, its config, and perhaps an autoencoder and its config."""
    save_shards(folder / "transformer", state)
    (folder / "model_index.json").write_text(json.dumps({"_class_name": pipeline}))
    (folder / "transformer" / "config.json").write_text(json.dumps(transformer or {}))
    if autoencoder:
        (folder / "vae").mkdir()
        save_file(autoencoder.state_dict(), folder / "vae" / f"{STEM}.safetensors")
        (folder / "vae" / "config.json").write_text(json.dumps(vae or {}))


def edit_index(folder, change):
    index = json.loads((folder / INDEX).read_text())
    change(index)
    (folder / INDEX).write_text(json.dumps(index))


def equal_states(module, state):
    loaded = module.state_dict()
    return loaded.keys() == state.keys() and all(torch.equal(loaded[name], state[name]) for name in state)


# Shards


@pytest.mark.parametrize("what", ["folder", "index", "no index"])
@pytest.mark.parametrize("prefix", ["", "transformer."])
def test_shards_are_one_checkpoint(tmp_path, what, prefix):
    state = public_state()
    save_shards(tmp_path, {prefix + name: tensor for name, tensor in state.items()}, index=what != "no index")
    path = tmp_path / INDEX if what == "index" else tmp_path
    report = inspect_checkpoint(path)
    assert (report.family, report.differences, report.tensor_count) == (Family.QWEN_IMAGE, "", len(state))
    assert report.size == sum(file.stat().st_size for file in tmp_path.glob("*.safetensors"))
    assert equal_states(load_checkpoint(path).transformer, state)


def drop_from_shard(folder):
    save_file({"other": torch.zeros(1)}, folder / shard(2))


SHARD_FAULTS = {
    "missing shard": (
        lambda folder: (folder / shard(2)).unlink(),
        rf"{INDEX} names 3 shards, but {shard(2)} is missing; download",
    ),
    "missing tensor": (drop_from_shard, rf"{INDEX} says that .* is in {shard(2)}, but it is not there; download"),
    "not an index": (lambda folder: (folder / INDEX).write_text("[]"), "is no JSON object"),
    "broken index": (lambda folder: (folder / INDEX).write_text("{"), "is no JSON object"),
    "empty index": (lambda folder: (folder / INDEX).write_text("{}"), "has no `weight_map`"),
    "another folder": (
        lambda folder: edit_index(folder, lambda index: index["weight_map"].update({"x": "../x.safetensors"})),
        "says that x is in '../x.safetensors', but shards are .safetensors files beside it",
    ),
    "a pickle": (
        lambda folder: edit_index(folder, lambda index: index["weight_map"].update({"x": "model.bin"})),
        "says that x is in 'model.bin', but shards are .safetensors files",
    ),
    "a pickle inside": (lambda folder: (folder / shard(2)).write_bytes(b"\x80\x02}q\x00."), "is a Python pickle"),
    "cut short": (
        lambda folder: (folder / shard(2)).write_bytes((folder / shard(2)).read_bytes()[:-10]),
        f"{shard(2)} is cut short",
    ),
    "tensor in no shard": (
        lambda folder: edit_index(folder, lambda index: index["weight_map"].pop("proj_out.bias")),
        "tensors do not fit: 1 missing .proj_out.bias",
    ),
}


@pytest.mark.parametrize("fault", SHARD_FAULTS)
def test_faults_of_shards_are_one_sentence(tmp_path, fault):
    change, message = SHARD_FAULTS[fault]
    save_shards(tmp_path, public_state())
    change(tmp_path)
    for path in (tmp_path, tmp_path / INDEX):
        with pytest.raises(MRTError, match=message):
            load_checkpoint(path)


def test_shards_without_an_index_must_be_complete_and_of_one_model(tmp_path):
    save_shards(tmp_path / "a", public_state(), index=False)
    (tmp_path / "a" / shard(2)).unlink()
    with pytest.raises(MRTError, match="has the shards 1, 3 of 3, but all of one model are needed; download"):
        inspect_checkpoint(tmp_path / "a")
    save_shards(tmp_path / "b", public_state(), index=False)
    save_file(public_state(), tmp_path / "b" / shard(3))
    with pytest.raises(MRTError, match=r"img_in.bias is in .* and in .*; keep one set of shards"):
        inspect_checkpoint(tmp_path / "b")
    save_file(public_state(), tmp_path / "b" / "other.safetensors")
    with pytest.raises(MRTError, match="is a folder with 0 indices and 4 .safetensors files"):
        inspect_checkpoint(tmp_path / "b")
    with pytest.raises(MRTError, match=f"{shard(1)} is .*it is one of several shards: give their folder"):
        load_checkpoint(tmp_path / "a" / shard(1))


# Diffusers folders


@pytest.mark.parametrize("given", ["", "model_index.json"])
def test_diffusers_folder_with_an_autoencoder_of_its_own(tmp_path, given, caplog):
    autoencoder = Autoencoder(AutoencoderConfig(4))
    means = [k / 10 for k in range(16)]
    vae = {"latents_mean": means, "latents_std": [2] * 16, "z_dim": 16}
    save_diffusers(tmp_path, public_state(layered=True), "QwenImageLayeredPipeline", vae=vae, autoencoder=autoencoder)
    with caplog.at_level("INFO"):
        loaded = load_checkpoint(tmp_path / given)
    assert "latent mean and deviation are its vae/config.json's" in caplog.text
    assert inspect_checkpoint(tmp_path).family is Family.QWEN_IMAGE_LAYERED
    assert inspect_checkpoint(tmp_path).parts == ("autoencoder",)
    assert loaded.autoencoder.config == AutoencoderConfig(4, latent_mean=tuple(means), latent_std=(2.0,) * 16)
    assert equal_states(loaded.autoencoder, autoencoder.state_dict())
    assert equal_states(loaded.transformer, public_state(layered=True))


def test_an_autoencoder_that_states_no_constants_has_the_public_ones(tmp_path, caplog):
    save_diffusers(tmp_path, public_state(), autoencoder=Autoencoder(AutoencoderConfig(4, 3, 3)))
    with caplog.at_level("INFO"):
        report = inspect_checkpoint(tmp_path)
    assert "latent mean and deviation are the public ones" in caplog.text
    assert report.info.autoencoder.latent_std == WAN_LATENT_STD
    assert str(report).startswith(f"{tmp_path.name}: Qwen-Image, ")


@pytest.mark.parametrize(
    ("pipeline", "config", "family", "clean"),
    [
        ("QwenImagePipeline", {}, Family.QWEN_IMAGE, "shared"),
        ("QwenImageEditPipeline", {}, Family.QWEN_IMAGE_EDIT, "shared"),
        ("QwenImageEditPlusPipeline", {"zero_cond_t": True}, Family.QWEN_IMAGE_EDIT_2511, "zero"),
        ("QwenImageEditPlusPipeline", {"zero_cond_t": False}, Family.QWEN_IMAGE_EDIT, "shared"),
    ],
)
def test_config_files_tell_what_shapes_cannot(tmp_path, pipeline, config, family, clean):
    save_diffusers(tmp_path, public_state(), pipeline, config)
    report = inspect_checkpoint(tmp_path)
    assert (report.family, report.differences, report.info.transformer.clean_timestep) == (family, "", clean)


def test_head_size_and_axes_of_the_config(tmp_path):
    config = replace(PUBLIC, num_heads=2, head_dim=64, rope_axes=(16, 24, 24))
    state = MaskedRegionTransformer(config).state_dict()
    told = {"attention_head_dim": 64, "axes_dims_rope": [16, 24, 24], "zero_cond_t": None}
    save_diffusers(tmp_path, state, transformer=told)
    for path in (tmp_path, tmp_path / "transformer", tmp_path / "transformer" / INDEX):
        assert load_checkpoint(path).info.transformer == config
    (tmp_path / "transformer" / "config.json").unlink()
    with pytest.raises(MRTError, match="only heads of 128 channels are known; .* with its config.json"):
        load_checkpoint(tmp_path)


CONFIG_FAULTS = {
    "extra embedding": ({"use_additional_t_cond": True}, "1 missing .time_text_embed.addition_t_embedding.weight"),
    "head size that does not divide": ({"attention_head_dim": 2**60}, "heads of 1152921504606846976 .* 128 wide"),
    "head size": ({"attention_head_dim": 64, "axes_dims_rope": [16, 24, 24]}, "4 of another shape .*norm"),
    "no head size": (
        {"attention_head_dim": "x"},
        "attention_head_dim in transformer/config.json is 'x', but it must be a",
    ),
    "axes": (
        {"axes_dims_rope": [1, 2]},
        "axes_dims_rope in transformer/config.json is .1, 2., but it must be a list of 3",
    ),
    "odd axes": ({"axes_dims_rope": [16, 55, 57]}, "rope_axes is .16, 55, 57., but it must be even"),
    "quantised": ({"quantization_config": {"quant_method": "bitsandbytes"}}, "quantised as bitsandbytes, but plain"),
}


@pytest.mark.parametrize("fault", CONFIG_FAULTS)
def test_configs_that_do_not_fit(tmp_path, fault):
    config, message = CONFIG_FAULTS[fault]
    save_diffusers(tmp_path, public_state(), transformer=config)
    with pytest.raises(MRTError, match=message):
        load_checkpoint(tmp_path)


def test_folders_that_are_none(tmp_path):
    with pytest.raises(MRTError, match=r"is a folder with 0 indices and 0 .safetensors files \(none\), but one model"):
        inspect_checkpoint(tmp_path)
    (tmp_path / "model_index.json").write_text("{}")
    with pytest.raises(MRTError, match="has a model_index.json but no folder `transformer`"):
        inspect_checkpoint(tmp_path)


def test_art_is_recognised_and_not_loaded(tmp_path):
    art = {
        "layer_pe": (1, 50, 1, 8),
        "x_embedder.weight": (8, 8),
        "single_transformer_blocks.0.norm.linear.weight": (8, 8),
    }
    state = {name: torch.zeros(shape) for name, shape in art.items()}
    save_diffusers(tmp_path, state, "CustomFluxPipeline", {"max_layer_num": 52, "attention_head_dim": 128})
    report = inspect_checkpoint(tmp_path)
    assert report.family is Family.ART
    assert "ART, the Anonymous Region Transformer, 3 tensors, F32" in str(report)
    with pytest.raises(MRTError, match="is ART, .* its weights are not loaded by this package; choose"):
        load_checkpoint(tmp_path)
    del state["layer_pe"]
    save_file(state, tmp_path / "flux.safetensors")
    assert inspect_checkpoint(tmp_path / "flux.safetensors").what == "a FLUX or HunyuanVideo model"


# GGUF files


def text(value):
    return struct.pack("<Q", len(value)) + value.encode()


def field(name, kind, value):
    return text(name) + struct.pack("<I", kind) + value


def info(name, shape, kind, offset):
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape[::-1], kind, offset)


def gguf_bytes(infos=(), fields=(), data=b"", tensors=None, version=3):
    """A GGUF file of raw parts; `tensors` is a lie about their count."""
    header = struct.pack("<4sIQQ", b"GGUF", version, len(infos) if tensors is None else tensors, len(fields))
    header += b"".join(fields) + b"".join(infos)
    return header + bytes(-len(header) % 32) + data


UINT32, STRING, ARRAY = 4, 8, 9
DAMAGED = "has a damaged or cut-off GGUF header; download"
GGUF_FAULTS = {
    "header cut off": (b"GGUF\x03\x00", DAMAGED),
    "version 1": (gguf_bytes(version=1), "a GGUF file of version 1, but little-endian files of version 2 and 3"),
    "big-endian": (struct.pack(">4sIQQ", b"GGUF", 3, 0, 0), "but little-endian files"),
    "count lies": (gguf_bytes(tensors=2**60), DAMAGED),
    "count a little too high": (gguf_bytes(tensors=3), DAMAGED),
    "long array": (gguf_bytes(fields=[field("a", ARRAY, struct.pack("<IQ", 0, 2**62))]), DAMAGED),
    "long array of strings": (gguf_bytes(fields=[field("a", ARRAY, struct.pack("<IQ", STRING, 2**62))]), DAMAGED),
    "array of arrays": (gguf_bytes(fields=[field("a", ARRAY, struct.pack("<IQ", ARRAY, 1))]), DAMAGED),
    "long string": (gguf_bytes(fields=[field("a", STRING, struct.pack("<Q", 2**63))]), DAMAGED),
    "unknown type": (gguf_bytes(fields=[field("a", 77, b"")]), DAMAGED),
    "alignment": (gguf_bytes(fields=[field("general.alignment", UINT32, struct.pack("<I", 3))]), DAMAGED),
    "rank": (gguf_bytes([text("a") + struct.pack("<I", 2**31)]), DAMAGED),
    "huge shape": (gguf_bytes([info("a", (2**40, 2**40), 0, 0)]), DAMAGED),
    "twice": (gguf_bytes([info("a", (1,), 0, 0), info("a", (1,), 0, 32)], data=bytes(64)), DAMAGED),
    "overlap": (gguf_bytes([info("a", (9,), 0, 0), info("b", (9,), 0, 32)], data=bytes(96)), "tensors overlap"),
    "cut short": (gguf_bytes([info("a", (2**30,), 0, 0)], data=bytes(64)), "is cut short: its header promises 4294967"),
    "offset": (gguf_bytes([info("a", (1,), 0, 2**63)], data=bytes(64)), "is cut short"),
    "odd rows": (
        gguf_bytes([info("a", (3, 100), 12, 0)], data=bytes(999)),
        "Q4_K in rows of 100 weights, .* blocks of 256",
    ),
}


@pytest.mark.parametrize("fault", GGUF_FAULTS)
def test_damaged_gguf_is_one_sentence(tmp_path, fault):
    data, message = GGUF_FAULTS[fault]
    path = tmp_path / "bad.gguf"
    path.write_bytes(data)
    with pytest.raises(MRTError, match=f"bad.gguf .*{message}"):
        inspect_checkpoint(path)


def test_truncated_gguf(tmp_path):
    path = tmp_path / "model.gguf"
    save_gguf(path, wide_state(), "Q8_0")
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(MRTError, match="model.gguf is cut short"):
        load_checkpoint(path)


def test_gguf_of_other_models_and_formats(tmp_path):
    fields = [field("general.architecture", STRING, text("flux"))]
    (tmp_path / "flux.gguf").write_bytes(gguf_bytes([info("a.weight", (1,), 0, 0)], fields, bytes(32)))
    assert inspect_checkpoint(tmp_path / "flux.gguf").what == "a GGUF file of the architecture 'flux'"
    state, end = public_state(), 0
    infos = []
    for name, tensor in state.items():
        kind, size = (16, 0) if name == "proj_out.weight" else (0, 4 * tensor.numel())
        infos.append(info(name, tuple(tensor.shape), kind, end))
        end += -(-size // 32) * 32
    (tmp_path / "iq2.gguf").write_bytes(gguf_bytes(infos, data=bytes(end)))
    assert inspect_checkpoint(tmp_path / "iq2.gguf").dtypes == ("F32", "IQ2_XXS")
    with pytest.raises(
        MRTError, match="iq2.gguf is .* quantised as IQ2_XXS, but plain, .* were expected; use the bf16 version"
    ):
        load_checkpoint(tmp_path / "iq2.gguf")


def test_gguf_tensors_that_the_converter_reshaped(tmp_path):
    shape = field("comfy.gguf.orig_shape.a", ARRAY, struct.pack("<IQ2i", 5, 2, 4, 2))
    data = struct.pack("<8f", *range(8))
    (tmp_path / "m.gguf").write_bytes(gguf_bytes([info("a", (8,), 0, 0)], [shape], data))
    source = open_weights(tmp_path / "m.gguf")
    assert source.tensors["a"].shape == (4, 2)
    assert torch.equal(dict(read_weights(source, ["a"]))["a"], torch.arange(8.0).reshape(4, 2))
    assert dict(source.peek(["a"])) == {"a": data}


def test_a_gguf_file_that_becomes_shorter_while_it_is_open(tmp_path):
    save_gguf(tmp_path / "m.gguf", wide_state(), "Q8_0")
    source = open_weights(tmp_path / "m.gguf")
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    for read in (source.peek, lambda names: read_weights(source, names)):
        with pytest.raises(MRTError, match="m.gguf is cut short at proj_out.bias; download it again"):
            list(read(["proj_out.bias"]))


def test_gguf_under_another_name_is_still_gguf(tmp_path):
    save_gguf(tmp_path / "m.gguf", wide_state(), "Q8_0")
    (tmp_path / "m.gguf").rename(tmp_path / "m.safetensors")
    assert inspect_checkpoint(tmp_path / "m.safetensors").differences == ""


# At the size of the public model, without its weights


@pytest.mark.skipif(os.name == "nt", reason="the files of 38 GiB take no space only where files are sparse")
@pytest.mark.parametrize("form", ["file", "shards", "gguf"])
def test_full_size_weights_are_told_from_their_headers(tmp_path, form):
    config = replace(PUBLIC, num_layers=60, num_heads=24, text_dim=3584, additional_t_cond=True)
    state = MaskedRegionTransformer(config, device="meta", operations=UNFILLED).state_dict()
    path = {"file": save_sparse, "shards": save_sparse_shards, "gguf": save_sparse_gguf}[form](tmp_path, state)
    started = time.perf_counter()
    report = inspect_checkpoint(path)
    assert time.perf_counter() - started < 30  # reading the weights would take minutes
    assert (report.family, report.differences) == (Family.QWEN_IMAGE_LAYERED, "")
    assert report.tensor_count == 1934
    assert report.info.transformer == config
    assert report.size // 2**30 == (10 if form == "gguf" else 38)


def test_the_command_takes_a_folder(tmp_path):
    save_shards(tmp_path / "model", public_state())
    command = [sys.executable, "-m", "mrt_core", "inspect", tmp_path / "model"]
    finished = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    assert finished.stdout == "model: Qwen-Image or Qwen-Image-Edit, 45 tensors, F32, 2.7 MiB, complete\n"


def test_more_layers_than_there_can_be(tmp_path):
    state = public_state() | {f"transformer_blocks.{number}.x": torch.zeros(0) for number in range(1001)}
    save_file(state, tmp_path / "m.safetensors")
    with pytest.raises(
        MRTError, match="m.safetensors: the file promises 1001 layers, but .* at most 1000 layers are read"
    ):
        inspect_checkpoint(tmp_path / "m.safetensors")


def save_sparse(folder, state, name="qwen_image_layered_bf16.safetensors"):
    header, end = {}, 0
    for key, tensor in state.items():
        start, end = end, end + 2 * tensor.numel()
        header[key] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [start, end]}
    with (folder / name).open("wb") as file:
        file.write(header_bytes(header))
        file.truncate(file.tell() + end)
    return folder / name


def save_sparse_shards(folder, state):
    names = list(state)
    for number in range(9):
        save_sparse(folder, {name: state[name] for name in names[number::9]}, shard(number + 1, 9))
    weight_map = {name: shard(position % 9 + 1, 9) for position, name in enumerate(names)}
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    return folder


def save_sparse_gguf(folder, state):
    infos, end = [], 0
    for name, tensor in state.items():
        packed = tensor.ndim == 2 and tensor.shape[1] % 256 == 0
        infos.append(info(name, tuple(tensor.shape), 12 if packed else 0, end))
        end += tensor.numel() // 256 * 144 if packed else 4 * tensor.numel()
    with (folder / "model-Q4_K.gguf").open("wb") as file:
        file.write(gguf_bytes(infos))
        file.truncate(file.tell() + end)
    return folder / "model-Q4_K.gguf"
