"""Weights as users have them: one file, shards, a diffusers folder or GGUF; plain or quantised
(architecture: parameter names, weight files)."""

from pathlib import Path

from ..errors import MRTError
from .folders import INDEX_SUFFIX, PIPELINE_FILE, open_folder, open_index
from .gguf_file import MAGIC, GGUFFile
from .source import SafetensorsFile, WeightSource

__all__ = ["WeightSource", "open_weights"]


def open_weights(path: Path) -> WeightSource:
    """What is at `path`, with headers read and no weights: a safetensors or GGUF file, an index of shards, or a folder.

    Raises MRTError, in one sentence, for anything else and for files that are damaged.
    """
    if path.is_dir():
        return open_folder(path)
    if path.name == PIPELINE_FILE:
        return open_folder(path.parent)
    if path.name.endswith(INDEX_SUFFIX):
        return open_index(path)
    return GGUFFile.open(path) if _is_gguf(path) else SafetensorsFile.open(path)


def _is_gguf(path: Path) -> bool:
    """Whether a file begins like GGUF, whatever it is called."""
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except FileNotFoundError:
        return False  # which the reader of safetensors files reports
    except OSError as error:
        raise MRTError(f"{path} cannot be read ({error.strerror}); check its permissions") from error
