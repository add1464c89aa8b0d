"""Quantised checkpoints: what they dequantise to, that they compute the same, and which are refused by name."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from quantised_files import (
    FLOAT8,
    WIDE,
    gguf_blocks,
    gguf_plain,
    json_tensor,
    save_by_row,
    save_fp8,
    save_gguf,
    velocity,
    wide_state,
)
from safetensors.torch import load_file, save_file
from tiny_checkpoints import public_state

from mrt_core.checkpoints.checkpoint import Family, inspect_checkpoint, load_checkpoint, save_checkpoint
from mrt_core.errors import MRTError
from mrt_core.models.transformer import MaskedRegionTransformer
from mrt_core.weights.gguf_blocks import unpack_blocks
from mrt_core.weights.gguf_types import BLOCK_FORMATS, packed_columns
from mrt_core.weights.packed_linear import PackedLinear, pack_linears
from mrt_core.weights.quantisation import LayerFormat

BLOCKS = list(BLOCK_FORMATS)
HALF_STEPS = {
    "Q8_0": 1 / 254,
    "Q6_K": 1 / 62,
    "Q5_K": 1 / 31,
    "Q4_K": 1 / 15,
    "Q5_1": 1 / 31,
    "Q4_1": 1 / 15,
    "Q5_0": 1 / 16,  # here and in the next, what the largest code of the other sign falls short by
    "Q4_0": 1 / 8,
    "IQ4_NL": 14 / 127,
    "IQ4_XS": 16 / 127,  # with what the scale is rounded by
    "Q3_K": 1 / 4,
    "Q2_K": 1 / 3,
}  # of a block's largest weight; K: of its range
SCHEMES = ["scaled", "layers", "metadata"]


# Blocks


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_unpack_bit_for_bit_as_in_the_reference_library(name):
    block = BLOCK_FORMATS[name]
    raw = np.random.default_rng(0).integers(0, 256, (64, 3 * block.bytes), dtype=np.uint8)
    with np.errstate(invalid="ignore"):  # random halves are infinite or no number now and then
        expected = gguf_plain(raw, name)
    unpacked = unpack_blocks(torch.from_numpy(raw), name)
    assert unpacked.shape == (64, 3 * block.weights)
    assert packed_columns(name, unpacked.shape[1]) == raw.shape[1]
    assert torch.equal(unpacked.nan_to_num(7.0), expected.nan_to_num(7.0))


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_keep_weights_within_the_error_of_their_format(name):
    torch.manual_seed(0)
    weight = torch.randn(32, 512)
    weight[0] = 0
    unpacked = unpack_blocks(torch.from_numpy(gguf_blocks(weight, name)), name)
    error = (unpacked - weight).abs().max() / weight.abs().max()
    assert error < 1.1 * HALF_STEPS[name]
    assert torch.equal(unpacked[0], torch.zeros(512))


@pytest.mark.parametrize("name", FLOAT8)
def test_scaled_fp8_keeps_weights_within_the_error_of_its_format(tmp_path, name):
    state = wide_state()
    save_fp8(tmp_path / "q.safetensors", state, "layers", name)
    model = load_checkpoint(tmp_path / "q.safetensors").transformer
    layer, weight = model.transformer_blocks[0].img_mod[1], state["transformer_blocks.0.img_mod.1.weight"]
    assert isinstance(layer, PackedLinear)
    step = torch.finfo(FLOAT8[name]).eps / 2  # of a weight, down to the smallest normal number
    floor = weight.abs().max() * torch.finfo(FLOAT8[name]).smallest_normal / torch.finfo(FLOAT8[name]).max
    assert ((layer.plain_weight(torch.float32) - weight).abs() <= 1.01 * step * weight.abs().clamp_min(floor)).all()


# Whole checkpoints


def plain_model(state):
    """The model of weights that were dequantised by hand."""
    model = MaskedRegionTransformer(WIDE)
    model.load_state_dict(state)
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", BLOCKS)
def test_gguf_computes_as_the_same_weights_dequantised(tmp_path, name, dtype):
    path = tmp_path / "model.gguf"
    plain = save_gguf(path, wide_state(), name)
    loaded = load_checkpoint(path, dtype=dtype)
    layer = loaded.transformer.transformer_blocks[0].img_mlp.net[2]
    assert (layer.format.name, layer.weight.dtype, layer.bias.dtype) == (name, torch.uint8, dtype)
    assert layer.weight.numel() == 256 * packed_columns(name, 1024)  # packed in memory too
    expected = velocity(plain_model(plain).to(dtype), dtype)
    assert expected.float().abs().max() > 0.1
    assert torch.equal(velocity(loaded.transformer, dtype), expected)


@pytest.mark.parametrize("name", FLOAT8)
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_fp8_with_scales_computes_as_the_same_weights_dequantised(tmp_path, scheme, name, prefix):
    path = tmp_path / "model.safetensors"
    plain = save_fp8(path, wide_state(), scheme, name, prefix)
    report = inspect_checkpoint(path)
    words = "scaled fp8" if scheme == "scaled" else "ComfyUI's mixed format"
    assert (report.family, str(report.quantisation)) == (Family.QWEN_IMAGE, f"{words} ({name})")
    assert report.differences == ""
    loaded = load_checkpoint(path)
    assert loaded.transformer.proj_out.weight.dtype == FLOAT8[name]
    assert torch.equal(velocity(loaded.transformer), velocity(plain_model(plain)))


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("name", [*FLOAT8, "int8"])
def test_scales_per_row_compute_as_the_same_weights_dequantised(tmp_path, name, flat):
    path = tmp_path / "model.safetensors"
    plain = save_by_row(path, wide_state(layered=True), name, flat, prefix="model.diffusion_model.")
    report = inspect_checkpoint(path)
    assert str(report).endswith(f"quantised as scaled by row ({name}), complete")
    loaded = load_checkpoint(path).transformer
    assert loaded.proj_out.weight.dtype == {**FLOAT8, "int8": torch.int8}[name]
    assert loaded.proj_out.weight_scale.shape == (64, 1)
    config = replace(WIDE, additional_t_cond=True)
    model = MaskedRegionTransformer(config)
    model.load_state_dict(plain)
    assert torch.equal(velocity(loaded), velocity(model))


def test_int8_with_one_scale_is_read_too(tmp_path):
    path = tmp_path / "model.safetensors"
    save_by_row(path, wide_state(), "int8")
    state = load_file(path)
    state |= {name: torch.tensor(0.01) for name in state if name.endswith("weight_scale")}
    save_file(state, path)
    assert str(inspect_checkpoint(path)).endswith("quantised as scaled (int8), complete")
    layer = load_checkpoint(path).transformer.proj_out
    assert torch.equal(layer.plain_weight(torch.float32), state["proj_out.weight"].float() * 0.01)


def test_a_scale_of_blocks_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    save_by_row(path, wide_state())
    state = load_file(path) | {"proj_out.weight_scale": torch.ones(2, 2)}
    save_file(state, path)
    with pytest.raises(MRTError, match=r"proj_out.weight_scale \[2, 2\] instead of one number"):
        load_checkpoint(path)


def test_layers_of_one_file_may_be_plain_and_quantised(tmp_path):
    path = tmp_path / "mixed.safetensors"
    plain = save_fp8(path, wide_state(), "layers")
    stored = load_file(path)
    original = wide_state()["proj_out.weight"]
    for name in ("comfy_quant", "weight_scale"):
        del stored[f"proj_out.{name}"]
    save_file(stored | {"proj_out.weight": original.bfloat16()}, path)
    model = load_checkpoint(path).transformer
    assert isinstance(model.proj_out, torch.nn.Linear)
    assert torch.equal(velocity(model), velocity(plain_model(plain | {"proj_out.weight": original.bfloat16().float()})))


def test_quantised_tables_are_made_plain(tmp_path):
    """A converter packs every matrix, the two rows of Layered's extra timestep embedding among them."""
    plain = save_gguf(tmp_path / "layered.gguf", wide_state(layered=True), "Q6_K")
    save_fp8(tmp_path / "layered.safetensors", wide_state(layered=True), "layers")
    name = "time_text_embed.addition_t_embedding.weight"
    for file in ("layered.gguf", "layered.safetensors"):
        report = inspect_checkpoint(tmp_path / file)
        assert (report.family, report.differences) == (Family.QWEN_IMAGE_LAYERED, "")
        table = load_checkpoint(tmp_path / file).transformer.state_dict()[name]
        assert table.dtype == torch.float32
        assert (table - plain[name]).abs().max() < 0.05 * plain[name].abs().max()


