"""The small checkpoint that comes with this package."""

from pathlib import Path

from .errors import MRTError

BUNDLED_NAME = "mrt-tiny.safetensors"


def bundled_checkpoint() -> Path:
    """The path of the small checkpoint that comes with this package; raises MRTError when it is not installed."""
    path = Path(__file__).parent / "data" / BUNDLED_NAME
    if not path.is_file():
        raise MRTError(
            f"the bundled checkpoint {path} is missing; install this package again with its data files, or give the path "
            "of another checkpoint"
        )
    return path
