"""Cells of the baselines, which are cheap: all of them in this process."""

from __future__ import annotations

import time
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import Any

from benchmarks import baselines
from benchmarks.baselines import BASELINES, choose
from bundle.data.fit_panel import fit_panel
from bundle.files.atomic import write_json

from .cells import Cell, digest, provenance
from .folds import Fold
from .scoring import figures_of, load_slides

__all__ = ["ROWS", "baseline_cells", "run_baselines"]

#: The result's names of baselines. Of forms that differ in standardising each slide by itself it is the one that
#: does, which is transductive: it scored higher on the inner validation sections of Her2ST's patient C.
ROWS = {
    "ridge_color": "colour ridge, per slide",
    "ridge_encoder": "encoder ridge, per slide",
    "ridge_both": "both ridge, per slide",
    "section_copy": "section copy",
    "depth_oracle": "depth oracle",
    "mean": "mean",
}
#: What a baseline's figures depend on of `benchmarks.baselines`: not on the command that prints them.
_SOURCES = ("colour", "copying", "encoder", "methods", "slides")


def baseline_cells(stage: str, folds: list[Fold], settings: dict[str, Any]) -> list[Cell]:
    """A cell for each baseline and fold."""
    folder = Path(baselines.__file__).parent
    code = digest([(folder / f"{name}.py").read_text() for name in _SOURCES])
    own = {"min_total": settings["min_total"], "data": settings["data"], "code": code}
    return [Cell(stage, name, "baseline", fold, 0, own) for fold in folds for name in BASELINES]


def run_baselines(cells: Iterable[Cell], results: Path) -> None:
    """For each cell: fit, choose on training sections, predict, score and write. A fold's slides are read once."""
    for (stage, _), of_fold in groupby(cells, lambda cell: (cell.stage, cell.fold.name)):
        own = list(of_fold)
        training, scored = own[0].fold.split(stage)
        panel = fit_panel(training, min_total=own[0].settings["min_total"])
        train, test = load_slides(training, panel), load_slides(scored, panel)
        for cell in own:
            started = time.process_time()
            baseline = BASELINES[cell.method]
            value = choose(baseline, train)
            predict = baseline.fit(train, value)
            figures = figures_of([predict(slide) for slide in test], test, panel, cell.fold.name)
            chosen = {"transductive": baseline.transductive, "chosen": value if len(baseline.grid) > 1 else None}
            minutes = {"cpu_min": round((time.process_time() - started) / 60, 3)}
            write_json(cell.path(results), {**cell.about(), **chosen, **provenance(), **minutes, **figures})
