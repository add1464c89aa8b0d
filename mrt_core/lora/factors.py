"""Which parts make up a change of each kind, what their shapes must be, and of which rank it is; told from headers alone."""

from collections.abc import Collection, Mapping
from enum import StrEnum
from math import prod

from ..weights.safetensors_header import TensorEntry
from .names import Part

Entries = Mapping[Part, TensorEntry]


class Kind(StrEnum):
    """How the change of a weight is written (`adapters` has the formulas)."""

    LORA = "LoRA"
    LOHA = "LoHa"
    LOKR = "LoKr"


LOHA_PARTS = (Part.HADA_W1_A, Part.HADA_W1_B, Part.HADA_W2_A, Part.HADA_W2_B)
PARTS = {
    Kind.LORA: {Part.DOWN, Part.UP},
    Kind.LOHA: {*LOHA_PARTS, Part.HADA_T1, Part.HADA_T2},
    Kind.LOKR: {part for part in Part if part.startswith("lokr")},
}
LOKR_SIDES = ((Part.LOKR_W1, Part.LOKR_W1_A, Part.LOKR_W1_B), (Part.LOKR_W2, Part.LOKR_W2_A, Part.LOKR_W2_B))


def kinds_of(parts: Collection[Part]) -> list[Kind]:
    """The kinds that the parts of one layer belong to; more than one where a file is wrong."""
    return [kind for kind, own in PARTS.items() if own & set(parts)]


def missing_parts(kind: Kind, parts: Collection[Part]) -> list[Part]:
    """The parts without which a change of this kind is not whole."""
    if kind is Kind.LORA:
        needed = [Part.DOWN, Part.UP]
    elif kind is Kind.LOHA:
        cores = [Part.HADA_T1, Part.HADA_T2]
        needed = [*LOHA_PARTS, *(cores if set(cores) & set(parts) else [])]
    else:
        needed = [part for whole, *factors in LOKR_SIDES for part in ([whole] if whole in parts else factors)]
    return [part for part in needed if part not in parts]


def rank_of(kind: Kind, entries: Entries) -> int | None:
    """The rank that alpha is divided by; None for a LoKr of two whole matrices, which has none and is of the scale 1."""
    if kind is Kind.LORA:
        return _rows(entries[Part.DOWN])
    if kind is Kind.LOHA:
        return _rows(entries[Part.HADA_W1_B])
    factor = next((part for part in (Part.LOKR_W1_B, Part.LOKR_W2_B) if part in entries), None)
    return None if factor is None else _rows(entries[factor])


def fits(kind: Kind, entries: Entries, rows: int, columns: int) -> bool:
    """Whether the factors of a change belong together and make a matrix (rows, columns)."""
    shapes = {part: entry.shape for part, entry in entries.items()}
    if kind is Kind.LORA:
        return _product(shapes[Part.UP], shapes[Part.DOWN]) == (rows, columns)
    if kind is Kind.LOHA:
        pairs = zip(LOHA_PARTS[::2], LOHA_PARTS[1::2], (Part.HADA_T1, Part.HADA_T2), strict=True)
        return all(_product(shapes[a], shapes[b], shapes.get(core)) == (rows, columns) for a, b, core in pairs)
    sides = []
    for (whole, a, b), core in zip(LOKR_SIDES, (None, Part.LOKR_T2), strict=True):
        sides.append(_matrix(shapes[whole]) if whole in shapes else _product(shapes[a], shapes[b], shapes.get(core)))
    return None not in sides and (prod(side[0] for side in sides), prod(side[1] for side in sides)) == (rows, columns)


def _rows(entry: TensorEntry) -> int:
    return entry.shape[0] if entry.shape else 0


def _matrix(shape: tuple[int, ...]) -> tuple[int, int] | None:
    """The sides of a matrix, also of one that is written as a convolution of one pixel; None for anything else."""
    return shape[:2] if len(shape) >= 2 and prod(shape[2:]) == 1 and min(shape[:2]) > 0 else None


def _product(a: tuple[int, ...], b: tuple[int, ...], core: tuple[int, ...] | None = None) -> tuple[int, int] | None:
    """The sides of a @ b, or with a core of a.T @ core @ b; None where they do not belong together."""
    if len(a) != 2 or len(b) != 2 or min(a + b) < 1:
        return None
    if core is None:
        return (a[0], b[1]) if a[1] == b[0] else None
    return (a[1], b[1]) if _matrix(core) == (a[0], b[0]) else None
