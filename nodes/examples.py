"""The example files that the workflow templates open, copied to ComfyUI's input folder once."""

import logging
import shutil
from pathlib import Path

import folder_paths

from ..mrt_core.checkpoints.bundled import bundled_checkpoint

log = logging.getLogger(__name__)

# name in the input folder: name among the bundled demo files
EXAMPLES = {
    "mrt_example_image.png": "image.png",
    "mrt_example_asset.png": "asset.png",
    "mrt_example_document.psd": "document.psd",
    "mrt_example_styled.psd": "styled.psd",
}


def copy_examples() -> None:
    """Put the example files into the input folder where they are missing; one that is there is left as it is."""
    source = bundled_checkpoint().parent / "demo"
    target = Path(folder_paths.get_input_directory())
    for name, original in EXAMPLES.items():
        try:
            if not (target / name).exists():
                target.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source / original, target / name)
        except OSError as error:
            log.warning("The example %s could not be copied to the input folder: %s", name, error)
