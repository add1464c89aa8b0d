"""Placing a pipeline's models: all on one device, or there one after another, as a memory plan says."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from ..models.transformer import Block, MaskedRegionTransformer
from .plan import BUFFERS, MemoryPlan
from .streaming import BlockStream, PackedBlock

CPU = torch.device("cpu")
UNLIMITED = 2**62  # bytes


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a device; UNLIMITED where it does not say."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else UNLIMITED


class Placement:
    """Moves models to `device`, of which at most `memory` bytes are used; what is not at work waits on the CPU."""

    def __init__(self, device: torch.device, memory: int = UNLIMITED):
        self.device, self.memory = device, memory
        self._packed: dict[int, PackedBlock] = {}

    def arrange(self, plan: MemoryPlan, models: Iterable[nn.Module]) -> None:
        """Where models lie between their uses: on the device if the plan keeps everything there, else on the CPU."""
        for model in models:
            model.to(self.device if plan.everything else CPU)

    @contextmanager
    def lend(self, plan: MemoryPlan, model: nn.Module, fits: bool) -> Iterator[None]:
        """Have a model on the device, if it `fits` there, for as long as it is used."""
        model.to(self.device if fits else CPU)
        try:
            yield
        finally:
            self.arrange(plan, [model])

    @contextmanager
    def blocks(self, plan: MemoryPlan, transformer: MaskedRegionTransformer) -> Iterator[Iterable[Block]]:
        """Have a transformer on the device but for its modulations, and its blocks as far as the plan lets them."""
        if plan.everything:
            yield transformer.transformer_blocks
            return
        for module in transformer.embedders_and_head():
            module.to(self.device)
        packed = {number: self._pack(transformer, number) for number in plan.streamed}
        stream = BlockStream(transformer.transformer_blocks, packed, BUFFERS, self.device)
        try:
            yield stream
        finally:
            stream.close()
            self.arrange(plan, transformer.embedders_and_head())

    def _pack(self, transformer: MaskedRegionTransformer, number: int) -> PackedBlock:
        """A block in one piece of memory, made once."""
        block, packed = transformer.transformer_blocks[number], self._packed.get(number)
        if packed is None or packed.block is not block or not packed.is_current:
            packed = self._packed[number] = PackedBlock(block, pinned=self.device.type == "cuda")
        return packed
