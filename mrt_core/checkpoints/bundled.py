"""The small checkpoints that come with this package."""

from pathlib import Path

from ..errors import MRTError

TEACHER = "mrt-tiny"
STUDENT = "mrt-tiny-student"  # of 4 or 8 steps, without guidance


def bundled_checkpoint(name: str = TEACHER) -> Path:
    """The path of a checkpoint that comes with this package; raises MRTError when it is not installed."""
    path = Path(__file__).parents[1] / "data" / f"{name}.safetensors"
    if not path.is_file():
        raise MRTError(
            f"the bundled checkpoint {path} is missing; install this package again with its data files, or give the path "
            "of another checkpoint"
        )
    return path


def find_checkpoint(given: str | Path | None) -> Path:
    """The path that is given, or that of the bundled checkpoint that is named; None names TEACHER."""
    if given is None:
        return bundled_checkpoint()
    path = Path(given)
    return bundled_checkpoint(str(given)) if str(given) in (TEACHER, STUDENT) and not path.exists() else path
