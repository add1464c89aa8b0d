"""Training samples from a user's own layered documents, beside or in place of synthetic ones."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from ..designs.from_documents import design_from_stack, read_designs
from ..designs.generator import Design
from ..designs.grouping import group_layers
from ..errors import MRTError
from ..stacks.layers import LayerStack
from ..tasks.region_codec import RegionCodec
from .samples import GROUPING_SHARE, SAMPLE_SHARES, Example, make_example, write_shard

log = logging.getLogger(__name__)


def document_examples(designs: Sequence[Design], seed: int) -> Iterator[Example]:
    """Endless training examples: all designs in turn, in a new order each time, with random grouping and random tasks."""
    rng = np.random.default_rng((8, seed))
    tasks = list(SAMPLE_SHARES)
    while True:
        for index in rng.permutation(len(designs)):
            design = designs[index]
            if rng.random() < GROUPING_SHARE:
                design = group_layers(design, rng)
            task = tasks[int(rng.choice(len(tasks), p=list(SAMPLE_SHARES.values())))]
            yield make_example(design, task, rng)


def write_document_shards(
    folder: Path, codec: RegionCodec, source: Path, count: int, size: int, seed: int, frame_area: int
) -> None:
    """Write `count` shards of `size` samples each from the documents in `source`, at a frame area in px.

    Raises MRTError where `source` has no document that can be used, and for shards of the same seed that exist already:
    the documents may have changed since.
    """
    _write_design_shards(_new_shards(folder, count, seed), codec, read_designs(source, frame_area, seed), size, seed)


def write_stack_shards(
    folder: Path,
    codec: RegionCodec,
    stacks: Iterable[tuple[str, LayerStack]],
    count: int,
    size: int,
    seed: int,
    frame_area: int,
) -> None:
    """As `write_document_shards`, from named layer stacks of any origin, the lowest layer being the background where it covers
    the frame; captions are those of the layers, else their names.

    Raises MRTError for a stack without a layer besides its background, and where there is none.
    """
    paths = _new_shards(folder, count, seed)
    designs = [
        design_from_stack(stack, name, frame_area, (7, seed, index)) for index, (name, stack) in enumerate(stacks)
    ]
    if not designs:
        raise MRTError("there are no layer stacks to make samples of, but training needs at least one; give some")
    _write_design_shards(paths, codec, designs, size, seed)


def _new_shards(folder: Path, count: int, seed: int) -> list[Path]:
    paths = [folder / f"samples-documents-{seed:04d}-{index:05d}.safetensors" for index in range(count)]
    for path in paths:
        if path.exists():
            raise MRTError(f"{path} exists already; give another --seed, or delete it")
    return paths


def _write_design_shards(
    paths: Sequence[Path], codec: RegionCodec, designs: Sequence[Design], size: int, seed: int
) -> None:
    examples = document_examples(designs, seed)
    for path in paths:
        write_shard(path, [next(examples).drawn() for _ in range(size)], codec)
        log.info("wrote %s", path)
