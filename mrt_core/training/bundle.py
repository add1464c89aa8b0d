"""From training states to checkpoints: load a trained autoencoder, learn the tokenizer, write the bundled file."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from tokenizers import Tokenizer

from ..atomic import write_text
from ..checkpoints.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from ..checkpoints.info import CheckpointInfo, Sampling
from ..designs.generator import DesignSettings, generate_design
from ..errors import MRTError
from ..layouts.layout import background_prompt, layer_prompt
from ..lora.extract import extract_lora
from ..lora.file import save_lora
from ..models.autoencoder import Autoencoder
from ..models.configs import AutoencoderConfig, TextConfig, TransformerConfig
from ..models.tokenizer import train_tokenizer
from ..models.transformer import MaskedRegionTransformer
from ..tasks.slots import HARMONIZE
from ..weights.safetensors_file import save_atomically
from .autoencoder import save_autoencoder
from .state import averaged_weights
from .student import sampling_of_state
from .teacher import TeacherModel

TINY_TRANSFORMER = TransformerConfig(num_layers=8, num_heads=4, head_dim=64, text_dim=256, rope_axes=(16, 24, 24))
TINY_TEXT = TextConfig()
STATE_FILE = "state.safetensors"  # of the teacher or the student, in a folder of its own in the run folder
TEXT_FILE = "text_encoder.safetensors"  # in a run folder that goes on from a checkpoint: its text embeddings
SIZES_FILE = "sizes.json"  # in a run folder: those of its transformer
TRANSFORMER_FILE = "transformer.safetensors"  # in a run folder that goes on from a checkpoint: its transformer
CAPTION_DESIGNS = 4000  # designs whose captions the tokenizer learns from


def load_trained_autoencoder(folder: Path) -> Autoencoder:
    """The autoencoder of `folder`/autoencoder.safetensors with its latent statistics, in fp32."""
    path = folder / "autoencoder.safetensors"
    if not path.exists():
        raise MRTError(f"{path} does not exist; run `mrt train autoencoder` to the end first")
    with safe_open(path, "pt") as file:
        config = AutoencoderConfig(**json.loads(file.metadata()["config"]))
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    model = Autoencoder(config)
    model.load_state_dict(weights)
    return model.eval().to(memory_format=torch.channels_last)


def learned_tokenizer(folder: Path, settings: DesignSettings) -> Tokenizer:
    """The tokenizer of `folder`, learned on captions of training designs where there is none yet."""
    path = folder / "tokenizer.json"
    if not path.exists():
        captions = [HARMONIZE, 'the text "A"']  # the other words of prompts are in the designs' captions
        for seed in np.random.default_rng(4).integers(2**62, size=CAPTION_DESIGNS):
            design = generate_design(int(seed), settings)
            regions, background = design.layout.regions, design.layout.background_region
            captions += [
                design.short_caption,
                design.layout.caption,
                layer_prompt(regions),
                background_prompt(background),
            ]
        folder.mkdir(parents=True, exist_ok=True)
        train_tokenizer(captions, TINY_TEXT.vocabulary).save(str(path))
    return Tokenizer.from_file(str(path))


def sized(layers: int, heads: int, head_dim: int) -> TransformerConfig:
    """A small transformer's sizes; raises MRTError for a head that cannot be shared among the three axes of positions."""
    if min(layers, heads, head_dim) < 1 or head_dim % 16:
        raise MRTError(
            f"the sizes are {layers} layers and {heads} heads of {head_dim}, but there must be at least one of each and a head "
            "is a multiple of 16 wide; give others, such as 8 layers and 4 heads of 64"
        )
    axes = head_dim // 4, 3 * head_dim // 8, 3 * head_dim // 8
    return replace(TINY_TRANSFORMER, num_layers=layers, num_heads=heads, head_dim=head_dim, rope_axes=axes)


def run_sizes(folder: Path, asked: TransformerConfig | None = None) -> TransformerConfig:
    """The transformer's sizes of a run folder: those that it was begun with, or begins with now, `asked` or the bundled ones.

    Raises MRTError where other ones are asked for than it has.
    """
    path = folder / SIZES_FILE
    if path.exists():
        sizes = CheckpointInfo.from_json(path.read_text(encoding="utf-8")).transformer
        if asked not in (None, sizes):
            raise MRTError(
                f"{folder} was begun with other sizes; leave them out, or give another run folder with --run"
            )
        return sizes
    sizes = asked or TINY_TRANSFORMER
    write_sizes(folder, sizes)
    return sizes


