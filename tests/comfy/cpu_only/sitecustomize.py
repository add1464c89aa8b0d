"""On PYTHONPATH of a ComfyUI server: lets torchvision and torchaudio built for CUDA be imported beside a CPU-only PyTorch.

Both are needed only to import ComfyUI's own nodes. Where their compiled libraries load, nothing is changed.
"""

import importlib.util
import sys
from importlib.abc import MetaPathFinder
from pathlib import Path
from types import ModuleType

NON_MAXIMUM_SUPPRESSION = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_kept = []  # a torch.library.Library takes its operators along when it is collected


def loads(library: Path) -> bool:
    """Whether PyTorch can load a compiled library."""
    import torch

    try:
        torch.ops.load_library(library)
    except OSError:
        return False
    return True


def declare_vision_operators() -> None:
    """Declare the two operators that torchvision refers to while it is imported."""
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(name + NON_MAXIMUM_SUPPRESSION)
    _kept.append(library)


def replace_audio_extension() -> None:
    """Make torchaudio take its compiled part for absent, as in a build without one."""
    extension = ModuleType("torchaudio._extension")
    extension._IS_TORCHAUDIO_EXT_AVAILABLE = extension._IS_ALIGN_AVAILABLE = False
    extension.fail_if_no_align = lambda function: function
    sys.modules[extension.__name__] = extension


REMEDIES = {"torchvision": ("_C", declare_vision_operators), "torchaudio": ("lib/_torchaudio", replace_audio_extension)}


class Remedies(MetaPathFinder):
    """Applies a remedy before the first import of its package, and leaves the import itself to the others."""

    def find_spec(self, name: str, path=None, target=None) -> None:
        if name not in REMEDIES:
            return
        prefix, remedy = REMEDIES.pop(name)  # popped, so that the next line does not come back here
        spec = importlib.util.find_spec(name)
        folders = (spec and spec.submodule_search_locations) or []
        libraries = [library for folder in folders for library in Path(folder).glob(f"{prefix}*.so")]
        if libraries and not all(map(loads, libraries)):
            remedy()


sys.meta_path.insert(0, Remedies())
