from __future__ import annotations

import json
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from bundle import workflows
from bundle.audit import audit
from bundle.cli.main import main
from bundle.data.build_units import build_units
from bundle.data.normalisation import log1p_cp10k
from bundle.metrics.bootstrap import block_side

from .conftest import GENES, MPP, PITCH_UM

FIGURES = (
    "PCC@F",
    "PCC@S",
    "PCC@M",
    "PCC@M_pooled",
    "PCC@M_residual",
    "ceiling@M",
    "ceiling@M_residual",
    "MSE",
    "MAE",
    "constant_genes",
    "filtered_units",
    "units",
)


def result_of(out: Path) -> dict:
    return json.loads((out / "audit.json").read_text())


def native_of(out: Path) -> dict:
    return result_of(out)["scales"]["native"]


def same(a: dict, b: dict, figures: tuple[str, ...] = FIGURES, tolerance: float = 1e-6) -> None:
    for figure in figures:
        assert (a[figure] is None) == (b[figure] is None), figure  # undefined, and null in JSON
        assert a[figure] is None or abs(a[figure] - b[figure]) <= tolerance, figure


# PixNet's own evaluation ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["linear", "programs"])
def run(request, phantom, tiny, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    longer = {"crops_per_slide": 4, "max_epochs": 2, "val_interval": 2, "panel#n_mean": 8, "panel#n_hvg": 15}
    workflows.train(phantom, folder, settings={**tiny, **longer, "head": request.param, "n_programs": 6})
    return folder


@pytest.mark.parametrize(("units", "size_um", "scales"), [("spot55", 55, []), ("bin16", 16, [64.0])])
def test_it_gives_the_figures_of_the_evaluation(run, phantom, tmp_path, units: str, size_um: float, scales: list):
    workflows.evaluate(run, phantom, "test", scales, "test", size_um)
    evaluated = json.loads((run / "evaluation" / "test.json").read_text())
    panel = json.loads((run / "models" / "panel.json").read_text())
    assert len(panel["panels"]["mean8"]) < len(panel["genes"])
    pred, truth = run / "predictions" / "test" / "P3.h5ad", phantom / "units" / f"P3_{units}.h5ad"
    audit(pred, truth, tmp_path, scales, min_total=20)  # the panels are the file's own
    audited = result_of(tmp_path)
    assert (audited["panel"], audited["genes"], audited["same_patient"]) == ("mean8", 8, False)
    assert audited["scales"]["native"]["PCC@M_hvg15"] == pytest.approx(
        evaluated["scales"]["native"]["PCC@M_hvg15"], abs=1e-4
    )
    # After two epochs predictions hardly vary, so that the rounding of single precision shows in correlations.
    same(audited["scales"]["native"], evaluated["scales"]["native"], tolerance=1e-4)
    if size_um < 55:
        assert audited["scales"]["native"]["deviance"] == pytest.approx(evaluated["scales"]["native"]["deviance"])
    if scales and "rate_per_um2" in ad.read_h5ad(pred).layers:  # rates add up; a linear head's cells are approximate
        same(audited["scales"]["64"], evaluated["scales"]["64"], tolerance=1e-4)
    ours, theirs = (
        pd.read_csv(path).set_index("gene")
        for path in (tmp_path / "audit_genes.csv", run / "evaluation" / "test_genes.csv")
    )
    for column in ("pcc_native", "ceiling_native", "mse_native"):
        np.testing.assert_allclose(ours[column], theirs[column].reindex(ours.index), atol=1e-3)


def test_a_runs_panel_names_the_genes_and_the_patient_is_compared(run, phantom, tmp_path, capsys):
    workflows.evaluate(run, phantom, "test", name="test")
    pred, truth = run / "predictions" / "test" / "P3.h5ad", phantom / "units" / "P3_spot55.h5ad"
    own = ad.read_h5ad(pred)
    del own.uns["pixnet"]["panel"], own.uns["pixnet"]["panels"], own.uns["pixnet"]["same_patient"]
    own.write_h5ad(tmp_path / "p.h5ad")
    for patient, shared in (("P1", True), ("P3", False), ("", None)):
        (tmp_path / "pairs.csv").write_text(f"pred,truth,patient\np.h5ad,{truth},{patient}\n")
        options = ["--out", str(tmp_path / "o"), "--min-total", "20", "--genes", str(run / "models" / "panel.json")]
        assert main(["audit", str(tmp_path / "pairs.csv"), *options]) == 0
        result = result_of(tmp_path / "o")
        assert (result["panel"], result["genes"], result["same_patient"]) == ("mean8", 8, shared)
        assert ("same_patient:" in capsys.readouterr().out) == bool(shared)
    one = own[:, own.var_names[:3]].copy()  # not all of the panel, so that its figures would not compare
    one.uns["pixnet"]["panels"] = {"mean8": list(own.var_names[:8])}
    one.write_h5ad(tmp_path / "one.h5ad")
    audit(tmp_path / "one.h5ad", truth, tmp_path / "one", min_total=20)
    assert result_of(tmp_path / "one")["panel"] == "shared"
    assert "5 of its 8 genes" in " ".join(result_of(tmp_path / "one")["warnings"])


# Other tools' predictions ---------------------------------------------------------------------------------------------


def test_how_units_and_genes_are_ordered_or_named_does_not_matter(write_truth, write_pred, tmp_path):
    truth = write_truth()
    pred = write_pred(truth)
    audit(pred, truth, tmp_path / "a")
    rng = np.random.default_rng(5)
    adata = ad.read_h5ad(pred)
    adata = adata[rng.permutation(adata.n_obs)][:, rng.permutation(adata.n_vars)].copy()
    adata.obs_names = [f"other{i}" for i in range(adata.n_obs)]
    adata.obsm["spatial"] = adata.obsm["spatial"] + rng.uniform(-30, 30, (adata.n_obs, 2))
    adata.write_h5ad(tmp_path / "moved.h5ad")
    audit(tmp_path / "moved.h5ad", truth, tmp_path / "b")
    assert result_of(tmp_path / "a")["matched"]["S1"]["by"] == "barcode"
    assert result_of(tmp_path / "b")["matched"]["S1"]["by"] == "position"
    exact = tuple(f for f in FIGURES if "ceiling" not in f)
    same(native_of(tmp_path / "a"), native_of(tmp_path / "b"), exact)
    same(native_of(tmp_path / "a"), native_of(tmp_path / "b"), ("ceiling@M",), 0.02)  # other draws of its thinning


def test_each_slides_prediction_may_have_its_genes_in_an_order_of_its_own(write_truth, write_pred, tmp_path):
    truths = [write_truth("S1", 0), write_truth("S2", 1)]
    found = []
    for order in (np.arange(len(GENES)), np.random.default_rng(0).permutation(len(GENES))):
        preds = [write_pred(truth) for truth in truths]
        ad.read_h5ad(preds[1])[:, order].copy().write_h5ad(preds[1])
        audit(",".join(map(str, preds)), ",".join(map(str, truths)), tmp_path / "o")
        found.append(native_of(tmp_path / "o"))
    same(*found, tuple(f for f in FIGURES if "ceiling" not in f))
    assert found[0]["PCC@M"] > 0.5


def test_standard_errors_are_held_against_the_errors(write_truth, write_pred, tmp_path):
    truths = [write_truth("S1", 0), write_truth("S2", 1, side=9)]
    rng, inside = np.random.default_rng(3), []

    def edit(pred: ad.AnnData) -> None:
        measured = ad.read_h5ad(truths[len(inside)])
        counts = measured.X.toarray()
        error = np.abs(pred.X - log1p_cp10k(counts, counts.sum(1)))
        within = rng.random(error.shape) < 0.8
        inside.append(within[2:])  # the first two units are not scored
        pred.layers["standard_error"] = error / 1.96 * np.where(within, 1.01, 0.99)

    preds = [write_pred(truth, edit=edit) for truth in truths]
    text = audit(",".join(map(str, preds)), ",".join(map(str, truths)), tmp_path / "a", genes=GENES[:3])
    expected = np.concatenate(inside).mean(0)
    found = pd.read_csv(tmp_path / "a" / "audit_genes.csv").set_index("gene")["coverage_95"]
    np.testing.assert_allclose(found[GENES], expected)
    assert result_of(tmp_path / "a")["coverage_95"] == pytest.approx(expected[:3].mean())
    assert f"{100 * expected[:3].mean():.1f} % of the measured values of {13 * 13 + 9 * 9 - 4} units" in text

    without = write_pred(truths[1], seed=2)
    text = audit(f"{preds[0]},{without}", ",".join(map(str, truths)), tmp_path / "b", genes=GENES[:3])
    assert f"{100 * inside[0][:, :3].mean():.1f} % of the measured values of {13 * 13 - 2} units" in text
    assert "Standard errors" not in audit(without, truths[1], tmp_path / "c")


@pytest.mark.parametrize(
    ("spoil", "unit", "says"),
    [
        (lambda layer: np.where(np.arange(layer.size).reshape(layer.shape) == 30, -1, layer), None, "negative"),
        (lambda layer: np.where(np.arange(layer.size).reshape(layer.shape) == 30, np.nan, layer), None, "missing"),
        (lambda layer: np.full(layer.shape, "a", dtype=object), None, "missing"),
        (lambda layer: layer, "cp10k", "they are of X, cp10k"),
    ],
)
def test_standard_errors_that_cannot_be_scored_are_reported_and_nothing_is_lost(
    write_truth, write_pred, tmp_path, spoil, unit, says: str
):
    truth = write_truth()
    pred = write_pred(truth, edit=lambda p: p.layers.update(standard_error=spoil(np.ones(p.shape))))
    text = audit(pred, truth, tmp_path / "a", unit_of_x=unit)
    assert 'layers["standard_error"] is not scored: ' in text
    assert says in text
    assert "Standard errors" not in text
    assert native_of(tmp_path / "a")["PCC@M"] > 0.1


def test_positions_of_another_section_on_the_same_array_are_doubted(write_truth, write_pred, tmp_path):
    truth = write_truth()

    def moved(by_px: float) -> str:
        def edit(pred: ad.AnnData) -> None:
            pred.obsm["spatial"] = pred.obsm["spatial"] + by_px

        return audit(write_pred(truth, edit=edit), truth, tmp_path / "a")

    assert "nothing else says that this is the very slide" in moved(20.0)
    assert "very slide" not in moved(0.5)


def test_what_is_left_out_is_counted(write_truth, write_pred, tmp_path):
    truth = write_truth()

    def edit(pred: ad.AnnData) -> None:
        names = pred.obs_names.to_numpy(dtype=object)
        names[5:9] = [f"elsewhere{i}" for i in range(4)]
        pred.obs_names = names
        pred.X[:, 1] = 2.0
        pred.var_names = ["other", *pred.var_names[1:]]

    text = audit(write_pred(truth, edit=edit), truth, tmp_path, genes=["G0", "G1", "G2", "G7", "G99"])
    result = result_of(tmp_path)
    about = result["matched"]["S1"]
    assert (about["predicted_units_unmatched"], about["measured_units_unmatched"], about["filtered_units"]) == (4, 4, 2)
    assert about["scored_units"] == result["scales"]["native"]["units"] == 13 * 13 - 6
    assert (result["shared_genes"], result["genes"], result["genes_not_shared"]) == (7, 3, ["G0", "G99"])
    assert (result["scales"]["native"]["constant_genes"], result["constant_predictions"]) == (1, 1)
    pcc = pd.read_csv(tmp_path / "audit_genes.csv").set_index("gene")["pcc_native"]
    assert pcc["G1"] == 0
    assert np.isnan(pcc["G7"])
    assert result["scales"]["native"]["PCC@M"] == pytest.approx((pcc["G1"] + pcc["G2"]) / 2)
    assert "2 of the 5 genes are not in every file" in text


def test_slides_are_averaged_before_patients(write_truth, write_pred, tmp_path):
    rows, pcc = [], []
    for seed, (name, patient, noise) in enumerate([("A1", "A", 0.2), ("A2", "A", 2.0), ("B1", "B", 1.0)]):
        truth = write_truth(name, seed)
        pred = write_pred(truth, seed, noise)
        rows.append({"pred": pred.name, "truth": truth.name, "patient": patient})
        audit(pred, truth, tmp_path / name)
        pcc.append(native_of(tmp_path / name)["PCC@M"])
    pd.DataFrame(rows).to_csv(tmp_path / "pairs.csv", index=False)
    audit(tmp_path / "pairs.csv", out=tmp_path / "all")
    result = result_of(tmp_path / "all")
    expected = ((pcc[0] + pcc[1]) / 2 + pcc[2]) / 2
    assert result["scales"]["native"]["PCC@M"] == pytest.approx(expected)
    assert result["patients"] == 2
    low, high = result["interval_95"]["PCC@M"]
    assert low < expected < high
    assert result["depth_oracle"]["fitted_on"] == "the other slides"
    preds, truths = (",".join(str(tmp_path / row[key]) for row in rows) for key in ("pred", "truth"))
    audit(preds, truths, tmp_path / "unnamed")
    assert native_of(tmp_path / "unnamed")["PCC@M"] == pytest.approx(np.mean(pcc))
    assert "Patients are not named" in result_of(tmp_path / "unnamed")["warnings"][-1]


def test_half_of_the_counts_does_not_beat_the_ceiling_of_the_other_half(write_truth, tmp_path):
    whole = ad.read_h5ad(write_truth())
    rng = np.random.default_rng(0)
    counts = whole.X.toarray().astype(int)
    half = rng.binomial(counts, 0.5).astype(np.float32)
    truth = whole.copy()
    truth.X = half
    truth.write_h5ad(tmp_path / "half.h5ad")
    pred = ad.AnnData(counts - half, obs=whole.obs[[]], var=whole.var[[]])
    pred.write_h5ad(tmp_path / "pred.h5ad")
    audit(tmp_path / "pred.h5ad", tmp_path / "half.h5ad", tmp_path / "o", unit_of_x="counts")
    figures = native_of(tmp_path / "o")
    assert 0.9 < figures["share_of_ceiling"] <= 1
    assert figures["share_of_ceiling"] == pytest.approx(figures["PCC@M"] / figures["ceiling@M"])


def test_the_depth_oracle_finds_depth_and_loses_against_more(write_truth, tmp_path):
    whole = ad.read_h5ad(write_truth())
    total = np.asarray(whole.X.sum(1)).ravel()
    noise = np.random.default_rng(0).normal(0, 0.01, (len(total), len(GENES)))
    mix = np.tile(np.log(total)[:, None] / 2, (1, len(GENES))) + noise
    pred = ad.AnnData(mix, obs=whole.obs[[]], var=whole.var[[]])
    pred.write_h5ad(tmp_path / "depth.h5ad")
    audit(tmp_path / "depth.h5ad", tmp_path / "S1.h5ad", tmp_path / "d")
    oracle = result_of(tmp_path / "d")["depth_oracle"]
    low, high = oracle["prediction_minus_oracle_interval_95"]
    assert low <= oracle["prediction_minus_oracle"] <= high
    assert oracle["prediction_minus_oracle"] <= 1e-6  # nothing linear in log total does better
    pred.X = log1p_cp10k(whole.X.toarray(), total)
    pred.write_h5ad(tmp_path / "truth.h5ad")
    audit(tmp_path / "truth.h5ad", tmp_path / "S1.h5ad", tmp_path / "t")
    result = result_of(tmp_path / "t")
    assert result["scales"]["native"]["PCC@M"] == pytest.approx(1)
    assert result["depth_oracle"]["prediction_minus_oracle_interval_95"][0] > 0


def test_the_depth_oracle_of_a_slide_has_not_seen_it(write_truth, write_pred, tmp_path):
    """Two slides on which a gene depends on depth in opposite ways: each oracle is then wrong about the other."""
    paths = []
    for name, slope in (("S1", 0.5), ("S2", -0.5)):
        path = write_truth(name)
        measured = ad.read_h5ad(path)
        total = np.asarray(measured.X.sum(1)).ravel()
        counts = measured.X.toarray()
        counts[:, 0] = np.rint(0.1 * total * (np.maximum(total, 1) / 1e3) ** slope)
        measured.X = sp.csr_matrix(counts.astype(np.float32))
        measured.write_h5ad(path)
        paths.append(path)
    preds, truths = ",".join(str(write_pred(path)) for path in paths), ",".join(map(str, paths))
    audit(preds, truths, tmp_path / "o", genes=["G0"])
    assert pd.read_csv(tmp_path / "o" / "audit_genes.csv").set_index("gene")["pcc_depth_oracle_native"]["G0"] < -0.5
    audit(preds.split(",")[0], paths[0], tmp_path / "alone", genes=["G0"])
    assert pd.read_csv(tmp_path / "alone" / "audit_genes.csv").set_index("gene")["pcc_depth_oracle_native"]["G0"] > 0.5


def test_two_tools_are_compared_on_what_both_predict(write_truth, write_pred, tmp_path):
    truth = write_truth()
    good = write_pred(truth, 1, 0.3)

    def less(pred: ad.AnnData) -> None:
        pred.obs_names = [*pred.obs_names[:-20], *(f"elsewhere{i}" for i in range(20))]
        pred.var_names = ["other", *pred.var_names[1:]]

    worse = write_pred(truth, 2, 1.0, less)
    text = audit(good, truth, tmp_path / "a", against=worse)
    found = result_of(tmp_path / "a")["against"]
    assert (found["units"], found["genes"]) == (13 * 13 - 2 - 20, 7)
    audit(worse, truth, tmp_path / "w")
    assert found["PCC@M_against"] == pytest.approx(native_of(tmp_path / "w")["PCC@M"])
    low, high = found["difference_interval_95"]
    assert 0 < low < found["difference"] < high
    assert f"difference {found['difference']:.3f}" in text
    audit(worse, truth, tmp_path / "b", against=good)
    turned = result_of(tmp_path / "b")["against"]
    assert turned["difference_interval_95"] == pytest.approx([-high, -low])
    audit(good, truth, tmp_path / "s", against=good)
    assert result_of(tmp_path / "s")["against"]["difference_interval_95"] == [0, 0]


def test_each_of_two_tools_has_its_own_unit(write_truth, write_pred, tmp_path):
    truth = write_truth()

    def unlogged(adata: ad.AnnData) -> None:
        adata.X = np.expm1(adata.X)

    same = write_pred(truth, edit=unlogged).rename(tmp_path / "cp10k.h5ad")
    pred = write_pred(truth)
    for first, second, units in (
        (pred, same, {"unit_of_x_against": "cp10k"}),
        (same, pred, {"unit_of_x": "cp10k"}),
    ):
        audit(first, truth, tmp_path / "o", against=second, **units)
        found = result_of(tmp_path / "o")["against"]
        assert found["PCC@M"] == pytest.approx(found["PCC@M_against"])


def test_coarser_scales_are_scored_and_the_approximation_is_named(write_truth, write_pred, tmp_path):
    truth = write_truth()
    text = audit(write_pred(truth), truth, tmp_path, scales_um=[200.0, 1200.0])
    result = result_of(tmp_path)
    assert result["scales"]["200"]["units"] >= 30
    assert result["scales"]["200"]["PCC@M"] > 0.5
    assert result["scales_left_out"] == [1200.0]
    assert "log1p of the mean over a square's units of their predicted CP10k" in text
    centers_um = ad.read_h5ad(truth).obsm["spatial"] * MPP
    assert result["interval_95"]["block"] == f"{block_side(centers_um):.0f} µm"
    assert f"blocks of {result['interval_95']['block']} within slides" in text
    assert "Scale 1200 µm is left out" in text


def test_without_mpp_the_units_themselves_are_still_scored(write_truth, write_pred, tmp_path):
    truth = write_truth(mpp=None)
    pred = write_pred(truth)
    audit(pred, truth, tmp_path / "a")
    audit(pred, truth, tmp_path / "b", mpp=MPP)
    same(native_of(tmp_path / "a"), native_of(tmp_path / "b"))


def test_intervals_do_not_depend_on_what_positions_are_counted_in(write_truth, write_pred, tmp_path):
    intervals = []
    for pixel_um, given in ((MPP, MPP), (25.0, 25.0), (PITCH_UM, None)):  # the last are columns and rows of an array
        truth = write_truth(mpp=None)
        adata = ad.read_h5ad(truth)
        adata.obsm["spatial"] = adata.obsm["spatial"] * MPP / pixel_um
        adata.write_h5ad(truth)
        audit(write_pred(truth), truth, tmp_path / "o", mpp=given, against=write_pred(truth, 2, 1.0))
        found = result_of(tmp_path / "o")
        intervals.append([*found["interval_95"]["PCC@M"], *found["against"]["difference_interval_95"]])
    assert intervals[0][0] < intervals[0][1]
    assert intervals[0][2] < intervals[0][3]
    np.testing.assert_allclose(intervals[1:], [intervals[0]] * 2)


def test_what_is_printed_is_what_is_written(write_truth, write_pred, tmp_path):
    truth = write_truth()
    text = audit(write_pred(truth), truth, tmp_path / "o")
    figures = native_of(tmp_path / "o")
    (row,) = [line.split() for line in text.splitlines() if line.startswith("60 µm units")]
    for figure in ("PCC@F", "PCC@S", "PCC@M", "ceiling@M", "MSE", "MAE"):
        assert f"{figures[figure]:.3f}" in row
    assert {p.name for p in (tmp_path / "o").iterdir()} == {"audit.json", "audit_genes.csv", "audit.png"}
    assert (tmp_path / "o" / "audit.png").read_bytes().startswith(b"\x89PNG")


def test_doubts_are_reported(write_truth, write_pred, tmp_path):
    truth = write_truth()

    def edit(pred: ad.AnnData) -> None:
        pred.obsm["spatial"] = pred.obsm["spatial"] * 0.1  # a smaller picture's pixels
        pred.uns["unit"] = {"shape": "square", "size_um": 8.0}
        pred.uns["pixnet"] = {"training_sections": np.array(["S0", "S1"])}

    half = ad.read_h5ad(write_pred(truth, edit=edit))[: 13 * 7].copy()
    half.write_h5ad(tmp_path / "half.h5ad")
    audit(tmp_path / "half.h5ad", truth, tmp_path / "o")
    said = " ".join(result_of(tmp_path / "o")["warnings"])
    assert "µm apart in the two files" in said
    assert "predicted for units of 8 µm, measured in units of 60 µm" in said
    assert "the model was trained on this very slide" in said
    assert "78 of the 167 measured units have no prediction" in said


@pytest.mark.real
def test_depth_and_half_of_the_counts_on_a_real_section(real_data, tmp_path):
    counts = pd.read_csv(next((real_data / "her2st").rglob("C5.tsv.gz")), sep="\t", index_col=0)
    counts = counts.loc[:, counts.columns.isin(counts.sum().nlargest(2000).index)]
    half = np.random.default_rng(0).binomial(counts.to_numpy(int), 0.5)
    at = np.array([[float(v) for v in str(name).split("x")] for name in counts.index]) * 290
    names, genes = [str(n) for n in counts.index], list(counts.columns)
    about = {"shape": "circle", "size_um": 100.0, "mpp": 0.69, "section": "C5"}
    build_units(counts.to_numpy() - half, genes, names, at, **about).write_h5ad(tmp_path / "C5.h5ad")
    ad.AnnData(half.astype(np.float32), obs=pd.DataFrame(index=names), var=pd.DataFrame(index=genes)).write_h5ad(
        tmp_path / "half.h5ad"
    )
    asked = list(counts.sum().nlargest(250).index)
    audit(tmp_path / "half.h5ad", tmp_path / "C5.h5ad", tmp_path / "o", genes=asked, unit_of_x="counts")
    result = result_of(tmp_path / "o")
    figures, oracle = result["scales"]["native"], result["depth_oracle"]
    # A second measurement of equal depth correlates as the reliability, the ceiling squared, or less: the logarithm of
    # few counts is not linear.
    ceiling = pd.read_csv(tmp_path / "o" / "audit_genes.csv").query("asked")["ceiling_native"]
    assert 0.7 * (ceiling**2).mean() < figures["PCC@M"] < (ceiling**2).mean() + 0.01
    assert 0.1 < oracle["PCC@M"] < figures["ceiling@M"]
    assert oracle["PCC@M_residual"] < oracle["PCC@M"] / 2


def test_a_slide_is_scored_on_the_genes_that_it_measured(write_truth, write_pred, tmp_path):
    truths = [write_truth("A1", 0), write_truth("B1", 1)]
    preds = [write_pred(truth, seed) for seed, truth in enumerate(truths)]
    asked = ",".join(map(str, preds)), ",".join(map(str, truths))
    audit(*asked, tmp_path / "whole", min_total=20)
    adata = ad.read_h5ad(truths[1])
    adata.var_names = ["G0", "other", *adata.var_names[2:]]  # the total stays
    adata.write_h5ad(truths[1])
    text = audit(*asked, tmp_path / "partly", min_total=20)
    whole, partly = (pd.read_csv(tmp_path / name / "audit_genes.csv").set_index("gene") for name in ("whole", "partly"))
    kept = [f"G{i}" for i in range(8) if i != 1]
    pd.testing.assert_series_equal(whole["pcc_native"][kept], partly["pcc_native"][kept])
    audit(str(preds[0]), str(truths[0]), tmp_path / "first", min_total=20)
    first = pd.read_csv(tmp_path / "first" / "audit_genes.csv").set_index("gene")
    assert partly["pcc_native"]["G1"] == pytest.approx(first["pcc_native"]["G1"])
    assert "did not measure 1 of the 8 genes" in text
    assert result_of(tmp_path / "partly")["matched"]["B1"]["unmeasured_genes"] == 1
    for key in ("depth_oracle", "interval_95"):
        assert np.isfinite(result_of(tmp_path / "partly")[key]["PCC@M" if key == "depth_oracle" else "blocks"])
