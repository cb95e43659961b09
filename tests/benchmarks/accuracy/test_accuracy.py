from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from benchmarks.accuracy import schedule
from benchmarks.accuracy.__main__ import main
from benchmarks.accuracy.cells import read_cells

pytest.importorskip("efficientnet_lite_pytorch", reason="the extra `encoders` is not installed")


def last_line(capsys: pytest.CaptureFixture) -> dict:
    return json.loads(capsys.readouterr().out.strip().splitlines()[-1])


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
    assert set(last_line(capsys).values()) == {None}  # nothing final yet
    cells = list(read_cells(tmp_path / "results"))
    assert {tuple(c["scored_on"]) for c in cells} == {("P2",)}
    assert {tuple(c["trained_on"]) for c in cells} == {("P3",)}
    by_method = {c["method"]: c for c in cells}
    assert by_method["tiny"]["steps"] > 0
    assert by_method["mean"]["scores"]["PCC@M"] == 0
    assert len({c["units"] for c in cells}) == 1

    written = {p: p.stat().st_mtime_ns for p in (tmp_path / "results").rglob("*.json")}
    with monkeypatch.context() as patched:
        patched.setattr(schedule, "_start", lambda *_: pytest.fail("trained again"))
        assert main([*command, "screening"]) == 0
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "results").rglob("*.json")} == written

    for name, content in kept.items():
        (data / name).write_bytes(content)
    capsys.readouterr()
    request.getfixturevalue("in_this_process")
    assert main([*command, "final"]) == 0
    line = last_line(capsys)
    assert line["mean"]["PCC@M"] == 0
    assert line["best"]["folds"] == 1
    assert line["swin"] is None
    final = [c for c in read_cells(tmp_path / "results") if c["stage"] == "final"]
    assert {tuple(c["scored_on"]) for c in final} == {("P1",)}
    assert {tuple(sorted(c["trained_on"])) for c in final} == {("P2", "P3")}
    assert not any(c["same_patient"] for c in final)


def test_what_does_not_exist_is_told(spots: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    common = ["--work", str(tmp_path), "--results", str(tmp_path / "r")]
    assert main([*common, "--data", str(spots), "--folds", "P9"]) == 2
    assert "no fold P9" in capsys.readouterr().err
    assert main([*common, "--data", str(tmp_path / "absent")]) == 2
    assert "absent" in capsys.readouterr().err
