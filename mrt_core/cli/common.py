"""What the commands share: sampling options, loading a pipeline, progress, reading images."""

import argparse
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from tqdm import tqdm

from ..documents.pictures import read_image as read_image  # for the commands
from ..errors import MRTError
from ..geometry import Size
from ..layouts.boxes import read_layout
from ..layouts.documents import read_json_file
from ..layouts.layout import MAX_FRAME_SIDE, MIN_FRAME_SIDE, Layout
from ..layouts.readings import AUTO, BOXES_AS
from ..lora.apply import apply_loras, student_info
from ..lora.file import read_lora
from ..models.modes import REGION_MODES
from ..offload.plan import read_size
from ..pipeline import Pipeline, SamplingOptions

log = logging.getLogger(__name__)

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """--checkpoint, --vae, --text-encoder, --tokenizer, --lora, --device, --dtype, --region-mode, --memory."""
    parser.add_argument(
        "--checkpoint",
        metavar="FILE",
        help="a checkpoint, a file or folder, or mrt-tiny-student, which is bundled; default: mrt-tiny",
    )
    parser.add_argument("--vae", metavar="FILE", help="an autoencoder to use in place of the checkpoint's own")
    parser.add_argument(
        "--text-encoder", metavar="PATH", help="Qwen2.5-VL, a file or folder, for full-size checkpoints"
    )
    parser.add_argument("--tokenizer", metavar="FOLDER", help="its tokenizer, unless a folder beside it holds that")
    parser.add_argument(
        "--lora",
        action="append",
        default=[],
        metavar="FILE[:STRENGTH]",
        help="a LoRA to apply, once per LoRA; strength 1",
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="default: %(default)s")
    parser.add_argument(
        "--dtype", choices=DTYPES, default="fp32", help="precision of the weights, default: %(default)s"
    )
    parser.add_argument(
        "--region-mode", choices=REGION_MODES, help="how regions are decoded; default: the checkpoint's"
    )
    parser.add_argument(
        "--memory", metavar="SIZE", help="memory of the device to use at most, such as 12GB; default: what is free"
    )


def add_sampling_options(parser: argparse.ArgumentParser) -> None:
    """--steps, --cfg, --shift, --no-renormalise, --size; the defaults are the checkpoint's own."""
    parser.add_argument("--steps", type=int, help="sampling steps")
    parser.add_argument("--cfg", type=float, help="classifier-free guidance scale; 1 switches it off")
    parser.add_argument("--shift", type=float, help="shift of the noise schedule")
    parser.add_argument(
        "--no-renormalise",
        dest="renormalise",
        action="store_false",
        help="let guidance change the length of predictions; it matters with --cfg above 1",
    )
    parser.add_argument(
        "--size", type=int, metavar="PX", help="sample at about PX x PX px, such as 640 or 1024 for Qwen-Image-Layered"
    )


def add_layout_options(parser: argparse.ArgumentParser) -> None:
    """--boxes-as: how the numbers of boxes are read that say it neither by their keys nor by their values."""
    parser.add_argument(
        "--boxes-as",
        choices=BOXES_AS,
        default=AUTO,
        metavar="READING",
        help=f"how boxes are written: {', '.join(BOXES_AS)}; default: by their keys and values, and what was chosen is said",
    )


def read_layout_file(path: str, frame: Size | None, boxes_as: str) -> Layout:
    """A layout document, or boxes in any dialect over a frame of size `frame`; what was chosen or left out is logged."""
    layout, notes = read_layout(read_json_file(path), frame, boxes_as)
    for note in notes:
        log.warning("%s: %s", path, note)
    return layout


def load_pipeline(options: argparse.Namespace) -> Pipeline:
    """The pipeline that the model options ask for, with its LoRAs applied."""
    files = [split_strength(text) for text in options.lora]
    parts = {"autoencoder": options.vae, "text_encoder": options.text_encoder, "tokenizer": options.tokenizer}
    dtype, memory = DTYPES[options.dtype], None if options.memory is None else read_size(options.memory)
    pipeline = Pipeline.load(options.checkpoint, options.device, dtype, options.region_mode, memory, **parts)
    loras = [(read_lora(path, pipeline.info.transformer), strength) for path, strength in files]
    pipeline.info = student_info(pipeline.info, loras)
    apply_loras(pipeline.transformer, loras)
    return pipeline


def split_strength(text: str) -> tuple[Path, float]:
    """FILE or FILE:STRENGTH; what follows the last colon is a strength only where it is a number."""
    file, colon, tail = text.rpartition(":")
    try:
        strength = float(tail)
    except ValueError:
        return Path(text), 1.0
    if not colon:
        return Path(text), 1.0
    if not math.isfinite(strength):
        raise MRTError(f"--lora {text} has the strength {tail}, but it must be a finite number, such as 0.8")
    return Path(file), strength


def sampling_options(options: argparse.Namespace, seeds: tuple[int, ...] = (0,)) -> SamplingOptions:
    """The sampling options as given, without a progress bar."""
    if options.size is not None and not MIN_FRAME_SIDE <= options.size <= MAX_FRAME_SIDE:
        raise MRTError(
            f"--size {options.size} is not a size to sample at; give {MIN_FRAME_SIDE} to {MAX_FRAME_SIDE} px, such as 640"
        )
    return SamplingOptions(
        seeds=seeds,
        steps=options.steps,
        cfg=options.cfg,
        shift=options.shift,
        renormalise=options.renormalise,
        frame_area=options.size and options.size**2,
    )


@contextmanager
def progress_bar(options: SamplingOptions, title: str) -> Iterator[SamplingOptions]:
    """`options` with a progress bar over the steps."""
    with tqdm(desc=title, unit="step", leave=False) as bar:

        def show(done: int, total: int, estimate: torch.Tensor) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield replace(options, progress=show)
