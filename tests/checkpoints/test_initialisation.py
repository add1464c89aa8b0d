"""MRT checkpoints from public weights: nothing of the source is lost, what MRT adds starts silent, failures leave nothing."""

import json
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch
from quantised_files import WIDE, save_by_row, save_gguf, wide_state
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_checkpoints import PUBLIC, public_state, tiny_checkpoint
from torch import Tensor

from mrt_core.checkpoints.checkpoint import Family, inspect_checkpoint, load_checkpoint, save_checkpoint
from mrt_core.checkpoints.components import AutoencoderWeights
from mrt_core.checkpoints.initialisation import initialise_checkpoint, widen_to_rgba
from mrt_core.cli import main
from mrt_core.errors import MRTError
from mrt_core.geometry import TokenBox
from mrt_core.models.autoencoder import Autoencoder
from mrt_core.models.configs import WAN_LATENT_STD, AutoencoderConfig
from mrt_core.models.sequence import Role, Slot, SlotLayout, pack_samples
from mrt_core.models.transformer import MaskedRegionTransformer
from mrt_core.tasks.region_codec import RegionCodec, canvas_regions
from mrt_core.tasks.slots import Arrangement, Task
from mrt_core.weights.safetensors_file import save_streamed
from mrt_core.weights.safetensors_header import TensorEntry, read_header

STEM = "diffusion_pytorch_model"


def random_vae(channels: int) -> Autoencoder:
    torch.manual_seed(channels)
    return Autoencoder(AutoencoderConfig(4, channels, channels)).eval().requires_grad_(False)


@pytest.fixture
def vae(tmp_path):
    """An RGBA autoencoder in a file of its own."""
    path = tmp_path / "vae.safetensors"
    save_file(random_vae(4).state_dict(), path)
    return path


def save_diffusers(folder, state, autoencoder, settings):
    """A diffusers folder: transformer in two shards, autoencoder with the latent statistics `settings`."""
    for name in ("transformer", "vae"):
        (folder / name).mkdir(parents=True)
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "QwenImagePipeline"}))
    (folder / "transformer" / "config.json").write_text("{}")
    (folder / "vae" / "config.json").write_text(json.dumps(settings))
    names = list(state)
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        save_file(
            {name: state[name] for name in part}, folder / "transformer" / f"{STEM}-{number:05d}-of-00002.safetensors"
        )
    save_file(autoencoder.state_dict(), folder / "vae" / f"{STEM}.safetensors")


def predictions(model: MaskedRegionTransformer) -> Tensor:
    """Of three noisy slots that all fill the canvas, as text to layers has them."""
    generator = torch.Generator().manual_seed(3)
    slots = [Slot(Role.LAYER, index, TokenBox(0, 0, 2, 3), False) for index in range(3)]
    text = torch.randn(5, model.config.text_dim, generator=generator)
    tokens = torch.randn(18, 64, generator=generator)
    batch = pack_samples([SlotLayout(tuple(slots), 2, 3)], [text])
    with torch.no_grad():
        return model(tokens, torch.tensor([0.6]), batch)


# From a file


@pytest.mark.parametrize("layered", [False, True])
@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_a_public_file_becomes_an_mrt_checkpoint(tmp_path, vae, layered, prefix):
    state = public_state(layered)
    save_file({prefix + name: tensor for name, tensor in state.items()}, tmp_path / "public.safetensors")
    output = tmp_path / "made" / "mrt.safetensors"
    made = initialise_checkpoint(tmp_path / "public.safetensors", output, vae)
    assert (made.quantised, made.widened) == (None, False)

    report = inspect_checkpoint(output)
    assert (report.family, report.differences, report.parts) == (Family.TEACHER, "", ("autoencoder",))
    info = report.info
    assert info == made.info and info.arrangement is Arrangement.MRT and info.tasks == tuple(Task)
    assert info.transformer == replace(
        PUBLIC, additional_t_cond=layered, condition_embedding=True, clean_timestep="zero"
    )
    assert (info.image_channels, info.autoencoder.latent_std, info.region_mode) == (4, WAN_LATENT_STD, "halo")
    assert info.frame_area == (640 * 640 if layered else 1024 * 1024)

    stored = load_file(output)
    assert all(torch.equal(stored.pop(name), tensor) for name, tensor in state.items())
    condition = stored.pop("cond_token_embed.weight")
    assert condition.shape == (1, PUBLIC.width) and not condition.any()
    assert all(torch.equal(stored.pop(f"vae.{name}"), tensor) for name, tensor in random_vae(4).state_dict().items())
    assert not stored

    loaded = load_checkpoint(output)
    source = load_checkpoint(tmp_path / "public.safetensors").transformer
    assert torch.equal(predictions(loaded.transformer), predictions(source))
    assert predictions(source).std() > 0.01


