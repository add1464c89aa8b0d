"""What the 20B model needs of a card's memory: planned for cards of several sizes, and on CUDA measured beside it.

    python benchmarks/memory.py [--cards 8 12 16 24 48 80] [--measure]

The plan is computed from sizes alone, so that it runs anywhere. `--measure` samples two steps with random weights, on a
CUDA device of at least the card's size and with 55 GB of main memory, which takes minutes per row.
"""

import argparse
import math

import torch

from mrt_core.checkpoints.info import CheckpointInfo
from mrt_core.errors import MRTError
from mrt_core.geometry import TOKEN_PX, TokenBox
from mrt_core.models.configs import AutoencoderConfig, TransformerConfig
from mrt_core.models.modulation import modulation_table
from mrt_core.models.sequence import Role, Slot, SlotLayout, pack_samples
from mrt_core.models.transformer import MaskedRegionTransformer
from mrt_core.offload.placement import Placement
from mrt_core.offload.plan import GIB, MemoryPlan, expected_weights, measure_weights, plan_memory, workload

MRT = CheckpointInfo(TransformerConfig(), AutoencoderConfig())
LAYERED = CheckpointInfo(
    TransformerConfig(additional_t_cond=True, condition_embedding=False, clean_timestep="shared"),
    AutoencoderConfig(),
    region_mode="full",
)
# bytes: Qwen2.5-VL-7B's language model in bf16 (architecture: Qwen's text), without its output layer
TEXT_ENCODER = 2 * 7_070_619_136
WEIGHTS = {"bf16": torch.bfloat16, "fp8": torch.float8_e4m3fn}


def regions(side: int, layers: int, area: float, clean_composite: bool) -> SlotLayout:
    """Composite, background and `layers` layers of `area` of a canvas of `side` px."""
    count = side // TOKEN_PX
    whole, small = TokenBox(0, 0, count, count), round(count * math.sqrt(area))
    slots = [Slot(Role.COMPOSITE, 0, whole, clean_composite), Slot(Role.BACKGROUND, 1, whole, False)]
    slots += [Slot(Role.LAYER, 2 + n, TokenBox(0, 0, small, small), False) for n in range(layers)]
    return SlotLayout(tuple(slots), count, count)


def full_canvases(side: int, layers: int) -> SlotLayout:
    """Qwen-Image-Layered's slots: composite, `layers` layers and the clean picture, all of the canvas' size."""
    count = side // TOKEN_PX
    whole = TokenBox(0, 0, count, count)
    slots = [Slot(Role.LAYER, index, whole, False) for index in range(1 + layers)]
    return SlotLayout((*slots, Slot(Role.LAYER, -1, whole, True)), count, count)


JOBS = {  # what is made, the model, its slots and steps
    "text to 20 layers of 10 %, 1024 px": (MRT, regions(1024, 20, 0.1, False), 50),
    "image to 20 layers of 10 %, 1024 px": (MRT, regions(1024, 20, 0.1, True), 50),
    "Qwen-Image-Layered, 4 layers, 640 px": (LAYERED, full_canvases(640, 4), 50),
}


def planned(info: CheckpointInfo, sample: SlotLayout, steps: int, weights: str, budget: int) -> MemoryPlan | None:
    """The plan for a card; None where none fits."""
    work = workload(info, sample, 1, steps, torch.bfloat16)
    try:
        return plan_memory(expected_weights(info, WEIGHTS[weights], TEXT_ENCODER), work, budget)
    except MRTError:
        return None


@torch.inference_mode()
def measured(info: CheckpointInfo, sample: SlotLayout, steps: int, budget: int, device: torch.device) -> float:
    """Peak GiB of two steps of the bf16 model with random weights, placed for `budget` bytes."""
    model = MaskedRegionTransformer(info.transformer, torch.bfloat16, "meta").to_empty(device="cpu")
    for parameter in model.parameters():
        parameter.data.normal_(std=0.02)
    batch = pack_samples([sample], [torch.randn(1024, info.transformer.text_dim, dtype=torch.bfloat16, device=device)])
    tokens = torch.randn(sample.token_count, info.transformer.in_channels, dtype=torch.bfloat16, device=device)
    plan = plan_memory(measure_weights(model), workload(info, sample, 1, steps, torch.bfloat16), budget)
    placement = Placement(device, budget)
    torch.cuda.reset_peak_memory_stats(device)
    placement.arrange(plan, [model])
    levels = [1 - step / steps for step in range(steps)]
    table = modulation_table(model, levels, tokens.dtype, device)
    with placement.blocks(plan, model) as blocks:
        for level in levels[:2]:
            timestep = torch.full((1,), level, device=device)
            model(tokens, timestep, batch, modulations=table.at(level), blocks=blocks)
    return torch.cuda.max_memory_allocated(device) / GIB


def print_weights() -> None:
    """The table of weights by what they are for."""
    print("| weights (GB) | blocks in a step | modulation | last block's unread | edges | in all |")
    print("|---|---|---|---|---|---|")
    for name, dtype in WEIGHTS.items():
        sizes = expected_weights(MRT, dtype)
        parts = sum(sizes.blocks), sizes.modulation, sizes.unread, sizes.edges, sizes.transformer
        print(f"| {name} | " + " | ".join(f"{part / 1e9:.2f}" for part in parts) + " |")


def row(job: str, weights: str, card: int, plan: MemoryPlan | None, note: str) -> str:
    """One line of the table of plans."""
    if plan is None:
        return f"| {job} | {weights} | {card} | does not fit | | | | | |"
    kept = "all" if not plan.streamed else f"{plan.blocks - len(plan.streamed)} of {plan.blocks}"
    sizes = " | ".join(f"{value / GIB:.1f}" for value in (plan.weights, plan.sampling, plan.decoding, plan.peak))
    where = "everything stays" if plan.everything else "in turn"
    text = where if plan.text_encoder_fits else f"{where}, text encoder on the CPU"
    return f"| {job} | {weights} | {card} | {kept} | {sizes} | {text}{note} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cards", type=int, nargs="+", default=[8, 12, 16, 24, 48, 80], help="GiB")
    parser.add_argument("--measure", action="store_true", help="measure the bf16 rows on CUDA too")
    options = parser.parse_args()
    print_weights()
    print("\n| what | weights | card (GiB) | blocks there | weights | sampling | decoding | peak (GiB) | models |")
    print("|---|---|---|---|---|---|---|---|---|")
    for job, (info, sample, steps) in JOBS.items():
        for weights in WEIGHTS:
            for card in options.cards:
                plan, note = planned(info, sample, steps, weights, card * GIB), ""
                if options.measure and torch.cuda.is_available() and weights == "bf16" and plan:
                    found = measured(info, sample, steps, card * GIB, torch.device("cuda"))
                    note = f"; measured while sampling: {found:.1f}"
                print(row(job, weights, card, plan, note), flush=True)


if __name__ == "__main__":
    main()
