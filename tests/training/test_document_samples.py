"""Training samples from documents, up to a training step on them."""

import numpy as np
import pytest
import torch

from mrt_core.checkpoints.checkpoint import save_checkpoint
from mrt_core.cli import main
from mrt_core.designs.from_documents import read_designs
from mrt_core.designs.generator import DesignSettings, generate_design
from mrt_core.documents import save
from mrt_core.errors import MRTError
from mrt_core.tasks.region_codec import RegionCodec
from mrt_core.training.document_samples import document_examples, write_document_shards, write_stack_shards
from mrt_core.training.samples import read_shard

AREA = 48 * 48
COUNT = 3


@pytest.fixture(scope="module")
def documents(tmp_path_factory):
    folder = tmp_path_factory.mktemp("documents")
    for seed in range(COUNT):
        save(generate_design(seed, DesignSettings(frame_area=AREA, max_layers=3)).stack, folder / f"{seed}.psd")
    return folder


def test_every_document_comes_up_before_one_comes_again(documents):
    designs = read_designs(documents, AREA, 0)
    backgrounds = [design.stack.layers[0].pixels for design in designs]  # grouping leaves them alone
    examples = document_examples(designs, 0)
    for _ in range(4):
        seen = [next(examples).design.stack.layers[0].pixels for _ in range(COUNT)]
        assert sorted(next(i for i, b in enumerate(backgrounds) if b is s) for s in seen) == list(range(COUNT))


def test_shards(documents, autoencoder, tmp_path):
    codec = RegionCodec(autoencoder)
    write_document_shards(tmp_path, codec, documents, 2, 4, 5, AREA)
    paths = sorted(tmp_path.glob("samples-*.safetensors"))
    assert [path.name for path in paths] == [f"samples-documents-0005-0000{index}.safetensors" for index in (0, 1)]
    samples = [sample for path in paths for sample in read_shard(path)]
    examples = document_examples(read_designs(documents, AREA, 5), 5)
    for sample, example in zip(samples, examples, strict=False):
        assert (sample.task, sample.sample, sample.prompts) == (example.task, example.sample, example.prompts)
    with pytest.raises(MRTError, match="samples-documents-0005-00000.safetensors exists already"):
        write_document_shards(tmp_path, codec, documents, 1, 4, 5, AREA)


def test_shards_of_any_stacks(stack, autoencoder, tmp_path):
    """An iterable of named layer stacks, whose layers bring their captions."""
    codec = RegionCodec(autoencoder)
    write_stack_shards(tmp_path, codec, (("one", stack) for _ in range(2)), 1, 12, 3, AREA)
    (path,) = tmp_path.glob("samples-*.safetensors")
    samples = read_shard(path)
    assert len(samples) == 12
    tagged = [p for sample in samples for p in sample.prompts if "<layer>" in p]
    assert any("a red cat" in prompt for prompt in tagged)
    with pytest.raises(MRTError, match="there are no layer stacks"):
        write_stack_shards(tmp_path, codec, [], 1, 12, 4, AREA)


def test_from_the_command_line(documents, checkpoint, tmp_path, capsys):
    save_checkpoint(tmp_path / "tiny.safetensors", checkpoint)
    run = ["--run", str(tmp_path / "run"), "--frame-area", str(AREA)]
    assert main(["train", "unpack", str(tmp_path / "tiny.safetensors"), *run]) == 0
    assert main(["train", "samples", "--from", str(documents), "--size", "6", *run]) == 0
    (path,) = (tmp_path / "run" / "samples").glob("*.safetensors")
    samples = read_shard(path)
    assert len(samples) == 6
    assert all(torch.isfinite(sample.tokens).all() and np.prod(sample.tokens.shape) > 0 for sample in samples)
    assert main(["train", "samples", "--from", str(tmp_path / "nowhere"), "--seed", "1", *run]) == 1
    assert "holds no document" in capsys.readouterr().err
