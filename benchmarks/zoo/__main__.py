"""The command; see the package."""

from __future__ import annotations

import sys
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path

from bundle.config.root import bundle_root
from bundle.datasets.phantom import make_phantom
from bundle.integrations.bundle_zip import export_bundle

from .. import zoo
from ..processes import run_monai, training
from ..workload import arguments, finish, quiet, row, workspace
from .checks import CHECKS, WORKFLOWS, judge
from .running import SHORT
from .subject import Subject

__all__ = ["main", "subjects", "table"]

_WIDTHS = (44, 12, 12)


def subjects(run: Path, dataset: Path, work: Path) -> dict[str, Subject]:
    """The repository, and a run's exported bundle."""
    with zipfile.ZipFile(export_bundle(run, work / "pixnet_bundle.zip")) as archive:
        archive.extractall(work)
    folders = {"repository": bundle_root(), "exported": work / "pixnet_bundle"}
    return {name: Subject(folder, run, dataset, work / f"checks_{name}") for name, folder in folders.items()}


def table(run: Path, dataset: Path, work: Path, quick: bool) -> dict[str, int]:
    """Print the outcome of every check; returns how many of each outcome, over both bundles."""
    found = subjects(run, dataset, work)
    counts = dict.fromkeys(("passed", "not run", "cannot pass", "failed"), 0)
    reasons = []
    row("", *found, widths=_WIDTHS)
    for label, check in {**CHECKS, **({} if quick else WORKFLOWS)}.items():
        outcomes = {name: judge(check, subject) for name, subject in found.items()}
        row(label, *(outcome for outcome, _ in outcomes.values()), widths=_WIDTHS)
        for name, (outcome, remark) in outcomes.items():
            counts[outcome] += 1
            reasons += [(label, name, outcome, remark)] if remark else []
    print()
    for (label, outcome, remark), names in _grouped(reasons).items():
        print(f"{label} ({', '.join(names)}), {outcome}: {remark}.")
    return {key.replace(" ", "_"): value for key, value in counts.items()}


def _grouped(reasons: Sequence[tuple[str, str, str, str]]) -> dict[tuple[str, str, str], list[str]]:
    """Bundles with the same outcome of the same check."""
    grouped: dict[tuple[str, str, str], list[str]] = {}
    for label, name, outcome, remark in reasons:
        grouped.setdefault((label, outcome, remark), []).append(name)
    return grouped


def main(argv: Sequence[str] | None = None) -> dict[str, int]:
    """Run it."""
    args = arguments(zoo.__doc__, threads=False).parse_args(argv)
    with workspace(args.work) as kept, quiet():
        work = kept / f"zoo_{time.time_ns()}"  # the checks write new files
        data, run = work / "data", work / "run"
        make_phantom(data, slides=3, size_um=600.0, mpp=1.0, genes=30, units="spot:55:60,bin:16", truth="none")
        run_monai(training(data, run, SHORT))
        result = table(run, data, work, args.quick)
    finish(result)
    return result


if __name__ == "__main__":
    sys.exit(1 if main()["failed"] else 0)
