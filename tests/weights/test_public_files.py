"""Checkpoints as the public has them, at their full size: sparse files of a few blocks on disk, told from their headers."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from quantised_files import save_gguf, velocity, wide_state
from safetensors.torch import save_file
from tiny_checkpoints import PUBLIC, header_bytes

from mrt_core.checkpoints.autoencoder_keys import wan_autoencoder_state
from mrt_core.checkpoints.checkpoint import inspect_checkpoint, load_checkpoint
from mrt_core.checkpoints.report import require_loadable
from mrt_core.errors import MRTError
from mrt_core.models.autoencoder import Autoencoder
from mrt_core.models.configs import AutoencoderConfig
from mrt_core.models.transformer import MaskedRegionTransformer
from mrt_core.models.unfilled import UNFILLED

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the files of 38 GiB take no space only where files are sparse")

BYTES = {"BF16": 2, "F8_E4M3": 1, "I8": 1, "F32": 4}
Shapes = dict[str, tuple[str, tuple[int, ...]]]  # name: dtype, shape


def layered(blocks: int = 60, extra_timestep: bool = True) -> Shapes:
    config = replace(PUBLIC, num_layers=blocks, num_heads=24, text_dim=3584, additional_t_cond=extra_timestep)
    state = MaskedRegionTransformer(config, device="meta", operations=UNFILLED).state_dict()
    return {name: ("BF16", tuple(tensor.shape)) for name, tensor in state.items()}


def save_sparse(path: Path, shapes: Shapes, **metadata: str) -> Path:
    header, end = {"__metadata__": metadata}, 0
    for name, (dtype, shape) in shapes.items():
        begin, end = end, end + BYTES[dtype] * torch.Size(shape).numel()
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    with path.open("wb") as file:
        file.write(header_bytes(header))
        file.truncate(file.tell() + end)
    return path


def is_matrix_of_block(name: str, shape: tuple[int, ...]) -> bool:
    return name.startswith("transformer_blocks.") and len(shape) == 2


def test_fp8_with_a_scale_per_row_and_no_description(tmp_path):
    shapes = layered()
    for name, (_, shape) in list(shapes.items()):
        if is_matrix_of_block(name, shape):
            shapes |= {name: ("F8_E4M3", shape), f"{name}_scale": ("F32", (shape[0], 1))}
    report = inspect_checkpoint(save_sparse(tmp_path / "fp8.safetensors", shapes))
    assert str(report) == (
        "fp8.safetensors: Qwen-Image-Layered, 2774 tensors, BF16/F32/F8_E4M3, 19.1 GiB, quantised as scaled by row "
        "(float8_e4m3fn), complete"
    )
    assert require_loadable(report).transformer.num_layers == 60
    assert len(report.packed) == 840 and all(layer.per_row for layer in report.packed.values())


def test_nunchaku_is_named_with_a_remedy(tmp_path):
    shapes = {name: entry for name, entry in layered().items() if not is_matrix_of_block(name, entry[1])}
    for number in range(60):
        layer = f"transformer_blocks.{number}.attn.to_qkv."
        shapes |= {layer + "qweight": ("I8", (9216, 1536)), layer + "wscales": ("BF16", (48, 9216))}
        shapes |= {layer + "proj_down": ("BF16", (3072, 32)), layer + "smooth_factor": ("BF16", (3072,))}
    path = save_sparse(tmp_path / "int4.safetensors", shapes, model_class="NunchakuQwenImageTransformer2DModel")
    report = inspect_checkpoint(path)
    assert str(report).endswith("quantised as SVDQuant of nunchaku")
    with pytest.raises(MRTError) as caught:
        require_loadable(report)
    assert str(caught.value) == (
        "int4.safetensors is Qwen-Image-Layered quantised as SVDQuant of nunchaku, but plain, fp8 or int8 with scales, ComfyUI's "
        "float8 or GGUF's Q2_K to Q8_0 or IQ4 weights were expected; use the bf16 version of the file, or for a card of 8 GB a "
        "GGUF one, Q4_K_M (13 GB) or Q2_K (7 GB), of which --memory 8GB streams what does not fit"
    )


def test_a_controlnet_is_named_as_one(tmp_path):
    shapes = layered(5, extra_timestep=False) | {"controlnet_x_embedder.weight": ("BF16", (3072, 64))}
    shapes |= {f"controlnet_blocks.{number}.weight": ("BF16", (3072, 3072)) for number in range(5)}
    path = save_sparse(tmp_path / "union.safetensors", shapes)
    assert str(inspect_checkpoint(path)).startswith("union.safetensors: a ControlNet, 179 tensors")
    with pytest.raises(MRTError, match="union.safetensors is a ControlNet, but .* expected; it steers another model"):
        load_checkpoint(path)


def test_one_tensor_too_many_is_a_warning(tmp_path, caplog):
    name = "transformer_blocks.0.attn.pos_embed_cache"
    report = inspect_checkpoint(save_sparse(tmp_path / "extra.safetensors", layered() | {name: ("BF16", (10,))}))
    assert str(report).endswith(f"1935 tensors, BF16, 38.1 GiB, complete, but 1 not used ({name})")
    assert require_loadable(report).transformer.num_layers == 60
    assert f"extra.safetensors has 1 tensors that Qwen-Image-Layered has not, such as {name}" in caplog.text


def test_one_tensor_too_few_is_an_error(tmp_path):
    shapes = layered()
    del shapes["transformer_blocks.59.img_mod.1.bias"]
    report = inspect_checkpoint(save_sparse(tmp_path / "less.safetensors", shapes))
    with pytest.raises(MRTError, match="do not fit: 1 missing .transformer_blocks.59.img_mod.1.bias"):
        require_loadable(report)


@pytest.mark.parametrize("name", ["Q3_K", "Q4_0", "Q5_1"])
def test_small_quantisations_answer_as_the_plain_model_within_their_own_error(tmp_path, name):
    """A file whose blocks alone are packed, and all else is plain, as converters write it."""
    state = wide_state(layered=True)
    save_gguf(tmp_path / "q.gguf", state, name)
    model = MaskedRegionTransformer(replace(PUBLIC, num_heads=2, text_dim=256, additional_t_cond=True))
    model.load_state_dict(state)
    expected, found = velocity(model), velocity(load_checkpoint(tmp_path / "q.gguf").transformer)
    error = float((found - expected).norm() / expected.norm())
    assert 0 < error < {"Q3_K": 0.5, "Q4_0": 0.25, "Q5_1": 0.1}[name]


@pytest.mark.parametrize(("channels", "words"), [(3, "for RGB, without alpha"), (4, "for RGBA")])
def test_an_autoencoder_says_whether_it_knows_transparency(tmp_path, channels, words):
    state = Autoencoder(AutoencoderConfig(4, channels, channels)).state_dict()
    for naming, tensors in {"ours": state, "wan": wan_autoencoder_state(state)}.items():
        path = tmp_path / f"{naming}.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
        assert f": an autoencoder alone {words}, " in str(inspect_checkpoint(path))
