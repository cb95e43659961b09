"""`python -m benchmarks.accuracy.worker JOB`: train once, then predict and score each of the job's runs.

Each training is a process of its own, so that threads are set before anything runs and memory comes back. A job that
was killed goes on after the last whole epoch; a second process with the same training ends at once.
"""

from __future__ import annotations

import fcntl
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.store import Results
from bundle.data.fit_panel import fit_panel
from bundle.data.manifest import read_split
from bundle.files.atomic import write_json
from bundle.workflows.evaluating import evaluate
from bundle.workflows.training import train

from .runs import TABLE
from .scoring import figures_of, load_slides, read_predictions

__all__ = ["BUSY", "main"]

#: Exit status of a job that another process is doing.
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
        print(f"Another process is training {run}.")
        return BUSY
    trained_by = run / "provenance.json"  # a later job may predict differently with the same weights
    if not (run / "budget.json").is_file():  # written when training is over
        run.mkdir(parents=True, exist_ok=True)
        write_json(trained_by, job["provenance"])
        train(dataset, run, configs=job["configs"], settings=job["settings"])
    if not job["runs"]:  # timed alone
        return 0
    spent = json.loads((run / "budget.json").read_text())
    trained = json.loads(trained_by.read_text()) if trained_by.is_file() else job["provenance"]
    panel = fit_panel(read_split(dataset, "training"), min_total=job["settings"]["min_total"])
    slides = load_slides(read_split(dataset, "test"), panel)
    for own in job["runs"]:
        key, started = own["key"], time.monotonic()
        # some recipes' networks are the benchmarks' own
        evaluate(run, dataset, scales_um=[], name=key, settings=own["predict"], trust=True)
        predicted_in = time.monotonic() - started
        predicted = read_predictions(run / "predictions" / key, slides, panel)
        figures, draws = figures_of(predicted, slides, panel, own["row"]["fold"])
        row = {
            **own["row"],
            "steps": spent["steps"],
            "training_cpu_min": spent["cpu_s"] / 60,
            "training_wall_min": spent["wall_s"] / 60,
            "predicting_wall_min": predicted_in / 60,
            **figures,
        }
        made = {**own["made"], **trained, "finished": time.strftime("%Y-%m-%dT%H:%M:%S")}
        Results(job["results"]).save(TABLE, key, [row], made, {key: draws})
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
