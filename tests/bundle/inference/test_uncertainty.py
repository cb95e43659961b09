from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from bundle.cli.main import main
from bundle.data.manifest import read_split
from bundle.data.normalisation import MAX_LOG_CP10K, log1p_cp10k, passes_quality_control
from bundle.data.panel import load_panel
from bundle.data.read_units import read_units
from bundle.data.slide_units import load_units
from bundle.errors import InputError
from bundle.files.atomic import write_json
from bundle.inference import model_sha256
from bundle.inference.uncertainty import _kept, calibration, combine, with_standard_error


def _member(path: Path, values: np.ndarray, names: list[str]) -> Path:
    adata = ad.AnnData(values, pd.DataFrame(index=names), pd.DataFrame(index=["A", "B", "C"]))
    adata.layers["rate_per_um2"] = np.exp(values)
    adata.write_h5ad(path)
    return path


def test_members_are_averaged_and_their_spread_is_reported(tmp_path):
    values = np.random.default_rng(0).normal(size=(5, 4, 3)).astype(np.float32)
    names = [f"u{i}" for i in range(4)]
    paths = [_member(tmp_path / f"{i}.h5ad", v, names) for i, v in enumerate(values)]
    combined = combine(paths)
    np.testing.assert_allclose(combined.X, values.mean(0).clip(0, MAX_LOG_CP10K), atol=1e-6)
    np.testing.assert_allclose(combined.layers["standard_error"], values.std(0, ddof=1), atol=1e-6)
    np.testing.assert_allclose(combined.layers["rate_per_um2"], np.exp(values).mean(0), rtol=1e-5)
    with pytest.raises(InputError, match="two predictions or more"):
        combine(paths[:1])
    bare = ad.AnnData(obs=pd.DataFrame(index=names))
    bare.write_h5ad(tmp_path / "bare.h5ad")
    with pytest.raises(InputError, match="name --genes"):
        combine([tmp_path / "bare.h5ad", paths[0]])
    with pytest.raises(InputError, match="other units"):
        combine([*paths, _member(tmp_path / "other.h5ad", values[0], names[::-1])])


@pytest.fixture(scope="module")
def run(tiny_run, tmp_path_factory) -> Path:
    return Path(shutil.copytree(tiny_run, tmp_path_factory.mktemp("own") / "run"))


def test_the_standard_error_is_calibrated_on_the_validation_slide(run, phantom, tmp_path, monkeypatch):
    monkeypatch.setattr("bundle.inference.uncertainty._MEMBERS", 3)  # what holds of them holds of any number
    (record,) = read_split(phantom, "validation")
    (units,) = load_units(record)
    out = tmp_path / "v.h5ad"
    command = ["predict", record["image"], str(out), "--model", str(run), "--spots", record["label"][0]]
    command += ["--standard-error", "--set", "all_genes=true"]
    assert main(command) == 0
    predicted, panel = ad.read_h5ad(out), load_panel(run / "models" / "panel.json")
    assert list(predicted.obs_names) == list(units.barcodes)
    keep = passes_quality_control(units, panel.min_total, training=False)
    y = log1p_cp10k(units.take(keep).counts_of(list(predicted.var_names)), units.total[keep])
    error, spread = y - predicted.X[keep], predicted.layers["standard_error"][keep]
    np.testing.assert_allclose((error**2).mean(0), (spread**2).mean(0), rtol=1e-3)
    about = predicted.uns["pixnet"]["standard_error"]
    assert about["coverage_95"] == pytest.approx((np.abs(error) <= 1.96 * spread).mean(), abs=1e-3)
    assert "P2" in about["holds"]
    assert "55 µm" in about["holds"]
    assert -1 <= about["ranking"] <= 1
    kept = run / "evaluation" / "standard_error.json"
    written = kept.stat().st_mtime_ns
    plain = tmp_path / "plain.h5ad"
    numbers = str(list(range(3)))
    more = ["--spots", record["label"][0], "--set", f"test_time_augmentation={numbers}", "--set", "all_genes=true"]
    assert main(["predict", record["image"], str(plain), "--model", str(run), *more]) == 0
    np.testing.assert_allclose(ad.read_h5ad(plain).X, predicted.X, atol=1e-4)  # the linear head: the same mean
    assert kept.stat().st_mtime_ns == written
    assert sorted(p.name for p in tmp_path.iterdir()) == ["plain.h5ad", "v.h5ad"]
    assert not list((run / "evaluation").glob(".members*"))


def test_without_a_validation_slide_the_error_holds_nowhere(run, phantom, tmp_path, monkeypatch):
    monkeypatch.setattr("bundle.inference.uncertainty._MEMBERS", 2)
    other = Path(shutil.copytree(run, tmp_path / "run"))
    (other / "evaluation" / "standard_error.json").unlink(missing_ok=True)
    (other / "configs" / "train.json").unlink()
    out = tmp_path / "o.h5ad"
    command = ["predict", str(phantom / "slides" / "P3.tif"), str(out), "--model", str(other), "--bin-um", "100"]
    assert main([*command, "--standard-error"]) == 0
    predicted = ad.read_h5ad(out)
    assert (predicted.layers["standard_error"] > 0).any()
    assert predicted.uns["pixnet"]["standard_error"]["holds"].startswith("nowhere")