def test_precision_is_the_sources_or_the_one_asked_for(tmp_path, vae):
    state = {name: tensor.half() for name, tensor in public_state().items()}
    save_file(state, tmp_path / "public.safetensors")
    for dtype, expected in ((None, torch.float16), (torch.bfloat16, torch.bfloat16)):
        initialise_checkpoint(tmp_path / "public.safetensors", tmp_path / "mrt.safetensors", vae, dtype)
        stored = load_file(tmp_path / "mrt.safetensors")
        assert all(torch.equal(stored[name], tensor.to(expected)) for name, tensor in state.items())
        assert stored["cond_token_embed.weight"].dtype == expected
        assert stored["vae.quant_conv.weight"].dtype == (torch.float32 if dtype is None else expected)


def test_quantised_weights_are_unpacked(tmp_path, vae, capsys):
    save_gguf(tmp_path / "public.gguf", wide_state(), "Q8_0")
    arguments = ["init", str(tmp_path / "public.gguf"), "--vae", str(vae), "-o", str(tmp_path / "mrt.safetensors")]
    assert main(arguments) == 0
    assert "the source is quantised as GGUF (Q8_0)" in capsys.readouterr().out
    made = load_checkpoint(tmp_path / "mrt.safetensors").transformer
    assert made.config == replace(WIDE, condition_embedding=True, clean_timestep="zero")
    packed = load_checkpoint(tmp_path / "public.gguf", dtype=torch.bfloat16).transformer
    x = torch.randn(3, WIDE.width, generator=torch.Generator().manual_seed(0)).bfloat16()
    for name in ("transformer_blocks.0.attn.to_q", "transformer_blocks.0.img_mlp.net.0.proj"):
        layer = made.get_submodule(name).bfloat16()
        assert torch.equal(layer(x), packed.get_submodule(name)(x))


def test_scales_per_row_are_unpacked_and_a_tensor_too_many_is_left_out(tmp_path, vae):
    plain = save_by_row(tmp_path / "public.safetensors", public_state(), "int8")
    save_file(
        load_file(tmp_path / "public.safetensors") | {"transformer_blocks.0.attn.cache": torch.zeros(3)},
        tmp_path / "public.safetensors",
    )
    made = initialise_checkpoint(tmp_path / "public.safetensors", tmp_path / "mrt.safetensors", vae, torch.float32)
    assert made.quantised == "scaled by row (int8)"
    stored = load_file(tmp_path / "mrt.safetensors")
    assert all(torch.equal(stored[name], tensor) for name, tensor in plain.items())
    assert "transformer_blocks.0.attn.cache" not in stored


def test_scaled_fp8_is_unpacked_with_its_scales(tmp_path, vae):
    state = public_state()
    name = "transformer_blocks.0.attn.to_q"
    scale = torch.tensor(0.25)
    packed = (state[f"{name}.weight"] / scale).to(torch.float8_e4m3fn)
    save_file(state | {f"{name}.weight": packed, f"{name}.scale_weight": scale}, tmp_path / "public.safetensors")
    assert initialise_checkpoint(tmp_path / "public.safetensors", tmp_path / "mrt.safetensors", vae).quantised
    stored = load_file(tmp_path / "mrt.safetensors")
    assert torch.equal(stored[f"{name}.weight"], (packed.float() * scale).bfloat16())
    assert stored["proj_out.weight"].dtype == torch.float32 and f"{name}.scale_weight" not in stored


