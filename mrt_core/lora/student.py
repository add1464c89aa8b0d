"""A student as a LoRA: the file says under the metadata key `mrt` how to sample the teacher with it.

The JSON is {"version": 1, "sampling": {"steps", "sigmas" or "shift", "solver", "cfg": 1.0}}, and untrusted input.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from ..checkpoints.info import Sampling, read_sampling
from ..errors import MRTError
from ..weights.keys import INFO_KEY

STUDENT_CFG = 1.0
VERSION = 1  # of the JSON


def sampling_to_json(sampling: Sampling) -> str:
    """What a student's LoRA carries; raises MRTError for a sampling with guidance."""
    return json.dumps({"version": VERSION, "sampling": asdict(_require_student(sampling))})


def sampling_from_json(text: str) -> Sampling:
    """Parse and validate what `sampling_to_json` wrote; raises MRTError with the setting, its value and the rule."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict) or not isinstance(values.get("sampling"), dict):
        raise MRTError("the LoRA's metadata `mrt` is not a JSON object with `sampling`; download the file again")
    if values.get("version") != VERSION:
        raise MRTError(
            f"the LoRA's metadata `mrt` has version {values.get('version')!r}, but {VERSION} was expected; update this package"
        )
    return _require_student(read_sampling({"cfg": STUDENT_CFG} | values["sampling"]))


def read_student_sampling(path: Path, metadata: Mapping[str, str]) -> Sampling | None:
    """How a student's LoRA is meant to be sampled; None where the file does not say. Raises MRTError."""
    if INFO_KEY not in metadata:
        return None
    try:
        return sampling_from_json(metadata[INFO_KEY])
    except MRTError as error:
        raise MRTError(f"{path.name}: {error}") from error


def _require_student(sampling: Sampling) -> Sampling:
    if sampling.cfg != STUDENT_CFG:
        raise MRTError(
            f"the LoRA's setting cfg is {sampling.cfg:g}, but a student has its guidance built in and must have "
            f"{STUDENT_CFG:g}; use the file that belongs to this version"
        )
    return sampling
