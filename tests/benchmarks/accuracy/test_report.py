from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.accuracy.__main__ import main
from benchmarks.accuracy.cells import RESULTS, read_cells
from benchmarks.accuracy.recipes import Recipe, Table
from benchmarks.accuracy.report import (
    Finished,
    difference,
    final_table,
    genes_table,
    json_line,
    lost_table,
    screening_table,
)
from benchmarks.accuracy.scoring import FIGURES
from benchmarks.baselines import BASELINES
from bundle.config.root import bundle_root


def cell(method: str, fold: str, seed: int, pcc: float, *, noise: int = 0, **other: Any) -> dict[str, Any]:
    draws = np.random.default_rng([noise, ord(fold)]).normal(0, 0.1, 200) + pcc
    return {
        "stage": "final", "kind": "recipe", "method": method, "fold": fold, "seed": seed, "budget_min": 20.0,
        "threads": 1, "scored_on": [fold],
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
    assert line["best"] == {"PCC@M": 0.3, "MSE": 0.5, "PCC@M_untouched": 0.3, "folds": 1}
    assert line["swin"] is None
    assert line["mean"] is None
    assert finished(cells).left_out == 2


def test_cells_of_earlier_settings_are_not_averaged_with_later_ones() -> None:
    old = [cell("a", fold, 0, 0.1, settings="old", finished="1") for fold in "xy"]
    new = [cell("a", "x", 0, 0.4, settings="new", finished="2")]
    unsaid = [cell("b", fold, 0, 0.2) for fold in "xy"]  # written before cells named their settings
    done = finished([*old, *new, *unsaid])
    assert done.mean("a", "PCC@M") == pytest.approx(0.4)
    assert (done.count("a"), done.count("b"), done.left_out) == (1, 2, 2)


def test_the_baselines_that_are_kept_count_on_every_fold() -> None:
    kept = list(read_cells(bundle_root() / RESULTS))
    done = Finished(kept, "final", 20.0, 1)
    folds = {cell["fold"] for cell in kept if cell["stage"] == "final"}
    assert set(done.methods("baseline")) == set(BASELINES)
    assert all(set(done.cells[method]) == folds for method in BASELINES)


def test_folds_whose_tissue_screening_scored_are_told_apart() -> None:
    screened = [cell("a", "x", 0, 0.9, stage="screening", scored_on=["y"])]
    cells = [cell("a", "x", 0, 0.3), cell("a", "y", 0, 0.5), cell("b", "y", 0, 0.5)]
    cells += [cell("colour ridge, per slide", "x", 0, 0.1, kind="baseline", transductive=True)]
    done = finished([*screened, *cells])
    line = json_line(done, TABLE)
    assert line["best"] == {"PCC@M": 0.4, "MSE": 0.5, "PCC@M_untouched": 0.3, "folds": 2}
    assert line["swin"]["PCC@M_untouched"] is None
    assert line["ridge_color"]["transductive"] is True
    text = final_table(done, TABLE)
    assert "| a | 2 × 1 | 0.300 (1) |" in text
    assert "| b | 1 × 1 |  |" in text


def test_a_difference_has_the_noise_of_tissue_and_of_trainings() -> None:
    gaps = {"x": (0.1, 0.3), "y": (0.5, 0.5)}
    cells = [cell("r", fold, seed, 0.2) for fold in gaps for seed in (0, 1)]
    cells += [cell("a", fold, seed, 0.2 + gap) for fold, own in gaps.items() for seed, gap in enumerate(own)]
    cells += [cell("b", "x", 1, 0.5), cell("b", "x", 2, 0.9)]  # the reference has no seed 2
    cells += [cell("c", fold, 0, 0.2, noise=1) for fold in gaps]
    text = screening_table(finished(cells), "r")
    assert "| +0.350 [+0.350, +0.350] | 0.096 |" in text  # the same blocks of tissue in both
    assert "| +0.300 [+0.300, +0.300] |  |" in text  # one training has no error
    low, high = re.search(r"\| \+0\.000 \[(\S+), (\S+)\] \| 0\.000 \|", text).groups()
    assert float(low) < -0.1 < 0.1 < float(high)


def test_trainings_by_time_are_not_compared_with_trainings_by_steps() -> None:
    cells = [cell("a", "x", 0, 0.3), cell("b", "x", 0, 0.5, steps_asked=760), cell("b", "y", 0, 0.4)]
    row = next(line for line in screening_table(finished(cells), "a").splitlines() if line.startswith("| b"))
    assert "[" not in row


def test_recipes_of_other_folds_are_ordered_by_what_they_gain_there() -> None:
    cells = [cell("r", "x", 0, 0.5), cell("r", "y", 0, 0.1)]
    cells += [cell("a", "y", 0, 0.2), cell("b", "x", 0, 0.4), cell("b", "y", 0, 0.1), cell("c", "z", 0, 0.9)]
    lines = screening_table(finished(cells), "r").splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["a", "r", "b", "c"]


def test_seeds_of_another_device_are_not_averaged() -> None:
    cells = [cell("a", "x", 0, 0.3, device="cpu"), cell("a", "x", 1, 0.5, device="H", finished="2")]
    assert finished(cells).mean("a", "PCC@M") == 0.5
    assert finished(cells).left_out == 1


def test_where_the_best_has_no_cell_of_the_budget_the_next_row_is_compared() -> None:
    cells = [cell("b", "x", 0, 0.3), cell("ridge", "x", 0, 0.2, kind="baseline")]
    assert "b, PCC@M minus" in final_table(finished(cells), TABLE)
    assert "a, PCC@M minus" in final_table(finished([*cells, cell("a", "x", 0, 0.4)]), TABLE)


def test_what_another_prediction_of_the_best_loses_is_told_in_the_mean_and_of_the_worst_training() -> None:
    recipes = [Recipe("a", ""), Recipe("a_pale", "", predict={"x": 1}), Recipe("b", "", set={"mpp": 1.0})]
    table = Table({r.name: r for r in recipes}, {"best": "a"}, "a", 200.0)
    cells = [cell("a", "x", 0, 0.4), cell("a", "x", 1, 0.4), cell("b", "x", 0, 0.1)]
    cells += [cell("a_pale", "x", 0, 0.4), cell("a_pale", "x", 1, 0.3)]
    assert lost_table(finished(cells), table).splitlines()[2:] == ["| a_pale | 2 | 12.5% | 25.0% |"]
    assert lost_table(finished(cells[:3]), table) == ""
    cells += [cell("a_pale", "y", 0, 0.1, steps=11), cell("a", "y", 0, 0.4)]  # another training
    assert lost_table(finished(cells), table).splitlines()[2:] == ["| a_pale | 2 | 12.5% | 25.0% |"]


def test_genes_are_averaged_over_seeds_then_over_folds_that_hold_them() -> None:
    cells = [cell("a", "x", s, 0.4, pcc_of_genes=f"KRT8:0.{s + 1}00 HLA:B:0.500") for s in (0, 1)]
    cells += [cell("a", "y", 0, 0.4, pcc_of_genes="HLA:B:0.100"), cell("b", "y", 0, 0.4, pcc_of_genes="CD3E:-0.100")]
    lines = genes_table(finished(cells), ["KRT8", "HLA:B"]).splitlines()
    assert lines[2:] == ["| a | 0.150 | 0.300 |"]
    assert genes_table(finished(cells), ["HLA:B", "CD3E"], ["y"]).splitlines()[2:] == [
        "| a | 0.100 |  |",
        "| b |  | -0.100 |",
    ]
    assert genes_table(finished(cells), ["KRT8"], ["z"]) == genes_table(finished(cells), []) == ""


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


@pytest.mark.parametrize("option", [["--only", "swin"], ["--seeds", "1"]])
def test_a_report_of_some_cells_alone_is_refused(option: list[str], capsys: pytest.CaptureFixture) -> None:
    assert main(["--stage", "report", *option]) == 2
    assert "leave out --only and --seeds" in capsys.readouterr().err


def test_genes_and_folds_that_no_cell_has_are_told(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    kept = cell("a", "x", 0, 0.4, pcc_of_genes="KRT8:0.300", same_patient=True, base_config="b", commit="c")
    (tmp_path / "final").mkdir()
    (tmp_path / "final" / "a.json").write_text(json.dumps(kept))
    report = ["--stage", "report", "--results", str(tmp_path), "--budget-min", str(kept["budget_min"])]
    assert main([*report, "--genes", "KRT8", "KRT9"]) == 0
    assert "| a | 0.300 |  |" in capsys.readouterr().out
    for more, told in (
        (["--genes", "KRT9"], "scores KRT9"),
        (["--genes", "KRT8", "--folds", "x", "y"], "is of fold y"),
    ):
        assert main([*report, *more]) == 2
        assert told in capsys.readouterr().err
