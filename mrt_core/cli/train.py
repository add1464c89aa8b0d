"""`mrt train`: the small checkpoint from nothing, in four steps; the long ones can be interrupted and resumed.

autoencoder -> samples -> teacher -> bundle, all in one run folder; and from the teacher on student -> bundle-student.
A checkpoint of any size is trained on with samples -> prompts -> finetune.
"""

import argparse
import logging
from pathlib import Path

from ..checkpoints.components import load_bundled_autoencoder
from ..checkpoints.info import Sampling
from ..designs.generator import DesignSettings
from ..errors import MRTError
from ..models.modes import REGION_MODES
from ..tasks.region_codec import RegionCodec
from ..training import bundle
from ..training.autoencoder import AutoencoderTraining, finish_autoencoder, train_autoencoder
from ..training.document_samples import write_document_shards
from ..training.flow_matching import NOISE_SHIFT
from ..training.samples import TRAINING_MIX, write_shards
from ..training.student import StudentTraining, train_student
from ..training.teacher import TeacherModel, TeacherTraining, train_teacher
from . import finetune
from .shares import add_shares, task_shares

TINY_FRAME_AREA = 128 * 128  # px


def add_commands(commands) -> None:
    """Register the command and its steps."""
    parser = commands.add_parser("train", help="train a small checkpoint on synthetic designs, or a given one on")
    steps = parser.add_subparsers(title="steps, in this order", required=True, metavar="STEP")

    autoencoder = _step(steps, "autoencoder", run_autoencoder, "train the RGBA autoencoder")
    autoencoder.add_argument("--steps", type=int, default=AutoencoderTraining.steps)
    autoencoder.add_argument(
        "--batch", type=int, default=AutoencoderTraining.batch, help="crops of 64 x 64 px per step"
    )
    autoencoder.add_argument("--width", type=int, default=32, help="base width, default: %(default)s")
    _add_workers(autoencoder, "draw crops while this one trains")
    autoencoder.add_argument("--device", default="cpu")

    samples = _step(steps, "samples", run_samples, "draw designs, encode them and write shards")
    samples.add_argument(
        "--from", dest="source", type=Path, metavar="FOLDER", help="make samples of the .psd, .psb and .ora files in FOLDER "
        "in place of synthetic designs; layers are captioned with their names"
    )  # fmt: skip
    samples.add_argument("--shards", type=int, help="default: 40, or 1 with --from")
    samples.add_argument("--size", type=int, default=500, help="samples per shard, default: %(default)s")
    samples.add_argument("--seed", type=int, default=0)
    samples.add_argument("--checkpoint", type=Path, metavar="FILE", help="encode with this checkpoint's autoencoder, in "
                         "its region mode and, without --frame-area, at its size; default: the run folder's")  # fmt: skip
    _add_workers(samples, "draw designs while this one encodes")
    samples.add_argument("--region-mode", choices=REGION_MODES, help="default: the checkpoint's, crop without one")
    samples.add_argument("--device", default="cpu")
    samples.set_defaults(frame_area=None)

    teacher = _step(
        steps, "teacher", run_teacher, "train the transformer and its text embeddings; works under torchrun"
    )
    teacher.add_argument("--steps", type=int, default=TeacherTraining.steps)
    teacher.add_argument("--batch", type=int, default=TeacherTraining.batch, help="samples per device and step")
    teacher.add_argument("--decay-share", type=float, default=TeacherTraining.decay_share, help="last part of the steps "
                         "over which the learning rate falls to 0, default: %(default)s")  # fmt: skip

    add_shares(teacher)
    for name, value, words in (
        ("--learning-rate", TeacherTraining.learning_rate, "of Adam"),
        ("--matrix-learning-rate", TeacherTraining.matrix_learning_rate, "of Muon"),
    ):
        teacher.add_argument(name, type=float, default=value, help=f"{words}, default: %(default)s")
    shifts = list(NOISE_SHIFT.values())
    teacher.add_argument("--noise-shift", type=float, nargs=4, default=shifts, metavar=("T", "I", "A", "R"),
                         help="how far the noise levels of each task lean to 1, default: %(default)s")  # fmt: skip
    teacher.add_argument(
        "--save-every", type=int, default=TeacherTraining.save_every, help="steps, default: %(default)s"
    )
    teacher.add_argument("--sizes", type=int, nargs=3, metavar=("LAYERS", "HEADS", "HEAD_DIM"), help="of a transformer that "
                         "is begun; default: those of mrt-tiny, 8 4 64")  # fmt: skip
    teacher.add_argument("--adam", action="store_true", help="Adam for all weights in place of Muon for matrices")
    teacher.add_argument(
        "--sharded", action="store_true", help="under torchrun: shard the model over the devices (FSDP2)"
    )

    finish = _step(steps, "bundle", run_bundle, "write one checkpoint of transformer, text embeddings and autoencoder")
    finish.add_argument("-o", "--output", required=True, metavar="FILE")
    finish.add_argument("--region-mode", choices=REGION_MODES, default="crop")
    finish.add_argument("--sampling-steps", type=int, default=12, help="default sampling steps, default: %(default)s")
    finish.add_argument("--cfg", type=float, default=1.0, help="default guidance scale, default: %(default)s")
    finish.add_argument("--shift", type=float, default=1.0, help="default schedule shift, default: %(default)s")

    finish.add_argument("--image-steps", type=int, default=4, help="steps of image to layers, default: %(default)s")

    student = _step(
        steps, "student", run_student, "distil the teacher into a student of few steps; works under torchrun"
    )
    student.add_argument("--steps", type=int, default=StudentTraining.steps, help="updates, default: %(default)s")
    student.add_argument("--batch", type=int, default=StudentTraining.batch, help="samples per device and step")
    student.add_argument("--fake-updates", type=int, default=StudentTraining.fake_updates, help="of the fake score per "
                         "update of the student, default: %(default)s")  # fmt: skip
    student.add_argument("--cfg", type=float, default=StudentTraining.cfg, help="the teacher's guidance, in all tasks but "
                         "image to layers, default: %(default)s")  # fmt: skip
    student.add_argument("--student-steps", type=int, default=StudentTraining.student_steps, help="sampling steps to train "
                         "for, and for twice as many, default: %(default)s")  # fmt: skip
    student.add_argument("--shift", type=float, default=StudentTraining.shift, help="of the sampling schedule, default: "
                         "%(default)s")  # fmt: skip
    student.add_argument(
        "--learning-rate", type=float, default=StudentTraining.learning_rate, help="default: %(default)s"
    )
    student.add_argument("--fake-learning-rate", type=float, default=StudentTraining.fake_learning_rate, help="default: "
                         "%(default)s")  # fmt: skip
    student.add_argument(
        "--save-every", type=int, default=StudentTraining.save_every, help="updates, default: %(default)s"
    )
    add_shares(student)

    finish = _step(
        steps, "bundle-student", run_bundle_student, "write a checkpoint of the student, or a LoRA that makes it"
    )
    finish.add_argument("-o", "--output", required=True, metavar="FILE")
    finish.add_argument("--lora-rank", type=int, metavar="RANK", help="write a LoRA for the teacher's checkpoint")
    finish.add_argument("--region-mode", choices=REGION_MODES, default="crop")
    finish.add_argument("--image-steps", type=int, default=4, help="steps of image to layers, default: %(default)s")

    unpack = _step(steps, "unpack", run_unpack, "start a run folder from a bundled checkpoint, to train it further")
    unpack.add_argument("checkpoint", type=Path)

    finetune.add_steps(steps, _step)


