"""LoRAs on the command line, with the bundled checkpoint: applied with a strength, and named in one line."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lora_files import LAYERS, lora_state, random_pairs
from safetensors.torch import save_file

from mrt_core.checkpoints.bundled import bundled_checkpoint
from mrt_core.checkpoints.checkpoint import Sampling, inspect_checkpoint
from mrt_core.cli import build_parser, main
from mrt_core.cli.common import load_pipeline, split_strength
from mrt_core.documents import load
from mrt_core.geometry import Box
from mrt_core.lora.file import Lora, LowRank, save_lora
from mrt_core.lora.names import model_layers
from mrt_core.lora.report import inspect_lora
from mrt_core.models.configs import TransformerConfig
from mrt_core.stacks.layers import composite

INPUTS = bundled_checkpoint().parent / "demo"


def shapes(config: TransformerConfig) -> dict[str, tuple[int, int]]:
    return {name: model_layers(config).layers[name].shapes["weight"] for name in LAYERS}


def weak_pairs(config: TransformerConfig, **options):
    """Pairs that change the picture and leave it a picture."""
    pairs = random_pairs(shapes(config), **options)
    return {name: pair._replace(up=0.02 * pair.up) for name, pair in pairs.items()}


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The working folder, with a LoRA for the bundled checkpoint and a student's."""
    monkeypatch.chdir(tmp_path)
    pairs = weak_pairs(inspect_checkpoint(bundled_checkpoint()).info.transformer)
    save_file(lora_state(pairs, "lora_unet_", (".lora_down.weight", ".lora_up.weight")), "style.safetensors")
    deltas = {name: LowRank(up, down, alpha / 4) for name, (up, down, alpha) in pairs.items()}
    save_lora("student.safetensors", Lora(deltas, {}, Sampling(steps=2, cfg=1.0, shift=1.0)))
    return tmp_path


def run(capsys, line: str) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of a command line without blanks in its arguments."""
    capsys.readouterr()
    status = main(line.split())
    return status, *capsys.readouterr()


def pixels(path: str) -> np.ndarray:
    """All layers of a document on one area: documents cut off what is transparent around a layer."""
    stack, area = load(path), Box(-32, -32, 224, 192)
    return np.stack([composite(replace(stack, layers=(layer,)), area) for layer in stack.flat()])


# Applying


def test_a_lora_changes_the_layers_by_its_strength(folder, capsys):
    text = f"text {INPUTS / 'text_layout.json'} --steps 2"
    names = ("plain", "zero", "once", "halves")
    options = ("", "--lora style.safetensors:0", "--lora style.safetensors", "--lora style.safetensors:0.5 " * 2)
    for name, option in zip(names, options, strict=True):
        assert run(capsys, f"{text} {option} -o {name}.psd")[0] == 0
    plain, zero, once, halves = (pixels(f"{name}.psd") for name in names)
    assert np.array_equal(plain, zero)
    assert np.abs(plain.astype(int) - once).max() > 20
    assert np.abs(halves.astype(int) - once).max() <= 1  # of 255


def test_a_students_lora_brings_its_sampling(folder):
    parser = build_parser()
    line = ["evaluate", "--lora", "student.safetensors", "--lora", "style.safetensors:0.25"]
    info = load_pipeline(parser.parse_args(line)).info
    assert info.student and info.sampling == Sampling(steps=2, cfg=1.0, shift=1.0) and info.image_sampling is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.safetensors", ("a.safetensors", 1.0)),
        ("a.safetensors:0.8", ("a.safetensors", 0.8)),
        ("a.safetensors:-2", ("a.safetensors", -2.0)),
        ("C:/loras/a.safetensors", ("C:/loras/a.safetensors", 1.0)),
        ("C:/loras/a.safetensors:.5", ("C:/loras/a.safetensors", 0.5)),
        ("0.8", ("0.8", 1.0)),
    ],
)
def test_the_strength_follows_the_last_colon(text, expected):
    assert split_strength(text) == (Path(expected[0]), expected[1])


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        ("nothing.safetensors:0.5", "nothing.safetensors does not exist"),
        ("style.safetensors:nan", "strength nan, but it must be a finite number"),
        ("style.safetensors:0.5x", "style.safetensors:0.5x does not exist"),
        (str(bundled_checkpoint()), "mrt-tiny.safetensors is no LoRA"),
    ],
)
def test_a_wrong_lora_is_one_line(folder, capsys, lora, message):
    status, output, error = run(capsys, f"text {INPUTS / 'text_layout.json'} -o x.psd --lora {lora}")
    assert (status, output) == (1, "")
    assert error.startswith("mrt: ") and message in error and error.count("\n") == 1
    assert not Path("x.psd").exists()


# Inspecting


def test_inspect_names_a_lora_in_one_line(folder, capsys):
    status, output, _ = run(capsys, "inspect style.safetensors")
    size = Path("style.safetensors").stat().st_size / 2**20
    assert status == 0
    assert output == (
        "style.safetensors: a LoRA, named lora_unet_... .lora_down.weight, 14 layers, rank 4, alpha 2, F32, "
        f"{size:.1f} MiB, fits mrt-tiny\n"
    )
    status, output, _ = run(capsys, "inspect student.safetensors")
    assert output.startswith(
        "student.safetensors: a LoRA that makes a student, 2 steps of euler, named transformer...."
    )


def test_inspect_still_names_checkpoints(capsys):
    assert run(capsys, f"inspect {bundled_checkpoint()}")[1].startswith("mrt-tiny.safetensors: MRT ")


def test_a_lora_for_the_full_size_fits_it(tmp_path):
    layers = {"transformer_blocks.59.attn.to_q": (3072, 3072), "transformer_blocks.0.txt_mlp.net.2": (3072, 12288)}
    state = lora_state(random_pairs(layers, alpha=None)) | lora_state(random_pairs({"img_in": (3072, 64)}, 8, 2.0))
    save_file({name: tensor.bfloat16() for name, tensor in state.items()}, tmp_path / "a.safetensors")
    report = inspect_lora(tmp_path / "a.safetensors")
    assert (report.fits, report.dtypes) == (("Qwen-Image and models of its size",), ("BF16",))
    assert "3 layers, rank 4 to 8, alpha 2 to 4" in str(report)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["img_in.lora_A.weight", "img_in.lora_B.weight"], "a LoRA, named .lora_A.weight, 1 layers, rank 1, F32"),
        (["diffusion_model.blocks.0.self_attn.q.lora_A.weight"], "a LoRA for another model, Wan or Cosmos"),
        (["proj_out.oft_blocks"], "an adapter of the kind OFT or BOFT, which cannot be used"),
        (["proj_out.lokr_w1", "proj_out.lokr_w2"], "a LoRA of the kind LoKr, named .lokr_w1, 1 layers, F32"),
        (["somewhere.lora_A.weight"], "a LoRA for an unknown model, with tensors such as somewhere.lora_A.weight"),
        (["transformer_blocks.70.attn.to_q.lora_A", "transformer_blocks.70.attn.to_q.lora_B"], "a LoRA, named .lora_A"),
    ],
)
def test_a_lora_that_fits_nothing_is_described(tmp_path, names, message):
    save_file({name: torch.zeros(1, 1) for name in names}, tmp_path / "a.safetensors")
    text = str(inspect_lora(tmp_path / "a.safetensors"))
    assert text.startswith(f"a.safetensors: {message}")
    assert text.endswith("fits neither Qwen-Image and models of its size nor the bundled model")
