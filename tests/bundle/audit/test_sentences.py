"""What the audit refuses, it refuses in a sentence."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Callable

import anndata as ad
import numpy as np
import pytest

from bundle.cli.main import main


def sentence(*arguments: object) -> str:
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors):
        status = main(["audit", *(str(a) for a in arguments)])
    (line,) = errors.getvalue().splitlines()
    assert status == 2, line
    head, _, text = line.partition(": ")
    assert head == "pixnet audit"
    assert text.endswith((".", "?"))
    return text


def put(value: float) -> Callable[[ad.AnnData], None]:
    def edit(adata: ad.AnnData) -> None:
        x = adata.X.toarray() if hasattr(adata.X, "toarray") else adata.X
        x[3, 1] = value
        adata.X = x

    return edit


def rename(**names: list[str]) -> Callable[[ad.AnnData], None]:
    def edit(adata: ad.AnnData) -> None:
        for key, first in names.items():
            old = getattr(adata, key)
            setattr(
                adata,
                key,
                [*first, *old[len(first) :]] if len(first) > 1 else [f"{first[0]}{i}" for i in range(len(old))],
            )

    return edit


def log1p(adata: ad.AnnData) -> None:
    adata.X = np.log1p(adata.X.toarray())


@pytest.mark.parametrize(
    ("edit", "more", "says"),
    [
        (put(np.nan), (), "1 of the 1,352 values of X are missing or infinite"),
        (put(np.inf), (), "missing or infinite"),
        (put(40.0), (), "goes up to 40, and log1p_cp10k ends at 9.22"),
        (put(-0.1), ("--unit-of-x", "cp10k"), "cp10k cannot be negative"),
        (put(-0.1), ("--unit-of-x", "counts"), "counts cannot be negative"),
        (put(2e4), ("--unit-of-x", "cp10k"), "--unit-of-x log1p_cp10k|counts"),
        (rename(obs_names=["twice", "twice"]), (), "1 unit names occur twice"),
        (rename(var_names=["twice", "twice"]), (), "1 gene names occur twice"),
        (rename(var_names=["ENSG"]), (), "No gene is shared by pred_S1_1.h5ad (ENSG0, ENSG1, ENSG2, ...) and S1.h5ad"),
        (lambda a: a.obsm.pop("spatial") is None or rename(obs_names=["u"])(a), (), "has no positions"),
        (lambda a: a.obsm.update(spatial=a.obsm["spatial"] + 9e4) or rename(obs_names=["u"])(a), (), "level-0 pixels"),
        (
            lambda a: a.uns.update(pixnet={"unit_of_X": "z-scores"}),
            (),
            'X is "z-scores"; say what it is with --unit-of-x log1p_cp10k|',
        ),
        (lambda a: None, ("--against", "none.h5ad"), "No such file: none.h5ad"),
        (lambda a: None, ("--against", "a.h5ad,b.h5ad"), "2 predictions are named to stand against 1"),
        (lambda a: None, ("--unit-of-x-against", "counts"), "and there are none"),
        (lambda a: a.uns.update(unit={"kind": "counts"}), (), "the prediction comes first"),
        (lambda a: a.layers.update(rate_per_um2=-a.X), (), "negative rates"),
        (lambda a: None, ("--genes", ","), "No gene is given"),
        (lambda a: None, ("--genes", "NOSUCH"), "None of the 1 gene is among"),
        (lambda a: None, ("--scales-um", "20"), "a scale of 20 µm has no truth"),
        (lambda a: None, ("--min-total", "1e9"), "Lower --min-total"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*names are not unique")
def test_a_prediction_that_cannot_be(write_truth, write_pred, tmp_path, edit, more, says: str):
    truth = write_truth()
    pred = write_pred(truth, edit=edit)
    out = tmp_path / "o"
    assert says in sentence(pred, truth, "--out", out, *more)
    assert not list(out.glob("*"))


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (log1p, "fractional values; X must be the raw counts, neither logged nor scaled"),
        (put(np.nan), "missing or infinite"),
        (put(-1), "negative"),
        (rename(obs_names=["twice", "twice"]), "1 unit names occur twice"),
        (lambda a: a.obsm.pop("spatial"), "no positions"),
        (lambda a: a.uns["unit"].update(kind="prediction"), "holds predictions, not measured counts"),
        (lambda a: (a.uns.pop("unit"), a.uns.pop("spatial")), "how large"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*names are not unique")
def test_a_truth_that_cannot_be(write_truth, write_pred, tmp_path, edit, says: str):
    truth = write_truth()
    pred = write_pred(truth)
    measured = ad.read_h5ad(truth)
    edit(measured)
    measured.write_h5ad(truth)
    said = sentence(pred, truth, "--out", tmp_path / "o")
    assert "S1.h5ad" in said
    assert says in said


def test_files_that_are_none(write_truth, write_pred, tmp_path):
    truth = write_truth()
    pred = write_pred(truth)
    (tmp_path / "text.h5ad").write_text("no AnnData")
    (tmp_path / "cut.h5ad").write_bytes(pred.read_bytes()[:3000])
    (tmp_path / "file").write_text("")
    out = ("--out", tmp_path / "o")
    assert "No such file" in sentence(tmp_path / "none.h5ad", truth, *out)
    assert "No such file" in sentence(pred, tmp_path / "none.h5ad", *out)
    for bad in ("text.h5ad", "cut.h5ad"):
        assert f"{bad} cannot be read as AnnData" in sentence(tmp_path / bad, truth, *out)
        assert f"{bad} cannot be read as AnnData" in sentence(pred, tmp_path / bad, *out)
    assert "choose another place" in sentence(pred, truth, "--out", tmp_path / "file" / "o")
    assert "nothing to be compared with" in sentence(pred, *out)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("prediction,truth\na,b\n", 'no column "pred"'),
        ("pred,truth\n", "names no pair"),
        ("pred,truth\na.h5ad,\n", 'line 2: "truth" is empty'),
        ("", "cannot be read as CSV"),
        ("pred,truth\na.h5ad,b.h5ad\nc.h5ad,b.h5ad\n", "score each slide once"),
        ("pred,truth\na.h5ad,b.h5ad\n", "No such file"),
    ],
)
def test_a_csv_of_pairs_that_is_none(tmp_path, text: str, says: str):
    path = tmp_path / "pairs.csv"
    path.write_text(text)
    assert says in sentence(path, "--out", tmp_path / "o")
    assert "CSV" in sentence(tmp_path / "none.csv", "--out", tmp_path / "o")


def test_another_tool_that_cannot_be_compared(write_truth, write_pred, tmp_path):
    truth = write_truth()
    pred = write_pred(truth)
    few = tmp_path / "few.h5ad"
    ad.read_h5ad(pred)[:11].write_h5ad(few)  # of which the first two are too empty to be scored
    said = sentence(pred, truth, "--against", few, "--out", tmp_path / "o")
    assert said.startswith("pred_S1_1.h5ad and few.h5ad both predict 9 units of S1.h5ad")
    assert "at least 10 are needed" in said
    other = write_pred(truth, 3, edit=put(40.0))
    said = sentence(pred, truth, "--against", other, "--out", tmp_path / "o")
    assert "pred_S1_3.h5ad: X goes up to 40" in said
    assert "--unit-of-x-against cp10k|counts" in said


def test_lists_that_do_not_fit(write_truth, write_pred, tmp_path):
    a, b = write_truth("A"), write_truth("B", mpp=None)
    pred = write_pred(a)
    out = ("--out", tmp_path / "o")
    assert "2 predictions and 1 measured files" in sentence(f"{pred},{pred}", a, *out)
    assert "give --mpp" in sentence(write_pred(b), b, "--scales-um", "200", *out)
    fine = ad.read_h5ad(b)
    fine.uns["unit"] = {"shape": "square", "size_um": 70.0, "kind": "counts"}
    fine.write_h5ad(b)
    assert "units of 60, 70 µm" in sentence(f"{pred},{write_pred(b)}", f"{a},{b}", *out)


def test_a_long_list_of_genes_is_no_file(write_truth, write_pred, tmp_path, capsys):
    truth = write_truth()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (
            main(
                [
                    "audit",
                    str(write_pred(truth)),
                    str(truth),
                    "--out",
                    str(tmp_path / "o"),
                    "--genes",
                    ",".join(["G1"] * 500),
                ]
            )
            == 0
        )
    said = capsys.readouterr()
    assert "PCC@M" in said.out
    assert not said.err


def test_a_refused_audit_leaves_no_folder(write_truth, write_pred, tmp_path):
    truth = write_truth()
    sentence(write_pred(truth), truth, "--genes", "none,of,these", "--out", tmp_path / "o")
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("slides", "says"), [(("S1", "S1"), "about slide S1"), (("S1", "again"), "compare with .*S1.h5ad")]
)
def test_a_slide_is_scored_once(write_truth, write_pred, tmp_path, slides, says: str):
    truth = write_truth()
    rows = [f"{write_pred(truth, seed).name},{truth.name},{slide}\n" for seed, slide in enumerate(slides)]
    (tmp_path / "pairs.csv").write_text("pred,truth,slide\n" + "".join(rows))
    assert re.search(says, sentence(tmp_path / "pairs.csv", "--out", tmp_path / "o"))