# From a folder, with an autoencoder of three channels


def test_a_diffusers_folder_with_an_rgb_autoencoder(tmp_path, capsys):
    statistics = {"latents_mean": [k / 10 for k in range(16)], "latents_std": [1 + k / 10 for k in range(16)]}
    state, rgb = public_state(), random_vae(3)
    save_diffusers(tmp_path / "Qwen-Image", state, rgb, statistics)
    output = tmp_path / "mrt.safetensors"
    assert main(["init", str(tmp_path / "Qwen-Image"), "-o", str(output)]) == 0
    out = capsys.readouterr().out
    assert "mrt.safetensors: MRT teacher" in out and "complete" in out and "the autoencoder knew no transparency" in out
    loaded = load_checkpoint(output)
    assert loaded.info.autoencoder.latent_std == tuple(statistics["latents_std"])
    assert all(torch.equal(loaded.transformer.state_dict()[name], tensor) for name, tensor in state.items())

    image = np.random.default_rng(0).integers(0, 256, (32, 48, 4), dtype=np.uint8)
    image[..., 3] = 255
    slot = Slot(Role.COMPOSITE, 0, TokenBox(0, 0, 2, 3), False)
    where = canvas_regions(SlotLayout((slot,), 2, 3), [slot])
    before = Autoencoder(replace(rgb.config, **{f"latent_{k[8:]}": tuple(v) for k, v in statistics.items()}))
    before.load_state_dict(rgb.state_dict())
    codecs = [RegionCodec(model.requires_grad_(False)) for model in (before, loaded.autoencoder)]
    (expected,), (latent,) = (codec.encode([image], where) for codec in codecs)
    assert (latent - expected).abs().max() < 1e-5 and expected.std() > 0.1
    (shown,), (made,) = (codec.decode([expected], where) for codec in codecs)
    assert np.abs(shown.astype(int) - made).max() <= 1 and (made[..., 3] == 255).all()
    assert made[..., :3].std() > 1
    assert main(["init", str(tmp_path / "Qwen-Image"), "-o", str(output)]) == 1
    assert "already exists" in capsys.readouterr().err


@pytest.mark.parametrize("channels", [(3, 4), (4, 3)])
def test_only_what_lacks_alpha_is_widened(channels):
    config = AutoencoderConfig(4, *channels)
    state = Autoencoder(config).state_dict()
    widened = widen_to_rgba(AutoencoderWeights(config, state))
    assert (widened.config.in_channels, widened.config.out_channels) == (4, 4)
    model = Autoencoder(widened.config)
    model.load_state_dict(widened.state)
    bias, weight = model.decoder.conv_out.bias, model.encoder.conv_in.weight
    if channels == (3, 4):
        assert torch.equal(bias, state["decoder.conv_out.bias"]) and not weight[:, 3].any()
    else:
        assert bias[3].item() == 1 and torch.equal(weight, state["encoder.conv_in.weight"])


# What is refused


