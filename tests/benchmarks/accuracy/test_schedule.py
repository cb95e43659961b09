from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.accuracy import schedule
from benchmarks.accuracy.folds import make_folds
from benchmarks.accuracy.recipes import Recipe
from benchmarks.accuracy.schedule import make_jobs, recipe_runs, run_jobs
from benchmarks.store import Results


class Done:
    """A process that has ended well."""

    returncode = 0

    def poll(self) -> int:
        return 0


def test_each_job_has_a_file_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = [{"image": f"{p}.tif", "label": [], "section": p, "patient": p} for p in ("P1.1", "P1.2", "P1.3")]
    manifest = {"training": records, "validation": [], "test": []}
    settings = {"data": "d", "budget_min": 1.0, "threads": 1, "min_total": 0.0}
    runs = recipe_runs("final", [Recipe("a", "")], make_folds(manifest), [0], settings)
    given: list[Any] = []
    monkeypatch.setattr(schedule.subprocess, "Popen", lambda command, **_: given.append(command[-1]) or Done())
    monkeypatch.setattr(schedule, "provenance", lambda: {"base_config": "same"})
    (tmp_path / "runs").mkdir()
    assert run_jobs(make_jobs(runs), 3, tmp_path, Results(tmp_path / "results"), manifest) == 0
    tested = [json.loads(Path(path).read_text())["runs"][0]["row"]["fold"] for path in given]
    assert tested == ["P1.1", "P1.2", "P1.3"]
