"""The command line: what it prints, what it writes, and one line for every mistake."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mrt_core.checkpoints.checkpoint import save_checkpoint
from mrt_core.cli import main
from mrt_core.documents import load, save
from mrt_core.evaluation.class_probe import ClassProbe, save_probe
from mrt_core.layouts.documents import layout_to_json
from mrt_core.stacks.layers import composite
from mrt_core.training import bundle

REPOSITORY = Path(__file__).parents[2]
COMMANDS = ("text", "image", "add", "restyle", "inspect", "layout", "evaluate", "init", "train", "demo")


@pytest.fixture
def folder(tmp_path, monkeypatch, checkpoint, layout, stack) -> Path:
    """The working folder, with one of every kind of input."""
    monkeypatch.chdir(tmp_path)
    save_checkpoint("tiny.safetensors", checkpoint)
    Path("layout.json").write_text(json.dumps(layout_to_json(layout)), encoding="utf-8")
    Path("boxes.json").write_text('[{"x": 2, "y": 3, "width": 20, "height": 18}]', encoding="utf-8")
    Path("latin.json").write_bytes('[{"x": 2, "y": 3, "width": 20, "height": 18, "label": "é"}]'.encode("latin-1"))
    Path("broken.json").write_text('{"frame": ', encoding="utf-8")
    Image.fromarray(composite(stack)).save("image.png")
    Image.new("RGB", (20, 24), "red").save("asset.png")
    Path("fake.png").write_bytes(b"this is no picture")
    save(stack, "stack.psd")
    Path("taken.psd").write_bytes(b"mine")
    return tmp_path


def run(capsys, line: str) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of a command line without blanks in its arguments."""
    capsys.readouterr()
    status = main(line.split())
    return status, *capsys.readouterr()


# Help


def test_help_lists_every_command(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    output = capsys.readouterr().out
    assert output.startswith("usage: mrt ")
    assert all(f"\n    {command} " in output for command in COMMANDS)


@pytest.mark.parametrize(
    "line", ["text", "image", "add", "restyle", "train autoencoder", "train bundle", "train student"]
)
def test_help_of_a_command(capsys, line):
    with pytest.raises(SystemExit) as caught:
        main([*line.split(), "--help"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: mrt {line} ")


@pytest.mark.parametrize("arguments", [[], ["paint"], ["text", "layout.json"], ["layout"]])
def test_wrong_usage_has_status_two(capsys, arguments):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: mrt" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--workers -1", "--workers is -1, but it counts processes; give 0 or more"),
        ("--workers 2 --from x", "--workers is 2, but it is for synthetic designs; leave it out with --from"),
    ],
)
def test_workers_that_cannot_be(capsys, options, says):
    assert main(["train", "samples", *options.split()]) == 1
    assert capsys.readouterr().err == f"mrt: {says}\n"


def test_the_module_is_the_command():
    command = [sys.executable, "-m", "mrt_core", "layout", "nothing.json"]
    finished = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert (finished.returncode, finished.stdout) == (1, "")
    assert finished.stderr.startswith("mrt: 'nothing.json' cannot be read") and finished.stderr.count("\n") == 1


# mrt layout and mrt inspect


def test_layout_is_listed_and_drawn(folder, capsys):
    status, out, err = run(capsys, "layout layout.json -o picture.png")
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        "frame 64 x 48 px, canvas 112 x 96 px",
        "  0  Sky  64 x 48 px at (0, 0)  blue sky",
        "  1  Sonne ☀  30 x 20 px at (-10, -6)  a sun",
        "  2  cat  24 x 30 px at (20, 8)  a red cat",
        "  3  label  45 x 33 px at (41, 35)  the word sale",
        "picture.png",
    ]
    with Image.open("picture.png") as picture:
        assert max(picture.size) == 1024
    before = Path("picture.png").read_bytes()
    status, _, err = run(capsys, "layout layout.json -o picture.png")
    assert status == 1 and "already exists" in err
    assert run(capsys, "layout layout.json -o picture.png --overwrite")[0] == 0
    assert Path("picture.png").read_bytes() == before


