"""Tables of finished cells, with noise and paired intervals, and the one line for other programs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from bundle.metrics.bootstrap import BLOCK, interval

from .recipes import Table
from .scoring import FIGURES
from .simple import ROWS

__all__ = ["Finished", "difference", "final_table", "genes_table", "json_line", "lost_table", "screening_table"]


class Finished:
    """Finished cells of one stage by method, fold and seed: of each method those of its newest settings.

    Args:
        cells: as they were written, of all stages: what screening scored has decided something.
        stage: which.
        budget_min: trainings of another budget are left out.
        threads: those with another number of threads likewise.
    """

    def __init__(self, cells: Iterable[dict[str, Any]], stage: str, budget_min: float, threads: int) -> None:
        cells = sorted(cells, key=lambda cell: (cell["finished"], cell.get("settings", "")))
        self._screened = {section for cell in cells if cell["stage"] == "screening" for section in cell["scored_on"]}
        own = [cell for cell in cells if cell["stage"] == stage]
        equal = [c for c in own if c["kind"] != "recipe" or (c["budget_min"], c["threads"]) == (budget_min, threads)]
        newest = {cell["method"]: _made(cell) for cell in equal}
        self.cells: dict[str, dict[str, dict[int, dict[str, Any]]]] = {}
        for cell in equal:
            if _made(cell) == newest[cell["method"]]:
                by_fold = self.cells.setdefault(cell["method"], {})
                by_fold.setdefault(cell["fold"], {})[cell["seed"]] = cell
        self.left_out = len(own) - sum(self.count(method) for method in self.cells)

    def __contains__(self, method: str) -> bool:
        return method in self.cells

    @property
    def folds(self) -> list[str]:
        """Of any method."""
        return sorted({fold for by_fold in self.cells.values() for fold in by_fold})

    def methods(self, kind: str) -> list[str]:
        """Names of recipes or baselines with a finished cell."""
        return [m for m in self.cells if self.any_of(m)["kind"] == kind]

    def any_of(self, method: str) -> dict[str, Any]:
        """One of its cells."""
        return next(iter(next(iter(self.cells[method].values())).values()))

    def count(self, method: str) -> int:
        """How many cells."""
        return sum(len(seeds) for seeds in self.cells[method].values())

    def untouched(self, method: str) -> list[str]:
        """Its folds whose scored tissue was in no screening."""
        return [
            fold
            for fold, seeds in self.cells[method].items()
            if not self._screened.intersection(next(iter(seeds.values()))["scored_on"])
        ]

    def mean(self, method: str, key: str, folds: Sequence[str] | None = None) -> float:
        """Mean over seeds, then folds."""
        by_fold = self.cells[method]
        return float(np.mean([np.mean([_value(c, key) for c in by_fold[f].values()]) for f in folds or by_fold]))

    def seed_sd(self, method: str, key: str = "PCC@M") -> float:
        """Standard deviation between seeds of one fold, pooled over folds; NaN with one seed each."""
        groups = [[_value(c, key) for c in seeds.values()] for seeds in self.cells[method].values()]
        freedom = sum(len(g) - 1 for g in groups)
        return float(np.sqrt(sum(np.var(g) * len(g) for g in groups) / freedom)) if freedom else float("nan")

    def draws(self, method: str, folds: Sequence[str]) -> np.ndarray:
        """PCC@M of resampled tissue, mean over seeds and folds."""
        return np.mean(
            [np.mean([_draws(cell) for cell in self.cells[method][f].values()], axis=0) for f in folds], axis=0
        )


def difference(done: Finished, method: str, other: str) -> tuple[float, float, float, int] | None:
    """PCC@M of a method minus another's on the folds that both finished: mean, 95 % interval, number of folds.

    Blocks of tissue are resampled, alike for both; seeds are averaged before and are no replicates.
    """
    folds = [f for f in done.cells[method] if f in done.cells[other]] if other in done and method in done else []
    if not folds:
        return None
    mean = done.mean(method, "PCC@M", folds) - done.mean(other, "PCC@M", folds)
    return (mean, *interval(done.draws(method, folds) - done.draws(other, folds)), len(folds))


def screening_table(done: Finished, reference: str) -> str:
    """Recipes on inner validation sections, each against the reference on the same folds and seeds.

    Two kinds of noise: the interval is of resampled tissue, the error of trainings, a fold and seed each.
    """
    lines = ["| recipe | cells | " + " | ".join(FIGURES)]
    lines[0] += f" | seed SD | minus {reference} [95 % of tissue] | ± SE of trainings | steps | min |"
    lines.append("| --- |" + " --- |" * (lines[0].count("|") - 2))

    def lead(method: str) -> tuple[bool, float]:  # means over other folds do not compare
        gaps = _gaps(done, method, reference)
        return not gaps, -float(np.mean(gaps)) if gaps else -done.mean(method, "PCC@M")

    recipes = sorted(done.methods("recipe"), key=lead)
    for method in [*recipes, *done.methods("baseline")]:
        figures = " | ".join(f"{done.mean(method, key):.3f}" for key in FIGURES)
        cells = [f"| {method} | {done.count(method)} | {figures} "]
        if method in recipes:
            cells.append(f"| {done.seed_sd(method):.3f} | {_against(done, method, reference)} ")
            cells.append(f"| {done.mean(method, 'steps'):.0f} | {done.mean(method, 'training_wall_min'):.1f} |")
        else:
            cells.append("| | | | | |")
        lines.append("".join(cells))
    return "\n".join(lines)


def final_table(done: Finished, table: Table) -> str:
    """All methods on test sections, then each fold, then the best and the default against every other."""
    lines = ["| method | folds × seeds | PCC@M, folds untouched by screening | " + " | ".join(FIGURES)]
    lines[0] += " | seed SD | min |"
    lines.append("| --- |" + " --- |" * (lines[0].count("|") - 2))
    methods = [*sorted(done.methods("recipe"), key=lambda m: -done.mean(m, "PCC@M")), *done.methods("baseline")]
    for method in methods:
        cell, folds = done.any_of(method), done.cells[method]
        figures = " | ".join(f"{done.mean(method, key):.3f}" for key in FIGURES)
        trained = cell["kind"] == "recipe"
        noise = f"{done.seed_sd(method):.3f} | {done.mean(method, 'training_wall_min'):.1f}" if trained else " | "
        name = f"{method} (transductive)" if cell.get("transductive") else method
        clean = done.untouched(method)
        apart = f"{done.mean(method, 'PCC@M', clean):.3f} ({len(clean)})" if clean else ""
        lines.append(f"| {name} | {len(folds)} × {max(map(len, folds.values()))} | {apart} | {figures} | {noise} |")
    lines += ["", "PCC@M by fold", "", "| method | " + " | ".join(done.folds) + " |"]
    lines.append("| --- |" + " --- |" * len(done.folds))
    for method in methods:
        own = done.cells[method]
        values = [f"{done.mean(method, 'PCC@M', [f]):.3f}" if f in own else "" for f in done.folds]
        lines.append(f"| {method} | " + " | ".join(values) + " |")
    compared = [name for row in ("best", "swin") if (name := table.rows.get(row, "")) in done]
    for first in compared:
        lines += [
            "",
            f"{first}, PCC@M minus the other's (95 %, paired bootstrap over blocks of {BLOCK})",
        ]
        lines += ["", "| other | difference | interval | folds |", "| --- | --- | --- | --- |"]
        for other in methods:
            found = difference(done, first, other) if other != first else None
            if found is not None:
                mean, low, high, folds_ = found
                lines.append(f"| {other} | {mean:+.3f} | [{low:+.3f}, {high:+.3f}] | {folds_} |")
    return "\n".join(lines)


def lost_table(done: Finished, table: Table) -> str:
    """Of the best's own trainings predicting otherwise (restained slides, say): the share of PCC@M that is lost."""
    best = table.recipes.get(table.rows.get("best", ""))
    rows = []
    for recipe in table.recipes.values():
        if best is None or recipe is best or recipe.name not in done or recipe.training() != best.training():
            continue
        if pairs := [(a, b) for a, b in _pairs(done, recipe.name, best.name) if a["steps"] == b["steps"]]:
            own, other = (np.array([_value(c, "PCC@M") for c in cells]) for cells in zip(*pairs, strict=True))
            rows.append(
                f"| {recipe.name} | {len(pairs)} | {1 - own.mean() / other.mean():.1%} | {max(1 - own / other):.1%} |"
            )
    if not rows:
        return ""
    head = ["| the same trainings | how many | PCC@M lost, of the mean | in the worst |", "| --- | --- | --- | --- |"]
    return "\n".join([*head, *rows])


