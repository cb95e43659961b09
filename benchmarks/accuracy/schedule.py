"""Trainings as processes, a few at once; what is finished is not started again."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bundle.config.root import bundle_root
from bundle.files.atomic import write_json

from .cells import Cell, digest, provenance
from .folds import Fold, write_dataset
from .recipes import Recipe
from .worker import BUSY

__all__ = ["Job", "make_jobs", "recipe_cells", "run_jobs"]


@dataclass
class Job:
    """One training and the cells that are scored from it."""

    recipe: Recipe
    stage: str
    fold: Fold
    seed: int
    settings: dict[str, Any]
    cells: list[tuple[Cell, Recipe]] = field(default_factory=list)

    @property
    def folder(self) -> str:
        """Name of its run folder: the same for the same training, another where the base configuration has changed."""
        training = [r["section"] for r in self.fold.split(self.stage)[0]]
        base = provenance()["base_config"]
        return f"{self.stage}-{self.fold.name}-{self.seed}-{digest([self.settings, base, training])}"

    def __str__(self) -> str:
        recipes = " and ".join(recipe.name for _, recipe in self.cells) or self.recipe.name
        return f"{self.stage}, {recipes}, fold {self.fold.name}, seed {self.seed}"


def recipe_cells(
    stage: str,
    recipes: Sequence[Recipe],
    folds: Sequence[Fold],
    seeds: Sequence[int],
    settings: dict[str, Any],
    steps: Mapping[str, int] | None = None,
) -> list[tuple[Cell, Recipe]]:
    """Cells in the order in which they are worth having: all recipes on the first fold and seed, then the next.

    `steps`, by recipe, are trained instead of the budget's time.
    """
    cells = []
    for number, seed in enumerate(seeds):
        for fold in folds:
            for recipe in recipes:
                if recipe.seeds is None or number < recipe.seeds:
                    own = {**settings, **recipe.training(), "predict": recipe.predict}
                    if steps is not None:
                        own["steps"] = steps[recipe.name]
                    cells.append((Cell(stage, recipe.name, "recipe", fold, seed, own), recipe))
    return cells


def make_jobs(cells: Iterable[tuple[Cell, Recipe]]) -> list[Job]:
    """Group cells that differ in prediction alone."""
    jobs: dict[str, Job] = {}
    for cell, recipe in cells:
        training = {key: value for key, value in cell.settings.items() if key != "predict"}
        key = digest([training, cell.stage, cell.fold.name, cell.seed])
        jobs.setdefault(key, Job(recipe, cell.stage, cell.fold, cell.seed, training)).cells.append((cell, recipe))
    return list(jobs.values())


def run_jobs(jobs: Sequence[Job], at_once: int, work: Path, results: Path, manifest: dict[str, Any]) -> int:
    """Run the jobs; returns how many failed. Stopped, it stops them, and each goes on later where it was."""
    waiting, running, failed = list(jobs), {}, 0  # type: ignore[var-annotated]
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                job = waiting.pop(0)
                log = work / "runs" / f"{job.folder}.log"
                print(f"[{_clock()}] {job}: started, {len(waiting)} wait; log in {log}", flush=True)
                running[_start(job, work, results, manifest, log)] = (job, log, time.monotonic())
            time.sleep(0.2)
            for process in [p for p in running if p.poll() is not None]:
                job, log, started = running.pop(process)
                minutes = (time.monotonic() - started) / 60
                told = {0: "done", BUSY: "left to the process that is at it"}.get(process.returncode, "FAILED")
                print(f"[{_clock()}] {job}: {told} after {minutes:.1f} min", flush=True)
                if told == "FAILED":
                    failed += 1
                    print("  " + "\n  ".join(log.read_text().strip().splitlines()[-3:]), flush=True)
    finally:
        for process in running:
            process.terminate()
    return failed


def _start(job: Job, work: Path, results: Path, manifest: dict[str, Any], log: Path) -> subprocess.Popen:
    run = work / "runs" / job.folder
    training, scored = job.fold.split(job.stage)
    dataset = work / "folds" / job.stage / job.fold.name
    write_dataset(dataset, manifest, job.fold, training, scored)
    job_file = run.with_name(f"{run.name}.json")  # a fold's name may have a dot
    write_json(
        job_file,
        {
            "run": str(run.resolve()),
            "dataset": str(dataset.resolve()),
            "threads": job.settings["threads"],
            "configs": [str(path) for path in job.recipe.files()],
            "settings": {
                **job.recipe.set,
                "seed": job.seed,
                "min_total": job.settings["min_total"],
                "lr_scheduler#minutes": job.settings["budget_min"],
                "lr_scheduler#steps": job.settings.get("steps"),
            },
            "provenance": provenance(),
            "cells": [
                {"path": str(cell.path(results).resolve()), "about": cell.about(), "predict": recipe.predict}
                for cell, recipe in job.cells
            ],
        },
    )
    threads = str(job.settings["threads"])
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "PYTHONUNBUFFERED": "1"}
    with log.open("a") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "benchmarks.accuracy.worker", str(job_file.resolve())],
            cwd=bundle_root(), env=environment, stdout=out, stderr=subprocess.STDOUT,
        )  # fmt: skip


def _clock() -> str:
    return time.strftime("%H:%M:%S")
