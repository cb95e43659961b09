"""Write the report of a run: one HTML file that opens offline."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from ..errors import InputError, require_extra
from ..files.atomic import replacing
from ..files.ownership import check_output
from .genes import genes_section
from .headline import headline_section
from .maps import maps_section
from .protocol import limits_section, protocol_section
from .run import Run, read_run
from .scales import scales_section
from .style import STYLE
from .training_curves import training_section

__all__ = ["write_report"]


def write_report(run: str | Path, out: str | Path | None = None, genes: Sequence[str] = ()) -> Path:
    """Write a run's figures, maps, curves and protocol as one page without any outside reference.

    What is missing from the run folder, or has moved since, is left out with a sentence.

    Args:
        run: the run folder, with at least one evaluation.
        out: the file to write, `report.html` in the run folder by default.
        genes: whose maps are drawn; by default the best, the median and the worst predicted.

    Returns:
        The file written.

    Raises:
        InputError: if `out` does not end in .html, there is no such run, nothing was evaluated, a file of the run is
            malformed, or a gene was not scored.
    """
    path = Path(out) if out is not None else Path(run) / "report.html"
    if path.suffix != ".html":
        raise InputError(f"{path}: a report is a page; end its name in .html.")
    require_extra("matplotlib", "The report", "report")
    content = read_run(run)
    check_output(path)
    page = _page(content, genes)
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def _page(run: Run, genes: Sequence[str]) -> str:
    sections = (
        headline_section(run),
        scales_section(run),
        maps_section(run, genes),
        genes_section(run),
        training_section(run),
        protocol_section(run),
        limits_section(run),
    )
    body = "\n".join(f"<section>{section}</section>" for section in sections).replace(" µm", "\u00a0µm")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>PixNet report of {escape(run.folder.name)}</title><style>{STYLE}</style></head>\n"
        f"<body><main>{body}<footer>Written by <code>pixnet report</code> from the files in the run folder. "
        "The page holds pictures of the slides: mind the data set’s licence before passing it on.</footer>"
        "</main></body></html>\n"
    )