def test_layout_takes_boxes_of_any_dialect(folder, capsys, caplog):
    Path("answer.txt").write_text('Here:\n```json\n[{"bbox": [10, 20, 40, 44], "label": "cat"}]\n```', encoding="utf-8")
    status, out, _ = run(capsys, "layout answer.txt --frame 64 48")
    assert status == 0 and out.splitlines()[0::2] == [
        "frame 64 x 48 px, canvas 64 x 48 px",
        "  1  cat  30 x 24 px at (10, 20)  cat",
    ]
    assert "answer.txt: 1 box with " in caplog.text and "read as x1, y1, x2, y2 in px" in caplog.text
    status, out, _ = run(capsys, "layout answer.txt --image image.png --boxes-as yxyx-px -o over.png")
    assert status == 0 and "  1  cat  24 x 30 px at (20, 10)  cat" in out
    status, _, err = run(capsys, "layout answer.txt")
    assert status == 1 and "--frame" in err and "--image" in err


def test_inspect(folder, capsys):
    status, out, err = run(capsys, "inspect tiny.safetensors")
    assert (status, err) == (0, "")
    assert "tiny.safetensors" in out and "complete" in out


# The four tasks


def test_text(folder, capsys):
    status, out, _ = run(capsys, "text layout.json -o out.psd --checkpoint tiny.safetensors --device cpu")
    assert (status, out) == (0, "out.psd: 4 layers, 64 x 48 px\n")
    made = load("out.psd")
    assert [layer.name for layer in made.layers] == ["Sky", "Sonne ☀", "cat", "label"]
    assert tuple(made.frame) == (64, 48)
    left, top = min(layer.x for layer in made.layers), min(layer.y for layer in made.layers)
    assert left < 0 and top < 0


def test_one_file_per_seed(folder, capsys):
    options = "--checkpoint tiny.safetensors --device cpu --steps 1 --cfg 1"
    assert run(capsys, f"text layout.json -o out.ora --seed 3 7 {options}")[0] == 0
    assert run(capsys, f"text layout.json -o seven.ora --seed 7 {options}")[0] == 0
    third, seventh, alone = (composite(load(name)).astype(int) for name in ("out-3.ora", "out-7.ora", "seven.ora"))
    assert np.abs(seventh - alone).max() <= 2
    assert np.abs(third - alone).max() > 2


def test_image_with_a_layout_or_boxes(folder, capsys):
    for boxes, count in (("layout.json", 4), ("boxes.json", 2)):
        status, out, _ = run(
            capsys, f"image image.png {boxes} -o {count}.psd --checkpoint tiny.safetensors --device cpu --steps 1"
        )
        assert (status, out) == (0, f"{count}.psd: {count} layers, 64 x 48 px\n")


def test_add_on_top_and_in_between(folder, capsys, stack):
    options = "--checkpoint tiny.safetensors --device cpu --steps 1"
    boxes = "--box 5 5 20 20 --caption star --box 1 2 16 16 --caption moon --name Moon --place 1"
    assert run(capsys, f"add stack.psd -o added.psd {boxes} {options}")[0] == 0
    added = load("added.psd")
    assert [layer.name for layer in added.layers] == ["Sky", "Sonne ☀", "Moon", "cat", "label", "moon"]
    kept = [layer for layer in added.layers if layer.name not in ("Moon", "moon")]
    for layer, original in zip(kept, load("stack.psd").layers, strict=True):
        assert np.array_equal(layer.pixels, original.pixels) and layer.box == original.box


