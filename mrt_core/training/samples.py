"""Training samples: a design and a task, drawn at random, encoded once and kept as packed latents in shards.

A shard is a safetensors file: `tokens` (N, 64) of all its samples one after another, `slots` (S, 8) with a row per slot
(sample, role, layer index, row, col, rows, cols, clean), `canvas` (B, 2) in tokens, and the prompts in the metadata.
"""

import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from ..designs.elements import ElementMix
from ..designs.generator import Design, DesignSettings, generate_design
from ..designs.grouping import group_layers
from ..geometry import TokenBox
from ..models.sequence import Role, Slot, SlotLayout, patchify
from ..tasks.region_codec import RegionCodec, canvas_regions, slot_pixels
from ..tasks.slots import EMPTY_PROMPT, Task, default_prompt, slot_layout
from ..weights.safetensors_file import save_atomically
from .ahead import map_ahead
from .captions import training_prompts

log = logging.getLogger(__name__)

ROLES = tuple(Role)
SAMPLE_SHARES: Mapping[Task, float] = {
    Task.TEXT_TO_LAYERS: 0.06, Task.IMAGE_TO_LAYERS: 0.66, Task.ADD_LAYERS: 0.14, Task.RESTYLE_LAYERS: 0.14,
}  # fmt: skip
TRAINING_MIX = ElementMix(artwork=0.45, shape=0.33, word=0.22, common=0.6)
GROUPING_SHARE = 0.3  # of designs whose layers are grouped
BLANK_CAPTION_SHARE = 0.5  # of image-to-layers samples trained without a caption


class DrawnSample(NamedTuple):
    """An example in pixels: what it takes to encode it, and what is kept beside its latents."""

    sample: SlotLayout
    task: Task
    prompts: tuple[str, ...]
    images: list[np.ndarray]  # of every slot, straight RGBA uint8


@dataclass(frozen=True)
class Example:
    """One design under one task, before encoding, with the prompts that it may be trained with, at equal chances."""

    design: Design
    task: Task
    targets: tuple[int, ...]
    sample: SlotLayout
    prompts: tuple[str, ...]

    def images(self) -> list[np.ndarray]:
        """What every slot shows, targets included: straight RGBA uint8."""
        editing = self.task in (Task.ADD_LAYERS, Task.RESTYLE_LAYERS)
        hidden = self.targets if editing else ()
        assets = dict(enumerate(self.design.assets))
        return [slot_pixels(slot, self.design.layout, self.design.stack, hidden, assets) for slot in self.sample.slots]

    def drawn(self) -> DrawnSample:
        """The example without its design."""
        return DrawnSample(self.sample, self.task, self.prompts, self.images())


def pick_targets(rng: np.random.Generator, count: int) -> tuple[int, ...]:
    """One layer or more of `count`, in order; usually one or two."""
    size = min(count, int(rng.choice([1, 2, 3], p=[0.6, 0.25, 0.15])))
    return tuple(sorted(int(i) for i in rng.choice(count, size, replace=False)))


def make_example(design: Design, task: Task, rng: np.random.Generator) -> Example:
    """`design` under `task`, with random targets and the task's default prompt where it has targets."""
    if task not in (Task.ADD_LAYERS, Task.RESTYLE_LAYERS):
        return Example(design, task, (), slot_layout(task, design.layout), training_prompts(design, rng))
    targets = pick_targets(rng, len(design.assets))
    prompts = (default_prompt(task, design.layout, targets),)
    return Example(design, task, targets, slot_layout(task, design.layout, targets), prompts)


def random_examples(seed: int, settings: DesignSettings) -> Iterator[Example]:
    """Endless training examples with all tasks mixed (paper section 3.2)."""
    rng = np.random.default_rng((3, seed))
    tasks = list(SAMPLE_SHARES)
    while True:
        design = generate_design(int(rng.integers(2**62)), settings)
        if rng.random() < GROUPING_SHARE:
            design = group_layers(design, rng)
        task = tasks[int(rng.choice(len(tasks), p=list(SAMPLE_SHARES.values())))]
        yield make_example(design, task, rng)


class ShardSpec(NamedTuple):
    """Which samples a shard holds: `size` of those that follow from `seed` and `settings`."""

    path: Path
    size: int
    seed: int
    settings: DesignSettings

    def draw(self) -> list[DrawnSample]:
        """The shard's samples in pixels."""
        return [example.drawn() for example in islice(random_examples(self.seed, self.settings), self.size)]


