"""`python -m benchmarks.accuracy [--data DIR] [--stage screening|final|timing|report] [--only RECIPE...] [--quick]`."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from bundle.datasets.phantom import make_phantom
from bundle.errors import InputError
from transforms.slide import SlideError

from .cells import RESULTS, read_cells
from .folds import STAGES, Fold, make_folds, open_data
from .recipes import Table, read_table
from .report import Finished, final_table, genes_table, json_line, lost_table, screening_table
from .schedule import make_jobs, recipe_cells, run_jobs
from .simple import baseline_cells, run_baselines
from .timing import read_steps, time_recipes

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    args = _parser().parse_args(argv)
    work, results = Path(args.work), Path(args.results or RESULTS)
    stages = [args.stage or "final"]
    failed = 0
    try:
        if args.quick:  # a minute: generated slides, one fold, a few steps of each stage
            work, results = work / "quick", work / "quick" / "results"
            args.data = make_phantom(work / "data", slides=3, size_um=600.0, mpp=1.0, genes=60, units="spot:100:120")
            args.folds, args.seeds, args.budget_min, stages = args.folds or ["P1"], [0], 0.1, list(STAGES)
            args.only = args.only or ["swin", "stnet"]
        table = read_table(args.recipes)
        if args.stage == "timing":
            return 1 if _time(table, args, work, results) else 0
        if args.stage == "report" and (args.only or args.seeds):
            raise InputError("The report is of all finished cells: leave out --only and --seeds.")
        if args.stage != "report":
            for stage in stages:
                failed += _run(stage, table, args, work, results)
        _report(table, args, results)
    except (InputError, SlideError) as error:
        print(f"python -m benchmarks.accuracy: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped. The same command goes on where it was.", file=sys.stderr)
        return 130
    return 1 if failed else 0


def _run(stage: str, table: Table, args: argparse.Namespace, work: Path, results: Path) -> int:
    """Do what the stage lacks; returns how many trainings failed."""
    manifest = open_data(args.data, work)
    folds = _chosen(make_folds(manifest), args.folds, stage)
    shared = "same_patient" if folds[0].split_by == "section" else "patients apart"
    for fold in folds:
        training, scored = ([r["section"] for r in records] for records in fold.split(stage))
        print(f"{stage}, fold {fold.name} ({shared}): trained on {', '.join(training)}; scored on {', '.join(scored)}")
    data = str(manifest.get("name", ""))
    if any(cell["data"] != data for cell in read_cells(results)):
        raise InputError(f"{results} holds cells of another data set than {data}; give each its own --results.")
    settings = _settings(data, table, args)
    recipes = [] if args.only == ["baselines"] else table.of(stage, args.only)
    if recipes and not args.by_steps and torch.cuda.is_available():
        raise InputError(
            "A budget of CPU time says nothing of a GPU: give --by-steps, or hide it (CUDA_VISIBLE_DEVICES=)."
        )
    steps = read_steps(recipes, settings, results) if args.by_steps else None
    simple = [c for c in baseline_cells(stage, folds, settings) if not c.path(results).is_file()]
    run_baselines(simple, results)
    seeds = args.seeds if args.seeds is not None else list(range(2 if stage == "screening" else 3))
    cells = recipe_cells(stage, recipes, folds, seeds, settings, steps)
    missing = [(cell, recipe) for cell, recipe in cells if not cell.path(results).is_file()]
    there = len(cells) - len(missing)
    print(f"{stage}: {len(simple)} baselines computed; {there} of {len(cells)} trained cells are there")
    return run_jobs(make_jobs(missing), args.jobs, work, results, manifest)


def _time(table: Table, args: argparse.Namespace, work: Path, results: Path) -> int:
    """Time the recipes that were not timed; returns how many failed."""
    manifest = open_data(args.data, work)
    recipes = table.of("", args.only) if args.only else list(table.recipes.values())
    settings = _settings(str(manifest.get("name", "")), table, args)
    return time_recipes(recipes, make_folds(manifest)[0], settings, args.jobs, work, results, manifest)


def _settings(data: str, table: Table, args: argparse.Namespace) -> dict[str, Any]:
    return {"data": data, "budget_min": args.budget_min, "threads": args.threads, "min_total": table.min_total}


def _chosen(folds: list[Fold], names: Sequence[str] | None, stage: str) -> list[Fold]:
    """The folds named; by default all, and for screening every other one of the first four."""
    if names is None:
        return folds[0:4:2] if stage == "screening" else folds
    unknown = set(names) - {fold.name for fold in folds}
    if unknown:
        raise InputError(f"There is no fold {', '.join(unknown)}; there are {', '.join(f.name for f in folds)}.")
    return [fold for fold in folds if fold.name in names]


def _report(table: Table, args: argparse.Namespace, results: Path) -> None:
    cells = list(read_cells(results))
    done = {stage: Finished(cells, stage, args.budget_min, args.threads) for stage in STAGES}
    scored = {fold for found in done.values() for fold in found.folds}
    if args.stage == "report" and (unknown := set(args.folds or ()) - scored):
        raise InputError(f"No cell of {args.budget_min:g} minutes is of fold {', '.join(sorted(unknown))}.")
    printed_genes = False
    for stage in STAGES:
        found = done[stage]
        if not found.cells:
            continue
        own = [cell for folds in found.cells.values() for seeds in folds.values() for cell in seeds.values()]
        same = str(all(cell["same_patient"] for cell in own)).lower()
        where = "inner validation sections" if stage == "screening" else "test sections"
        print(f"\n{stage}: scored on {where} (same_patient: {same})")
        print(f"trainings of {args.budget_min:g} min of CPU time on {args.threads} thread(s){_told(own)}\n")
        print(screening_table(found, table.reference) if stage == "screening" else final_table(found, table))
        if lost := lost_table(found, table):
            print(f"\n{lost}")
        if genes := genes_table(found, args.genes, args.folds):
            printed_genes = True
            print(f"\nPCC of genes, fold {' and '.join(args.folds or found.folds)}\n\n{genes}")
        made_with = {cell["base_config"]: cell["commit"] for cell in own if cell["kind"] == "recipe"}
        if len(made_with) > 1:
            print(f"\nTrained with different configs/train.json, at {', '.join(sorted(made_with.values()))}.")
        if found.left_out:
            print(f"\n{found.left_out} cells of another budget, number of threads or earlier settings left out.")
    print()
    print(json.dumps(json_line(done["final"], table)))
    if args.genes and not printed_genes:
        raise InputError(f"No cell of {args.budget_min:g} minutes scores {', '.join(args.genes)}.")


def _told(cells: Sequence[dict[str, Any]]) -> str:
    """Where budgets were counted in steps, and what computed."""
    trained = [cell for cell in cells if cell["kind"] == "recipe"]
    counted = sum("steps_asked" in cell for cell in trained)
    devices = sorted({cell.get("device", "cpu") for cell in trained})
    told = "" if not counted else f", {counted} of {len(trained)} as the steps that it held when timed"
    return told + (f"; on {' and '.join(devices)}" if devices else "")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description="Accuracy under one protocol.")
    parser.add_argument("--data", help="folder with dataset.json, or with Her2ST's files (default: PIXNET_DATA/her2st)")
    parser.add_argument(
        "--stage",
        choices=[*STAGES, "timing", "report"],
        help="what to run (default: final); timing measures how many steps a minute holds, report runs nothing",
    )
    parser.add_argument("--only", nargs="+", metavar="RECIPE", help="these alone; `baselines` for none")
    parser.add_argument(
        "--folds", nargs="+", metavar="FOLD", help="these alone; in a report, those that --genes is averaged over"
    )
    parser.add_argument(
        "--genes", nargs="+", default=[], metavar="GENE", help="print the PCC of these genes too, of --folds"
    )
    parser.add_argument(
        "--seeds", nargs="+", type=int, metavar="SEED", help="default: 0 1 for screening, 0 1 2 for final"
    )
    parser.add_argument("--budget-min", type=float, default=10.0, metavar="MIN", help="of each training (default: 10)")
    parser.add_argument("--threads", type=int, default=1, help="of each training (default: 1)")
    parser.add_argument(
        "--by-steps", action="store_true", help="as many steps as the budget held when timed: for a GPU, say"
    )
    parser.add_argument("--jobs", type=int, default=2, help="trainings at once (default: 2)")
    parser.add_argument("--work", default="runs/accuracy", help="runs and predictions (default: runs/accuracy)")
    parser.add_argument("--results", help=f"finished cells (default: {RESULTS})")
    parser.add_argument("--recipes", metavar="FILE", help="another table of recipes")
    parser.add_argument(
        "--quick", action="store_true", help="a minute on generated slides, to see that it works; by time"
    )
    return parser


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the trainings are stopped with it
    raise SystemExit(main())