def cut_short(tmp_path):
    save_file(public_state(), tmp_path / "cut.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "cut.safetensors").read_bytes()[:-100])
    return "cut.safetensors"


def incomplete(tmp_path):
    state = public_state()
    del state["proj_out.bias"]
    save_file(state, tmp_path / "part.safetensors")
    return "part.safetensors"


def an_mrt_checkpoint(tmp_path):
    save_checkpoint(tmp_path / "tiny.safetensors", tiny_checkpoint())
    return "tiny.safetensors"


def a_lora(tmp_path):
    names = [f"transformer.transformer_blocks.0.attn.to_q.lora_{part}.weight" for part in "AB"]
    save_file({name: torch.ones(2, 2) for name in names}, tmp_path / "style.safetensors")
    return "style.safetensors"


def without_autoencoder(tmp_path):
    save_file(public_state(), tmp_path / "alone.safetensors")
    return "alone.safetensors"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (cut_short, "cut.safetensors is cut short"),
        (incomplete, "1 missing (proj_out.bias)"),
        (an_mrt_checkpoint, "tiny.safetensors is an MRT teacher already"),
        (a_lora, "style.safetensors is a LoRA, but"),
        (without_autoencoder, "comes without an autoencoder"),
    ],
)
def test_what_is_refused_leaves_nothing(tmp_path, capsys, make, message):
    name = make(tmp_path)
    before = set(tmp_path.iterdir())
    assert main(["init", str(tmp_path / name), "-o", str(tmp_path / "mrt.safetensors")]) == 1
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1
    assert set(tmp_path.iterdir()) == before


def test_a_full_disk_is_said_before_anything_is_written(tmp_path, vae, monkeypatch):
    save_file(public_state(), tmp_path / "public.safetensors")
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 1_000_000}))
    with pytest.raises(MRTError, match=r"will have .* GB, but .* has 0.0 GB free"):
        initialise_checkpoint(tmp_path / "public.safetensors", tmp_path / "new" / "mrt.safetensors", vae)
    assert not (tmp_path / "new").exists()


# The streaming writer


STREAMED = {
    "b": torch.arange(6, dtype=torch.bfloat16).reshape(2, 3),
    "a": torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).T,
    "odd": torch.tensor([1, 2, 255], dtype=torch.uint8),
    "empty": torch.zeros(0, 4),
    "scalar": torch.tensor(7),
}
NAMES = {torch.bfloat16: "BF16", torch.float32: "F32", torch.uint8: "U8", torch.int64: "I64"}
ENTRIES = {name: TensorEntry(NAMES[tensor.dtype], tuple(tensor.shape)) for name, tensor in STREAMED.items()}


@pytest.mark.parametrize("order", [list(STREAMED), list(reversed(STREAMED))])
def test_a_streamed_file_is_what_safetensors_reads(tmp_path, order):
    path = tmp_path / "file.safetensors"
    save_streamed(path, ENTRIES, ((name, STREAMED[name]) for name in order), {"note": "Grüße"})
    stored = load_file(path)
    assert stored.keys() == STREAMED.keys()
    assert all(
        torch.equal(stored[name], tensor) and stored[name].dtype == tensor.dtype for name, tensor in STREAMED.items()
    )
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"note": "Grüße"}
    header = read_header(path)
    assert header.tensors == ENTRIES
    save_file(STREAMED | {"a": STREAMED["a"].contiguous()}, tmp_path / "whole.safetensors", {"note": "Grüße"})
    data = [file.read_bytes()[-sum(entry.size for entry in ENTRIES.values()) :] for file in sorted(tmp_path.iterdir())]
    assert data[0] == data[1]


def test_an_interrupted_stream_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.safetensors"
    path.write_bytes(b"old")

    def broken():
        yield "b", STREAMED["b"]
        raise MRTError("the source is damaged")

    with pytest.raises(MRTError):
        save_streamed(path, ENTRIES, broken(), {})
    with pytest.raises(ValueError, match="4 tensors were announced and never came, such as a"):
        save_streamed(path, ENTRIES, [("b", STREAMED["b"])], {})
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_memory_holds_one_tensor_at_a_time(tmp_path, vae):
    """Of the memory that Python hands out, which a file's bytes go through."""
    state = MaskedRegionTransformer(replace(PUBLIC, num_layers=6)).state_dict()
    save_file(state, tmp_path / "public.safetensors")
    largest = max(tensor.nbytes for tensor in state.values())
    tracemalloc.start()
    initialise_checkpoint(tmp_path / "public.safetensors", tmp_path / "mrt.safetensors", vae)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (tmp_path / "mrt.safetensors").stat().st_size > 30 * largest
    assert 2 * largest < peak < 8 * largest
