"""The paper's ablations, small: trainings on the same samples from the same start that differ in one thing (section 4.4).

Every variant has a folder of its own with the teacher's state, so that a run can be interrupted, and with its figures. Both
are kept: a variant that has them is not trained or measured again.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..atomic import write_text
from ..checkpoints.info import Sampling
from ..designs.generator import DesignSettings
from ..errors import MRTError
from ..evaluation.ablations import measure, measure_autoencoder, measures_of
from ..models.text import LAYER_CAPTION
from ..models.transformer import TransformerConfig
from ..pipeline import Pipeline
from ..tasks.region_codec import RegionCodec
from ..tasks.slots import Task
from . import bundle
from .autoencoder import AutoencoderTraining, finish_autoencoder, train_autoencoder
from .processes import start_device
from .samples import BLANK_CAPTION_SHARE, TrainingSample, any_sample
from .state import state_metadata
from .teacher import SamplePool, TeacherTraining, train_teacher

SAMPLING = Sampling(steps=12, cfg=2.0, shift=1.0)
IMAGE_SAMPLING = Sampling(steps=4, cfg=1.0, shift=1.0)
WHOLE_DESIGN = (Task.TEXT_TO_LAYERS, Task.IMAGE_TO_LAYERS)  # tasks whose prompts name every layer
_GROUPED = re.compile(r" and (?:an?|the) ")  # in the caption of a grouped layer alone: names have no articles inside


def stays_in_frame(sample: TrainingSample) -> bool:
    """Whether no layer's box leaves the frame: the background, which fills the frame of a drawn design, fills the canvas."""
    background = sample.sample.slots[1].box
    return (background.rows, background.cols) == (sample.sample.canvas_rows, sample.sample.canvas_cols)


def is_ungrouped(sample: TrainingSample) -> bool:
    """Whether every layer of a drawn design is known to stand for itself; the prompts of editing tasks cannot tell, nor can
    sentences about the whole."""
    captions = [caption for prompt in sample.prompts for caption in LAYER_CAPTION.findall(prompt)]
    return sample.task in WHOLE_DESIGN and bool(captions) and not any(map(_GROUPED.search, captions))


def task_mix(text: float, image: float, layers: float) -> dict[Task, float]:
    """Shares of text, image and layers to layers, as the paper gives them; the last is half adding and half restyling."""
    return dict(zip(Task, (text, image, layers / 2, layers / 2), strict=True))


class Variant(NamedTuple):
    """What the ablations vary of the settings of a training."""

    shares: Mapping[Task, float] = task_mix(0.7, 0.15, 0.15)
    accept: Callable[[TrainingSample], bool] = any_sample
    image_prompt_dropout: float = BLANK_CAPTION_SHARE

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks that are trained."""
        return tuple(task for task, share in self.shares.items() if share > 0)

    def settings(self, training: TeacherTraining) -> TeacherTraining:
        return replace(training, **self._asdict())


TEXT_AND_IMAGE = task_mix(0.8, 0.2, 0.0)
VARIANTS: Mapping[str, Variant] = {
    "base": Variant(),
    "no_overflow": Variant(accept=stays_in_frame),
    "mix_100_0_0": Variant(task_mix(1.0, 0.0, 0.0)),
    "mix_80_20_0": Variant(TEXT_AND_IMAGE),
    "no_image_text": Variant(image_prompt_dropout=1.0),
    "no_grouping": Variant(TEXT_AND_IMAGE, is_ungrouped),  # against mix_80_20_0, whose samples all tell
}
AUTOENCODERS: Mapping[str, int] = {"rgba_autoencoder": 4, "grey_autoencoder": 3}  # image channels


@dataclass(frozen=True)
class AblationRun:
    """What all variants share: the run folder with samples and autoencoder, which is only read but for its tokenizer; the folder
    of their own folders; how long they train; and how many held-out designs they are measured on.

    They start as the run folder's teacher did, or with `continued` from that teacher. Raises MRTError for a run folder that
    lacks a part.
    """

    source: Path
    folder: Path
    training: TeacherTraining
    autoencoder: AutoencoderTraining
    designs: int
    continued: bool = False
    transformer: TransformerConfig = bundle.TINY_TRANSFORMER
    frame_area: int = 128 * 128  # px

    def __post_init__(self):
        if not (self.source / "samples").exists():
            raise MRTError(f"{self.source} has no samples, which every variant needs; run `mrt train samples` first")

    def settings(self, name: str) -> dict[str, Any]:
        """What a variant's state depends on."""
        if name in AUTOENCODERS:
            return {"steps": self.autoencoder.steps, "batch": self.autoencoder.batch, "seed": self.autoencoder.seed}
        training = self.training
        shared = {"steps": training.steps, "batch": training.batch, "seed": training.seed}
        return shared | {"samples": str(self.source), "continued": self.continued}


