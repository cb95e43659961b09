from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.accuracy import worker
from benchmarks.store import Results


def test_a_run_has_the_commit_that_trained_not_the_one_that_predicts_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(dataset: Path, run: Path, **_: object) -> None:
        (run / "budget.json").write_text(json.dumps({"steps": 3, "cpu_s": 60.0, "wall_s": 60.0}))

    monkeypatch.setattr(worker, "train", train)
    monkeypatch.setattr(worker.torch, "set_num_threads", lambda _: None)
    monkeypatch.setattr(worker, "evaluate", lambda *_, **__: None)
    for name in ("fit_panel", "load_slides", "read_predictions", "read_split"):
        monkeypatch.setattr(worker, name, lambda *_, **__: None)
    monkeypatch.setattr(worker, "figures_of", lambda *_: ({"PCC@M": 0.5}, np.zeros(2)))
    for commit, name in (("first", "a"), ("later", "b")):
        run = {"key": name, "row": {"fold": "C2"}, "made": {}, "predict": {}}
        job = {
            "run": str(tmp_path / "run"), "dataset": str(tmp_path), "threads": 1, "configs": [],
            "settings": {"min_total": 0}, "provenance": {"commit": commit}, "results": str(tmp_path), "runs": [run],
        }  # fmt: skip
        (tmp_path / "job.json").write_text(json.dumps(job))
        assert worker.main(str(tmp_path / "job.json")) == 0
    results = Results(tmp_path)
    results.collect()
    assert {row["key"]: row["commit"] for row in results.rows("accuracy")} == {"a": "first", "b": "first"}