def encode_samples(samples: Sequence[DrawnSample], codec: RegionCodec) -> Tensor:
    """Packed latents (N, 64) fp32 of all slots of all samples, in order, on the codec's device.

    Regions of equal size are encoded together; on CUDA with autocast to bfloat16.
    """
    images = [image for drawn in samples for image in drawn.images]
    where = [place for drawn in samples for place in canvas_regions(drawn.sample, drawn.sample.slots)]
    device = codec.autoencoder.quant_conv.weight.device
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        latents = codec.encode(images, where)
    return torch.cat([patchify(latent.float()) for latent in latents])


def write_shard(path: Path, samples: Sequence[DrawnSample], codec: RegionCodec) -> None:
    """Encode samples and write them as one shard."""
    layouts = [drawn.sample for drawn in samples]
    slots = [
        [index, ROLES.index(slot.role), slot.layer_index, *slot.box, int(slot.clean)]
        for index, layout in enumerate(layouts)
        for slot in layout.slots
    ]
    tensors = {
        "tokens": encode_samples(samples, codec).half().cpu(),
        "slots": torch.tensor(slots, dtype=torch.int16),
        "canvas": torch.tensor([[layout.canvas_rows, layout.canvas_cols] for layout in layouts], dtype=torch.int16),
    }
    prompts = [{"task": drawn.task, "prompts": drawn.prompts} for drawn in samples]
    save_atomically(tensors, path, {"prompts": json.dumps(prompts)})


def write_shards(
    folder: Path, codec: RegionCodec, count: int, size: int, seed: int, settings: DesignSettings, workers: int = 0
) -> None:
    """Write `count` shards of `size` samples each; shard i depends on (seed, i) alone, and one that exists is kept.

    With `workers` that many processes draw designs, each a shard at a time, while this one encodes; without, this one draws.
    """
    shards = [
        ShardSpec(folder / f"samples-{seed:04d}-{index:05d}.safetensors", size, seed * 100_000 + index, settings)
        for index in range(count)
    ]
    missing = [shard for shard in shards if not shard.path.exists()]
    begun = time.monotonic()
    for shard, samples in zip(missing, map_ahead(ShardSpec.draw, missing, workers), strict=True):
        drawn = time.monotonic()
        write_shard(shard.path, samples, codec)
        written = time.monotonic()
        rate, share = size / (written - begun), (written - drawn) / (written - begun)
        log.info("wrote %s at %.1f samples/s, %.0f %% of the time encoding", shard.path, rate, 100 * share)
        begun = written


@dataclass(frozen=True)
class TrainingSample:
    """One encoded sample: packed latents (N, 64), its slots and the prompts to choose from."""

    tokens: Tensor
    sample: SlotLayout
    task: Task
    prompts: tuple[str, ...]

    def without_image(self) -> "TrainingSample":
        """An image-to-layers sample as text to layers: its composite is made too."""
        composite, *others = self.sample.slots
        slots = (composite._replace(clean=False), *others)
        return replace(self, sample=self.sample._replace(slots=slots), task=Task.TEXT_TO_LAYERS)

    def pick_prompt(self, rng: np.random.Generator, dropout: float, image_dropout: float = BLANK_CAPTION_SHARE) -> str:
        """A prompt at random; empty with chance `dropout`, or `image_dropout` where the image already tells all.

        What comes next from `rng` does not depend on the chances.
        """
        blank = rng.random() < (image_dropout if self.task is Task.IMAGE_TO_LAYERS else dropout)
        picked = self.prompts[int(rng.integers(len(self.prompts)))]
        return EMPTY_PROMPT if blank else picked


def any_sample(sample: TrainingSample) -> bool:
    """True: the whole pool is trained on."""
    return True


def read_shard(path: Path) -> list[TrainingSample]:
    """All samples of one shard."""
    with safe_open(path, "pt") as file:
        tokens, rows = file.get_tensor("tokens"), file.get_tensor("slots").tolist()
        canvas, prompts = file.get_tensor("canvas").tolist(), json.loads(file.metadata()["prompts"])
    slots: list[list[Slot]] = [[] for _ in canvas]
    for index, role, layer_index, *box, clean in rows:
        slots[index].append(Slot(ROLES[role], layer_index, TokenBox(*box), bool(clean)))
    layouts = [SlotLayout(tuple(s), *size) for s, size in zip(slots, canvas, strict=True)]
    pieces = tokens.split([layout.token_count for layout in layouts])
    return [
        TrainingSample(piece, layout, Task(entry["task"]), tuple(entry["prompts"]))
        for piece, layout, entry in zip(pieces, layouts, prompts, strict=True)
    ]