def genes_table(done: Finished, genes: Sequence[str], folds: Sequence[str] | None = None) -> str:
    """PCC of genes by method, mean over seeds, then over folds; nothing where no fold's panel holds any."""
    head = ["| method | " + " | ".join(genes) + " |", "| --- |" + " --- |" * len(genes)]
    rows = []
    for method, by_fold in done.cells.items():
        values = []
        for gene in genes:
            own = [
                [float(found[gene]) for cell in seeds.values() if gene in (found := _pcc_of_genes(cell))]
                for fold, seeds in by_fold.items()
                if folds is None or fold in folds
            ]
            known = [np.mean(seeds) for seeds in own if seeds]
            values.append(f"{np.mean(known):.3f}" if known else "")
        if any(values):
            rows.append(f"| {method} | " + " | ".join(values) + " |")
    return "\n".join([*head, *rows]) if rows else ""


def json_line(done: Finished, table: Table) -> dict[str, Any]:
    """PCC@M and MSE of the named rows, mean over finished folds and seeds; null where no cell is finished."""
    return {row: _figures(done, name) if name in done else None for row, name in {**table.rows, **ROWS}.items()}


def _figures(done: Finished, method: str) -> dict[str, Any]:
    """The mean over all folds, beside it over those that no screening saw."""
    clean = done.untouched(method)
    return {
        **{key: round(done.mean(method, key), 4) for key in ("PCC@M", "MSE")},
        "PCC@M_untouched": round(done.mean(method, "PCC@M", clean), 4) if clean else None,
        "folds": len(done.cells[method]),
        **({"transductive": True} if done.any_of(method).get("transductive") else {}),
    }


