"""Write the tables of `docs/benchmarks/*.md` from `benchmarks/results/*.csv`: `python -m benchmarks.tables [--check]`.

The table after a line `<!-- table: NAME -->` is generated. The command replaces that table and nothing else: edit the
text of a page by hand.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from .accuracy import report
from .markdown import table
from .scale_report import differences_table, plot, scores_table
from .store import RESULTS, ROOT, Results

__all__ = ["PAGES", "TABLES", "fill", "main"]

PAGES = ROOT / "docs" / "benchmarks"
MAX_LINES = 100

#: The recipe that the others are compared with, and the default network.
RECIPE, DEFAULT = "efficientnet_lite", "swin"
_RESTAINED = ("restained_dark", "restained_pale", "restained_blue", "restained_pink")
_GENES_OF = (RECIPE, DEFAULT, "stnet", "swinunetr", "both ridge, per slide", "depth oracle")
_MARKED = re.compile(r"^(<!-- table: (\S+) -->\n)(\|.*\n)*", re.MULTILINE)


def _why() -> dict[str, str]:
    """What is different in each recipe, also in those whose code is deleted."""
    content = json.loads((ROOT / "benchmarks" / "accuracy" / "recipes.json").read_text(encoding="utf-8"))
    return content["deleted"] | {name: recipe["why"] for name, recipe in content["recipes"].items()}


def _her2st(results: Results) -> str:
    done = report.Finished(results, "final", 10)
    return report.final_table(done, _unlike_restained(done))


def _her2st_folds(results: Results) -> str:
    done = report.Finished(results, "final", 10)
    rows = [row for row in results.rows("scales") if row["data"] == "her2st, fold C5"]
    coarse = {row["method"]: f"{float(row['PCC@M']):.3f}" for row in rows}
    return report.folds_table(done, [RECIPE, DEFAULT], _unlike_restained(done), {"C5, 400 µm": coarse})


def _unlike_restained(done: report.Finished) -> list[str]:
    return [m for m in [*done.methods("recipe"), *done.methods("baseline")] if m not in _RESTAINED]


def _her2st_same_weights(results: Results) -> str:
    return report.lost_table(report.Finished(results, "final", 10), RECIPE, [*_RESTAINED, "head_alone"], _why())


def _her2st_genes(results: Results) -> str:
    return report.genes_table(report.Finished(results, "final", 10), _GENES_OF, "C5")


def _ablations(budget_min: float, baselines: bool) -> Callable[[Results], str]:
    def render(results: Results) -> str:
        done = report.Finished(results, "screening", budget_min)
        return report.screening_table(done, RECIPE, _why(), baselines)

    return render


def _demo(results: Results) -> str:
    rows = [row for row in results.rows("scales") if row["data"] == "demo, slide P4"]
    titles = [f"{row['against']}, {row['size_um']} µm" for row in rows]
    units = [_number(row["units"]) for row in rows]
    return table(["", *titles], [["PCC@M", *(f"{float(row['PCC@M']):.3f}" for row in rows)], ["units", *units]])


def _speed(benchmark: str) -> Callable[[Results], str]:
    """A line for each case of a benchmark, a column for each metric."""

    def render(results: Results) -> str:
        rows = [row for row in results.rows("speed") if row["benchmark"] == benchmark]
        metrics = {row["metric"]: f"{row['metric']}, {row['unit']}" if row["unit"] else row["metric"] for row in rows}
        values = {(row["case"], row["metric"]): _number(row["value"]) for row in rows}
        cases = dict.fromkeys(row["case"] for row in rows)
        return table(["", *metrics.values()], [[c, *(values.get((c, m)) for m in metrics)] for c in cases])

    return render


def _number(text: str) -> str:
    return f"{int(text):,}" if text.lstrip("-").isdigit() else text


def _speed_sources(results: Results) -> str:
    rows = {row["benchmark"]: row for row in results.rows("speed")}
    columns = ("machine", "command", "recorded_at", "note")
    lines = [[name, *(row.get(column) for column in columns)] for name, row in sorted(rows.items())]
    return table(["table", "machine", "command", "recorded at", "conditions"], lines)


def _timing(results: Results) -> str:
    newest = {row["recipes"].split(", ")[0]: row for row in results.rows("timing")}
    lines = []
    for _, row in sorted(newest.items()):
        rate = 60 * float(row["steps"]) / float(row["cpu_s"])
        lines.append([row["recipes"], f"{rate:.1f}", f"{10 * rate:.0f}", row["commit"]])
    return table(["recipes of one training", "steps per minute of CPU time", "steps in 10 minutes", "commit"], lines)


def _sources(results: Results) -> str:
    """How many runs of each benchmark were made on which machine."""
    lines = []
    for name in ("accuracy", "scales"):
        groups: dict[tuple[str, str], list[dict]] = {}
        for row in {row["key"]: row for row in results.rows(name) if "versions" in row}.values():
            groups.setdefault((row["device"], row["versions"]), []).append(row)
        for (device, versions), rows in sorted(groups.items()):
            days = sorted(row["finished"][:10] for row in rows)
            commits = len({row["commit"] for row in rows})
            lines.append([name, len(rows), device, versions, f"{days[0]} to {days[-1]}", commits])
    return table(["benchmark", "runs", "device", "versions", "finished", "commits"], lines)


TABLES: dict[str, Callable[[Results], str]] = {
    "sources": _sources,
    "timing": _timing,
    "her2st": _her2st,
    "her2st_folds": _her2st_folds,
    "her2st_same_weights": _her2st_same_weights,
    "her2st_genes": _her2st_genes,
    "ablations_3min": _ablations(3, baselines=True),
    "ablations_10min": _ablations(10, baselines=False),
    "scales": lambda results: scores_table(results, "phantom", ("truth", "counts")),
    "scales_differences": lambda results: differences_table(results, "phantom", "truth"),
    "scales_her2st": lambda results: scores_table(results, "her2st", ("counts",)),
    "scales_her2st_differences": lambda results: differences_table(results, "her2st", "counts"),
    "demo": _demo,
    "speed_sources": _speed_sources,
    **{f"speed_{name}": _speed(name) for name in ("ratios", "flat", "limit", "crops", "memory", "exact", "export")},
}


def fill(text: str, results: Results) -> str:
    """The page with its tables.

    Raises:
        ValueError: if a marker names no table, or the page is too long.
    """

    def replace(match: re.Match[str]) -> str:
        if match[2] not in TABLES:
            raise ValueError(f"There is no table {match[2]}; benchmarks/tables.py has {', '.join(TABLES)}.")
        return f"{match[1]}{TABLES[match[2]](results)}\n"

    text = _MARKED.sub(replace, text)
    if (length := text.count("\n")) > MAX_LINES:
        raise ValueError(f"The page has {length} lines; shorten its text to {MAX_LINES} in all.")
    return text


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tables", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a page is out of date")
    parser.add_argument("--plot", action="store_true", help="draw docs/benchmarks/scales.jpg too")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--pages", type=Path, default=PAGES, help="folder of the pages")
    args = parser.parse_args(argv)
    results = Results(args.results, draws=not args.check)  # a clean checkout has none
    if not args.check:
        results.collect()
    failed = False
    for page in sorted(args.pages.glob("*.md")):
        text = page.read_text(encoding="utf-8")
        try:
            filled = fill(text, results)
        except ValueError as error:
            print(f"{page.name}: {error}", file=sys.stderr)
            failed = True
            continue
        if args.check and filled != text:
            print(f"{page.name} is out of date: run python -m benchmarks.tables and commit the page.", file=sys.stderr)
            failed = True
        elif not args.check:
            page.write_text(filled, encoding="utf-8")
    for missing in results.missing:
        print(f"No interval of {missing}: repeat these runs with --redraw to make their draws.", file=sys.stderr)
    if not args.check and not failed:
        results.save_intervals()
    if args.plot:
        plot(results, args.pages / "scales.jpg")
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
