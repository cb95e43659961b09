"""`python -m benchmarks.accuracy.worker JOB`: train once, then predict and score each cell that asks for it.

A process of its own for each training, so that threads are set before anything runs and memory comes back. Killed, the
same job goes on after the last whole epoch; a second process on the same run ends at once.
"""

from __future__ import annotations

import fcntl
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from bundle.data.fit_panel import fit_panel
from bundle.data.manifest import read_split
from bundle.files.atomic import write_json
from bundle.workflows.evaluating import evaluate
from bundle.workflows.training import train

from .scoring import figures_of, load_slides, read_predictions

__all__ = ["BUSY", "main"]

#: Exit status of a job that another process is at.
BUSY = 75


def main(job_file: str) -> int:
    """Do a job; returns the exit status."""
    job: dict[str, Any] = json.loads(Path(job_file).read_text())
    run, dataset = Path(job["run"]), Path(job["dataset"])
    torch.set_num_threads(job["threads"])
    lock = (run.parent / f"{run.name}.lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"Another process is at {run}.")
        return BUSY
    trained_by = run / "provenance.json"  # a later job may predict otherwise with the same weights
    if not (run / "budget.json").is_file():  # written when training is over
        run.mkdir(parents=True, exist_ok=True)
        write_json(trained_by, job["provenance"])
        train(dataset, run, configs=job["configs"], settings=job["settings"])
    if not job["cells"]:  # timed alone
        return 0
    spent = json.loads((run / "budget.json").read_text())
    trained = json.loads(trained_by.read_text()) if trained_by.is_file() else job["provenance"]
    panel = fit_panel(read_split(dataset, "training"), min_total=job["settings"]["min_total"])
    slides = load_slides(read_split(dataset, "test"), panel)
    for cell in job["cells"]:
        started = time.monotonic()
        # some recipes' networks are the benchmarks' own
        evaluate(run, dataset, scales_um=[], name=cell["about"]["hash"], settings=cell["predict"], trust=True)
        predicted_in = time.monotonic() - started
        predicted = read_predictions(run / "predictions" / cell["about"]["hash"], slides, panel)
        cost = {
            "steps": spent["steps"],
            "training_cpu_min": round(spent["cpu_s"] / 60, 2),
            "training_wall_min": round(spent["wall_s"] / 60, 2),
            "predicting_wall_min": round(predicted_in / 60, 2),
        }
        figures = figures_of(predicted, slides, panel, cell["about"]["fold"])
        write_json(
            cell["path"],
            {**cell["about"], **trained, "finished": time.strftime("%Y-%m-%dT%H:%M:%S"), **cost, **figures},
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
