from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.accuracy.__main__ import main
from benchmarks.accuracy.report import (
    FIGURES,
    Finished,
    difference,
    final_table,
    folds_table,
    genes_table,
    lost_table,
    screening_table,
)
from benchmarks.baselines import BASELINES
from benchmarks.store import Results


def run(method: str, fold: str, seed: int, pcc: float, *, noise: int = 0, **other: Any) -> dict[str, Any]:
    """A finished run; what is not a column is its provenance."""
    draws = np.random.default_rng([noise, ord(fold)]).normal(0, 0.1, 200) + pcc
    made = {"finished": "1", "settings": "s", "commit": "c", "base_config": "b", "device": "cpu"}
    made = {key: other.pop(key, value) for key, value in made.items()}
    row = {
        "stage": "final", "kind": "recipe", "method": method, "fold": fold, "seed": seed, "budget_min": 20.0,
        "threads": 1, "scored_on": fold, "same_patient": True, **dict.fromkeys(FIGURES, 0.5), "PCC@M": pcc,
        "PCC@M_residual": 0.5, "steps": 10, "training_wall_min": 1.0, **other,
    }  # fmt: skip
    return {"row": row, "made": made, "draws": draws}


@pytest.fixture
def finished(tmp_path: Path):
    def save(runs: list[dict[str, Any]]) -> Finished:
        results = Results(tmp_path)
        for number, content in enumerate(runs):
            key = f"k{number}"
            results.save("accuracy", key, [content["row"]], content["made"], {key: content["draws"]})
        results.collect()
        return Finished(results, "final", 20.0)

    return save


def test_a_difference_is_paired_over_tissue_and_over_folds_that_both_finished(finished) -> None:
    runs = [run("a", f, s, v + s / 10) for f, v in (("x", 0.3), ("y", 0.4)) for s in (0, 1)]
    done = finished([*runs, run("b", "x", 0, 0.2), run("c", "y", 0, 0.2, noise=1)])
    mean, interval = difference(done, "a", "b") or (0, (0, 0))
    assert mean == pytest.approx(0.15)
    assert interval == pytest.approx((0.15, 0.15), abs=1e-4)  # the same tissue drawn: no noise is left
    _, (low, high) = difference(done, "a", "c") or (0, (0, 0))
    assert high - low > 0.3
    assert difference(done, "a", "absent") is None


def test_seeds_are_averaged_within_folds_and_their_spread_is_pooled(finished) -> None:
    done = finished([run("a", "x", s, v) for s, v in enumerate((0.1, 0.3))] + [run("a", "y", 0, 0.6)])
    assert done.mean("a", "PCC@M") == pytest.approx(0.4)
    assert done.seed_sd("a") == pytest.approx(np.std([0.1, 0.3], ddof=1))


@pytest.mark.parametrize(
    "other",
    [{"budget_min": 1.0}, {"threads": 2}, {"settings": "earlier", "finished": "0"}, {"device": "H", "finished": "0"}],
)
def test_runs_of_another_budget_or_device_or_earlier_settings_are_left_out(finished, other: dict[str, Any]) -> None:
    done = finished([run("a", "x", 0, 0.3), run("a", "x", 1, 0.9, **other), run("a", "y", 0, 0.9, **other)])
    assert (done.mean("a", "PCC@M"), len(done.all), done.left_out) == (0.3, 1, 2)


def test_a_difference_has_the_noise_of_tissue_and_of_trainings(finished) -> None:
    gaps = {"x": (0.1, 0.3), "y": (0.5, 0.5)}
    runs = [run("r", fold, seed, 0.2) for fold in gaps for seed in (0, 1)]
    runs += [run("a", fold, seed, 0.2 + gap) for fold, own in gaps.items() for seed, gap in enumerate(own)]
    runs += [run("b", "x", 1, 0.5), run("b", "x", 2, 0.9)]  # the reference has no seed 2
    runs += [run("c", fold, 0, 0.2, noise=1) for fold in gaps]
    text = screening_table(finished(runs), "r")
    assert "| +0.350 [+0.350, +0.350] | 0.096 |" in text  # the same blocks of tissue in both
    assert "| +0.300 [+0.300, +0.300] |  |" in text  # one training has no error
    low, high = re.search(r"\| \+0\.000 \[(\S+), (\S+)\] \| 0\.000 \|", text).groups()
    assert float(low) < -0.1 < 0.1 < float(high)


