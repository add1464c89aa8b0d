"""Which checkpoints there are to choose from, and a chosen file as the state dicts of its parts."""

from pathlib import Path
from typing import NamedTuple

import folder_paths
from tokenizers import Tokenizer
from torch import Tensor

from ..mrt_core.checkpoint import bundled_checkpoint
from ..mrt_core.checkpoint_info import CheckpointInfo
from ..mrt_core.detection import (
    AUTOENCODER_PREFIX,
    TEXT_PREFIX,
    inspect_checkpoint,
    require_loadable,
    split_names,
)
from ..mrt_core.errors import MRTError
from ..mrt_core.files import read_header, read_tensors
from ..mrt_core.foreign_files import ZERO_TIMESTEP_MARKER

BUNDLED = "mrt-tiny (bundled)"
FOLDERS = ("mrt", "diffusion_models")  # kinds of ComfyUI's model folders


def register_folder() -> None:
    """Make `models/mrt` a model folder that ComfyUI knows, beside those that extra_model_paths.yaml may add to it."""
    folder_paths.add_model_folder_path("mrt", str(Path(folder_paths.models_dir) / "mrt"))
    paths, extensions = folder_paths.folder_names_and_paths["mrt"]
    folder_paths.folder_names_and_paths["mrt"] = (paths, extensions or {".safetensors"})


def checkpoint_names() -> list[str]:
    """The bundled checkpoint, then the files of `models/mrt` and `models/diffusion_models`."""
    names = [name for kind in FOLDERS for name in folder_paths.get_filename_list(kind)]
    return [BUNDLED, *dict.fromkeys(name for name in names if name.endswith(".safetensors"))]


def checkpoint_path(name: str) -> Path:
    """The file behind a name of `checkpoint_names`; raises MRTError when there is none."""
    if name == BUNDLED:
        return bundled_checkpoint()
    for kind in FOLDERS:
        if name in folder_paths.get_filename_list(kind):
            return Path(folder_paths.get_full_path_or_raise(kind, name))
    raise MRTError(
        f"the model {name!r} is in neither models/mrt nor models/diffusion_models; put the file there, or choose another"
    )


class CheckpointParts(NamedTuple):
    """State dicts of a file's parts, each without its prefix and empty where the part is absent."""

    info: CheckpointInfo
    transformer: dict[str, Tensor]
    autoencoder: dict[str, Tensor]
    text_encoder: dict[str, Tensor]
    tokenizer: Tokenizer | None


def read_parts(path: Path) -> CheckpointParts:
    """All weights of a checkpoint as they are stored; raises MRTError, in one sentence, for a file that is none."""
    report = inspect_checkpoint(path)
    info = require_loadable(report)
    names = split_names(read_header(path).tensors, report.prefix)

    def read(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): tensor for name, tensor in read_tensors(path, names[prefix], "cpu")}

    transformer = {name: tensor for name, tensor in read(report.prefix).items() if name != ZERO_TIMESTEP_MARKER}
    text = read(TEXT_PREFIX) if info.text_encoder else {}
    return CheckpointParts(info, transformer, read(AUTOENCODER_PREFIX), text, report.tokenizer)