class _Asked(Exception):
    """Instead of a prediction."""


def _write_member(path: Path, with_values: bool = True) -> None:
    values = np.zeros((2, 1), np.float32) if with_values else None
    path.parent.mkdir(parents=True, exist_ok=True)
    adata = ad.AnnData(values, pd.DataFrame(index=["u0", "u1"]), pd.DataFrame(index=["A"]))
    adata.uns["pixnet"] = {}
    adata.write_h5ad(path)


@pytest.mark.parametrize("moved", [False, True])
def test_a_stopped_call_goes_on_and_units_that_were_moved_are_predicted_anew(run, tmp_path, monkeypatch, moved: bool):
    monkeypatch.setattr("bundle.inference.uncertainty._MEMBERS", 2)
    monkeypatch.setattr(
        "bundle.inference.uncertainty.calibration", lambda *_: {"factor": {}, "slides": [], "members": 2}
    )
    slide, spots, out = tmp_path / "slide.tif", tmp_path / "spots.h5ad", tmp_path / "o.h5ad"
    slide.touch()
    spots.write_text("positions")
    predicted: list[str] = []

    def predict(_, path, settings):
        predicted.append(path.name)
        _write_member(path)

    def stopped(_, path, settings):
        if predicted:
            raise _Asked
        predict(_, path, settings)

    with pytest.raises(_Asked):
        with_standard_error(stopped, slide, out, run, {"units": str(spots)})
    if moved:
        spots.write_text("other positions")
    with_standard_error(predict, slide, out, run, {"units": str(spots)})
    assert predicted == (["0.h5ad", "0.h5ad", "1.h5ad"] if moved else ["0.h5ad", "1.h5ad"])
    assert out.is_file()


def test_too_many_values_are_refused_after_one_prediction(run, tmp_path):
    (tmp_path / "slide.tif").touch()
    predicted = []

    def predict(slide, path, settings):
        predicted.append(path)
        _write_member(path, with_values=False)

    with pytest.raises(InputError, match="name --genes"):
        with_standard_error(predict, tmp_path / "slide.tif", tmp_path / "o.h5ad", run, {"bin_um": 16.0})
    assert len(predicted) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["slide.tif"]


def test_bins_too_fine_to_measure_calibrate_nothing(run, phantom, tmp_path, caplog):
    other = Path(shutil.copytree(run, tmp_path / "run"))
    panel = json.loads((other / "models" / "panel.json").read_text())
    (other / "models" / "panel.json").write_text(json.dumps({**panel, "unit_sizes_um": [16.0]}))
    earlier = {"slides": ["P2"], "unit_size_um": 16.0, "checkpoint_sha256": model_sha256(other / "models" / "model.pt")}
    write_json(other / "evaluation" / "standard_error.json", earlier)
    assert calibration(lambda *_: pytest.fail("predicted"), other, {})["slides"] == []
    assert "16 µm hold too few counts" in caplog.text


WHOLE = {"members": 8, "slides": ["P2"], "factor": {"GENE001": 1.0}, "unit_size_um": 55.0, "ranking": None}
FAULTS: dict[str, dict[str, Any]] = {
    "no factor": {"factor": None},
    "a factor of text": {"factor": {"GENE001": "x"}},
    "a negative factor": {"factor": {"GENE001": -1}},
    "slides that are none": {"slides": [{}]},
    "no unit size": {"unit_size_um": None},
    "what is not ours": {"more": [{"a": 1}]},
}


def test_what_was_measured_is_read_again(tmp_path):
    write_json(tmp_path / "s.json", {**WHOLE, "checkpoint_sha256": "a"})
    assert _kept(tmp_path / "s.json", "a") == {**WHOLE, "checkpoint_sha256": "a"}
    assert _kept(tmp_path / "s.json", "b") is None


@pytest.mark.parametrize("fault", FAULTS)
def test_what_does_not_fit_is_measured_again(fault: str, tmp_path):
    content = {"checkpoint_sha256": "a", **WHOLE, **FAULTS[fault]}
    content = {key: value for key, value in content.items() if value is not None or key == "ranking"}
    write_json(tmp_path / "s.json", content)
    assert _kept(tmp_path / "s.json", "a") is None


@pytest.mark.parametrize("content", ['{"checkpoint_sha256": "a", "slides": ["x"]}', "[" * 100_000, "[]", "", "\0"])
def test_what_is_damaged_too(content: str, tmp_path):
    (tmp_path / "s.json").write_text(content)
    assert _kept(tmp_path / "s.json", "a") is None


