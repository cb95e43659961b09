from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.accuracy.__main__ import main


@pytest.mark.usefixtures("in_this_process")
def test_a_budget_is_timed_once_and_trained_by_steps_then(
    spots: Path,
    table_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("benchmarks.accuracy.__main__.baseline_cells", lambda *_: [])
    common = ["--data", str(spots), "--recipes", str(table_file), "--work", str(tmp_path / "w"), "--threads", "1"]
    common += ["--results", str(tmp_path / "r"), "--budget-min", "0.03"]
    final = [*common, "--stage", "final", "--folds", "P1", "--seeds", "0", "--by-steps", "--only", "tiny"]
    assert main(final) == 2
    assert "does not say how fast tiny is" in capsys.readouterr().err
    assert main([*common, "--stage", "timing"]) == 0
    assert "steps a minute: tiny" in capsys.readouterr().out
    rates = tmp_path / "r" / "steps_per_min.json"
    ((key, timed),) = json.loads(rates.read_text()).items()
    assert timed["steps"] > 0
    assert timed["recipes"] == ["tiny"]
    assert main([*common, "--stage", "timing"]) == 0
    assert json.loads(rates.read_text()) == {key: timed}  # not timed again
    assert main([*final, "--threads", "2"]) == 2
    assert "with 2 thread(s)" in capsys.readouterr().err
    rates.write_text(json.dumps({key: {**timed, "steps": 100, "cpu_s": 60}}))
    assert main(final) == 0
    (cell,) = (json.loads(path.read_text()) for path in (tmp_path / "r" / "final").glob("tiny-*.json"))
    assert cell["steps"] == cell["steps_asked"] == 3
    rates.write_text(json.dumps({key: {**timed, "steps": 1, "cpu_s": 60}}))
    assert main(final) == 2
    assert "does not hold one step" in capsys.readouterr().err
    rates.write_text("<<<<<<< HEAD")
    assert main(final) == 2
    assert "time anew" in capsys.readouterr().err