def test_trainings_by_time_are_not_compared_with_trainings_by_steps(finished) -> None:
    done = finished([run("a", "x", 0, 0.3), run("b", "x", 0, 0.5, steps_asked=760), run("b", "y", 0, 0.4)])
    row = next(line for line in screening_table(done, "a").splitlines() if line.startswith("| b"))
    assert "[" not in row


def test_recipes_of_other_folds_are_ordered_by_what_they_gain_there(finished) -> None:
    runs = [run("r", "x", 0, 0.5), run("r", "y", 0, 0.1)]
    runs += [run("a", "y", 0, 0.2), run("b", "x", 0, 0.4), run("b", "y", 0, 0.1), run("c", "z", 0, 0.9)]
    lines = screening_table(finished(runs), "r").splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["a", "r", "b", "c"]


def test_another_prediction_of_the_same_trainings_loses_so_much_in_the_mean_and_in_the_worst(finished) -> None:
    runs = [run("a", "x", 0, 0.4), run("a", "x", 1, 0.4), run("pale", "x", 0, 0.4), run("pale", "x", 1, 0.3)]
    runs += [run("pale", "y", 0, 0.1, steps=11), run("a", "y", 0, 0.4)]  # another training
    (line,) = lost_table(finished(runs), "a", ["pale"], {"pale": "less stain"}).splitlines()[2:]
    assert line.startswith("| pale | less stain | 2 | 0.350 |")
    assert line.endswith("| 12.5% | 25.0% |")


def test_genes_are_averaged_over_seeds_of_the_fold(finished) -> None:
    runs = [run("a", "x", s, 0.4, pcc_KRT8=0.1 + s / 10, pcc_CD3E=None) for s in (0, 1)]
    done = finished([*runs, run("a", "y", 0, 0.4, pcc_KRT8=0.9), run("b", "x", 0, 0.4, pcc_CD3E=-0.1)])
    assert genes_table(done, ["a", "b"], "x").splitlines()[2:] == ["| KRT8 | 0.150 |  |", "| CD3E |  | -0.100 |"]


@pytest.mark.parametrize("baseline", [False, True])
def test_tables_have_a_row_for_each_method_and_no_ragged_line(finished, baseline: bool) -> None:
    runs = [run(m, f, s, 0.3) for m in "ab" for f in "xy" for s in (0, 1)]
    if baseline:
        runs.append(run("ridge", "x", 0, 0.2, kind="baseline", transductive=True))
    done = finished(runs)
    for text in (screening_table(done, "a"), final_table(done), folds_table(done, ["a"])):
        assert len({line.count("|") for line in text.splitlines()}) == 1
        for method in done.runs:
            assert f"| {method}" in text


def test_the_baselines_that_are_kept_count_on_every_fold() -> None:
    done = Finished(Results(), "final", 10.0)
    assert set(done.methods("baseline")) == set(BASELINES)
    assert all(sorted(done.runs[method]) == done.folds for method in BASELINES)


@pytest.mark.parametrize("option", [["--only", "swin"], ["--seeds", "1"], ["--folds", "C5"]])
def test_a_report_of_some_runs_alone_is_refused(option: list[str], capsys: pytest.CaptureFixture) -> None:
    assert main(["--stage", "report", *option]) == 2
    assert "leave out --only, --seeds and --folds" in capsys.readouterr().err


def test_a_report_names_different_base_configurations(finished, capsys: pytest.CaptureFixture) -> None:
    done = finished([run("a", "x", 0, 0.4), run("b", "x", 0, 0.4, base_config="other", commit="d")])
    assert main(["--stage", "report", "--results", str(done.results.folder), "--budget-min", "20"]) == 0
    said = capsys.readouterr().out
    assert "different configs/train.json, at c, d" in said
    assert "| a | 1 × 1 |" in said
