"""Run by ComfyUI's Python inside its folder: LoRA files in every naming through the stock loader node and the library.

`lora_worker.py REPOSITORY REPORT` writes a JSON report: per naming, how many of the layers the node changes, the largest
difference of its weights from the library's, and how much the LoRA changes at most.
"""

import importlib.util
import json
import sys
from pathlib import Path

REPOSITORY, REPORT = map(Path, sys.argv[1:3])
sys.argv[1:] = ["--cpu", "--base-directory", str(REPORT.parent)]
sys.path[:0] = [str(Path.cwd()), str(REPOSITORY / "tests")]  # ComfyUI's folder, and that of lora_files

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import comfy.lora  # noqa: E402
import torch  # noqa: E402
from lora_files import LAYERS, NAMINGS, lora_state, random_pairs  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

import nodes as comfy_nodes  # noqa: E402

STRENGTH = 0.8


def load_pack() -> None:
    """Import the repository as the package that ComfyUI makes of it."""
    spec = importlib.util.spec_from_file_location(
        "mrt_pack", REPOSITORY / "__init__.py", submodule_search_locations=[str(REPOSITORY)]
    )
    sys.modules["mrt_pack"] = pack = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pack)


load_pack()

from mrt_pack.mrt_core.checkpoint import bundled_checkpoint, load_checkpoint  # noqa: E402
from mrt_pack.mrt_core.lora import apply_loras, read_lora  # noqa: E402
from mrt_pack.nodes.checkpoint_files import BUNDLED  # noqa: E402
from mrt_pack.nodes.loader import LoadModel  # noqa: E402


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
