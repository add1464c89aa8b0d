"""Checkpoints: round trips, and one clear sentence for everything that does not fit or is none."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_checkpoints import TINY, header_bytes, public_state, tiny_checkpoint

from mrt_core.checkpoints import bundled as bundled_module
from mrt_core.checkpoints.bundled import bundled_checkpoint, find_checkpoint
from mrt_core.checkpoints.checkpoint import (
    Checkpoint,
    CheckpointInfo,
    Family,
    Sampling,
    inspect_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from mrt_core.errors import MRTError
from mrt_core.models.configs import AutoencoderConfig
from mrt_core.models.transformer import MaskedRegionTransformer
from mrt_core.tasks.slots import Task


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


# Files that do not fit


def test_missing_unexpected_and_misshapen_tensors_are_named(saved):
    def change(tensors):
        del tensors["txt_in.bias"], tensors["vae.decoder.conv_in.weight"]
        tensors["extra.weight"] = torch.zeros(1)
        tensors["proj_out.bias"] = torch.zeros(3)

    rewrite(saved, change)
    report = inspect_checkpoint(saved)
    assert report.missing == ("txt_in.bias", "vae.decoder.conv_in.weight")
    assert report.unexpected == ("extra.weight",) and not report.fits
    assert report.misshapen == ("proj_out.bias [3] instead of [64]",)
    with pytest.raises(MRTError, match="2 missing.*txt_in.bias.*1 unexpected.*extra.weight.*1 of another shape"):
        load_checkpoint(saved)


def test_tensors_too_many_are_left_out_with_a_warning(checkpoint, saved, caplog):
    extra = ("transformer_blocks.0.attn.pos_embed_cache", "vae.decoder.extra", "text_encoder.extra", "extra.weight")
    rewrite(saved, lambda tensors: tensors.update({name: torch.zeros(3) for name in extra}))
    report = inspect_checkpoint(saved)
    assert set(report.unexpected) == set(extra)
    assert str(report).endswith("complete, but 4 not used (" + ", ".join(report.unexpected[:3]) + ", ...)")
    loaded = load_checkpoint(saved)
    assert "mrt.safetensors has 4 tensors that MRT teacher has not, such as " in caplog.text
    for name in ("transformer", "autoencoder", "text_encoder"):
        before, after = getattr(checkpoint, name).state_dict(), getattr(loaded, name).state_dict()
        assert all(torch.equal(before[key].bfloat16().float(), after[key]) for key in before)


def test_a_block_too_many_is_no_small_matter(saved):
    def change(tensors):
        tensors["transformer_blocks.2.attn.to_q.weight"] = torch.zeros(32, 32)

    rewrite(saved, change)
    with pytest.raises(MRTError, match="do not fit: 1 unexpected .transformer_blocks.2.attn.to_q.weight"):
        load_checkpoint(saved)


def test_missing_tensors_that_tell_the_size(tmp_path):
    state = public_state()
    del state["img_in.weight"]
    path = tmp_path / "diffusion_pytorch_model-00001-of-00009.safetensors"
    save_file(state, path)
    with pytest.raises(MRTError, match=r"1 missing \(img_in.weight\); it is one of several shards: give their folder"):
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
        ({"version": 3}, "version is 3, but it must be one of 1, 2"),
        ({"version": 1}, "trained with the text encoder of an earlier version.*use the mrt-tiny that comes with"),
        ({"new": 1}, "new is 1, but it must be absent"),
        ({"transformer__num_layers": 10**6}, "promises 1000000 layers"),
        ({"transformer__num_layers": 10**30}, "num_layers"),
        ({"transformer__num_layers": 3}, "missing .transformer_blocks.2"),
        ({"transformer__num_heads": 0}, "num_heads is 0"),
        ({"transformer__text_dim": 2**24, "text_encoder__width": 2**24}, "of another shape"),
        ({"transformer__num_heads": 2**24}, "width"),
        ({"transformer__rope_axes": [4, 6, 8]}, "add up to head_dim, 16"),
        ({"transformer__clean_timestep": "one"}, "one of zero, shared"),
        ({"transformer": None}, "transformer is None"),
        ({"autoencoder__latent_std": [0.0] * 16}, "latent_std"),
        ({"autoencoder__latent_mean": [float("nan")] * 16}, "latent_mean"),
        ({"autoencoder__in_channels": 5}, "3 or 4 each"),
        ({"text_encoder__width": 32}, "text_encoder.width is 32, but it must be the transformer's text_dim, 16"),
        ({"text_encoder__num_layers": 2}, "num_layers is 2, but it must be absent"),
        ({"text_encoder__vocabulary": 100}, "tokenizer of 277 tokens does not fit"),
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
    monkeypatch.setattr(bundled_module, "__file__", str(tmp_path / "checkpoints" / "bundled.py"))
    with pytest.raises(MRTError, match="mrt-tiny.safetensors is missing; install"):
        bundled_checkpoint()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mrt-tiny.safetensors").touch()
    assert bundled_checkpoint() == tmp_path / "data" / "mrt-tiny.safetensors"


def test_bundled_checkpoints_are_found_by_name_behind_files_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_checkpoint(None) == find_checkpoint("mrt-tiny") == bundled_checkpoint()
    assert find_checkpoint("other.safetensors") == Path("other.safetensors")
    assert find_checkpoint("mrt-tiny-student") == bundled_checkpoint("mrt-tiny-student")
    Path("mrt-tiny-student").mkdir()
    assert find_checkpoint("mrt-tiny-student") == Path("mrt-tiny-student")


def test_the_bundled_student_is_sampled_in_4_steps_without_guidance():
    report = inspect_checkpoint(find_checkpoint("mrt-tiny-student"))
    assert (report.family, report.differences) == (Family.STUDENT, "")
    assert report.info.sampling == Sampling(steps=4, cfg=1.0, shift=3.0, solver="renoise")
    teacher = inspect_checkpoint(find_checkpoint("mrt-tiny"))
    assert teacher.family is Family.TEACHER and teacher.info.transformer == report.info.transformer
