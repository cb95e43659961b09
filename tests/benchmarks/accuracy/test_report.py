from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.accuracy.recipes import Table
from benchmarks.accuracy.report import Finished, difference, final_table, json_line, screening_table
from benchmarks.accuracy.scoring import FIGURES


def cell(method: str, fold: str, seed: int, pcc: float, *, noise: int = 0, **other: Any) -> dict[str, Any]:
    draws = np.random.default_rng([noise, ord(fold)]).normal(0, 0.1, 200) + pcc
    return {
        "stage": "final", "kind": "recipe", "method": method, "fold": fold, "seed": seed, "budget_min": 20.0,
        "threads": 1,
        "scores": {**dict.fromkeys(FIGURES, 0.5), "PCC@M": pcc}, "draws": " ".join(map(str, draws)), "finished": "1",
        "steps": 10, "training_wall_min": 1.0, **other,
    }  # fmt: skip


TABLE = Table({}, {"best": "a", "swin": "b", "stnet": "none"}, "a", 200.0)


def finished(cells: list[dict[str, Any]]) -> Finished:
    return Finished(cells, "final", 20.0, 1)


def test_a_difference_is_paired_over_tissue_and_over_folds_that_both_finished() -> None:
    cells = [cell("a", f, s, v + s / 10) for f, v in (("x", 0.3), ("y", 0.4)) for s in (0, 1)]
    cells += [cell("b", "x", 0, 0.2), cell("c", "y", 0, 0.2, noise=1)]
    mean, low, high, folds = difference(finished(cells), "a", "b") or (0, 0, 0, 0)
    assert (mean, folds) == (pytest.approx(0.15), 1)
    assert (low, high) == (pytest.approx(0.15), pytest.approx(0.15))  # the same tissue drawn: no noise is left
    _, low, high, _ = difference(finished(cells), "a", "c") or (0, 0, 0, 0)
    assert high - low > 0.3
    assert difference(finished(cells), "a", "absent") is None


def test_seeds_are_averaged_within_folds_and_their_spread_is_pooled() -> None:
    done = finished([cell("a", "x", s, v) for s, v in enumerate((0.1, 0.3))] + [cell("a", "y", 0, 0.6)])
    assert done.mean("a", "PCC@M") == pytest.approx(0.4)
    assert done.seed_sd("a") == pytest.approx(np.std([0.1, 0.3], ddof=1))


def test_what_is_not_finished_is_null_and_other_budgets_stay_apart() -> None:
    cells = [cell("a", "x", 0, 0.3), cell("b", "x", 0, 0.9, budget_min=1.0)]
    cells += [cell("a", "x", 0, 0.8, finished="0")]  # earlier settings
    line = json_line(finished(cells), TABLE)
    assert line["best"] == {"PCC@M": 0.3, "MSE": 0.5, "folds": 1}
    assert line["swin"] is None
    assert line["mean"] is None
    assert finished(cells).left_out == 2


@pytest.mark.parametrize("baseline", [False, True])
def test_tables_have_a_row_for_each_method_and_no_ragged_line(baseline: bool) -> None:
    cells = [cell(m, f, s, 0.3) for m in "ab" for f in "xy" for s in (0, 1)]
    if baseline:
        cells.append(cell("ridge", "x", 0, 0.2, kind="baseline", transductive=True))
    for text in (screening_table(finished(cells), "a"), final_table(finished(cells), TABLE)):
        for block in text.split("\n\n"):
            widths = {line.count("|") for line in block.splitlines() if line.startswith("|")}
            assert len(widths) <= 1
        for method in {c["method"] for c in cells}:
            assert f"| {method}" in text
