"""Figures as Markdown."""

from collections.abc import Mapping, Sequence


def markdown(heads: Sequence[str], rows: Mapping[str, Sequence[str]]) -> str:
    """A Markdown table: a column without a head for the names of the rows, then one per head."""
    lines = [["", *heads], *([name, *cells] for name, cells in rows.items())]
    first, *others = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([first.replace("|  |", "| |", 1), "|---" * (len(heads) + 1) + "|", *others])


def percent(share: float | None) -> str:
    """A share as a percentage with one digit; a dash where there was nothing to count."""
    return "-" if share is None else f"{100 * share:.1f} %"
