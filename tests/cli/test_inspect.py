"""`mrt inspect` as users run it: it answers from headers, in a process that never imports PyTorch."""

import subprocess
import sys

import pytest
import torch
from lora_files import lora_state, random_pairs
from quantised_files import save_fp8, save_gguf, wide_state
from safetensors.torch import save_file
from tiny_checkpoints import public_state, tiny_checkpoint

from mrt_core.checkpoints.autoencoder_keys import wan_autoencoder_state
from mrt_core.checkpoints.checkpoint import save_checkpoint
from mrt_core.models.autoencoder import Autoencoder
from mrt_core.models.configs import AutoencoderConfig

PROGRAM = """
import sys
from mrt_core.cli import main
status = main(["inspect", sys.argv[1]])
print(status, *sorted({"torch", "numpy", "transformers"} & sys.modules.keys()))
"""


def save_teacher(folder):
    save_checkpoint(folder / "mrt.safetensors", tiny_checkpoint())
    return folder / "mrt.safetensors"


def save_all_in_one(folder):
    state = {f"model.diffusion_model.{name}": tensor for name, tensor in public_state().items()}
    wan = wan_autoencoder_state(Autoencoder(AutoencoderConfig(4, 3, 3)).state_dict())
    save_file(state | {f"vae.{name}": tensor for name, tensor in wan.items()}, folder / "all.safetensors")
    return folder / "all.safetensors"


def save_lora_file(folder):
    pairs = random_pairs({"transformer_blocks.3.attn.to_q": (3072, 3072)}, rank=4, alpha=2.0)
    state = {name: tensor.bfloat16() for name, tensor in lora_state(pairs).items()}
    save_file(state, folder / "style.safetensors")
    return folder / "style.safetensors"


def save_shards(folder):
    names = list(public_state())
    for number in (1, 2):
        state = {name: tensor for name, tensor in public_state().items() if name in names[number - 1 :: 2]}
        save_file(state, folder / f"model-0000{number}-of-00002.safetensors")
    return folder


def save_gguf_file(folder):
    save_gguf(folder / "q8.gguf", wide_state(), "Q8_0")
    return folder / "q8.gguf"


def save_fp8_file(folder):
    save_fp8(folder / "fp8.safetensors", wide_state(), "layers")
    return folder / "fp8.safetensors"


def save_flux(folder):
    save_file({"double_blocks.0.img_attn.qkv.weight": torch.zeros(4, 4)}, folder / "flux.safetensors")
    return folder / "flux.safetensors"


FILES = {
    "checkpoint": (save_teacher, ": MRT teacher, ", "with autoencoder and text encoder, complete"),
    "all in one": (save_all_in_one, ": Qwen-Image or Qwen-Image-Edit, ", "with autoencoder, complete"),
    "LoRA": (save_lora_file, ": a LoRA, ", "1 layers, rank 4, alpha 2, BF16, 0.0 MiB, fits Qwen-Image and models of its size"),
    "shards": (save_shards, ": Qwen-Image or Qwen-Image-Edit, 45 tensors, ", "complete"),
    "GGUF": (save_gguf_file, ": Qwen-Image or Qwen-Image-Edit, ", "quantised as GGUF (Q8_0), complete"),
    "fp8": (save_fp8_file, ": Qwen-Image or Qwen-Image-Edit, ", "ComfyUI's mixed format (float8_e4m3fn), complete"),
    "another model": (save_flux, ": a FLUX or HunyuanVideo model, ", " MiB"),
}  # fmt: skip


@pytest.mark.parametrize("form", FILES)
def test_no_file_takes_pytorch_to_be_told(tmp_path, form):
    save, start, end = FILES[form]
    path = save(tmp_path)
    command = [sys.executable, "-c", PROGRAM, path]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    report, modules = done.stdout.splitlines()
    assert report.startswith(path.name + start) and report.endswith(end)
    assert modules == "0"  # the status, and no module after it
