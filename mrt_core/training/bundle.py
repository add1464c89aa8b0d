"""From training states to checkpoints: load a trained autoencoder, learn the tokenizer, write the bundled file."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from tokenizers import Tokenizer

from ..autoencoder import Autoencoder, AutoencoderConfig
from ..checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from ..checkpoint_info import CheckpointInfo
from ..designs.generator import DesignSettings, generate_design
from ..errors import MRTError
from ..files import save_atomically
from ..layout import layer_prompt
from ..tasks import HARMONIZE
from ..text import SmallTextConfig, SmallTextEncoder, train_tokenizer
from ..transformer import TransformerConfig
from .autoencoder import save_autoencoder
from .state import averaged_weights
from .teacher import TeacherModel

TINY_TRANSFORMER = TransformerConfig(num_layers=6, num_heads=4, head_dim=48, text_dim=192, rope_axes=(12, 18, 18))
TINY_TEXT = SmallTextConfig()
TEXT_FILE = "text_encoder.safetensors"  # in a run folder
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
        captions = [HARMONIZE]
        for seed in np.random.default_rng(4).integers(2**62, size=CAPTION_DESIGNS):
            design = generate_design(int(seed), settings)
            captions += [design.short_caption, design.layout.caption, layer_prompt(design.layout.regions)]
        folder.mkdir(parents=True, exist_ok=True)
        train_tokenizer(captions, TINY_TEXT.vocabulary).save(str(path))
    return Tokenizer.from_file(str(path))


def new_teacher(tokenizer: Tokenizer, transformer: TransformerConfig = TINY_TRANSFORMER) -> TeacherModel:
    """An untrained teacher of the bundled size."""
    return TeacherModel(transformer, replace(TINY_TEXT, vocabulary=tokenizer.get_vocab_size()), tokenizer)


def save_text_encoder(folder: Path, encoder: SmallTextEncoder) -> None:
    """Keep a warmed-up text encoder in a run folder, for the teacher to start with."""
    save_atomically(encoder.state_dict(), folder / TEXT_FILE, {})


def load_text_encoder(folder: Path, encoder: SmallTextEncoder) -> None:
    """Fill `encoder` with the warmed-up one of a run folder; without one it stays as it is."""
    if (folder / TEXT_FILE).exists():
        encoder.load_state_dict(load_file(folder / TEXT_FILE))


def write_checkpoint(path: Path, folder: Path, teacher: TeacherModel, **settings) -> None:
    """Bundle the averaged teacher of `folder`/teacher with its text encoder and autoencoder into one file.

    `settings` are fields of CheckpointInfo: how to sample, the frame area in px, the region mode.
    """
    teacher.load_state_dict(averaged_weights(folder / "teacher" / "state.safetensors"))
    autoencoder = load_trained_autoencoder(folder / "autoencoder")
    info = CheckpointInfo(
        transformer=teacher.transformer.config,
        autoencoder=autoencoder.config,
        text_encoder=teacher.text_encoder.config,
        **settings,
    )
    save_checkpoint(path, Checkpoint(teacher.transformer, autoencoder, teacher.text_encoder, info))


def unpack_checkpoint(path: Path, folder: Path) -> None:
    """The reverse of `write_checkpoint`: a run folder whose next teacher steps go on from a checkpoint's weights."""
    checkpoint = load_checkpoint(path)
    if checkpoint.autoencoder is None or checkpoint.text_encoder is None:
        raise MRTError(
            f"{path.name} holds a transformer alone, but training goes on from a bundled checkpoint; give one"
        )
    state = folder / "teacher" / "state.safetensors"
    if state.exists():
        raise MRTError(f"{state} exists already and would be lost; give another run folder with --run")
    save_autoencoder(folder / "autoencoder", checkpoint.autoencoder)
    checkpoint.text_encoder.tokenizer.save(str(folder / "tokenizer.json"))
    weights = {f"transformer.{name}": tensor for name, tensor in checkpoint.transformer.state_dict().items()}
    weights |= {f"text_encoder.{name}": tensor for name, tensor in checkpoint.text_encoder.state_dict().items()}
    tensors = {f"{kind}.{name}": tensor.clone() for kind in ("model", "ema") for name, tensor in weights.items()}
    save_atomically(tensors, state, {"training": json.dumps({"step": 0})})
