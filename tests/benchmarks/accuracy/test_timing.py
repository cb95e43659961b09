from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.accuracy.__main__ import main
from benchmarks.store import Results


@pytest.mark.usefixtures("in_this_process")
def test_a_budget_is_timed_once_and_trained_by_steps_then(
    spots: Path,
    table_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("benchmarks.accuracy.__main__.baseline_runs", lambda *_: [])
    common = ["--data", str(spots), "--recipes", str(table_file), "--work", str(tmp_path / "w"), "--threads", "1"]
    common += ["--results", str(tmp_path / "r"), "--budget-min", "0.03"]
    final = [*common, "--stage", "final", "--folds", "P1", "--seeds", "0", "--by-steps", "--only", "tiny"]
    assert main(final) == 2
    assert "has no speed of tiny" in capsys.readouterr().err
    assert main([*common, "--stage", "timing"]) == 0
    assert "steps a minute: tiny" in capsys.readouterr().out
    results = Results(tmp_path / "r")
    (timed,) = results.rows("timing")
    assert int(timed["steps"]) > 0
    assert timed["recipes"] == "tiny"
    assert main([*common, "--stage", "timing"]) == 0
    assert results.rows("timing") == [timed]  # not timed again
    assert main([*final, "--threads", "2"]) == 2
    assert "with 2 thread(s)" in capsys.readouterr().err
    row = {"recipes": "tiny", "threads": 1}
    results.save("timing", timed["key"], [{**row, "steps": 100, "cpu_s": 60}], {})
    results.collect()
    assert main(final) == 0
    (run,) = (r for r in results.rows("accuracy") if r["method"] == "tiny")
    assert run["steps"] == run["steps_asked"] == "3"
    results.save("timing", timed["key"], [{**row, "steps": 1, "cpu_s": 60}], {})
    results.collect()
    assert main(final) == 2
    assert "less than one step" in capsys.readouterr().err
