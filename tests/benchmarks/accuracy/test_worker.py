from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.accuracy import worker


def test_a_cell_tells_the_commit_that_trained_not_the_one_that_predicts_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(dataset: Path, run: Path, **_: object) -> None:
        (run / "budget.json").write_text(json.dumps({"steps": 3, "cpu_s": 60.0, "wall_s": 60.0}))

    monkeypatch.setattr(worker, "train", train)
    monkeypatch.setattr(worker.torch, "set_num_threads", lambda _: None)
    monkeypatch.setattr(worker, "evaluate", lambda *_, **__: None)
    for name in ("fit_panel", "load_slides", "read_predictions", "read_split"):
        monkeypatch.setattr(worker, name, lambda *_, **__: None)
    monkeypatch.setattr(worker, "figures_of", lambda *_: {"scores": {}})
    for commit, name in (("first", "a"), ("later", "b")):
        cell = {"path": str(tmp_path / f"{name}.json"), "about": {"hash": name, "fold": "C2"}, "predict": {}}
        job = {
            "run": str(tmp_path / "run"), "dataset": str(tmp_path), "threads": 1, "configs": [],
            "settings": {"min_total": 0}, "provenance": {"commit": commit}, "cells": [cell],
        }  # fmt: skip
        (tmp_path / "job.json").write_text(json.dumps(job))
        assert worker.main(str(tmp_path / "job.json")) == 0
        assert json.loads((tmp_path / f"{name}.json").read_text())["commit"] == "first"
