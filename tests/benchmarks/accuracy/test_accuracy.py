from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from benchmarks.accuracy import schedule
from benchmarks.accuracy.__main__ import main
from benchmarks.store import Results

pytest.importorskip("efficientnet_lite_pytorch", reason="the extra `encoders` is not installed")


@pytest.mark.timeout(900)  # a training in a process of its own, on a machine that may be busy
def test_screening_does_without_the_test_section_and_nothing_is_done_twice(
    spots: Path,
    table_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    monkeypatch.setattr("benchmarks.baselines.encoder.CROP_PX", 64)  # what the baselines score is no matter here
    data = shutil.copytree(spots, tmp_path / "data")
    manifest = json.loads((data / "dataset.json").read_text())
    test = next(r for split in manifest.values() if isinstance(split, list) for r in split if r.get("patient") == "P1")
    labels = test["label"] if isinstance(test["label"], list) else [test["label"]]
    kept = {name: (data / name).read_bytes() for name in [test["image"], *labels]}
    for name in kept:
        (data / name).write_bytes(b"nobody reads this")
    command = ["--data", data, "--work", tmp_path / "work", "--results", tmp_path / "results", "--recipes", table_file]
    command = [str(c) for c in [*command, "--folds", "P1", "--seeds", "0", "--budget-min", "0.03", "--stage"]]

    assert main([*command, "screening"]) == 0
    results = Results(tmp_path / "results")
    rows = {row["method"]: row for row in results.rows("accuracy")}
    assert {(row["stage"], row["scored_on"], row["trained_on"]) for row in rows.values()} == {("screening", "P2", "P3")}
    assert int(rows["tiny"]["steps"]) > 0
    assert float(rows["mean"]["PCC@M"]) == 0
    assert len({row["units"] for row in rows.values()}) == 1

    finished = (tmp_path / "results" / "accuracy.csv").read_text()
    shutil.rmtree(results.cache)  # the CSV alone says what is finished
    with monkeypatch.context() as patched:
        patched.setattr(schedule, "_start", lambda *_: pytest.fail("trained again"))
        assert main([*command, "screening"]) == 0
    assert (tmp_path / "results" / "accuracy.csv").read_text() == finished

    for name, content in kept.items():
        (data / name).write_bytes(content)
    capsys.readouterr()
    request.getfixturevalue("in_this_process")
    assert main([*command, "final"]) == 0
    assert "| tiny | 1 × 1 |" in capsys.readouterr().out
    final = [row for row in results.rows("accuracy") if row["stage"] == "final"]
    assert {row["scored_on"] for row in final} == {"P1"}
    assert {" ".join(sorted(row["trained_on"].split())) for row in final} == {"P2 P3"}
    assert {row["same_patient"] for row in final} == {"false"}
    (tiny,) = (row for row in final if row["method"] == "tiny")
    assert results.has(tiny["key"], draws=True)
    (results.cache / f"{tiny['key']}.json").unlink()
    assert not results.has(tiny["key"], draws=True)
    assert main([*command, "final", "--only", "tiny", "--redraw"]) == 0
    assert results.has(tiny["key"], draws=True)


def test_unknown_folds_and_folders_are_errors(spots: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    common = ["--work", str(tmp_path), "--results", str(tmp_path / "r")]
    assert main([*common, "--data", str(spots), "--folds", "P9"]) == 2
    assert "no fold P9" in capsys.readouterr().err
    assert main([*common, "--data", str(tmp_path / "absent")]) == 2
    assert "absent" in capsys.readouterr().err
