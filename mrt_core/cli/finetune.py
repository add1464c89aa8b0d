"""`mrt train prompts` and `mrt train finetune`: full-size checkpoints, trained on from public weights."""

import argparse
from pathlib import Path

import torch

from ..atomic import refuse_existing
from ..checkpoints.qwen_text import load_qwen_text_encoder
from ..errors import MRTError
from ..training.finetune import Finetuning, finetune
from ..training.low_rank import LowRankTraining
from ..training.prompts import write_text_states
from ..training.sharding import is_first_process
from ..training.teacher import TeacherTraining
from .common import DTYPES
from .shares import add_shares, task_shares

LEARNING_RATES = {True: 1e-4, False: 1e-5}  # of a LoRA; of all weights
LARGEST_RANK = 1024
MEMORY = (  # parameters x bytes: 20,430,404,160 x 2, 293,538,816 x 20, 20,430,404,160 x 20
    "Memory at Qwen-Image's size, but for activations: 40.9 GB and, at rank 32, 5.9 GB for a LoRA, which one card of 80 GB "
    "holds; 408.6 GB for all weights, over all devices with --sharded. docs/training.md has the figures for activations."
)


def add_steps(steps, add_step) -> None:
    """Register both steps; `add_step` makes a parser with the options that all steps have."""
    prompts = add_step(
        steps, "prompts", run_prompts, "compute the text states of all samples' prompts, for full-size checkpoints"
    )
    prompts.add_argument("--text-encoder", required=True, metavar="PATH", help="Qwen2.5-VL, a file or folder")
    prompts.add_argument("--tokenizer", metavar="FOLDER", help="its tokenizer, unless a folder beside it holds that")
    prompts.add_argument(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu", help="default: %(default)s"
    )
    prompts.add_argument("--dtype", choices=DTYPES, default="bf16", help="of the text encoder, default: %(default)s")
    _add_samples(prompts)

    tune = add_step(
        steps, "finetune", run_finetune, "train a checkpoint on, as a whole or with a LoRA; works under torchrun"
    )
    tune.epilog = MEMORY
    tune.add_argument("checkpoint", type=Path, help="an MRT checkpoint, such as `mrt init` writes")
    tune.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="the LoRA or the new checkpoint")
    tune.add_argument("--overwrite", action="store_true", help="replace the file if it exists")
    _add_samples(tune)
    tune.add_argument("--lora-rank", type=int, metavar="R", help="train a LoRA of this rank; default: all weights")
    tune.add_argument("--lora-alpha", type=float, metavar="A", help="scale of the LoRA times its rank; default: R")
    tune.add_argument("--steps", type=int, default=2000, help="default: %(default)s")
    tune.add_argument("--batch", type=int, default=1, help="samples per device and step, default: %(default)s")
    tune.add_argument("--learning-rate", type=float, help="of Adam; default: 1e-4 for a LoRA, 1e-5 for all weights")
    tune.add_argument(
        "--decay-share", type=float, default=0.0, help="last part of the steps over which the learning rate falls to 0"
    )
    add_shares(tune)
    tune.add_argument("--sharded", action="store_true", help="under torchrun: shard the model over the devices (FSDP2)")
    tune.add_argument(
        "--checkpoint-activations",
        action="store_true",
        help="compute activations again in the backward pass instead of keeping them: less memory, a third more time",
    )
    tune.add_argument(
        "--base-dtype",
        choices=("bf16", "fp32"),
        default="bf16",
        help="of the frozen weights with --lora-rank, default: %(default)s",
    )
    tune.add_argument("--dtype", choices=DTYPES, help="of the file; default: the checkpoint's, for a LoRA bf16")
    tune.add_argument("--save-every", type=int, default=TeacherTraining.save_every, metavar="STEPS",
                      help="how often the run's state is kept, default: %(default)s")  # fmt: skip


def _add_samples(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--samples", type=Path, metavar="FOLDER", help="of shards; default: samples in the run folder")


def run_prompts(options: argparse.Namespace) -> None:
    device, dtype = options.device, DTYPES[options.dtype]
    encoder = load_qwen_text_encoder(options.text_encoder, options.tokenizer, device, dtype)
    write_text_states(options.samples or options.folder / "samples", encoder)


def run_finetune(options: argparse.Namespace) -> None:
    refuse_existing(options.output, options.overwrite)
    rate = options.learning_rate
    training = TeacherTraining(
        steps=options.steps,
        batch=options.batch,
        learning_rate=LEARNING_RATES[options.lora_rank is not None] if rate is None else rate,
        decay_share=options.decay_share,
        save_every=options.save_every,
        shares=task_shares(options),
        matrices=False,
        sharded=options.sharded,
    )
    settings = Finetuning(
        training, _low_rank(options), DTYPES[options.base_dtype], recompute=options.checkpoint_activations
    )
    samples = options.samples or options.folder / "samples"
    dtype = DTYPES[options.dtype] if options.dtype else None
    finetune(options.checkpoint, samples, options.folder / "finetune", options.output, settings, dtype)
    if is_first_process():
        print(options.output)


def _low_rank(options: argparse.Namespace) -> LowRankTraining | None:
    if options.lora_rank is None:
        return None
    if not 1 <= options.lora_rank <= LARGEST_RANK:
        raise MRTError(f"--lora-rank is {options.lora_rank}, but it must lie in 1..{LARGEST_RANK}; 16 and 32 are usual")
    alpha = options.lora_rank if options.lora_alpha is None else options.lora_alpha
    if not alpha > 0:
        raise MRTError(f"--lora-alpha is {alpha}, but it must be positive; the rank is usual, half of it gentler")
    return LowRankTraining(options.lora_rank, alpha)