def _step(steps, name: str, run, text: str) -> argparse.ArgumentParser:
    parser = steps.add_parser(name, help=text, description=text)
    parser.add_argument(
        "--run", dest="folder", type=Path, default=Path("runs/tiny"), help="run folder, default: %(default)s"
    )
    parser.add_argument("--frame-area", type=int, default=TINY_FRAME_AREA, help=f"px, default: {TINY_FRAME_AREA}")
    parser.set_defaults(run=run)
    logging.getLogger("mrt_core.training").setLevel(logging.INFO)
    return parser


def _add_workers(parser: argparse.ArgumentParser, work: str) -> None:
    parser.add_argument("--workers", type=int, default=0, help=f"processes that {work}, default: %(default)s")


def _check_workers(options: argparse.Namespace) -> None:
    if options.workers < 0:
        raise MRTError(f"--workers is {options.workers}, but it counts processes; give 0 or more")


def run_autoencoder(options: argparse.Namespace) -> None:
    _check_workers(options)
    settings = AutoencoderTraining(steps=options.steps, batch=options.batch)
    train_autoencoder(options.folder / "autoencoder", settings, options.width, options.device, options.workers)
    finish_autoencoder(options.folder / "autoencoder")


def run_samples(options: argparse.Namespace) -> None:
    _check_workers(options)
    if options.source and options.workers:
        raise MRTError(f"--workers is {options.workers}, but it is for synthetic designs; leave it out with --from")
    if options.checkpoint:
        if (options.folder / "autoencoder").exists():
            raise MRTError(
                f"{options.folder} has an autoencoder of its own, whose samples are another's; give another folder with --run"
            )
        autoencoder, info = load_bundled_autoencoder(options.checkpoint)
        area, mode = info.frame_area, info.region_mode
    else:
        autoencoder = bundle.load_trained_autoencoder(options.folder / "autoencoder")
        area, mode = TINY_FRAME_AREA, "crop"
    codec = RegionCodec(autoencoder.to(options.device), options.region_mode or mode)
    folder, size, seed, area = options.folder / "samples", options.size, options.seed, options.frame_area or area
    if options.source:
        write_document_shards(folder, codec, options.source, options.shards or 1, size, seed, area)
    else:
        settings = DesignSettings(frame_area=area, mix=TRAINING_MIX)
        write_shards(folder, codec, options.shards or 40, size, seed, settings, options.workers)