@pytest.mark.parametrize("kind", ["F16", "BF16", "F32"])
def test_plain_tensors_in_gguf(tmp_path, kind):
    state = wide_state()
    plain = save_gguf(tmp_path / "model.gguf", state, "Q8_0", plain=kind, prefix="model.diffusion_model.")
    report = inspect_checkpoint(tmp_path / "model.gguf")
    assert (report.dtypes, report.differences) == (tuple(sorted(("Q8_0", kind))), "")
    assert str(report).endswith("quantised as GGUF (Q8_0), complete")
    loaded = load_checkpoint(tmp_path / "model.gguf").transformer.state_dict()
    for name in ("txt_norm.weight", "proj_out.bias"):
        assert torch.equal(loaded[name], plain[name])


def test_a_quantised_model_is_not_saved_as_a_checkpoint(tmp_path):
    save_gguf(tmp_path / "model.gguf", wide_state(), "Q8_0")
    with pytest.raises(
        MRTError, match="weights are quantised, but a checkpoint is saved with plain ones; load its bf16"
    ):
        save_checkpoint(tmp_path / "out.safetensors", load_checkpoint(tmp_path / "model.gguf"))
    assert not (tmp_path / "out.safetensors").exists()


def test_packed_layers_have_the_bytes_of_their_format():
    """At the size of the public model's largest layer, on the meta device."""
    model = torch.nn.ModuleDict({"layer": torch.nn.Linear(12288, 3072, device="meta")})
    for name, bits in {
        "Q8_0": 8.5,
        "Q6_K": 6.5625,
        "Q5_K": 5.5,
        "Q4_K": 4.5,
        "Q2_K": 2.625,
        "Q3_K": 3.4375,
        "float8_e4m3fn": 8,
        "int8": 8,
    }.items():
        if isinstance(model["layer"], PackedLinear):
            model["layer"] = torch.nn.Linear(12288, 3072, device="meta")
        pack_linears(model, {"layer": LayerFormat(name)})
        weight = model["layer"].weight
        assert weight.numel() * weight.element_size() * 8 == bits * 12288 * 3072


