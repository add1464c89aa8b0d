"""Run by ComfyUI's Python inside its folder: loads every model below `models/` and compares it with the library.

`weights_worker.py REPOSITORY REPORT` writes a JSON report per model: the largest difference of a velocity from the
library's, in fp32; how many layers are packed; and what a LoRA does to both.
"""

import json

from pack_in_comfy import REPORT

# isort: split
import comfy.model_management
import comfy.sd
import torch
from comfy.quant_ops import QuantizedTensor
from mrt_pack.mrt_core.checkpoints.checkpoint import load_checkpoint
from mrt_pack.mrt_core.geometry import TokenBox
from mrt_pack.mrt_core.models.sequence import Role, Slot, SlotLayout, pack_samples, patchify, unpatchify
from mrt_pack.nodes.checkpoint_files import BUNDLED_NAMES, checkpoint_names, checkpoint_path
from mrt_pack.nodes.loader import LoadModel

LORA_LAYERS = ("transformer_blocks.0.attn.to_q", "transformer_blocks.0.img_mlp.net.2")
ROWS, COLS = 2, 3
SLOTS = (
    Slot(Role.COMPOSITE, 0, TokenBox(0, 0, ROWS, COLS), True),
    Slot(Role.LAYER, 1, TokenBox(0, 0, ROWS, COLS), False),
)
SAMPLE = SlotLayout(SLOTS, ROWS, COLS)


class Inputs:
    """The same random step for the MODEL and for the library."""

    def __init__(self, text_dim: int):
        generator = torch.Generator().manual_seed(1)
        self.tokens = torch.randn(2, ROWS * COLS, 64, generator=generator)
        self.context = torch.randn(1, 5, text_dim, generator=generator)
        self.timestep = torch.tensor([0.6])

    def of_model(self, patcher) -> torch.Tensor:
        comfy.model_management.load_models_gpu([patcher])
        latents = [unpatchify(tokens[None], ROWS, COLS).unsqueeze(2) for tokens in self.tokens]
        out = patcher.model.diffusion_model(latents, self.timestep, self.context, {}, mrt_slots=SAMPLE)
        return torch.cat([patchify(latent[:, :, 0])[0] for latent in out])

    def of_library(self, transformer) -> torch.Tensor:
        return transformer(self.tokens.flatten(0, 1), self.timestep, pack_samples([SAMPLE], [self.context[0]]))


def largest(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max())


def compare(name: str) -> dict:
    """What the worker reports of one model."""
    patcher, transformer = LoadModel.execute(name, "fp32").result[0], load_checkpoint(checkpoint_path(name)).transformer
    inputs = Inputs(transformer.config.text_dim)
    before, expected = inputs.of_model(patcher), inputs.of_library(transformer)
    layers = [layer for layer in patcher.model.diffusion_model.modules() if hasattr(layer, "weight")]
    found = {
        "difference": largest(before, expected),
        "scale": float(expected.abs().max()),
        "packed": sum(isinstance(layer.weight, QuantizedTensor) for layer in layers),
    }
    lora, generator = {}, torch.Generator().manual_seed(0)
    for layer in LORA_LAYERS:
        rows, columns = patcher.model.diffusion_model.get_submodule(layer).weight.shape
        lora[f"{layer}.lora_A.weight"] = torch.randn(4, columns, generator=generator) / columns**0.5
        lora[f"{layer}.lora_B.weight"] = torch.randn(rows, 4, generator=generator) / 4
    patched = comfy.sd.load_lora_for_models(patcher, None, lora, 1.0, 0.0)[0]
    found["lora"] = largest(inputs.of_model(patched), before)
    for layer in LORA_LAYERS:
        module, pair = (
            transformer.get_submodule(layer),
            (lora[f"{layer}.lora_A.weight"], lora[f"{layer}.lora_B.weight"]),
        )
        module.register_forward_hook(lambda _, given, out, pair=pair: out + given[0] @ pair[0].T @ pair[1].T)
    found["lora_difference"] = largest(inputs.of_model(patched), inputs.of_library(transformer))
    found["after_lora"] = largest(inputs.of_model(patcher), before)
    found["dtype"] = str(patcher.model.get_dtype_inference())
    return found


def main() -> None:
    with torch.inference_mode():
        report = {name: compare(name) for name in checkpoint_names() if name not in BUNDLED_NAMES}
    REPORT.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
