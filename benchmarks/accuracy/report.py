"""Tables of finished runs, with noise and paired intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.markdown import table
from benchmarks.store import Results

__all__ = [
    "FIGURES",
    "Finished",
    "difference",
    "final_table",
    "folds_table",
    "genes_table",
    "lost_table",
    "screening_table",
]

#: Column of the CSV, and its title in tables.
FIGURES = {
    "PCC@F": "PCC@F",
    "PCC@S": "PCC@S",
    "PCC@M": "PCC@M",
    "PCC@M_residual": "residual",
    "PCC@M_hvg50": "hvg50",
    "MSE": "MSE",
    "MAE": "MAE",
    "share_of_ceiling": "share of ceiling",
}

Row = dict[str, Any]


class Finished:
    """Finished runs of one stage by method, fold and seed: of each method those of its newest settings.

    Args:
        results: where they are.
        stage: which.
        budget_min: trainings with another budget are left out.
        threads: those with another number of threads likewise.
    """

    def __init__(self, results: Results, stage: str, budget_min: float, threads: int = 1) -> None:
        self.results, self.stage, self.budget_min = results, stage, budget_min
        own = [row for row in results.rows("accuracy") if row["stage"] == stage]
        equal = [
            r for r in own if not _trained(r) or (float(r["budget_min"]), int(r["threads"])) == (budget_min, threads)
        ]
        newest = {row["method"]: _compared(row) for row in equal}
        self.runs: dict[str, dict[str, dict[str, Row]]] = {}
        for row in equal:
            if _compared(row) == newest[row["method"]]:
                by_fold = self.runs.setdefault(row["method"], {})
                by_fold.setdefault(row["fold"], {})[row["seed"]] = row
        self.left_out = len(own) - len(self.all)

    @property
    def all(self) -> list[Row]:
        """Every run."""
        return [row for by_fold in self.runs.values() for seeds in by_fold.values() for row in seeds.values()]

    @property
    def folds(self) -> list[str]:
        """Of any method."""
        return sorted({row["fold"] for row in self.all})

    def methods(self, kind: str) -> list[str]:
        """Recipes, the best first, or baselines, with a finished run."""
        own = [m for m, by_fold in self.runs.items() if _any(by_fold)["kind"] == kind]
        return sorted(own, key=lambda m: -self.mean(m, "PCC@M")) if kind == "recipe" else own

    def mean(self, method: str, column: str, folds: Sequence[str] | None = None) -> float:
        """Mean over seeds, then folds."""
        by_fold = self.runs[method]
        return float(np.mean([np.mean([_value(r, column) for r in by_fold[f].values()]) for f in folds or by_fold]))

    def seed_sd(self, method: str) -> float | None:
        """Standard deviation of PCC@M between seeds of one fold, pooled over folds; None with one seed each."""
        groups = [[_value(r, "PCC@M") for r in seeds.values()] for seeds in self.runs[method].values()]
        freedom = sum(len(g) - 1 for g in groups)
        return float(np.sqrt(sum(np.var(g) * len(g) for g in groups) / freedom)) if freedom else None

    def size(self, method: str) -> str:
        """Folds × seeds."""
        folds = self.runs[method]
        return f"{len(folds)} × {max(map(len, folds.values()))}"

    def pairs(self, method: str, other: str) -> list[tuple[Row, Row]]:
        """Runs of two methods on the same fold with the same seed, their budgets counted alike."""
        mine, theirs = self.runs[method], self.runs.get(other, {})
        found = [(m, theirs[f][s]) for f, seeds in mine.items() for s, m in seeds.items() if s in theirs.get(f, {})]
        return [(a, b) for a, b in found if bool(a.get("steps_asked")) == bool(b.get("steps_asked"))]

    def about(self, method: str, other: str) -> dict[str, Any]:
        """The columns of `intervals.csv` that say what is compared."""
        where = f"{self.stage}, {self.budget_min:g} min"
        return {"table": "accuracy", "of": where, "method": method, "other": other}


def difference(done: Finished, method: str, other: str) -> tuple[float, tuple[float, float] | None] | None:
    """PCC@M of a method minus another's on the folds that both finished, with its 95 % interval where that is known.

    Blocks of tissue are resampled, alike for both. Seeds are averaged before and are no replicates.
    """
    if method == other or not {method, other} <= done.runs.keys():
        return None
    folds = sorted(done.runs[method].keys() & done.runs[other].keys())
    if not folds:
        return None
    sides = [[[row["key"] for row in done.runs[m][f].values()] for f in folds] for m in (method, other)]
    mean = done.mean(method, "PCC@M", folds) - done.mean(other, "PCC@M", folds)
    return mean, done.results.interval(*sides, **done.about(method, other))


def screening_table(done: Finished, reference: str, why: dict[str, str] | None = None, baselines: bool = True) -> str:
    """Recipes on inner validation sections, each against the reference on the same folds and seeds.

    There are two kinds of noise: the interval is of resampled tissue, the error is of trainings, a fold and seed each.

    Args:
        done: the runs.
        reference: the recipe to compare with.
        why: what is different in each recipe.
        baselines: show them too.
    """
    head = ["recipe", *(["what is different"] if why else []), "folds × seeds", "PCC@M", "residual", "MSE"]
    head += [f"minus {reference} [95 % of tissue]", "± SE of trainings", "steps"]

    def lead(method: str) -> tuple[bool, float]:  # means over other folds do not compare
        gaps = _gaps(done.pairs(method, reference))
        return not gaps, -float(np.mean(gaps)) if gaps else -done.mean(method, "PCC@M")

    recipes, rows = sorted(done.methods("recipe"), key=lead), []
    for method in [*recipes, *(done.methods("baseline") if baselines else [])]:
        figures = [f"{done.mean(method, column):.3f}" for column in ("PCC@M", "PCC@M_residual", "MSE")]
        row = [method, *([why.get(method, "baseline")] if why else []), done.size(method), *figures]
        trained = [*_against(done, method, reference), f"{done.mean(method, 'steps'):.0f}"] if method in recipes else []
        rows.append([*row, *trained, *[None] * (len(head) - len(row) - len(trained))])
    return table(head, rows)


def _against(done: Finished, method: str, reference: str) -> tuple[str | None, str | None]:
    pairs = done.pairs(method, reference)
    if method == reference or not pairs:
        return None, None
    gaps = _gaps(pairs)
    sides = [[[row["key"]] for row in side] for side in zip(*pairs, strict=True)]
    error = f"{np.std(gaps, ddof=1) / np.sqrt(len(gaps)):.3f}" if len(gaps) > 1 else None
    return _signed(float(np.mean(gaps)), done.results.interval(*sides, **done.about(method, reference))), error


def final_table(done: Finished, methods: Sequence[str] | None = None) -> str:
    """Methods on test sections."""
    rows = []
    for method in methods or [*done.methods("recipe"), *done.methods("baseline")]:
        first, sd = _any(done.runs[method]), done.seed_sd(method)
        name = f"{method} (transductive)" if first.get("transductive") == "true" else method
        minutes = f"{done.mean(method, 'training_wall_min'):.1f}" if _trained(first) else None
        figures = [f"{done.mean(method, column):.3f}" for column in FIGURES]
        rows.append([name, done.size(method), *figures, None if sd is None else f"{sd:.3f}", minutes])
    return table(["method", "folds × seeds", *FIGURES.values(), "seed SD", "min"], rows)


def folds_table(
    done: Finished,
    compared: Sequence[str] = (),
    methods: Sequence[str] | None = None,
    more: dict[str, dict[str, str]] | None = None,
) -> str:
    """PCC@M on each fold, and what `compared` methods have more, with 95 % intervals over resampled tissue.

    Args:
        done: the runs.
        compared: methods to subtract the others from.
        methods: lines of the table; all by default.
        more: further columns by title, their entries by method.
    """
    rows, more = [], more or {}
    for method in methods or [*done.methods("recipe"), *done.methods("baseline")]:
        own = [f"{done.mean(method, 'PCC@M', [f]):.3f}" if f in done.runs[method] else None for f in done.folds]
        found = [difference(done, first, method) for first in compared]
        gaps = [None if d is None else _signed(*d) for d in found]
        rows.append([method, *own, *(entries.get(method) for entries in more.values()), *gaps])
    return table(["method", *done.folds, *more, *(f"{first} minus it" for first in compared)], rows)


def lost_table(done: Finished, best: str, others: Sequence[str], why: dict[str, str]) -> str:
    """Other predictions by the same trainings as `best`: PCC@M, and the share of it that is lost."""
    rows = []
    for method in others:
        pairs = [(a, b) for a, b in done.pairs(method, best) if a["steps"] == b["steps"]]
        own, other = (np.array([_value(row, "PCC@M") for row in side]) for side in zip(*pairs, strict=True))
        lost = (f"{1 - own.mean() / other.mean():.1%}", f"{max(1 - own / other):.1%}")
        gap = difference(done, best, method)
        rows.append([method, why.get(method), len(pairs), f"{own.mean():.3f}", gap and _signed(*gap), *lost])
    head = ["prediction", "what is different", "trainings", "PCC@M", f"{best} minus it"]
    return table([*head, "lost in the mean", "lost in the worst training"], rows)


def genes_table(done: Finished, methods: Sequence[str], fold: str) -> str:
    """PCC of the genes that the CSV has, on one fold: a line for each gene, mean over seeds."""
    genes = [column for column in done.all[0] if column.startswith("pcc_")]
    rows = []
    for gene in genes:
        known = [[_value(r, gene) for r in done.runs[m].get(fold, {}).values() if r[gene]] for m in methods]
        rows.append([gene.removeprefix("pcc_"), *(f"{np.mean(values):.3f}" if values else None for values in known)])
    return table([f"gene, fold {fold}", *methods], rows)


def _gaps(pairs: Sequence[tuple[Row, Row]]) -> list[float]:
    return [_value(a, "PCC@M") - _value(b, "PCC@M") for a, b in pairs]


def _signed(mean: float, bounds: tuple[float, float] | None) -> str:
    return f"{mean:+.3f}" + (f" [{bounds[0]:+.3f}, {bounds[1]:+.3f}]" if bounds else "")


def _any(by_fold: dict[str, dict[str, Row]]) -> Row:
    return next(iter(next(iter(by_fold.values())).values()))


def _trained(row: Row) -> bool:
    return row["kind"] == "recipe"


def _compared(row: Row) -> tuple[Any, ...]:
    """Runs that are averaged are equal in this; a baseline is the same on any machine."""
    return row.get("settings"), row.get("device", "cpu") if _trained(row) else None


def _value(row: Row, column: str) -> float:
    return float(row[column]) if row.get(column) else float("nan")