def write_sizes(folder: Path, sizes: TransformerConfig) -> None:
    """Keep the transformer's sizes in a run folder."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / SIZES_FILE, CheckpointInfo(sizes, AutoencoderConfig()).to_json())


def new_teacher(tokenizer: Tokenizer, transformer: TransformerConfig = TINY_TRANSFORMER) -> TeacherModel:
    """An untrained teacher, of the bundled size unless another is given."""
    text = replace(TINY_TEXT, vocabulary=tokenizer.get_vocab_size(), width=transformer.text_dim)
    return TeacherModel(transformer, text, tokenizer)


def load_start(folder: Path, teacher: TeacherModel) -> None:
    """Fill `teacher` with what a run folder has to start with, if it goes on from a checkpoint."""
    for file, module in ((TEXT_FILE, teacher.text_encoder), (TRANSFORMER_FILE, teacher.transformer)):
        if (folder / file).exists():
            module.load_state_dict(load_file(folder / file))


def load_teacher(folder: Path, teacher: TeacherModel) -> None:
    """Fill `teacher` with the averaged one of a run folder, or with the unpacked one where none was trained yet.

    Raises MRTError where there is neither.
    """
    state = folder / "teacher" / STATE_FILE
    if not state.exists() and (folder / TRANSFORMER_FILE).exists():
        load_start(folder, teacher)
    else:
        teacher.load_state_dict(averaged_weights(state))


def load_student(folder: Path, config: TransformerConfig) -> tuple[MaskedRegionTransformer, Sampling]:
    """The averaged student of `folder`/student, and how it was trained to be sampled; raises MRTError where there is none."""
    path = folder / "student" / STATE_FILE
    student = MaskedRegionTransformer(config)
    student.load_state_dict(averaged_weights(path))
    return student, sampling_of_state(path)


def write_checkpoint(path: Path, folder: Path, model: TeacherModel, **settings) -> None:
    """Bundle a model with the autoencoder of a run folder into one file; `settings` as `bundled`."""
    save_checkpoint(path, bundled(folder, model, **settings))


def bundled(folder: Path, model: TeacherModel, **settings) -> Checkpoint:
    """A model with the autoencoder of a run folder.

    `settings` are fields of CheckpointInfo: how to sample, the frame area in px, the region mode, whether it is a student.
    """
    autoencoder = load_trained_autoencoder(folder / "autoencoder")
    info = CheckpointInfo(
        transformer=model.transformer.config,
        autoencoder=autoencoder.config,
        text_encoder=model.text_encoder.config,
        **settings,
    )
    return Checkpoint(model.transformer, autoencoder, model.text_encoder, info)


def write_student(path: Path, folder: Path, teacher: TeacherModel, image_steps: int, **settings) -> None:
    """Bundle the student of `folder`/student with its teacher's text encoder and the autoencoder, as `write_checkpoint`.

    Image to layers takes `image_steps` on the same schedule; a picture leaves less to be found.
    """
    teacher.transformer, sampling = load_student(folder, teacher.transformer.config)
    image_sampling = replace(sampling, steps=image_steps)
    write_checkpoint(path, folder, teacher, student=True, sampling=sampling, image_sampling=image_sampling, **settings)


def write_student_lora(path: Path, folder: Path, teacher: TeacherModel, rank: int) -> float:
    """Write the student of `folder`/student as a LoRA for its teacher, in bf16; returns the share of the change that a LoRA
    of this rank misses."""
    student, sampling = load_student(folder, teacher.transformer.config)
    lora, error = extract_lora(teacher.transformer, student, rank, torch.bfloat16)
    save_lora(path, replace(lora, sampling=sampling))
    return error


def unpack_checkpoint(path: Path, folder: Path) -> None:
    """The reverse of `write_checkpoint`: a run folder whose steps, each of them, go on from a checkpoint's weights."""
    checkpoint = load_checkpoint(path)
    if checkpoint.autoencoder is None or checkpoint.text_encoder is None:
        raise MRTError(
            f"{path.name} holds a transformer alone, but training goes on from a bundled checkpoint; give one"
        )
    for taken in (folder / TRANSFORMER_FILE, folder / TEXT_FILE, folder / "teacher" / STATE_FILE):
        if taken.exists():
            raise MRTError(f"{taken} exists already and would be lost; give another run folder with --run")
    save_autoencoder(folder / "autoencoder", checkpoint.autoencoder)
    checkpoint.text_encoder.tokenizer.save(str(folder / "tokenizer.json"))
    save_atomically(checkpoint.text_encoder.state_dict(), folder / TEXT_FILE, {})
    save_atomically(checkpoint.transformer.state_dict(), folder / TRANSFORMER_FILE, {})
    write_sizes(folder, checkpoint.info.transformer)
