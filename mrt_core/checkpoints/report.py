"""The report of what a checkpoint is, and whether it can be loaded."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from tokenizers import Tokenizer

from ..errors import MRTError
from ..weights.quantisation import LayerFormat, Quantisation
from .foreign_files import ART_MODEL
from .info import CheckpointInfo

log = logging.getLogger(__name__)

FORMATS = "plain, fp8 or int8 with scales, ComfyUI's float8 or GGUF's Q2_K to Q8_0 or IQ4 weights"
BF16_OR_SMALLER = (
    "use the bf16 version of the file, or for a card of 8 GB a GGUF one, Q4_K_M (13 GB) or Q2_K (7 GB), of which --memory 8GB "
    "streams what does not fit"
)
QWEN_HEAD_DIM = 128  # the one whose rotary axes are known without metadata


class Family(StrEnum):
    """What kind of checkpoint a file is; Qwen-Image and the first Qwen-Image-Edit models have the same tensors."""

    TEACHER = "MRT teacher"
    STUDENT = "MRT student"
    QWEN_IMAGE = "Qwen-Image or Qwen-Image-Edit"
    QWEN_IMAGE_EDIT = "Qwen-Image-Edit"  # where a folder says so
    QWEN_IMAGE_EDIT_2511 = "Qwen-Image-Edit-2511"
    QWEN_IMAGE_LAYERED = "Qwen-Image-Layered"
    ART = ART_MODEL
    OTHER = "other"


NOT_OURS = {Family.ART, Family.OTHER}


@dataclass(frozen=True)
class CheckpointReport:
    """What `inspect_checkpoint` found; `str` says it in one line. Names are as in the file, but for those of `packed`."""

    path: Path
    family: Family
    what: str  # the family, or what the file is if it is none of ours
    dtypes: tuple[str, ...]  # in the format's spelling, such as BF16 or Q4_K
    tensor_count: int
    size: int  # bytes
    parts: tuple[str, ...] = ()  # besides the transformer
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()  # and left out
    misleading: tuple[str, ...] = ()  # unexpected, and without them the weights would mean something else
    misshapen: tuple[str, ...] = ()
    quantisation: Quantisation | None = None  # where the weights are not plain numbers
    packed: Mapping[str, LayerFormat] = field(default_factory=dict, repr=False)  # the linear layers among them
    remedy: str = ""  # where the file cannot be loaded
    info: CheckpointInfo | None = None
    prefix: str = ""  # of the transformer's tensors
    tokenizer: Tokenizer | None = field(default=None, repr=False, compare=False)

    @property
    def differences(self) -> str:
        """Missing, unexpected and misshapen tensors in words; empty for a complete file."""
        groups = (
            (self.missing, "missing"),
            (self.unexpected + self.misleading, "unexpected"),
            (self.misshapen, "of another shape"),
        )
        return ", ".join(f"{len(names)} {word} ({_shorten(names)})" for names, word in groups if names)

    @property
    def fits(self) -> bool:
        """Whether every weight of the model is there; tensors that nothing needs may be too."""
        return not (self.missing or self.misleading or self.misshapen)

    @property
    def verdict(self) -> str:
        """Whether the tensors fit, in words."""
        if not self.fits:
            return self.differences
        return (
            f"complete, but {len(self.unexpected)} not used ({_shorten(self.unexpected)})"
            if self.unexpected
            else "complete"
        )

    @property
    def _is_foreign(self) -> bool:
        return self.quantisation is not None and self.quantisation.foreign

    def __str__(self) -> str:
        unit, scale = ("GiB", 2**30) if self.size >= 2**30 else ("MiB", 2**20)
        facts = [
            f"{self.path.name}: {self.what}",
            f"{self.tensor_count} tensors",
            "/".join(self.dtypes),
            f"{self.size / scale:.1f} {unit}",
            *([f"with {' and '.join(self.parts)}"] if self.parts else []),
            *([f"quantised as {self.quantisation}"] if self.quantisation else []),
            *([self.verdict] if self.family not in NOT_OURS and not self._is_foreign else []),
        ]
        return ", ".join(facts)


def _shorten(names: tuple[str, ...], limit: int = 3) -> str:
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")


def require_loadable(report: CheckpointReport) -> CheckpointInfo:
    """What a checkpoint says about itself; raises MRTError, in one sentence, when its weights cannot be used."""
    name, what = report.path.name, report.what
    if report.family in NOT_OURS:
        raise MRTError(
            f"{name} is {what}, but a file or folder with an MRT or Qwen-Image transformer was expected; {report.remedy}"
        )
    if report.quantisation and report.quantisation.refused:
        refused = ", ".join(report.quantisation.refused)
        raise MRTError(f"{name} is {what} quantised as {refused}, but {FORMATS} were expected; {BF16_OR_SMALLER}")
    if not report.fits:
        raise MRTError(f"{name} is {what}, but its tensors do not fit: {report.differences}; {report.remedy}")
    if report.info is None:
        raise MRTError(
            f"{name} is {what} of an unknown size: without metadata only heads of {QWEN_HEAD_DIM} channels are known; "
            "use a file that carries the metadata `mrt`, or a diffusers folder with its config.json"
        )
    if report.unexpected:
        log.warning(
            "%s has %d tensors that %s has not, such as %s; they are left out",
            name, len(report.unexpected), what, report.unexpected[0],
        )  # fmt: skip
    return report.info
