"""What a LoRA file is, in one line: naming, ranks, layers, alpha, and which models it fits."""

from dataclasses import dataclass, replace
from pathlib import Path

from ..checkpoints.bundled import bundled_checkpoint
from ..checkpoints.detection import inspect_checkpoint
from ..checkpoints.info import Sampling
from ..errors import MRTError
from ..models.configs import TransformerConfig
from ..weights.safetensors_header import SafetensorsHeader, read_header
from .factors import Kind
from .names import Part, block_count, other_kind, other_model, split_name
from .resolution import ResolvedNames, resolve_names, resolve_tensors, split_file
from .scale import read_scales
from .student import read_student_sampling

QWEN_SIZE = "Qwen-Image and models of its size"
LAYERED = "Qwen-Image-Layered"  # named where a LoRA fits it alone


@dataclass(frozen=True)
class LoraReport:
    """What `inspect_lora` found; `str` says it in one line."""

    path: Path
    what: str
    dtypes: tuple[str, ...]  # in the format's spelling, such as BF16
    size: int  # bytes
    naming: tuple[str, ...] = ()  # as in the file: prefixes, then suffixes
    layers: int = 0  # that are changed by a product of factors
    ranks: tuple[int, ...] = ()  # of those among them that have one
    differences: int = 0  # weights and biases that are changed as a whole
    alphas: tuple[float, ...] = ()  # scale x rank, of the layers that have a pair; empty where it fits no model
    sampling: Sampling | None = None  # of a student
    fits: tuple[str, ...] = ()  # names of models
    text_encoder: tuple[str, ...] = ()  # tensors for a text encoder, which are not used
    misfits: tuple[str, ...] = ()  # what is left out of the first model that it fits, in words

    def __str__(self) -> str:
        facts = [
            f"{self.path.name}: {self.what}",
            *([f"{self.sampling.steps} steps of {self.sampling.solver}"] if self.sampling else []),
            *([f"named {' '.join(self.naming)}"] if self.naming else []),
            *([f"{self.layers} layers"] if self.layers else []),
            *([f"rank {_range(self.ranks)}"] if self.ranks else []),
            *([f"alpha {_range(self.alphas)}"] if self.alphas else []),
            *([f"{self.differences} whole differences"] if self.differences else []),
            *([f"{len(self.text_encoder)} tensors for a text encoder that are not used"] if self.text_encoder else []),
            *([f"{len(self.misfits)} layers left out ({self.misfits[0]})"] if self.misfits else []),
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
    parsed = filter(None, map(split_name, names))
    return any(name.part is not Part.ALPHA for name in parsed) or other_kind(names) is not None


def inspect_lora(path: Path | str) -> LoraReport:
    """Tell what a LoRA file is; of its tensors only the alphas are read.

    Raises MRTError for a file that is damaged, lacks half a pair, or whose metadata cannot be ours.
    """
    path = Path(path)
    header = read_header(path)
    dtypes = tuple(sorted({entry.dtype for entry in header.tensors.values()}))
    public = TransformerConfig()
    layered = replace(public, additional_t_cond=True, condition_embedding=False)
    named = replace(public, num_layers=max(public.num_layers, block_count(header.tensors)), additional_t_cond=True)
    if strangers := split_file(header, named).strangers:
        return LoraReport(path, _describe_stranger(strangers), dtypes, header.size)
    match = resolve_names(path.name, header, named)
    candidates = {QWEN_SIZE: public, LAYERED: layered, **_bundled()}
    found = {name: fit for name, config in candidates.items() if (fit := _fit(path.name, header, config))}
    if QWEN_SIZE in found:
        found.pop(LAYERED, None)  # which is of that size
    match = next(iter(found.values()), match)
    scales = read_scales(path, header, match) if found else {}
    sampling = read_student_sampling(path, header.metadata)
    return LoraReport(
        path,
        f"{_kind_name(match)} that makes a student" if sampling else _kind_name(match),
        dtypes,
        header.size,
        naming=(*(f"{prefix}..." for prefix in match.prefixes if prefix), *match.suffixes),
        layers=len(match.kinds),
        ranks=tuple(match.ranks.values()),
        differences=sum(part in (Part.WEIGHT, Part.BIAS) for _, part in match.tensors),
        alphas=tuple(scale * match.ranks[layer] for layer, scale in scales.items()),
        sampling=sampling,
        fits=tuple(found),
        text_encoder=match.text_encoder,
        misfits=match.misfits,
    )


def _kind_name(match: ResolvedNames) -> str:
    """What the file holds: a LoRA, or changes of other kinds."""
    kinds = set(map(str, match.kinds.values())) or {str(Kind.LORA)}
    if any(part is Part.MAGNITUDE for _, part in match.tensors):
        kinds = (kinds - {str(Kind.LORA)}) | {"DoRA"}
    return "a LoRA" if kinds == {str(Kind.LORA)} else f"a LoRA of the kind {' and '.join(sorted(kinds))}"


def _describe_stranger(strangers: list[str]) -> str:
    if model := other_model(strangers):
        return f"a LoRA for another model, {model}"
    if kind := other_kind(strangers):
        return f"an adapter of the kind {kind[0]}, which cannot be used"
    return f"a LoRA for an unknown model, with tensors such as {strangers[0]}"


def _fit(file: str, header: SafetensorsHeader, config: TransformerConfig) -> ResolvedNames | None:
    try:
        return resolve_tensors(file, header, config)
    except MRTError:
        return None


def _bundled() -> dict[str, TransformerConfig]:
    """The bundled checkpoint's sizes by its name; empty where it is not installed."""
    try:
        path = bundled_checkpoint()
    except MRTError:
        return {}
    info = inspect_checkpoint(path).info
    return {path.stem: info.transformer} if info else {}
