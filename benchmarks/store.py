"""What the benchmarks have measured: a few tidy CSVs, one `provenance.json`, and a cache of finished runs.

A benchmark's run ends as one JSON in `cache/`, named after the run's key, so that several processes can finish runs at
once. `Results.collect` writes the rows of all of these into `<table>.csv`, and where they come from into
`provenance.json`. Git keeps those and ignores the cache. The cache also holds the runs' bootstrap draws.
`intervals.csv` keeps every interval that a table shows, so that the tables need no draws; an interval of another pair
of runs needs the draws of both, and the command that made a run makes its draws again (`--redraw`).
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import platform
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from bundle.files.atomic import replacing

__all__ = ["RESULTS", "ROOT", "Results", "digest", "provenance"]

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).with_name("results")

Row = dict[str, Any]
#: The draws of one side of a difference: of each fold (or pair, or scale) the names of the draws that are averaged.
Side = Sequence[Sequence[str]]


class Results:
    """Results in a folder.

    Args:
        folder: where the CSVs are; this repository's results by default.
        draws: whether to compute intervals from the cache's draws; without, all are from `intervals.csv`.
    """

    def __init__(self, folder: str | Path = RESULTS, draws: bool = True) -> None:
        self.folder, self.draws = Path(folder), draws
        self.cache = self.folder / "cache"
        self._shown: dict[str, Row] = {}
        self.missing: list[str] = []  # intervals that could not be given

    def has(self, key: str, draws: bool = False) -> bool:
        """Whether a run is finished; with `draws`, whether its bootstrap draws are in the cache too."""
        return self._cached(key).is_file() or (not draws and key in self._provenance()["runs"])

    def save(
        self,
        table: str,
        key: str,
        rows: Iterable[Mapping[str, Any]],
        made: Mapping[str, Any],
        draws: Mapping[str, Iterable[float]] | None = None,
    ) -> None:
        """Keep a finished run.

        Args:
            table: the CSV that its rows belong to.
            key: what tells it from all other runs.
            rows: one or more lines of the CSV, without the key; their order is kept.
            made: its provenance.
            draws: bootstrap draws by a name that starts with the run's key.
        """
        content = {"table": table, "key": key, "rows": [dict(row) for row in rows], "made": dict(made)}
        content["draws"] = {name: [round(float(d), 5) for d in drawn] for name, drawn in (draws or {}).items()}
        _write(self._cached(key), json.dumps(content))

    def collect(self) -> None:
        """Write the cached runs into the CSVs and `provenance.json`; rows of runs that are not cached stay."""
        self.cache.mkdir(parents=True, exist_ok=True)
        with FileLock(self.cache / "collect.lock"):
            runs = [json.loads(path.read_text()) for path in sorted(self.cache.glob("*.json"))]
            keys = {run["key"] for run in runs}
            for table in sorted({run["table"] for run in runs}):
                kept = [row for row in self._read(table) if row["key"] not in keys]
                new = [{"key": run["key"], **row} for run in runs if run["table"] == table for row in run["rows"]]
                self._save(table, [*kept, *new])
            known = self._provenance()
            known["runs"].update({run["key"]: {"table": run["table"], **run["made"]} for run in runs})
            lines = ",\n".join(f"  {json.dumps(k)}: {json.dumps(known['runs'][k])}" for k in sorted(known["runs"]))
            commands = json.dumps(known["commands"], indent=1).replace("\n", "\n ")
            _write(self.folder / "provenance.json", f'{{\n "commands": {commands},\n "runs": {{\n{lines}\n }}\n}}\n')

    def rows(self, table: str) -> list[Row]:
        """The CSV's lines as text, each with its run's provenance (which is not text), oldest run first."""
        runs = self._provenance()["runs"]
        rows = [{**runs.get(row["key"], {}), **row} for row in self._read(table)]
        return sorted(rows, key=lambda row: str(row.get("finished", "")))

    def interval(self, mine: Side, other: Side, /, **about: Any) -> tuple[float, float] | None:
        """95 % interval of the mean of `mine` minus that of `other`, whose tissue was resampled alike.

        Args:
            mine: names of draws, averaged within each group, then over groups.
            other: likewise.
            about: what a reader of `intervals.csv` wants to know.

        Returns:
            None where `intervals.csv` does not have it and draws are not in the cache.
        """
        key = digest([mine, other])
        first, second = self._mean(mine), self._mean(other)
        if first is not None and second is not None:
            from bundle.metrics.bootstrap import interval

            found = interval(first - second)
        elif key in self._kept:
            found = self._kept[key]
        else:
            self.missing.append(", ".join(map(str, about.values())))
            return None
        low, high = (float(_text(bound)) for bound in found)  # as the CSV has it
        self._shown[key] = {"key": key, **about, "low": low, "high": high}
        return low, high

    def save_intervals(self) -> None:
        """Keep the intervals computed since this object was made, and no others."""
        self._save("intervals", list(self._shown.values()))

    def _mean(self, side: Side) -> np.ndarray | None:
        draws = [[self._draws(name) for name in group] for group in side]
        if any(d is None for group in draws for d in group):
            return None
        return np.mean([np.mean(group, axis=0) for group in draws], axis=0)  # type: ignore[arg-type]

    @cached_property
    def _kept(self) -> dict[str, tuple[float, float]]:
        return {row["key"]: (float(row["low"]), float(row["high"])) for row in self._read("intervals")}

    def _draws(self, name: str) -> np.ndarray | None:
        path = self._cached(name.split("/")[0])
        return np.array(json.loads(path.read_text())["draws"][name]) if self.draws and path.is_file() else None

    def _cached(self, key: str) -> Path:
        return self.cache / f"{key}.json"

    def _provenance(self) -> dict[str, Any]:
        path = self.folder / "provenance.json"
        return json.loads(path.read_text()) if path.is_file() else {"commands": {}, "runs": {}}

    def _read(self, table: str) -> list[Row]:
        path = self.folder / f"{table}.csv"
        if not path.is_file():
            return []
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def _save(self, table: str, rows: list[Row]) -> None:
        columns = list(dict.fromkeys(column for row in rows for column in row))
        of_key: dict[str, list[list[str]]] = {}
        for row in rows:
            of_key.setdefault(row["key"], []).append([_text(row.get(column)) for column in columns])
        groups = sorted(of_key.values(), key=lambda lines: lines[0][1:])
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([columns, *(line for lines in groups for line in lines)])
        _write(self.folder / f"{table}.csv", text.getvalue())


def digest(content: Any) -> str:
    """A short hash of JSON-like content."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def provenance() -> dict[str, Any]:
    """The code and the machine that a run is made with."""
    import torch

    git = ["git", "-C", str(ROOT)]
    commit = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True).stdout.strip()
    changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True).stdout.strip()
    return {
        "commit": commit + (" with changes" if changed else ""),
        "base_config": digest(json.loads((ROOT / "configs" / "train.json").read_text())),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S"),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "versions": f"python {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}",
    }


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.7g}" if isinstance(value, float) else str(value)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        Path(temporary).write_text(text, encoding="utf-8")
