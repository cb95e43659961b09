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

from benchmarks.store import Results, digest, provenance
from bundle.config.root import bundle_root
from bundle.files.atomic import write_json

from .folds import Fold, write_dataset
from .recipes import Recipe
from .runs import Run
from .worker import BUSY

__all__ = ["Job", "make_jobs", "recipe_runs", "run_jobs"]


@dataclass
class Job:
    """One training and the runs that are scored from it."""

    recipe: Recipe
    stage: str
    fold: Fold
    seed: int
    settings: dict[str, Any]
    runs: list[tuple[Run, Recipe]] = field(default_factory=list)

    @property
    def folder(self) -> str:
        """Name of its run folder: the same for the same training, another where the base configuration has changed."""
        training = [r["section"] for r in self.fold.split(self.stage)[0]]
        base = provenance()["base_config"]
        return f"{self.stage}-{self.fold.name}-{self.seed}-{digest([self.settings, base, training])}"

    def __str__(self) -> str:
        recipes = " and ".join(recipe.name for _, recipe in self.runs) or self.recipe.name
        return f"{self.stage}, {recipes}, fold {self.fold.name}, seed {self.seed}"


def recipe_runs(
    stage: str,
    recipes: Sequence[Recipe],
    folds: Sequence[Fold],
    seeds: Sequence[int],
    settings: dict[str, Any],
    steps: Mapping[str, int] | None = None,
) -> list[tuple[Run, Recipe]]:
    """Runs in the order in which they are worth having: all recipes on the first fold and seed, then the next.

    `steps`, by recipe, are trained instead of the budget's time.
    """
    runs = []
    for number, seed in enumerate(seeds):
        for fold in folds:
            for recipe in recipes:
                if recipe.seeds is None or number < recipe.seeds:
                    own = {**settings, **recipe.training(), "predict": recipe.predict}
                    if steps is not None:
                        own["steps"] = steps[recipe.name]
                    runs.append((Run(stage, recipe.name, "recipe", fold, seed, own), recipe))
    return runs


def make_jobs(runs: Iterable[tuple[Run, Recipe]]) -> list[Job]:
    """Group runs that differ in prediction alone."""
    jobs: dict[str, Job] = {}
    for run, recipe in runs:
        training = {key: value for key, value in run.settings.items() if key != "predict"}
        key = digest([training, run.stage, run.fold.name, run.seed])
        jobs.setdefault(key, Job(recipe, run.stage, run.fold, run.seed, training)).runs.append((run, recipe))
    return list(jobs.values())


def run_jobs(jobs: Sequence[Job], at_once: int, work: Path, results: Results, manifest: dict[str, Any]) -> int:
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
                outcome = {0: "done", BUSY: "left to the process that trains it"}.get(process.returncode, "FAILED")
                print(f"[{_clock()}] {job}: {outcome} after {minutes:.1f} min", flush=True)
                if outcome == "FAILED":
                    failed += 1
                    print("  " + "\n  ".join(log.read_text().strip().splitlines()[-3:]), flush=True)
    finally:
        for process in running:
            process.terminate()
    return failed


def _start(job: Job, work: Path, results: Results, manifest: dict[str, Any], log: Path) -> subprocess.Popen:
    folder = work / "runs" / job.folder
    training, scored = job.fold.split(job.stage)
    dataset = work / "folds" / job.stage / job.fold.name
    write_dataset(dataset, manifest, job.fold, training, scored)
    job_file = folder.with_name(f"{folder.name}.json")  # a fold's name may have a dot
    write_json(
        job_file,
        {
            "run": str(folder.resolve()),
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
            "results": str(results.folder.resolve()),
            "runs": [
                {"key": run.key, "row": run.row(), "made": run.made(), "predict": recipe.predict}
                for run, recipe in job.runs
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
