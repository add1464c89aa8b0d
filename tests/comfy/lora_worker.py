"""Run by ComfyUI's Python inside its folder: LoRA files in every naming through the stock loader node and the library.

`lora_worker.py REPOSITORY REPORT` writes a JSON report: per naming, how many of the layers the node changes, the largest
difference of its weights from the library's, and how much the LoRA changes at most.
"""

import json
from pathlib import Path

from pack_in_comfy import REPORT

# isort: split
import comfy.lora
import torch
from lora_files import LAYERS, NAMINGS, lora_state, random_pairs
from mrt_pack.mrt_core.checkpoints.bundled import bundled_checkpoint
from mrt_pack.mrt_core.checkpoints.checkpoint import load_checkpoint
from mrt_pack.mrt_core.lora.apply import apply_loras
from mrt_pack.mrt_core.lora.file import read_lora
from mrt_pack.nodes.checkpoint_files import BUNDLED
from mrt_pack.nodes.loader import LoadModel
from safetensors.torch import save_file

import nodes as comfy_nodes

STRENGTH = 0.8


def compare(model, transformer: torch.nn.Module, path: Path) -> dict:
    """The weights of the MODEL with a LoRA file on it against those of the library, whose own are put back."""
    (patched,) = comfy_nodes.LoraLoaderModelOnly().load_lora_model_only(model, path.name, STRENGTH)
    patches = {key.removeprefix("diffusion_model."): value for key, value in patched.patches.items()}
    before = {name: tensor.clone() for name, tensor in transformer.state_dict().items()}
    apply_loras(transformer, [(read_lora(path, transformer.config), STRENGTH)])
    found = {"layers": len(patches), "difference": 0.0, "change": 0.0}
    for name, ours in transformer.state_dict().items():
        theirs = before[name].clone()
        if name in patches:
            theirs = comfy.lora.calculate_weight(patches[name], theirs, name)
        found["difference"] = max(found["difference"], float((theirs - ours).abs().max()))
        found["change"] = max(found["change"], float((ours - before[name]).abs().max()))
    transformer.load_state_dict(before)
    return found


def main() -> None:
    model = LoadModel.execute(BUNDLED, "fp32").result[0]
    transformer = load_checkpoint(bundled_checkpoint()).transformer
    pairs = random_pairs({name: tuple(transformer.get_submodule(name).weight.shape) for name in LAYERS})
    folder = REPORT.parent / "models" / "loras"
    folder.mkdir(parents=True)
    report = {}
    with torch.no_grad():
        for prefix, suffixes in NAMINGS:
            path = folder / f"{len(report)}.safetensors"
            save_file(lora_state(pairs, prefix, suffixes), path)
            report[prefix + "*" + suffixes[0]] = compare(model, transformer, path)
    REPORT.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
