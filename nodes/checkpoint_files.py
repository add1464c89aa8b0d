"""Which checkpoints there are to choose from, and where a chosen one is."""

from pathlib import Path

import folder_paths

from ..mrt_core.checkpoint import bundled_checkpoint
from ..mrt_core.errors import MRTError

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
