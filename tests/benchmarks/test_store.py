from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from benchmarks.store import Results


def save(results: Results, key: str, pcc: float, draws: list[float] | None = None, **made: object) -> None:
    results.save("t", key, [{"method": "a", "PCC@M": pcc, "note": 'with, "commas"'}], made, {key: draws or [pcc]})


def lines(folder: Path) -> list[dict[str, str]]:
    with (folder / "t.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_figures_survive_the_csv(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    written = {f"k{i}": float(value) for i, value in enumerate(rng.normal(0, 10.0 ** rng.integers(-6, 6, 50)))}
    results = Results(tmp_path)
    for key, value in written.items():
        save(results, key, value, commit=f"commit of {key}")
    results.collect()
    rows = {row["key"]: row for row in results.rows("t")}
    assert rows.keys() == written.keys()
    for key, row in rows.items():
        assert float(row["PCC@M"]) == pytest.approx(written[key], rel=1e-6)
        assert (row["note"], row["commit"]) == ('with, "commas"', f"commit of {key}")


def test_collecting_keeps_rows_that_are_not_cached_and_replaces_those_that_are(tmp_path: Path) -> None:
    results = Results(tmp_path)
    for key, value in (("old", 0.1), ("again", 0.2)):
        save(results, key, value)
    results.collect()
    shutil.rmtree(results.cache)
    assert results.has("old")
    assert not results.has("old", draws=True)
    save(results, "again", 0.3)
    save(results, "new", 0.4)
    assert results.has("new")  # before it is collected
    results.collect()
    assert {row["key"]: row["PCC@M"] for row in lines(tmp_path)} == {"old": "0.1", "again": "0.3", "new": "0.4"}
    before = (tmp_path / "t.csv").read_bytes(), (tmp_path / "provenance.json").read_bytes()
    results.collect()
    assert ((tmp_path / "t.csv").read_bytes(), (tmp_path / "provenance.json").read_bytes()) == before
    assert not Results(tmp_path).has("absent")


def test_two_workers_at_once_lose_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = Results(tmp_path), Results(tmp_path)
    save(first, "a", 0.1)
    others = []

    def read_slowly(table: str) -> list[dict[str, str]]:
        """Between the first worker's reading and its writing, the second saves a run and collects."""
        rows = Results._read(first, table)
        if not others:
            save(second, "b", 0.2)
            others.append(Thread(target=second.collect))
            others[0].start()
            others[0].join(0.5)
        return rows

    monkeypatch.setattr(first, "_read", read_slowly)
    first.collect()
    others[0].join()
    assert {row["key"] for row in lines(tmp_path)} == {"a", "b"}
    assert json.loads((tmp_path / "provenance.json").read_text())["runs"].keys() == {"a", "b"}


def test_an_interval_needs_draws_once(tmp_path: Path) -> None:
    results = Results(tmp_path)
    draws = np.random.default_rng(0).normal(0, 1, (3, 500))
    for key, own in zip("abc", draws, strict=True):
        save(results, key, 0.0, list(own))
    sides = [["a", "b"]], [["c"]]
    expected = np.percentile((draws[0] + draws[1]) / 2 - draws[2], (2.5, 97.5))
    assert results.interval(*sides, method="a") == pytest.approx(expected, abs=1e-4)
    found = results.interval(*sides)
    results.save_intervals()
    save(results, "c", 0.0, [9.0] * 500)
    assert Results(tmp_path, draws=False).interval(*sides) == found
    assert Results(tmp_path).interval(*sides) != found
    shutil.rmtree(results.cache)
    clean = Results(tmp_path)
    assert clean.interval(*sides) == found
    assert clean.interval([["a"]], [["c"]], method="a", other="c") is None  # of other runs
    assert clean.missing == ["a, c"]
    clean.save_intervals()
    (kept,) = csv.DictReader((tmp_path / "intervals.csv").open())
    assert (float(kept["low"]), float(kept["high"])) == found