def test_restyle_with_and_without_an_asset(folder, capsys):
    options = "--checkpoint tiny.safetensors --device cpu --steps 1"
    assert run(capsys, f"restyle stack.psd --layer cat --asset asset.png -o asset.psd {options}")[0] == 0
    assert run(capsys, f"restyle stack.psd --layer cat -o own.psd {options}")[0] == 0
    original, first, second = (load(name).layers for name in ("stack.psd", "asset.psd", "own.psd"))
    for index in (0, 1, 3):
        assert np.array_equal(first[index].pixels, original[index].pixels)
        assert np.array_equal(second[index].pixels, original[index].pixels)
    assert [layer.name for layer in first] == [layer.name for layer in original]
    assert not np.array_equal(first[2].pixels, second[2].pixels)


def test_evaluate_writes_its_figures(folder, capsys):
    line = "evaluate --designs 1 --tasks text_to_layers add_layers --steps 1 --cfg 1 --json scores.json"
    status, out, _ = run(capsys, f"{line} --checkpoint tiny.safetensors --device cpu")
    assert status == 0
    report = json.loads(Path("scores.json").read_text(encoding="utf-8"))
    metrics = {"merged_psnr", "merged_ssim", "layer_psnr", "alpha_soft_iou", "rgb_l1"}
    assert report["designs"] == 1
    assert set(report["tasks"]) == {"text_to_layers", "text_to_layers_other_prompt", "add_layers", "overall"}
    assert all(set(scores) == metrics for scores in [*report["tasks"].values(), report["overall"]])
    rows = [report["tasks"][task]["layer_psnr"] for task in ("text_to_layers", "add_layers")]
    assert report["overall"]["layer_psnr"] == pytest.approx(sum(rows) / 2)
    assert out.count("\n") == 2 + 4 + 2  # head, tasks with the other prompt and overall, baselines


def test_evaluate_adds_tables(folder, capsys):
    save_probe(ClassProbe(), Path("probe.safetensors"))
    extra = "--layerd --bands --jitter 8 --probes probe.safetensors --autoencoder --json more.json"
    options = "--checkpoint tiny.safetensors --device cpu --steps 1 --cfg 1"
    status, out, _ = run(capsys, f"evaluate --designs 1 --tasks image_to_layers restyle_layers {extra} {options}")
    assert status == 0
    report = json.loads(Path("more.json").read_text(encoding="utf-8"))
    assert set(report) == {
        "designs", "tasks", "baselines", "overall", "restyling", "layerd", "bands", "jitter", "probes", "autoencoder"
    }  # fmt: skip
    assert set(report["restyling"]) == {"restyle_layers"}
    names = {"image_to_layers", "image_to_layers_matched", "image_to_layers baseline: opaque crops"}
    assert set(report["layerd"]) == names and all(len(levels) == 6 for levels in report["layerd"].values())
    assert len(report["bands"]) == 8 and set(report["jitter"]) == {
        "boxes up to 8 px off", "boxes up to 8 px off, matched"
    }  # fmt: skip
    assert len(report["probes"]) == 4 and len(report["autoencoder"]) == 4
    for title in (
        "Restyling",
        "LayerD protocol",
        "number of layers",
        "inexact boxes",
        "What boxes show",
        "The autoencoder",
    ):
        assert out.count(title) == 1
    status, out, _ = run(capsys, f"evaluate --designs 1 --tasks --jitter 2 --json less.json {options}")
    assert status == 0 and "restyle" not in out
    assert set(json.loads(Path("less.json").read_text(encoding="utf-8"))) == {"designs", "jitter"}


def test_evaluate_draws_sheets_and_keeps_old_ones(folder, capsys):
    line = "evaluate --designs 3 --tasks --sheets sheets --checkpoint tiny.safetensors --device cpu --steps 1 --cfg 1"
    assert run(capsys, line)[0] == 0
    tasks = {"text_to_layers", "image_to_layers", "add_layers", "restyle_layers"}
    assert {path.name for path in Path("sheets").iterdir()} == {f"{task}.png" for task in tasks}
    (Path("sheets") / "text_to_layers.png").unlink()
    before = Path("sheets/add_layers.png").read_bytes()
    status, _, error = run(capsys, line)
    assert status == 1 and "image_to_layers.png exists already" in error
    assert before == Path("sheets/add_layers.png").read_bytes()
    assert not Path("sheets/text_to_layers.png").exists()  # found out before anything is sampled


