"""What a run needs of a device's memory, and what lies where so that it fits (architecture: parameter budget).

Everything here is computed from sizes; nothing is allocated. Attention is assumed to make no matrix of tokens x tokens,
as PyTorch's fused kernels do not.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..checkpoints.info import CheckpointInfo
from ..errors import MRTError
from ..geometry import LATENT_PX, TOKEN_PX
from ..models.autoencoder import Autoencoder
from ..models.configs import TransformerConfig
from ..models.sequence import SlotLayout
from ..models.transformer import MaskedRegionTransformer
from ..models.unfilled import UNFILLED
from ..models.weight_copies import weights_of
from ..tasks.region_codec import MAX_BATCH_PIXELS
from .streaming import spread, unneeded

GIB = 2**30
RESERVE = GIB // 2  # for libraries' workspaces and what the allocator cannot use; not measured
BUFFERS = 2  # one is computed with while the other is filled
TEXT_TOKENS = 1024  # per sample: the longest prompt of Qwen-Image, so that a plan can be made before it is read

# Values that live at once at the widest place of a pass, in widths per token (tests/offload/test_plan.py counts them): in the
# image's MLP, where text only waits, or in the attention, which both streams enter.
IMAGE_IN_MLP, TEXT_IN_MLP, BOTH_IN_ATTENTION = 12, 3, 10.2
DECODER_WIDTHS = 5.1  # the same per pixel of the decoder's last level, in base widths of the autoencoder
UNPACKING = 12  # bytes per weight of a quantised layer while it is made plain


def read_size(text: str) -> int:
    """Bytes from "12GB", "12 GiB" or "800MB", counted in powers of 1024 as graphics cards are; raises MRTError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([MG])i?B?", text.strip(), re.IGNORECASE)
    if not match or not float(match[1]):
        raise MRTError(f"the memory {text!r} is no size; give a positive number with its unit, such as 12GB or 800MB")
    return int(float(match[1]) * {"M": 2**20, "G": GIB}[match[2].upper()])


@dataclass(frozen=True)
class WeightSizes:
    """Bytes of weights: of each block what a step reads, of the other parts all."""

    blocks: tuple[int, ...]
    modulation: int  # needed once per run, one layer at a time
    unread: int  # of the last block
    embedders_and_head: int  # what comes before and after the blocks
    unpacking: int = 0  # room in which the largest quantised layer is made plain
    text_encoder: int = 0
    autoencoder: int = 0

    @property
    def transformer(self) -> int:
        return sum(self.blocks) + self.modulation + self.unread + self.embedders_and_head


def measure_weights(
    transformer: MaskedRegionTransformer,
    text_encoder: nn.Module | None = None,
    autoencoder: nn.Module | None = None,
    dtype: torch.dtype | None = None,
) -> WeightSizes:
    """The sizes of modules, which may be on the meta device: as they are, or the transformer stored as `dtype`."""

    def size(tensors: Iterable[Tensor]) -> int:
        return sum(tensor.numel() * (dtype or tensor.dtype).itemsize for tensor in tensors)

    blocks = transformer.transformer_blocks
    needed = tuple(size(weights_of(block, unneeded(block)).values()) for block in blocks)
    modulation = sum(size(weights_of(layer).values()) for block in blocks for layer in (block.img_mod, block.txt_mod))
    modulation += size(weights_of(transformer.norm_out).values()) + size(
        weights_of(transformer.time_text_embed).values()
    )
    edges = sum(size(weights_of(module).values()) for module in transformer.embedders_and_head())
    total = size(weights_of(transformer).values())
    layers = [
        module
        for name, module in transformer.named_modules()
        if isinstance(getattr(module, "weight", None), Tensor)
        and "_mod." not in name  # those have the card to themselves
    ]
    packed = [layer for layer in layers if (dtype or layer.weight.dtype).itemsize < 2]
    largest = max((_plain_size(layer) for layer in packed), default=0)
    others = (sum(t.nbytes for t in weights_of(part).values()) if part else 0 for part in (text_encoder, autoencoder))
    return WeightSizes(
        needed, modulation, total - sum(needed) - modulation - edges, edges, largest * UNPACKING, *others
    )


def _plain_size(layer: nn.Module) -> int:
    """The number of a layer's weights, of which a packed tensor may hold another number of bytes."""
    if hasattr(layer, "in_features"):
        return layer.in_features * layer.out_features
    return layer.weight.numel()


def expected_weights(info: CheckpointInfo, dtype: torch.dtype, text_encoder: int = 0) -> WeightSizes:
    """The sizes of a checkpoint's models stored as `dtype`, with `text_encoder` bytes of text encoder."""
    meta = {"device": "meta", "operations": UNFILLED}
    wide = dtype if dtype.itemsize > 1 else torch.bfloat16
    autoencoder = Autoencoder(info.autoencoder, wide, device="meta")
    sizes = measure_weights(MaskedRegionTransformer(info.transformer, **meta), None, autoencoder, dtype)
    return WeightSizes(**{**vars(sizes), "text_encoder": text_encoder})


