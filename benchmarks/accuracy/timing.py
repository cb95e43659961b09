"""How many steps of each recipe a minute of CPU time holds: what makes budgets equal on machines that were not timed.

Measured once (`--stage timing`), on sections that screening trains on, start-up included; `--by-steps` then trains
for as many steps on any machine, a GPU too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from bundle.errors import InputError
from bundle.files.atomic import write_json

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
    """Train each for the budget's time and write its rate; returns how many failed. What was timed is not run again.

    Raises:
        InputError: if a GPU would be used.
    """
    if torch.cuda.is_available():
        raise InputError("What is timed is a CPU: hide the GPU (CUDA_VISIBLE_DEVICES=).")
    known = _read(results)
    jobs: dict[str, Job] = {}
    names: dict[str, list[str]] = {}
    for recipe in recipes:
        key = _key(recipe, settings)
        names.setdefault(key, []).append(recipe.name)
        if key not in known:
            jobs.setdefault(key, Job(recipe, "screening", fold, 0, {**settings, **recipe.training()}))
    runs = {key: work / "timing" / "runs" / job.folder for key, job in jobs.items()}
    waiting = [job for key, job in jobs.items() if not (runs[key] / "budget.json").is_file()]
    failed = run_jobs(waiting, at_once, work / "timing", results, manifest)
    for key, run in runs.items():
        if (run / "budget.json").is_file():
            spent = json.loads((run / "budget.json").read_text())
            made = {"steps": spent["steps"], "cpu_s": round(spent["cpu_s"], 2), "threads": settings["threads"]}
            about = json.loads(run.with_name(f"{run.name}.json").read_text())["provenance"]  # of when it was run
            known[key] = {"recipes": names[key], **made, **about}
    write_json(results / _FILE, known)
    for key, own in names.items():
        if key in known:
            print(f"{60 * known[key]['steps'] / known[key]['cpu_s']:7.2f} steps a minute: {', '.join(own)}")
    return failed


def read_steps(recipes: Sequence[Recipe], settings: Mapping[str, Any], results: Path) -> dict[str, int]:
    """Steps that the budget holds, by recipe.

    Raises:
        InputError: if a recipe was not timed as it is now and with this number of threads, or the budget holds no step.
    """
    known, steps = _read(results), {}
    for recipe in recipes:
        timed = known.get(_key(recipe, settings))
        if timed is None:
            raise InputError(
                f"{results / _FILE} does not say how fast {recipe.name} is with {settings['threads']} thread(s) and "
                f"this configs/train.json; run --stage timing --only {recipe.name} with the same --threads on a CPU."
            )
        steps[recipe.name] = round(timed["steps"] / timed["cpu_s"] * 60 * settings["budget_min"])
        if steps[recipe.name] < 1:
            raise InputError(f"--budget-min {settings['budget_min']:g} does not hold one step of {recipe.name}.")
    return steps


def _read(results: Path) -> dict[str, Any]:
    path = results / _FILE
    if not path.is_file():
        return {}
    try:
        known = json.loads(path.read_text())
        if all({"steps", "cpu_s"} <= set(timed) for timed in known.values()):
            return known
    except (ValueError, AttributeError, TypeError):
        pass
    raise InputError(f"{path} is not what --stage timing writes; remove it and time anew.")


def _key(recipe: Recipe, settings: Mapping[str, Any]) -> str:
    """What a rate is of: recipes that differ in prediction alone share it."""
    asked = [settings[key] for key in ("data", "threads", "min_total")]
    return digest([recipe.training(), provenance()["base_config"], *asked])
