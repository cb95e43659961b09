"""The results of a cohort: a line for each finished slide, and a table in the end."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import h5py
import zarr

from ...files.atomic import replacing

__all__ = ["Progress", "Result", "count_units", "table", "write_summary"]


@dataclass(frozen=True)
class Result:
    """The result of one slide.

    Attributes:
        name: of the slide's outputs.
        status: `done` now, `skipped` since it was done before, or `failed`.
        units: in all of its outputs.
        seconds: that it took now.
        message: why it failed.
    """

    name: str
    status: Literal["done", "skipped", "failed"]
    units: int | None = None
    seconds: float = 0.0
    message: str = ""


def count_units(folder: Path, outputs: Sequence[str]) -> int | None:
    """Units in AnnData files, without reading them; None if one cannot be opened."""
    total = 0
    for name in outputs:
        try:
            if name.endswith(".zarr"):
                total += _rows(zarr.open_group(str(folder / name), mode="r")["obs"])
            else:
                with h5py.File(folder / name) as file:
                    total += _rows(file["obs"])
        except (OSError, KeyError):
            return None
    return total


def _rows(obs: Any) -> int:
    return int(obs[obs.attrs["_index"]].shape[0])


class Progress:
    """Print how far a cohort is, its rate, and the time left.

    Args:
        total: slides to do.
        say: receives the lines.
        clock: seconds.
    """

    def __init__(
        self, total: int, say: Callable[[str], Any] = print, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.total = total
        self.say = say
        self.clock = clock
        self.done = 0
        self.started = clock()

    def __call__(self, result: Result) -> None:
        """One more is finished."""
        self.done += 1
        elapsed = max(self.clock() - self.started, 1e-9)
        left = elapsed / self.done * (self.total - self.done)
        what = f"failed. {result.message}" if result.status == "failed" else f"{result.units} units"
        self.say(
            f"{self.done} of {self.total}, {3600 * self.done / elapsed:.4g} slides/h, {_duration(left)} left | "
            f"{result.name}: {what} ({_duration(result.seconds)})"
        )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _cells(result: Result) -> list[str]:
    return [
        "" if value is None else f"{value:.1f}" if isinstance(value, float) else str(value) for value in astuple(result)
    ]


def table(results: Sequence[Result]) -> str:
    """The results, aligned for a terminal."""
    rows = [[field.name for field in fields(Result)], *map(_cells, results)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def write_summary(path: str | Path, results: Sequence[Result]) -> None:
    """Write the results as CSV in one move."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([field.name for field in fields(Result)])
        writer.writerows(map(_cells, results))
