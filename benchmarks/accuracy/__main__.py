"""`python -m benchmarks.accuracy [--data DIR] [--stage screening|final|timing|report] [--only RECIPE...] [--quick]`."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.store import RESULTS, Results
from bundle.datasets.phantom.dataset import make_phantom
from bundle.errors import InputError
from transforms.slide import SlideError

from .folds import STAGES, Fold, make_folds, open_data
from .recipes import Table, read_table
from .report import Finished, final_table, folds_table, screening_table
from .runs import TABLE
from .schedule import make_jobs, recipe_runs, run_jobs
from .simple import baseline_runs, run_baselines
from .timing import read_steps, time_recipes

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    args = _parser().parse_args(argv)
    work, results = Path(args.work), Results(args.results or RESULTS)
    stages = [args.stage or "final"]
    failed = 0
    try:
        if args.quick:  # a minute: generated slides, one fold, a few steps of each stage
            work, results = work / "quick", Results(work / "quick" / "results")
            args.data = make_phantom(work / "data", slides=3, size_um=600.0, mpp=1.0, genes=60, units="spot:100:120")
            args.folds, args.seeds, args.budget_min, stages = args.folds or ["P1"], [0], 0.1, list(STAGES)
            args.only = args.only or ["swin", "stnet"]
        table = read_table(args.recipes)
        if args.stage == "timing":
            return 1 if _time(table, args, work, results) else 0
        if args.stage == "report" and (args.only or args.seeds or args.folds):
            raise InputError("The report shows all finished runs: leave out --only, --seeds and --folds.")
        if args.stage != "report":
            for stage in stages:
                failed += _run(stage, table, args, work, results)
        results.collect()
        _report(table.reference, args, results)
    except (InputError, SlideError) as error:
        print(f"python -m benchmarks.accuracy: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped. Run the same command again to continue.", file=sys.stderr)
        return 130
    return 1 if failed else 0


def _run(stage: str, table: Table, args: argparse.Namespace, work: Path, results: Results) -> int:
    """Do the runs that the stage lacks; returns how many trainings failed."""
    manifest = open_data(args.data, work)
    folds = _chosen(make_folds(manifest), args.folds, stage)
    shared = "same_patient" if folds[0].split_by == "section" else "patients apart"
    for fold in folds:
        training, scored = ([r["section"] for r in records] for records in fold.split(stage))
        print(f"{stage}, fold {fold.name} ({shared}): trained on {', '.join(training)}; scored on {', '.join(scored)}")
    data = str(manifest.get("name", ""))
    if any(row["data"] != data for row in results.rows(TABLE)):
        raise InputError(f"{results.folder} holds runs of another data set than {data}; give each its own --results.")
    settings = _settings(data, table, args)
    recipes = [] if args.only == ["baselines"] else table.of(stage, args.only)
    if recipes and not args.by_steps and torch.cuda.is_available():
        raise InputError(
            "A budget of CPU time cannot be kept on a GPU: give --by-steps, or hide it (CUDA_VISIBLE_DEVICES=)."
        )
    steps = read_steps(recipes, settings, results) if args.by_steps else None
    simple = [run for run in baseline_runs(stage, folds, settings) if not results.has(run.key, args.redraw)]
    run_baselines(simple, results)
    seeds = args.seeds if args.seeds is not None else list(range(2 if stage == "screening" else 3))
    runs = recipe_runs(stage, recipes, folds, seeds, settings, steps)
    missing = [(run, recipe) for run, recipe in runs if not results.has(run.key, args.redraw)]
    done = len(runs) - len(missing)
    print(f"{stage}: {len(simple)} baselines computed; {done} of {len(runs)} trained runs were already finished")
    return run_jobs(make_jobs(missing), args.jobs, work, results, manifest)


def _time(table: Table, args: argparse.Namespace, work: Path, results: Results) -> int:
    """Time the recipes that have no timing yet; returns how many failed."""
    manifest = open_data(args.data, work)
    recipes = table.of("", args.only) if args.only else list(table.recipes.values())
    settings = _settings(str(manifest.get("name", "")), table, args)
    return time_recipes(recipes, make_folds(manifest)[0], settings, args.jobs, work, results, manifest)


def _settings(data: str, table: Table, args: argparse.Namespace) -> dict[str, Any]:
    return {"data": data, "budget_min": args.budget_min, "threads": args.threads, "min_total": table.min_total}


def _chosen(folds: list[Fold], names: Sequence[str] | None, stage: str) -> list[Fold]:
    """The named folds; by default all, and for screening every other one of the first four."""
    if names is None:
        return folds[0:4:2] if stage == "screening" else folds
    unknown = set(names) - {fold.name for fold in folds}
    if unknown:
        raise InputError(f"There is no fold {', '.join(unknown)}; there are {', '.join(f.name for f in folds)}.")
    return [fold for fold in folds if fold.name in names]


def _report(reference: str, args: argparse.Namespace, results: Results) -> None:
    for stage, where in (("screening", "inner validation sections"), ("final", "test sections")):
        done = Finished(results, stage, args.budget_min, args.threads)
        if not done.all:
            continue
        same = " and ".join(sorted({row["same_patient"] for row in done.all}))
        print(f"\n{stage}: scored on {where} (same_patient: {same})")
        print(f"trainings of {args.budget_min:g} min of CPU time on {args.threads} thread(s){_devices(done.all)}\n")
        if stage == "screening":
            print(screening_table(done, reference))
        else:
            print(f"{final_table(done)}\n\nPCC@M by fold\n\n{folds_table(done, [reference, 'swin'])}")
        made_with = {row["base_config"]: row["commit"] for row in done.all if row["kind"] == "recipe"}
        if len(made_with) > 1:
            print(f"\nTrained with different configs/train.json, at {', '.join(sorted(made_with.values()))}.")
        if done.left_out:
            print(f"\nLeft out: {done.left_out} runs of another budget, number of threads or earlier settings.")


def _devices(rows: Sequence[dict[str, Any]]) -> str:
    """Which budgets were counted in steps, and which devices computed."""
    trained = [row for row in rows if row["kind"] == "recipe"]
    counted = sum(bool(row.get("steps_asked")) for row in trained)
    steps = f", {counted} of {len(trained)} as the steps that fitted into it when timed" if counted else ""
    devices = sorted({row.get("device", "cpu") for row in trained})
    return steps + (f"; on {' and '.join(devices)}" if devices else "")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description="Accuracy under one protocol.")
    add = parser.add_argument
    add("--data", help="folder with dataset.json, or with Her2ST's files (default: PIXNET_DATA/her2st)")
    add(
        "--stage",
        choices=[*STAGES, "timing", "report"],
        help="what to run (default: final); timing measures how many steps fit into a minute, report runs nothing",
    )
    add("--only", nargs="+", metavar="RECIPE", help="run only these recipes; `baselines` for none")
    add("--folds", nargs="+", metavar="FOLD", help="run only these folds")
    add("--seeds", nargs="+", type=int, metavar="SEED", help="default: 0 1 for screening, 0 1 2 for final")
    add("--budget-min", type=float, default=10.0, metavar="MIN", help="CPU time of each training (default: 10)")
    add("--threads", type=int, default=1, help="threads of each training (default: 1)")
    add("--by-steps", action="store_true", help="train as many steps as fitted into the budget when timed (for a GPU)")
    add("--jobs", type=int, default=2, help="trainings at once (default: 2)")
    add("--work", default="runs/accuracy", help="folder for runs and predictions (default: runs/accuracy)")
    add("--results", help="folder of the results (default: benchmarks/results)")
    add("--redraw", action="store_true", help="repeat finished runs whose bootstrap draws are not in the cache")
    add("--recipes", metavar="FILE", help="another table of recipes")
    add("--quick", action="store_true", help="try everything for a minute on generated slides")
    return parser


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stop the trainings too
    raise SystemExit(main())
