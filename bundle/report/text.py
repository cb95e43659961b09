"""Numbers, words and tables as HTML."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

__all__ = ["definitions", "number", "share", "table"]


def number(value: Any, digits: int = 3) -> str:
    """A figure with a true minus sign; a dash where it is undefined or missing."""
    value = math.nan if value is None else float(value)
    if not math.isfinite(value):
        return "–"
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text.replace("-", "−")


def share(part: Any, whole: Any) -> str:
    """A part of a whole in per cent; a dash where it is undefined."""
    part, whole = (math.nan if v is None else float(v) for v in (part, whole))
    return f"{number(100 * part / whole, 0)} %" if whole > 0 and math.isfinite(part) else "–"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], strong: int | None = None) -> str:
    """A table of HTML cells in a frame that scrolls; the first column names the row, column `strong` stands out."""
    top = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    body = []
    for row in rows:
        cells = [f'<th scope="row">{row[0]}</th>']
        cells += [f'<td class="strong">{c}</td>' if i == strong else f"<td>{c}</td>" for i, c in enumerate(row[1:], 1)]
        body.append(f"<tr>{''.join(cells)}</tr>")
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'


def definitions(pairs: Iterable[tuple[str, Any]]) -> str:
    """Terms and what they are, as plain text; a term whose value is None or empty is left out."""
    rows = [f"<dt>{escape(k)}</dt><dd>{escape(str(v))}</dd>" for k, v in pairs if v is not None and str(v) != ""]
    return f"<dl>{''.join(rows)}</dl>" if rows else ""
