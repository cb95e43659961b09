"""Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["table"]


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table; an entry that is None is empty."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join("" if v is None else str(v) for v in line) + " |" for line in lines)