@dataclass(frozen=True)
class Workload:
    """Bytes that a run needs beside weights: for a step, for the modulations of its schedule, and to decode."""

    activations: int
    table: int
    decoding: int


def workload(
    info: CheckpointInfo,
    sample: SlotLayout,
    samples: int,
    steps: int,
    dtype: torch.dtype,
    region_mode: str | None = None,
    text_tokens: int = TEXT_TOKENS,
) -> Workload:
    """What it takes to make `samples` stacks of one layout at once; guidance takes no more, it is a pass of its own."""
    config, size = info.transformer, dtype.itemsize
    image, text = samples * sample.token_count, samples * text_tokens
    rows = (12 * config.num_layers + 2) * config.width  # of one noise level
    pixels = _decoded_pixels(sample, region_mode or info.region_mode)
    return Workload(
        activations=activation_bytes(config, image, text, size),
        table=(steps + 1) * rows * size,
        decoding=round(DECODER_WIDTHS * info.autoencoder.base_width * pixels * size),
    )


def activation_bytes(config: TransformerConfig, image_tokens: int, text_tokens: int, itemsize: int) -> int:
    """The most that the tensors of one pass without gradients hold at once, beside weights."""
    in_mlp = IMAGE_IN_MLP * image_tokens + TEXT_IN_MLP * text_tokens
    return round(max(in_mlp, BOTH_IN_ATTENTION * (image_tokens + text_tokens)) * config.width * itemsize)


def _decoded_pixels(sample: SlotLayout, region_mode: str) -> int:
    """Pixels that go through the decoder at once: a batch of small regions, or one large one."""
    if region_mode == "full":
        return max(sample.canvas_rows * sample.canvas_cols * TOKEN_PX**2, MAX_BATCH_PIXELS)
    rim = 4 * LATENT_PX if region_mode == "halo" else 0
    boxes = [slot.box for slot in sample.slots]
    return max(MAX_BATCH_PIXELS, *((TOKEN_PX * box.rows + rim) * (TOKEN_PX * box.cols + rim) for box in boxes))


@dataclass(frozen=True)
class MemoryPlan:
    """What lies on the device, in bytes where nothing else is said.

    With `everything` all models stay there. Else each is there only while it is at work: the text encoder and the
    autoencoder where they fit, of the transformer all but its modulations, and the `streamed` blocks, by number, only in
    passing.
    """

    budget: int
    everything: bool
    blocks: int
    streamed: tuple[int, ...]
    text_encoder_fits: bool
    autoencoder_fits: bool
    weights: int  # of the transformer, while sampling
    sampling: int  # peak
    decoding: int  # peak; 0 where the CPU decodes
    peak: int  # of all phases

    def __str__(self) -> str:
        if self.everything:
            where = "all models stay on the device"
        elif not self.streamed:
            where = f"all {self.blocks} blocks on the device while sampling"
        else:
            where = f"{self.blocks - len(self.streamed)} of {self.blocks} blocks on the device, the others streamed"
        slow = [("text encoder", self.text_encoder_fits), ("autoencoder", self.autoencoder_fits)]
        on_cpu = "".join(f", {name} on the CPU" for name, fits in slow if not fits)
        return f"{where}{on_cpu}; peak {self.peak / GIB:.1f} of {self.budget / GIB:.1f} GiB"


def plan_memory(sizes: WeightSizes, work: Workload, budget: int) -> MemoryPlan:
    """What to keep on a device so that at most `budget` bytes are used; raises MRTError where nothing helps."""
    step = work.table + work.activations + sizes.unpacking + RESERVE
    decode = work.decoding + RESERVE
    others = sizes.text_encoder + sizes.autoencoder
    whole = sizes.transformer + others + max(step, work.table + decode)
    count = len(sizes.blocks)
    if whole <= budget:
        weights = sizes.transformer
        return MemoryPlan(budget, True, count, (), True, True, weights, weights + others + step, decode, whole)
    text = sizes.text_encoder + RESERVE
    decode += sizes.autoencoder
    for streamed in range(count + 1):
        weights = sizes.embedders_and_head + _on_device(sizes.blocks, spread(streamed, count))
        if weights + step <= budget:
            phases = [weights + step, *(phase for phase in (text, decode) if phase <= budget)]
            return MemoryPlan(
                budget=budget,
                everything=False,
                blocks=count,
                streamed=spread(streamed, count),
                text_encoder_fits=text <= budget,
                autoencoder_fits=decode <= budget,
                weights=weights,
                sampling=weights + step,
                decoding=decode if decode <= budget else 0,
                peak=max(phases),
            )
    raise MRTError(
        f"a step takes {(weights + step) / GIB:.1f} GiB even with all blocks streamed, but there are {budget / GIB:.1f} GiB; "
        "make fewer or smaller layers at once, or use a quantised checkpoint"
    )


def _on_device(blocks: tuple[int, ...], streamed: tuple[int, ...]) -> int:
    """Bytes of the blocks that stay and of the buffers that the others pass through."""
    passing = [blocks[number] for number in streamed]
    return sum(blocks) - sum(passing) + min(BUFFERS, len(passing)) * max(passing, default=0)
