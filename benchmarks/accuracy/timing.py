"""How many steps of each recipe a minute of CPU time holds: this makes budgets equal on machines that were not timed.

`--stage timing` measures it once, on sections that screening trains on, start-up included. `--by-steps` then trains for
as many steps on any machine, also on a GPU.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.store import Results, digest, provenance
from bundle.errors import InputError

from .folds import Fold
from .recipes import Recipe
from .schedule import Job, run_jobs

__all__ = ["read_steps", "time_recipes"]

_TABLE = "timing"


def time_recipes(
    recipes: Sequence[Recipe], fold: Fold, settings: dict[str, Any], at_once: int, work: Path, results: Results,
    manifest: dict[str, Any],
) -> int:  # fmt: skip
    """Train each recipe for the budget's time and save its rate; returns how many failed. Finished timings are kept.

    Raises:
        InputError: if a GPU would be used.
    """
    if torch.cuda.is_available():
        raise InputError("Timing is for the CPU: hide the GPU (CUDA_VISIBLE_DEVICES=).")
    names: dict[str, list[str]] = {}
    jobs: dict[str, Job] = {}
    for recipe in recipes:
        key = _key(recipe, settings)
        names.setdefault(key, []).append(recipe.name)
        if not results.has(key):
            jobs.setdefault(key, Job(recipe, "screening", fold, 0, {**settings, **recipe.training()}))
    runs = {key: work / "timing" / "runs" / job.folder for key, job in jobs.items()}
    waiting = [job for key, job in jobs.items() if not (runs[key] / "budget.json").is_file()]
    failed = run_jobs(waiting, at_once, work / "timing", results, manifest)
    for key, run in runs.items():
        if (run / "budget.json").is_file():
            spent = json.loads((run / "budget.json").read_text())
            made = json.loads(run.with_name(f"{run.name}.json").read_text())["provenance"]  # of when it ran
            row = {"recipes": ", ".join(names[key]), "threads": settings["threads"]}
            results.save(_TABLE, key, [{**row, "steps": spent["steps"], "cpu_s": round(spent["cpu_s"], 2)}], made)
    results.collect()
    for row in results.rows(_TABLE):
        if row["key"] in names:
            print(f"{60 * _per_s(row):7.2f} steps a minute: {row['recipes']}")
    return failed


def read_steps(recipes: Sequence[Recipe], settings: Mapping[str, Any], results: Results) -> dict[str, int]:
    """Steps that the budget holds, by recipe.

    Raises:
        InputError: if a recipe was not timed as it is now and with this number of threads, or the budget holds no step.
    """
    known, steps = {row["key"]: row for row in results.rows(_TABLE)}, {}
    for recipe in recipes:
        timed = known.get(_key(recipe, settings))
        if timed is None:
            raise InputError(
                f"{results.folder / _TABLE}.csv has no speed of {recipe.name} with {settings['threads']} thread(s) and "
                f"this configs/train.json; run --stage timing --only {recipe.name} with the same --threads on a CPU."
            )
        steps[recipe.name] = round(_per_s(timed) * 60 * settings["budget_min"])
        if steps[recipe.name] < 1:
            raise InputError(f"--budget-min {settings['budget_min']:g} is less than one step of {recipe.name} takes.")
    return steps


def _per_s(row: Mapping[str, str]) -> float:
    return float(row["steps"]) / float(row["cpu_s"])


def _key(recipe: Recipe, settings: Mapping[str, Any]) -> str:
    """What a rate is of: recipes that differ in prediction alone share it."""
    same = [settings[key] for key in ("data", "threads", "min_total")]
    return digest([recipe.training(), provenance()["base_config"], *same])
