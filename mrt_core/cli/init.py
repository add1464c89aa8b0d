"""`mrt init`: an MRT checkpoint, ready to fine-tune, from Qwen-Image or Qwen-Image-Layered."""

import argparse
from pathlib import Path

from ..atomic import refuse_existing
from ..checkpoints.checkpoint import inspect_checkpoint
from ..checkpoints.initialisation import initialise_checkpoint
from ..models.modes import REGION_MODES
from .common import DTYPES


def add_commands(commands) -> None:
    """Register the command."""
    text = "write an MRT checkpoint from Qwen-Image or Qwen-Image-Layered, ready to fine-tune (docs/training.md)"
    parser = commands.add_parser("init", help=text, description=text)
    parser.add_argument("source", type=Path, help="the public model: a file, an index of shards, a folder or GGUF")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE")
    parser.add_argument(
        "--vae", type=Path, metavar="FILE", help="the autoencoder, best Qwen-Image-Layered's; default: the source's own"
    )
    parser.add_argument(
        "--dtype", choices=DTYPES, help="precision of the weights; default: as stored, and bf16 for quantised ones"
    )
    parser.add_argument(
        "--region-mode", choices=REGION_MODES, default="halo", help="how regions are encoded, default: %(default)s"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it exists")
    parser.set_defaults(run=run_init)


def run_init(options: argparse.Namespace) -> None:
    refuse_existing(options.output, options.overwrite)
    dtype = DTYPES[options.dtype] if options.dtype else None
    made = initialise_checkpoint(options.source, options.output, options.vae, dtype, options.region_mode)
    print(inspect_checkpoint(options.output))
    print("it makes no layers of its own yet; train it on with `mrt train finetune`")
    if made.quantised:
        print(f"the source is quantised as {made.quantised}; its plain version would be the better start")
    if made.widened:
        print(
            "the autoencoder knew no transparency: its alpha channel is new, so that all comes out opaque until it is trained; "
            "Qwen-Image-Layered's would be the better start (--vae)"
        )
