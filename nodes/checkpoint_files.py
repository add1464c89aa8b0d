"""Which checkpoints there are to choose from, and where a chosen one is."""

from pathlib import Path

import folder_paths

from ..mrt_core.checkpoints.bundled import STUDENT, TEACHER, bundled_checkpoint
from ..mrt_core.errors import MRTError
from ..mrt_core.weights.folders import INDEX_SUFFIX, PIPELINE_FILE, SHARD

BUNDLED = "mrt-tiny (bundled)"
BUNDLED_NAMES = {BUNDLED: TEACHER, "mrt-tiny student, 4 steps (bundled)": STUDENT}
EARLIER_NAMES = {"mrt-tiny student, 8 steps (bundled)": STUDENT}  # of saved workflows
DIFFUSION_MODELS = (
    "mrt_diffusion_models"  # ComfyUI's own folder under a name of ours, to find more kinds of files there
)
FOLDERS = ("mrt", DIFFUSION_MODELS)  # kinds of ComfyUI's model folders
EXTENSIONS = {".safetensors", ".gguf", ".json"}


def register_folder() -> None:
    """Make `models/mrt` a model folder that ComfyUI knows, beside those that extra_model_paths.yaml may add to it.

    ComfyUI lists neither GGUF files nor indices of shards in `models/diffusion_models`, so it is listed once more for us.
    """
    folder_paths.add_model_folder_path("mrt", str(Path(folder_paths.models_dir) / "mrt"))
    paths, extensions = folder_paths.folder_names_and_paths["mrt"]
    folder_paths.folder_names_and_paths["mrt"] = (paths, extensions or EXTENSIONS)
    shared, _ = folder_paths.folder_names_and_paths["diffusion_models"]  # later additions are seen too
    folder_paths.folder_names_and_paths[DIFFUSION_MODELS] = (shared, EXTENSIONS)


def checkpoint_names() -> list[str]:
    """The bundled checkpoints, then what `models/mrt` and `models/diffusion_models` hold: files, indices and folders."""
    names = [name for kind in FOLDERS for name in folder_paths.get_filename_list(kind)]
    return [*BUNDLED_NAMES, *dict.fromkeys(name for name in names if _is_checkpoint(name))]


def _is_checkpoint(name: str) -> bool:
    """Whether a file is one to choose: not a shard, whose index is, and no other JSON file."""
    file = Path(name).name
    if file.endswith(".json"):
        return file.endswith(INDEX_SUFFIX) or file == PIPELINE_FILE
    return file.endswith((".safetensors", ".gguf")) and not SHARD.fullmatch(file)


def checkpoint_path(name: str) -> Path:
    """The file behind a name of `checkpoint_names`; raises MRTError when there is none."""
    bundled = BUNDLED_NAMES | EARLIER_NAMES
    if name in bundled:
        return bundled_checkpoint(bundled[name])
    for kind in FOLDERS:
        if name in folder_paths.get_filename_list(kind):
            return Path(folder_paths.get_full_path_or_raise(kind, name))
    raise MRTError(
        f"the model {name!r} is in neither models/mrt nor models/diffusion_models; put the file there, or choose another"
    )
