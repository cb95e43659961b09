"""Runs of the baselines, which are cheap: all of them in this process."""

from __future__ import annotations

import time
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import Any

from benchmarks import baselines
from benchmarks.baselines import BASELINES, choose
from benchmarks.store import Results, digest, provenance
from bundle.data.fit_panel import fit_panel

from .folds import Fold
from .runs import TABLE, Run
from .scoring import figures_of, load_slides

__all__ = ["baseline_runs", "run_baselines"]

#: The modules of `benchmarks.baselines` that a baseline's figures depend on: not the command that prints them.
_SOURCES = ("colour", "copying", "encoder", "methods", "slides")


def baseline_runs(stage: str, folds: list[Fold], settings: dict[str, Any]) -> list[Run]:
    """A run for each baseline and fold."""
    folder = Path(baselines.__file__).parent
    code = digest([(folder / f"{name}.py").read_text() for name in _SOURCES])
    own = {"min_total": settings["min_total"], "data": settings["data"], "code": code}
    return [Run(stage, name, "baseline", fold, 0, own) for fold in folds for name in BASELINES]


def run_baselines(runs: Iterable[Run], results: Results) -> None:
    """Fit each, choose on training sections, predict, score and save. A fold's slides are read once."""
    for (stage, fold), of_fold in groupby(runs, lambda run: (run.stage, run.fold.name)):
        own = list(of_fold)
        training, scored = own[0].fold.split(stage)
        panel = fit_panel(training, min_total=own[0].settings["min_total"])
        train, test = load_slides(training, panel), load_slides(scored, panel)
        for run in own:
            started = time.process_time()
            baseline = BASELINES[run.method]
            value = choose(baseline, train)
            predict = baseline.fit(train, value)
            figures, draws = figures_of([predict(slide) for slide in test], test, panel, fold)
            row = {
                **run.row(),
                "transductive": baseline.transductive,
                "chosen": value if len(baseline.grid) > 1 else None,
                "fitting_cpu_min": (time.process_time() - started) / 60,
                **figures,
            }
            results.save(TABLE, run.key, [row], run.made() | provenance(), {run.key: draws})