def run_teacher(options: argparse.Namespace) -> None:
    tokenizer = bundle.learned_tokenizer(options.folder, DesignSettings(frame_area=options.frame_area))
    settings = TeacherTraining(
        steps=options.steps,
        batch=options.batch,
        decay_share=options.decay_share,
        shares=task_shares(options),
        noise_shift=dict(zip(NOISE_SHIFT, options.noise_shift, strict=True)),
        learning_rate=options.learning_rate,
        matrix_learning_rate=options.matrix_learning_rate,
        save_every=options.save_every,
        matrices=not options.adam,
        sharded=options.sharded,
    )
    sizes = bundle.run_sizes(options.folder, bundle.sized(*options.sizes) if options.sizes else None)
    teacher = bundle.new_teacher(tokenizer, sizes)
    bundle.load_start(options.folder, teacher)
    train_teacher(options.folder / "teacher", options.folder / "samples", teacher, settings)


def run_bundle(options: argparse.Namespace) -> None:
    sampling = Sampling(steps=options.sampling_steps, cfg=options.cfg, shift=options.shift)
    image_sampling = Sampling(steps=options.image_steps, cfg=1.0, shift=options.shift)
    settings = {"sampling": sampling, "image_sampling": image_sampling, "frame_area": options.frame_area}
    teacher = _teacher(options)
    bundle.write_checkpoint(options.output, options.folder, teacher, region_mode=options.region_mode, **settings)
    print(options.output)


def run_student(options: argparse.Namespace) -> None:
    settings = StudentTraining(
        steps=options.steps,
        batch=options.batch,
        fake_updates=options.fake_updates,
        cfg=options.cfg,
        student_steps=options.student_steps,
        shift=options.shift,
        learning_rate=options.learning_rate,
        fake_learning_rate=options.fake_learning_rate,
        save_every=options.save_every,
        shares=task_shares(options),
    )
    train_student(options.folder / "student", options.folder / "samples", _teacher(options), settings)


def run_bundle_student(options: argparse.Namespace) -> None:
    teacher = _teacher(options)
    if options.lora_rank is not None:
        error = bundle.write_student_lora(options.output, options.folder, teacher, options.lora_rank)
        print(f"{options.output}: misses {error:.1%} of the difference between student and teacher")
        return
    settings = {"region_mode": options.region_mode, "frame_area": options.frame_area}
    bundle.write_student(options.output, options.folder, teacher, image_steps=options.image_steps, **settings)
    print(options.output)


def _teacher(options: argparse.Namespace) -> TeacherModel:
    """The trained teacher of the run folder."""
    tokenizer = bundle.learned_tokenizer(options.folder, DesignSettings(frame_area=options.frame_area))
    teacher = bundle.new_teacher(tokenizer, bundle.run_sizes(options.folder))
    bundle.load_teacher(options.folder, teacher)
    return teacher


def run_unpack(options: argparse.Namespace) -> None:
    bundle.unpack_checkpoint(options.checkpoint, options.folder)
    print(options.folder)
