"""How many steps of each recipe a minute of CPU time holds: what makes budgets equal on machines that were not timed.

Measured once (`--stage timing`), on sections that screening trains on; `--by-steps` then trains for as many steps as
the budget holds, on any machine, a GPU too, and the same command gives the same training.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bundle.errors import InputError
from bundle.files import write_json

from .cells import digest, provenance
from .folds import Fold
from .recipes import Recipe
from .schedule import Job, run_jobs

__all__ = ["read_steps", "time_recipes"]

_FILE = "steps_per_min.json"


def time_recipes(
    recipes: Sequence[Recipe], fold: Fold, settings: dict[str, Any], at_once: int, work: Path, results: Path,
    manifest: dict[str, Any],
) -> int:  # fmt: skip
    """Train each for the budget's time and write its rate; returns how many failed. What was timed is not run again."""
    path = results / _FILE
    known = json.loads(path.read_text()) if path.is_file() else {}
    jobs: dict[str, Job] = {}
    for recipe in recipes:
        if known.get(recipe.name, {}).get("training") != digest(recipe.training()):
            own = {**settings, **recipe.training()}
            jobs.setdefault(digest(own), Job(recipe, "screening", fold, 0, own))
    failed = run_jobs(list(jobs.values()), at_once, work / "timing", results, manifest)
    for recipe in recipes:
        job = jobs.get(digest({**settings, **recipe.training()}))
        spent = job and work / "timing" / "runs" / job.folder / "budget.json"
        if spent and spent.is_file():
            told = json.loads(spent.read_text())
            rate = round(60 * told["steps"] / told["cpu_s"], 2)
            made = {"steps_per_min": rate, "training": digest(recipe.training()), "of_min": settings["budget_min"]}
            known[recipe.name] = {**made, "threads": settings["threads"], **provenance()}
    write_json(path, known)
    return failed


def read_steps(recipes: Sequence[Recipe], settings: Mapping[str, Any], results: Path) -> dict[str, int]:
    """Steps that the budget holds, by recipe.

    Raises:
        InputError: if a recipe was not timed as it is now, or with another number of threads.
    """
    path = results / _FILE
    known = json.loads(path.read_text()) if path.is_file() else {}
    steps = {}
    for recipe in recipes:
        asked = (digest(recipe.training()), settings["threads"])
        timed = next((t for t in known.values() if (t["training"], t["threads"]) == asked), None)
        if timed is None:
            raise InputError(f"{path} does not say how fast {recipe.name} is; run --stage timing --only {recipe.name}.")
        steps[recipe.name] = round(timed["steps_per_min"] * settings["budget_min"])
    return steps