# Mistakes


MISTAKES = {
    "evaluate --tasks add_layers --layerd": "--layerd measures image_to_layers, which --tasks leaves out",
    "evaluate --tasks --jitter 0": "--jitter 0 moves no box",
    "evaluate --tasks --probes tiny.safetensors --checkpoint tiny.safetensors": "is not a probe for the present",
    "layout nothing.json": "nothing.json",
    "layout broken.json": "not valid JSON at line 1",
    "layout image.png": "not UTF-8",
    "layout layout.json -o picture.psd": "a name that ends in .png",
    "inspect nothing.safetensors": "does not exist",
    "inspect image.png": "not a whole .safetensors file",
    "text nothing.json -o out.psd": "nothing.json",
    "text layout.json -o taken.psd": "already exists",
    "text layout.json -o out.gif": 'the extension ".gif", which cannot be written',
    "text layout.json -o out.psd --checkpoint nothing.safetensors": "does not exist",
    "text layout.json -o out.psd --checkpoint image.png": "not a whole .safetensors file",
    "text layout.json -o out.psd --checkpoint tiny.safetensors --steps 0": "0 sampling steps",
    "text layout.json -o out.psd --checkpoint tiny.safetensors --shift 0": "shift is 0.0",
    "text layout.json -o nowhere/out.psd --checkpoint tiny.safetensors --steps 1": "choose a folder that exists",
    "image nothing.png layout.json -o out.psd": "nothing.png",
    "image fake.png layout.json -o out.psd": "fake.png cannot be read as an image",
    "image asset.png layout.json -o out.psd": "20 x 24",
    "image image.png latin.json -o out.psd": "not UTF-8",
    "image image.png nothing.json -o out.psd": "nothing.json",
    "image image.png broken.json -o out.psd": "not valid JSON",
    "add nothing.psd --box 0 0 9 9 --caption a -o out.psd": "nothing.psd",
    "add image.png --box 0 0 9 9 --caption a -o out.psd": 'the extension ".png", which cannot be read',
    "add stack.psd --box 0 0 9 9 --box 1 1 9 9 --caption a -o out.psd": "2 boxes came with 1 captions",
    "add stack.psd --box 0 0 9 9 --caption a --place 9 -o out.psd --checkpoint tiny.safetensors": "the new layers stand at",
    "restyle stack.psd --layer dog -o out.psd": 'there is no layer named "dog"',
    "restyle stack.psd --layer cat --asset fake.png -o out.psd": "fake.png cannot be read as an image",
    "train bundle --run nowhere -o out.safetensors": "does not exist",
    "train student --run nowhere": "teacher/state.safetensors does not exist",
    "train bundle-student --run nowhere -o out.safetensors": "teacher/state.safetensors does not exist",
}


@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake_is_one_line_on_standard_error(folder, capsys, monkeypatch, line):
    monkeypatch.setattr(bundle, "CAPTION_DESIGNS", 2)
    options = "" if not line.startswith(("text", "image", "add", "restyle")) else " --device cpu"
    if options and "--checkpoint" not in line:
        options += " --checkpoint tiny.safetensors"
    status, out, err = run(capsys, line + options)
    assert (status, out) == (1, "")
    message = err.split("\r")[-1]  # after the progress bar, where one was shown
    assert message.startswith("mrt: ") and message.endswith("\n") and message.count("\n") == 1
    assert MISTAKES[line] in message
    assert not Path("out.psd").exists()
    assert Path("taken.psd").read_bytes() == b"mine"


def test_interruption_has_a_status_of_its_own(folder, capsys, monkeypatch):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("mrt_core.pipeline.Pipeline.run", interrupt)
    status, _, err = run(capsys, "text layout.json -o out.psd --checkpoint tiny.safetensors --device cpu")
    assert status == 130
    assert err.split("\r")[-1] == "mrt: interrupted\n"