def run_variant(run: AblationRun, name: str) -> dict[str, Any]:
    """Train and measure one of VARIANTS or AUTOENCODERS, or go on where it was; returns what `figures.json` keeps.

    These are `designs`, and `samples` (how many there are by task) with `records` (by measure, see `evaluation.ablations`), or
    the `reconstruction` of an autoencoder. Raises MRTError for a folder that was begun with other settings.
    """
    folder = run.folder / name
    _keep_settings(folder / "settings.json", run.settings(name))
    path = folder / "figures.json"
    if path.exists() and (figures := _read(path))["designs"] == run.designs:
        return figures
    figures = {"designs": run.designs}
    if name in AUTOENCODERS:
        measured = measure_autoencoder(variant_codec(run, name), run.designs, run.frame_area)
        figures["reconstruction"] = {kind: row._asdict() for kind, row in measured.items()}
    else:
        pipeline = variant_pipeline(run, name)
        figures["samples"] = count_samples(run, VARIANTS[name])
        figures["records"] = measure(pipeline, measures_of(name), run.designs)
    _write(path, figures)
    return figures


def count_samples(run: AblationRun, variant: Variant) -> dict[str, int]:
    """How many samples there are to draw from for every task that a variant trains."""
    pool = SamplePool(run.source / "samples", variant.accept)
    pool.reload()
    return {str(task): len(pool.serving(task)) for task in variant.tasks}


def variant_pipeline(run: AblationRun, name: str) -> Pipeline:
    """The averaged model of one of VARIANTS, which is trained to the end first."""
    settings = VARIANTS[name].settings(run.training)
    torch.manual_seed(settings.seed)  # all variants start from the same weights
    tokenizer = bundle.learned_tokenizer(run.source, DesignSettings(frame_area=run.frame_area))
    teacher = bundle.new_teacher(tokenizer, run.transformer)
    bundle.load_start(run.source, teacher)
    if run.continued:
        bundle.load_teacher(run.source, teacher)
    folder = run.folder / name
    state = folder / "teacher" / bundle.STATE_FILE
    if not state.exists() or state_metadata(state)["step"] < settings.steps:
        train_teacher(folder / "teacher", run.source / "samples", teacher, settings)
    bundle.load_teacher(folder, teacher)
    teacher.to(start_device()[1]).eval().requires_grad_(False)
    sampling = {"sampling": SAMPLING, "image_sampling": IMAGE_SAMPLING, "frame_area": run.frame_area}
    checkpoint = bundle.bundled(run.source, teacher, tasks=VARIANTS[name].tasks, **sampling)
    return Pipeline(checkpoint, checkpoint.text_encoder, RegionCodec(checkpoint.autoencoder))


def variant_codec(run: AblationRun, name: str) -> RegionCodec:
    """The averaged autoencoder of one of AUTOENCODERS, which is trained to the end first."""
    folder = run.folder / name
    settings = replace(run.autoencoder, image_channels=AUTOENCODERS[name])
    if not (folder / "autoencoder.safetensors").exists():
        train_autoencoder(folder, settings)
        finish_autoencoder(folder)
    return RegionCodec(bundle.load_trained_autoencoder(folder))


def _keep_settings(path: Path, settings: dict[str, Any]) -> None:
    """Note what a variant was begun with; raises MRTError where that was something else."""
    if path.exists() and (begun := _read(path)) != settings:
        raise MRTError(
            f"{path.parent} was begun with {json.dumps(begun)}, not with {json.dumps(settings)}; give the same again, or "
            "another folder with --out"
        )
    _write(path, settings)


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _write(path: Path, values: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(values, indent=2) + "\n")