def test_a_data_set_that_was_away_is_used_when_it_is_back(run, phantom, tmp_path, caplog):
    other = Path(shutil.copytree(run, tmp_path / "run"))
    kept = other / "evaluation" / "standard_error.json"
    kept.unlink(missing_ok=True)
    trained_with = json.loads((other / "configs" / "train.json").read_text())
    away = tmp_path / "away"
    (other / "configs" / "train.json").write_text(json.dumps({**trained_with, "dataset_dir": str(away)}))
    asked = []

    def predict(slide, path, settings):
        asked.append((slide, settings))
        raise _Asked

    for times in (1, 2):
        assert calibration(predict, other, {})["slides"] == []
        assert caplog.text.count(f"{away}, which the model was trained on, is not there") == times
    assert not asked
    assert not kept.exists()
    away.symlink_to(phantom)
    how = {"device": "cpu", "tile_px": 256}
    (tmp_path / "slide.tif").touch()

    def predict_here(slide, path, settings):
        if Path(slide).name != "slide.tif":
            predict(slide, path, settings)
        _write_member(path)

    with pytest.raises(_Asked):
        with_standard_error(
            predict_here, tmp_path / "slide.tif", tmp_path / "o.h5ad", other, {**how, "bin_um": 16.0, "genes": ["A"]}
        )
    ((slide, settings),) = asked
    assert Path(slide).name == "P2.tif"
    assert how.items() <= settings.items()
    assert not {"bin_um", "genes"} & settings.keys()


def test_it_is_calibrated_on_the_squares_that_were_trained_on(run, phantom, tmp_path):
    other = Path(shutil.copytree(run, tmp_path / "run"))
    (other / "evaluation" / "standard_error.json").unlink(missing_ok=True)
    panel = json.loads((other / "models" / "panel.json").read_text())
    (other / "models" / "panel.json").write_text(json.dumps({**panel, "unit_sizes_um": [16.0, 64.0]}))
    asked = []

    def predict(slide, path, settings):
        asked.append(read_units(settings["units"]))
        raise _Asked

    with pytest.raises(_Asked):
        calibration(predict, other, {})
    (squares,) = load_units(read_split(phantom, "validation")[0], [64])
    assert (asked[0].shape, asked[0].size_um) == ("square", 64.0)
    np.testing.assert_array_equal(asked[0].centers_px, squares.centers_px)


def test_a_slide_that_is_not_there_is_refused_before_anything_is_predicted(run, tmp_path, capsys):
    (tmp_path / "slide.tif").touch()
    for slide, more in {"none.svs": ["--bin-um", "100"], "slide.tif": ["--spots", str(tmp_path / "none.h5ad")]}.items():
        command = ["predict", str(tmp_path / slide), str(tmp_path / "o.h5ad"), "--model", str(run), *more]
        assert main([*command, "--standard-error"]) == 2
        assert "No such " in capsys.readouterr().err


@pytest.mark.parametrize("more", [["o.zarr", "--bin-um", "16"], ["o.h5ad", "--bin-um", "16,8"]])
def test_a_standard_error_of_anything_but_one_file_is_refused(run, phantom, tmp_path, capsys, more):
    slide = str(phantom / "slides" / "P3.tif")
    command = ["predict", slide, str(tmp_path / more[0]), *more[1:], "--model", str(run)]
    assert main([*command, "--standard-error"]) == 2
    assert "one size of units in one OUT.h5ad" in capsys.readouterr().err


def test_genes_that_validation_does_not_trust_are_written_on_request(run, phantom, tmp_path):
    other = Path(shutil.copytree(run, tmp_path / "run"))
    table = other / "evaluation" / "validation_genes.csv"
    genes = pd.read_csv(table)
    genes["pcc_native"] = 0.2
    genes.loc[[1, 4], "pcc_native"] = [-0.1, np.nan]
    genes.to_csv(table, index=False)
    bad = list(genes["gene"][[1, 4]])
    out = str(tmp_path / "o.h5ad")
    command = ["predict", str(phantom / "slides" / "P3.tif"), out, "--model", str(other), "--bin-um", "100"]

    def written(*more: str) -> ad.AnnData:
        assert main([*command, *more]) == 0
        return ad.read_h5ad(out)

    trusted = written()
    assert list(trusted.var_names) == [g for g in genes["gene"] if g not in bad]
    assert list(trusted.uns["pixnet"]["genes_left_out"]) == bad
    assert any("2 of 30 genes" in warning for warning in trusted.uns["pixnet"]["warnings"])
    everything = written("--set", "all_genes=true")
    assert list(everything.var_names) == list(genes["gene"])
    assert len(everything.uns["pixnet"]["genes_left_out"]) == 0
    np.testing.assert_array_equal(everything[:, trusted.var_names].X, trusted.X)
    assert list(written("--genes", bad[0]).var_names) == bad[:1]
    genes["pcc_native"] = -0.2  # no gene is better than another
    genes.to_csv(table, index=False)
    assert written().n_vars == 30
    table.unlink()
    assert written().n_vars == 30
    assert json.loads((other / "models" / "panel.json").read_text())["genes"] == list(genes["gene"])
