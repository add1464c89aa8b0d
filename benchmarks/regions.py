"""Seconds per step and peak memory: packed regions against full-canvas layers of the same model, in one run.

    python benchmarks/regions.py [--device cuda] [--canvas 256] [--layers 4 8 20 50]

Every layer covers a tenth of the canvas. The model has Qwen-Image's shape at a smaller width, with random weights: cost
depends on the tokens, not on what they hold. Each measurement is a process of its own, so that its peak memory is its own.
"""

import argparse
import json
import math
import resource
import subprocess
import sys
import time

import torch

from mrt_core.geometry import TOKEN_PX, TokenBox
from mrt_core.models.configs import TransformerConfig
from mrt_core.models.sequence import Role, Slot, SlotLayout, pack_samples
from mrt_core.models.transformer import MaskedRegionTransformer

AREA_SHARE = 0.1
TEXT_TOKENS = 64
CONFIG = TransformerConfig(num_layers=4, num_heads=8, head_dim=64, text_dim=256, rope_axes=(16, 24, 24))


def sample_of(kind: str, layers: int, side: int) -> SlotLayout:
    """Composite, background and `layers` layers: their regions, or all of them full-canvas."""
    whole = TokenBox(0, 0, side, side)
    small = max(1, round(side * math.sqrt(AREA_SHARE)))
    box = TokenBox(side // 4, side // 4, small, small) if kind == "regions" else whole
    slots = [Slot(Role.COMPOSITE, 0, whole, True), Slot(Role.BACKGROUND, 1, whole, False)]
    slots += [Slot(Role.LAYER, 2 + index, box, False) for index in range(layers)]
    return SlotLayout(tuple(slots), side, side)


def peak_memory(device: str) -> float:
    """Peak memory of this process in MiB: on the device, or resident on the CPU."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


@torch.inference_mode()
def measure(kind: str, layers: int, side: int, device: str, steps: int) -> dict:
    """Median seconds per step, and peak memory in MiB above the memory before the first step."""
    torch.manual_seed(0)
    model = MaskedRegionTransformer(CONFIG, device=device)
    sample = sample_of(kind, layers, side)
    batch = pack_samples([sample], [torch.randn(TEXT_TOKENS, CONFIG.text_dim, device=device)])
    tokens, sigma = (
        torch.randn(sample.token_count, CONFIG.in_channels, device=device),
        torch.tensor([0.5], device=device),
    )
    before, times = peak_memory(device), []
    for _ in range(steps + 1):
        started = time.perf_counter()
        model(tokens, sigma, batch).sum().item()
        times.append(time.perf_counter() - started)
    seconds = sorted(times[1:])[steps // 2]
    return {"tokens": sample.token_count, "seconds": seconds, "memory": peak_memory(device) - before}


def in_new_process(kind: str, layers: int, options: argparse.Namespace) -> dict:
    """`measure` in a process of its own."""
    command = [sys.executable, __file__, "--canvas", str(options.canvas), "--device", options.device]
    command += ["--steps", str(options.steps), "--only", kind, str(layers)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--canvas", type=int, default=256, help="side in px")
    parser.add_argument("--layers", type=int, nargs="+", default=[4, 8, 20, 50])
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--only", nargs=2, metavar=("KIND", "LAYERS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        kind, layers = options.only[0], int(options.only[1])
        print(json.dumps(measure(kind, layers, options.canvas // TOKEN_PX, options.device, options.steps)))
        return
    print(f"{options.canvas} px canvas, layers of a tenth of its area, {options.device}, fp32\n")
    print("| layers | tokens: regions | full | s/step: regions | full | ratio | MiB: regions | full | ratio |")
    print("|---|---|---|---|---|---|---|---|---|")
    for layers in options.layers:
        a, b = (in_new_process(kind, layers, options) for kind in ("regions", "full"))
        print(
            f"| {layers} | {a['tokens']} | {b['tokens']} | {a['seconds']:.3f} | {b['seconds']:.3f} "
            f"| {b['seconds'] / a['seconds']:.1f}x | {a['memory']:.0f} | {b['memory']:.0f} | {b['memory'] / a['memory']:.1f}x |",
            flush=True,
        )


if __name__ == "__main__":
    main()
