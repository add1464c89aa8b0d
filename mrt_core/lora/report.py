"""What a LoRA file is, in one line: naming, ranks, layers, alpha, and which models it fits."""

from dataclasses import dataclass, replace
from pathlib import Path

from ..checkpoints.bundled import bundled_checkpoint
from ..checkpoints.detection import inspect_checkpoint
from ..checkpoints.info import Sampling
from ..errors import MRTError
from ..models.configs import TransformerConfig
from ..weights.safetensors_header import SafetensorsHeader, read_header
from .names import PAIR_SUFFIXES, Part, block_count, other_kind, other_model
from .resolution import find_strangers, resolve_names, resolve_tensors
from .scale import read_scales
from .student import read_student_sampling

QWEN_SIZE = "Qwen-Image and models of its size"


@dataclass(frozen=True)
class LoraReport:
    """What `inspect_lora` found; `str` says it in one line."""

    path: Path
    what: str
    dtypes: tuple[str, ...]  # in the format's spelling, such as BF16
    size: int  # bytes
    naming: tuple[str, ...] = ()  # as in the file: prefixes, then suffixes
    ranks: tuple[int, ...] = ()  # of the layers that have a pair
    differences: int = 0  # weights and biases that are changed as a whole
    alphas: tuple[float, ...] = ()  # scale x rank, of the layers that have a pair; empty where it fits no model
    sampling: Sampling | None = None  # of a student
    fits: tuple[str, ...] = ()  # names of models

    def __str__(self) -> str:
        facts = [
            f"{self.path.name}: {self.what}",
            *([f"{self.sampling.steps} steps of {self.sampling.solver}"] if self.sampling else []),
            *([f"named {' '.join(self.naming)}"] if self.naming else []),
            *([f"{len(self.ranks)} layers, rank {_range(self.ranks)}"] if self.ranks else []),
            *([f"alpha {_range(self.alphas)}"] if self.alphas else []),
            *([f"{self.differences} whole differences"] if self.differences else []),
            "/".join(self.dtypes),
            f"{self.size / 2**20:.1f} MiB",
            f"fits {' and '.join(self.fits)}" if self.fits else f"fits neither {QWEN_SIZE} nor the bundled model",
        ]
        return ", ".join(facts)


def _range(values: tuple[float, ...]) -> str:
    low, high = min(values), max(values)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def is_lora(path: Path) -> bool:
    """Whether a file that is no checkpoint holds a LoRA or another kind of adapter, as `.safetensors`."""
    try:
        names = read_header(path).tensors
    except MRTError:
        return False  # another kind of file, or a damaged one: inspect_checkpoint says which
    pairs = tuple(suffix for pair in PAIR_SUFFIXES for suffix in pair)
    return any(name.endswith(pairs) for name in names) or other_kind(names) is not None


def inspect_lora(path: Path | str) -> LoraReport:
    """Tell what a LoRA file is; of its tensors only the alphas are read.

    Raises MRTError for a file that is damaged, lacks half a pair, or whose metadata cannot be ours.
    """
    path = Path(path)
    header = read_header(path)
    dtypes = tuple(sorted({entry.dtype for entry in header.tensors.values()}))
    public = TransformerConfig()
    named = replace(public, num_layers=max(public.num_layers, block_count(header.tensors)))
    if strangers := find_strangers(header, named):
        return LoraReport(path, _describe_stranger(strangers), dtypes, header.size)
    match = resolve_names(path.name, header, named)
    candidates = {QWEN_SIZE: public, **_bundled()}
    fits = tuple(name for name, config in candidates.items() if _fits(path.name, header, config))
    scales = read_scales(path, header, match) if fits else {}
    sampling = read_student_sampling(path, header.metadata)
    return LoraReport(
        path,
        "a LoRA that makes a student" if sampling else "a LoRA",
        dtypes,
        header.size,
        naming=(*(f"{prefix}..." for prefix in match.prefixes if prefix), *match.suffixes),
        ranks=tuple(match.ranks.values()),
        differences=sum(part in (Part.WEIGHT, Part.BIAS) for _, part in match.tensors),
        alphas=tuple(scale * match.ranks[layer] for layer, scale in scales.items()),
        sampling=sampling,
        fits=fits,
    )


def _describe_stranger(strangers: list[str]) -> str:
    if model := other_model(strangers):
        return f"a LoRA for another model, {model}"
    if kind := other_kind(strangers):
        return f"an adapter of the kind {kind[0]}, which cannot be used"
    return f"a LoRA for an unknown model, with tensors such as {strangers[0]}"


def _fits(file: str, header: SafetensorsHeader, config: TransformerConfig) -> bool:
    try:
        resolve_tensors(file, header, config)
    except MRTError:
        return False
    return True


def _bundled() -> dict[str, TransformerConfig]:
    """The bundled checkpoint's sizes by its name; empty where it is not installed."""
    try:
        path = bundled_checkpoint()
    except MRTError:
        return {}
    info = inspect_checkpoint(path).info
    return {path.stem: info.transformer} if info else {}
