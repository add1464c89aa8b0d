"""Block streaming: a network on a device that does not hold all of its blocks.

Some blocks stay on the device, spread evenly; the others wait in host memory and pass one after another through a few
buffers. A block is copied on a stream of its own while the blocks before it compute, so that the copying hides behind
them as long as it is faster.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..models.transformer import Block, TransformerBlock
from ..models.weight_copies import on_device, weights_of, with_weights

ALIGNMENT = 256  # bytes; what CUDA's own allocations have


def spread(count: int, total: int) -> tuple[int, ...]:
    """`count` of the numbers below `total`, evenly spaced."""
    return tuple((2 * index + 1) * total // (2 * count) for index in range(count))


def unneeded(block: TransformerBlock) -> tuple[str, ...]:
    """How the names of the weights begin that a step with stored modulations does not read."""
    return block.MODULATION + (block.CONTEXT_PRE_ONLY if block.is_last else ())


class _Place(NamedTuple):
    """Where a tensor lies in a piece of memory, from which byte to which."""

    start: int
    end: int
    dtype: torch.dtype
    shape: torch.Size

    def view(self, memory: Tensor) -> Tensor:
        return memory[self.start : self.end].view(self.dtype).view(self.shape)


class PackedBlock:
    """A block whose weights lie in one piece of host memory, so that one copy moves them; pinned for CUDA.

    The block's own tensors become views of that memory.
    """

    def __init__(self, block: TransformerBlock, pinned: bool):
        self.block = block
        weights = weights_of(block, unneeded(block))
        self.places, start = {}, 0
        for name, tensor in weights.items():
            self.places[name] = _Place(start, start + tensor.nbytes, tensor.dtype, tensor.shape)
            start += math.ceil(tensor.nbytes / ALIGNMENT) * ALIGNMENT
        with torch.inference_mode(False), torch.no_grad():  # the weights outlive this run
            self.host = torch.empty(start, dtype=torch.uint8, pin_memory=pinned)
            for name, place in self.places.items():
                view = place.view(self.host)
                view.copy_(weights[name])
                weights[name].data = view

    @property
    def is_current(self) -> bool:
        """Whether the block's tensors are still these; a LoRA may have brought new ones."""
        weights, base = weights_of(self.block, unneeded(self.block)), self.host.data_ptr()
        found = {name: (tensor.data_ptr() - base, tensor.nbytes) for name, tensor in weights.items()}
        return found == {name: (place.start, place.end - place.start) for name, place in self.places.items()}

    def on(self, memory: Tensor) -> Block:
        """The block, computing with the copy of its weights in `memory`."""
        return with_weights(self.block, {name: place.view(memory) for name, place in self.places.items()})


@dataclass(eq=False)
class _Buffer:
    """Device memory for one block at a time; on CUDA with events that say when it was filled and last read."""

    memory: Tensor
    holds: int | None = None
    filled: torch.cuda.Event | None = None
    read: torch.cuda.Event | None = None


class BlockStream:
    """A network's blocks in order, for a MaskedRegionTransformer with stored modulations.

    The blocks in `packed`, by their numbers, pass through `buffers` buffers on the device; the others lie there until
    `close`. On a CPU, where nothing can be overlapped, copies happen when they are asked for.
    """

    def __init__(
        self, blocks: Sequence[TransformerBlock], packed: Mapping[int, PackedBlock], buffers: int, device: torch.device
    ):
        self.device, self.count = device, len(blocks)
        self.packed = dict(sorted(packed.items()))
        self.resident = {
            number: on_device(block, device, unneeded(block))
            for number, block in enumerate(blocks)
            if number not in self.packed
        }
        size = max((len(packed.host) for packed in self.packed.values()), default=0)
        self.buffers = [  # the one that was filled longest ago comes first
            _Buffer(torch.empty(size, dtype=torch.uint8, device=device)) for _ in range(min(buffers, len(self.packed)))
        ]
        self.copies = torch.cuda.Stream(device) if device.type == "cuda" else None
        if self.copies:
            self.copies.wait_stream(torch.cuda.current_stream(device))  # the buffers' memory may still be in use

    def __iter__(self) -> Iterator[Block]:
        for number in range(self.count):
            if number in self.resident:
                yield self.resident[number]
                continue
            self._fetch(number)
            buffer = next(buffer for buffer in self.buffers if buffer.holds == number)
            for following in self._after(number):
                self._fetch(following)
            if self.copies:
                torch.cuda.current_stream(self.device).wait_event(buffer.filled)
            yield self.packed[number].on(buffer.memory)
            if self.copies:
                buffer.read = torch.cuda.current_stream(self.device).record_event()

    def _after(self, number: int) -> list[int]:
        """The streamed blocks that come next, as many as there are buffers beside this one's; the first follow the last."""
        order = list(self.packed)
        place = order.index(number)
        return [order[(place + step) % len(order)] for step in range(1, len(self.buffers))]

    def _fetch(self, number: int) -> None:
        """Start to copy a block into the buffer that was filled longest ago, unless one holds it."""
        if any(buffer.holds == number for buffer in self.buffers):
            return
        buffer = self.buffers.pop(0)
        self.buffers.append(buffer)
        buffer.holds, host = number, self.packed[number].host
        if not self.copies:
            buffer.memory[: len(host)].copy_(host)
            return
        with torch.cuda.stream(self.copies):
            if buffer.read:
                self.copies.wait_event(buffer.read)
            buffer.memory[: len(host)].copy_(host, non_blocking=True)
            buffer.filled = self.copies.record_event()

    def close(self) -> None:
        """Give the device's memory back, when the last copy is done."""
        if self.copies:
            torch.cuda.current_stream(self.device).wait_stream(self.copies)
        self.resident, self.buffers = {}, []