def _pairs(done: Finished, method: str, reference: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Cells of a method and of the reference on the same fold with the same seed, their budgets counted alike."""
    mine, other = done.cells[method], done.cells[reference] if reference in done else {}
    pairs = [
        (mine[fold][seed], other[fold][seed])
        for fold in mine.keys() & other.keys()
        for seed in mine[fold].keys() & other[fold].keys()
    ]
    return [(a, b) for a, b in pairs if ("steps_asked" in a) == ("steps_asked" in b)]


def _gaps(done: Finished, method: str, reference: str) -> list[float]:
    return [_value(a, "PCC@M") - _value(b, "PCC@M") for a, b in _pairs(done, method, reference)]


def _against(done: Finished, method: str, reference: str) -> str:
    pairs, gaps = _pairs(done, method, reference), _gaps(done, method, reference)
    if method == reference or not pairs:
        return " | "
    low, high = interval(np.mean([_draws(a) - _draws(b) for a, b in pairs], axis=0))
    error = f"{np.std(gaps, ddof=1) / np.sqrt(len(gaps)):.3f}" if len(gaps) > 1 else ""
    return f"{np.mean(gaps):+.3f} [{low:+.3f}, {high:+.3f}] | {error}"


def _draws(cell: Mapping[str, Any]) -> np.ndarray:
    return np.array(cell["draws"].split(), float)


def _pcc_of_genes(cell: Mapping[str, Any]) -> dict[str, str]:
    return dict(pair.rsplit(":", 1) for pair in cell["pcc_of_genes"].split())


def _made(cell: Mapping[str, Any]) -> tuple[Any, ...]:
    """Cells that are averaged are equal in this; a baseline is the same on any machine."""
    return (cell.get("settings"), cell.get("device", "cpu") if cell["kind"] == "recipe" else None)


def _value(cell: Mapping[str, Any], key: str) -> float:
    value = cell["scores"].get(key, cell.get(key))
    return float("nan") if value is None else float(value)
