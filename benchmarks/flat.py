"""Cost of 2 µm bins over 100 µm spots, and of 18,000 genes over 250.

`python -m benchmarks.flat [--runs 3]`: whole commands, output written, on a generated slide of 10,000 x 10,000 px at
0.5 µm/px, all tissue, and, where its data are present, on a section of Her2ST (`section` in the closing line). Ratios
are medians over pairs run in turn.
"""

from __future__ import annotations

import re
import shutil
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .workload import Timed, arguments, default_run, finish, phantom_slide, predict, prepared_section, row, workspace

__all__ = ["main"]


def _one(slide: Path, run: Path, out: Path, options: Sequence[str], threads: int) -> Timed:
    shutil.rmtree(out.parent, ignore_errors=True)  # nothing of an earlier run is gone on with
    out.parent.mkdir(parents=True)
    return predict([str(slide), str(out), "--model", str(run), *options], threads)


def _compare(slide: Path, run: Path, whole: Path, many: int, work: Path, runs: int, threads: int) -> dict[str, float]:
    """One slide's table: few large units, many small ones, many genes; `whole` is the run of `many` genes."""
    spots = ["--spot-um", "100", "--pitch-um", "100"]
    cases = {
        "100 µm spots, 250 genes": (run, work / "flat_output" / "spots.h5ad", spots),
        "2 µm bins, factors of 250 genes": (run, work / "flat_output" / "bins.zarr", ["--bin-um", "2"]),
        f"100 µm spots, {many} genes": (whole, work / "flat_output" / "genes.h5ad", spots),
    }
    times: dict[str, list[Timed]] = {name: [] for name in cases}
    for _ in range(runs):
        for name, (model, out, options) in cases.items():
            times[name].append(_one(slide, model, out, options, threads))
    names = list(cases)
    print(f"{slide.name}, {threads} threads, default network at its working mpp, median of {runs}")
    row("", "seconds", "peak MB", "units")
    for name in names:
        units = re.search(r"(\d+) units x", times[name][-1].log)
        row(
            name,
            statistics.median(t.seconds for t in times[name]),
            statistics.median(t.rss_mb for t in times[name]),
            units[1] if units else "?",
        )

    def ratio(name: str, what: str) -> float:
        pairs = zip(times[name], times[names[0]], strict=True)
        return statistics.median(getattr(a, what) / getattr(b, what) for a, b in pairs)

    result = {
        "units_ratio": ratio(names[1], "seconds"),
        "genes_ratio": ratio(names[2], "seconds"),
        "units_rss_ratio": ratio(names[1], "rss_mb"),
        "genes_rss_ratio": ratio(names[2], "rss_mb"),
    }
    print("; ".join(f"{key} {value:.3f}" for key, value in result.items()))
    return result


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run it."""
    parser = arguments(__doc__)
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args(argv)
    side_px, many = (2000, 2000) if args.quick else (10_000, 18_000)
    with workspace(args.work) as work:
        phantom, run, whole = phantom_slide(work, side_px), default_run(work), default_run(work, genes=many)
        section = None if args.quick else prepared_section(work)
        result: dict[str, Any] = dict(_compare(phantom, run, whole, many, work, args.runs, args.threads))
        if section is not None:
            result["section"] = _compare(section[0], run, whole, many, work, args.runs, args.threads)
    finish(result)
    return result


if __name__ == "__main__":
    main()
