from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.accuracy.__main__ import main


def test_a_budget_is_timed_once_and_trained_by_steps_then(
    spots: Path, table_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    common = ["--data", str(spots), "--recipes", str(table_file), "--work", str(tmp_path / "w"), "--threads", "1"]
    common += ["--results", str(tmp_path / "r"), "--budget-min", "0.03"]
    final = [*common, "--stage", "final", "--folds", "P1", "--seeds", "0", "--by-steps", "--only", "tiny"]
    assert main(final) == 2
    assert "does not say how fast tiny is" in capsys.readouterr().err
    assert main([*common, "--stage", "timing"]) == 0
    rates = tmp_path / "r" / "steps_per_min.json"
    timed = json.loads(rates.read_text())["tiny"]
    assert timed["steps_per_min"] > 0
    assert main([*common, "--stage", "timing"]) == 0
    assert json.loads(rates.read_text())["tiny"] == timed  # not timed again
    assert main(final) == 0
    (cell,) = (json.loads(path.read_text()) for path in (tmp_path / "r" / "final").glob("tiny-*.json"))
    assert cell["steps"] == round(timed["steps_per_min"] * 0.03)