# What is refused, and what does not fit


REFUSED = ["nvfp4", "mxfp8", "int8_tensorwise", "convrot_w4a4", "asym_w4a8_int8"]


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("scheme", ["layers", "metadata"])
def test_other_formats_of_comfyui_are_refused_by_name(tmp_path, name, scheme):
    layer = "transformer_blocks.0.attn.to_q"
    state = public_state() | {
        f"{layer}.weight": torch.zeros(128, 64, dtype=torch.uint8),
        f"{layer}.weight_scale": torch.zeros(128, 8),
        f"{layer}.weight_scale_2": torch.zeros(()),
    }
    metadata = {}
    if scheme == "layers":
        state[f"{layer}.comfy_quant"] = json_tensor({"format": name})
    else:
        metadata["_quantization_metadata"] = f'{{"layers": {{"{layer}": {{"format": "{name}"}}}}}}'
    save_file(state, tmp_path / "q.safetensors", metadata)
    with pytest.raises(MRTError, match=f"q.safetensors is .* quantised as {name}, but plain, .*; use the bf16 version"):
        load_checkpoint(tmp_path / "q.safetensors")
    assert f"quantised as ComfyUI's mixed format ({name})" in str(inspect_checkpoint(tmp_path / "q.safetensors"))


FOREIGN = {
    "SVDQuant of nunchaku": ("qweight", "wscales", "smooth_factor", "proj_down", "proj_up"),
    "DFloat11": ("encoded_exponent", "sign_mantissa", "luts", "output_positions", "gaps"),
    "GPTQ or AWQ": ("qweight", "qzeros", "scales"),
    "optimum-quanto": ("weight._data", "weight._scale"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_formats_of_other_software_are_named_with_a_remedy(tmp_path, name):
    state = public_state()
    for layer in ("attn.to_q", "attn.to_k", "img_mod.1"):
        del state[f"transformer_blocks.0.{layer}.weight"]
        state |= {f"transformer_blocks.0.{layer}.{part}": torch.zeros(4, dtype=torch.uint8) for part in FOREIGN[name]}
    save_file(state, tmp_path / "q.safetensors")
    assert str(inspect_checkpoint(tmp_path / "q.safetensors")).endswith(f"quantised as {name}")
    message = f"q.safetensors is .* quantised as {name}, but plain, .*; use the bf16 version.* card of 8 GB a GGUF one.*--memory"
    with pytest.raises(MRTError, match=message):
        load_checkpoint(tmp_path / "q.safetensors")
    packed = {key: tensor for key, tensor in state.items() if tensor.dtype == torch.uint8}
    save_file(packed, tmp_path / "rest.safetensors")
    assert f": a file quantised as {name}, " in str(inspect_checkpoint(tmp_path / "rest.safetensors"))


def test_bitsandbytes_is_refused_by_name(tmp_path):
    layer = "transformer_blocks.0.attn.to_q.weight"
    state = public_state() | {layer: torch.zeros(8192, 1, dtype=torch.uint8), f"{layer}.absmax": torch.zeros(256)}
    save_file(state, tmp_path / "q.safetensors")
    with pytest.raises(MRTError, match="quantised as bitsandbytes, but plain, .*; use the bf16 version"):
        load_checkpoint(tmp_path / "q.safetensors")


def test_packed_integers_are_refused(tmp_path):
    state = public_state() | {"transformer_blocks.0.attn.to_q.weight": torch.zeros(128, 64, dtype=torch.uint8)}
    save_file(state, tmp_path / "q.safetensors")
    with pytest.raises(MRTError, match="quantised as U8, but"):
        load_checkpoint(tmp_path / "q.safetensors")


FAULTS = {
    "no scale": (lambda s: s.pop("proj_out.weight_scale"), "1 missing .proj_out.weight_scale"),
    "many scales": (
        lambda s: s.update({"proj_out.weight_scale": torch.ones(64)}),
        r"proj_out.weight_scale \[64\] instead of one number",
    ),
    "not fp8": (
        lambda s: s.update({"proj_out.weight": torch.zeros(64, 256)}),
        "proj_out.weight in F32 instead of F8_E4M3",
    ),
    "no weight": (lambda s: s.pop("proj_out.weight"), "missing .proj_out.weight"),
    "another scale": (
        lambda s: s.update({"proj_out.weight_offset": torch.ones(64)}),
        "1 unexpected .proj_out.weight_offset",
    ),
    "packed bias": (
        lambda s: s.update({"proj_out.bias": torch.zeros(64, dtype=torch.uint8)}),
        "proj_out.bias in U8 instead of plain numbers",
    ),
    "no format": (
        lambda s: s.update({"proj_out.comfy_quant": json_tensor([1])}),
        "quantised as an unknown format, but",
    ),
    "not json": (
        lambda s: s.update({"proj_out.comfy_quant": torch.full((9,), 255, dtype=torch.uint8)}),
        "quantised as an unknown format, but",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_quantised_files_that_do_not_fit(tmp_path, fault):
    change, message = FAULTS[fault]
    path = tmp_path / "q.safetensors"
    save_fp8(path, wide_state(), "layers")
    state = load_file(path)
    change(state)
    save_file(state, path)
    with pytest.raises(MRTError, match=f"q.safetensors is .*{message}"):
        load_checkpoint(path)
