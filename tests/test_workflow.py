"""Every configuration, end to end, on a small generated slide."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import anndata as ad
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks.processes import interrupt, largest_difference
from bundle import config, expression_of, open_map, workflows
from bundle.cli.main import main
from bundle.data.normalisation import MAX_LOG_CP10K
from bundle.errors import InputError
from bundle.writers import predicted_units
from tests import forking

ROOT = Path(__file__).parents[1]
#: Two threads more or less must not matter to what is compared.
ENV = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


@pytest.fixture(scope="module")
def override(tiny, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("configs") / "tiny.json"
    path.write_text(json.dumps({**tiny, "crops_per_slide": 4}))
    return path


@pytest.fixture
def one_thread() -> Iterator[None]:
    """This process computes as those of `ENV` do, to the bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _command(override: Path, phantom: Path, run: Path, *more: str) -> list[str]:
    files = [str(ROOT / "configs" / "train.json"), str(override)]
    own = ["--config_file", str(files), "--dataset_dir", str(phantom), "--output_dir", str(run), *more]
    return [sys.executable, "-m", "monai.bundle", "run", "training", *own]


@pytest.fixture(scope="module")
def run(override, phantom, tmp_path_factory) -> Path:
    """A run trained by MONAI's own command from another folder, uninterrupted."""
    folder = tmp_path_factory.mktemp("run")
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    data = Path(os.path.relpath(phantom, elsewhere))
    command = _command(override, data, folder, "--max_epochs", "3")
    done = subprocess.run(command, cwd=elsewhere, env=ENV, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert not list(elsewhere.iterdir())
    return folder


def test_a_run_folder_explains_itself(run, phantom):
    for path in (
        "configs/train.json",
        "configs/metadata.json",
        "configs/model.json",
        "configs/recipe.json",
        "models/model.pt",
        "models/panel.json",
        "checkpoints/last.pt",
        "evaluation/validation.json",
        "evaluation/validation_genes.csv",
    ):
        assert (run / path).is_file(), path
    assert list(run.glob("tensorboard/*"))
    metrics = pd.read_csv(run / "metrics.csv")
    assert list(metrics["epoch"]) == [1, 2, 3]
    assert np.isfinite(metrics["loss"]).all()
    assert np.isfinite(metrics["val_PCC@M"]).all()
    assert json.loads((run / "configs/train.json").read_text())["dataset_dir"] == str(phantom.resolve())
    panel = json.loads((run / "models/panel.json").read_text())
    assert panel["mpp"] == 2.0
    assert panel["training"] == [{"section": "P1", "patient": "P1"}]
    state = torch.load(run / "models/model.pt", weights_only=True)
    assert all(torch.is_tensor(v) for v in state.values())


def test_a_killed_run_resumes_to_the_same_weights(run, override, phantom, tmp_path, one_thread, monkeypatch):
    monkeypatch.setattr("benchmarks.processes.subprocess", forking)
    interrupt(_command(override, phantom, tmp_path, "--max_epochs", "3"), tmp_path / "checkpoints" / "last.pt")
    workflows.train(phantom, tmp_path, [override], {"max_epochs": 3})
    for name in ("network", "optimizer", "ema", "best_model"):
        whole, resumed = (
            torch.load(folder / "checkpoints" / "last.pt", weights_only=True)[name] for folder in (run, tmp_path)
        )
        assert largest_difference(whole, resumed) == 0
    assert largest_difference(*(torch.load(f / "models" / "model.pt", weights_only=True) for f in (run, tmp_path))) == 0
    assert (tmp_path / "metrics.csv").read_text() == (run / "metrics.csv").read_text()


def test_validation_and_prediction_use_the_averaged_weights(override, phantom, tmp_path):
    workflows.train(phantom, tmp_path, [override], {"max_epochs": 2, "val_interval": 2})  # the last epoch is kept
    state = torch.load(tmp_path / "checkpoints" / "last.pt", weights_only=True)
    kept = torch.load(tmp_path / "models" / "model.pt", weights_only=True)
    assert kept.keys() == state["network"].keys()
    assert int(state["ema"]["n_averaged"]) == 4  # two steps an epoch
    average = {name: state["ema"][f"module.{name}"] for name in kept}
    assert largest_difference(kept, average) == 0
    name = "head.weight.weight"
    assert not torch.equal(average[name], state["network"][name])
    validated = pd.read_csv(tmp_path / "metrics.csv")["val_PCC@M"].iloc[-1]
    again = json.loads(workflows.evaluate(tmp_path, split="validation").read_text())["scales"]["native"]
    assert again["PCC@M"] == pytest.approx(validated, abs=1e-4)


def test_validation_is_scored_again_as_training_scored_it(run, tmp_path):
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    table = copy / "evaluation" / "validation_genes.csv"
    trained = pd.read_csv(table)
    trained.assign(pcc_native=0.0, ceiling_native=0.0).to_csv(table, index=False)
    workflows.evaluate(copy, split="validation")
    pd.testing.assert_frame_equal(pd.read_csv(table), trained, rtol=1e-4)


def test_predictions_average_over_flips_on_request(run, phantom, tmp_path):
    slide = str(phantom / "slides" / "P3.tif")
    command = ["predict", slide, "OUT", "--model", str(run), "--bin-um", "16"]
    found = {}
    for name, more in {
        "plain": [],
        "flipped": ["--set", "test_time_augmentation=[4]"],
        "both": ["--set", "test_time_augmentation=[0,4]"],
        "tiled": ["--set", "test_time_augmentation=[0,4]", "--set", "tile_px=128"],
    }.items():
        command[2] = str(tmp_path / f"{name}.h5ad")
        assert main([*command, *more]) == 0
        found[name] = ad.read_h5ad(command[2]).X
        assert np.isfinite(found[name]).all()
    assert not np.allclose(found["plain"], found["flipped"], atol=1e-4)
    np.testing.assert_allclose(found["both"], (found["plain"] + found["flipped"]) / 2, atol=1e-5)
    np.testing.assert_allclose(found["tiled"], found["both"], atol=1e-5)


def test_evaluation_writes_every_scale_and_says_whose_tissue_it_was(run):
    path = workflows.evaluate(run, scales_um=[120.0])
    result = json.loads(path.read_text())
    assert result["split"] == "test"
    assert result["split_by"] == "patient"
    assert result["same_patient"] is False
    assert set(result["scales"]) == {"native"}
    assert result["scales_left_out"] == [120.0]  # fewer than 30 squares
    native = result["scales"]["native"]
    for key in ("size_um", "units", "PCC@F", "PCC@S", "PCC@M", "PCC@M_pooled", "PCC@M_residual", "ceiling@M", "MSE"):
        assert key in native
    assert native["size_um"] == 55
    assert set(result["per_slide"]) == {"P3"}
    genes = pd.read_csv(run / "evaluation" / "test_genes.csv")
    assert genes["pcc_native"].mean() == pytest.approx(native["PCC@M"])


def test_the_noise_free_truth_is_scored_by_the_same_evaluation(run, phantom):
    path = workflows.evaluate(run, phantom / "truth", scales_um=[8.0, 32.0], name="truth")
    scales = json.loads(path.read_text())["scales"]
    assert set(scales) == {"native", "8", "32"}
    assert scales["native"]["size_um"] == 2
    assert scales["native"]["target"] == "log1p_cp10k"
    assert all(-1 <= s["PCC@M"] <= 1 for s in scales.values())


def panel_of(run: Path) -> dict:
    return json.loads((run / "models" / "panel.json").read_text())


def test_without_validation_nothing_is_said_of_it(run, phantom, tmp_path):
    bare = Path(shutil.copytree(run, tmp_path / "bare"))
    shutil.rmtree(bare / "evaluation")
    workflows.predict(phantom / "slides" / "P3.tif", tmp_path / "o.h5ad", bare, {"bin_um": 64.0})
    adata = ad.read_h5ad(tmp_path / "o.h5ad")
    assert not list(adata.var)
    assert not {"same_patient", "same_patient_val"} & set(adata.uns["pixnet"])


def test_cells_keep_their_classes_as_categories(run, phantom, tmp_path):
    ring = np.array([[0, 0], [40, 0], [40, 40], [0, 40], [0, 0]])
    features = []
    for number, name in enumerate(["Tumor", None, "Stroma", "Tumor"]):
        outline = {"type": "Polygon", "coordinates": [(ring + 200 + 50 * number).tolist()]}
        properties = {} if name is None else {"classification": {"name": name}}
        features.append({"type": "Feature", "id": f"c{number}", "geometry": outline, "properties": properties})
    (tmp_path / "c.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    for name, read in (("o.h5ad", ad.read_h5ad), ("o.zarr", ad.read_zarr)):
        settings = {"units": str(tmp_path / "c.geojson")}
        assert workflows.predict(phantom / "slides" / "P3.tif", tmp_path / name, run, settings) == [tmp_path / name]
        classes = read(tmp_path / name).obs["classification"]
        assert isinstance(classes.dtype, pd.CategoricalDtype)
        assert list(classes.cat.categories) == ["Stroma", "Tumor"]
        assert list(classes.astype(object).fillna("none")) == ["Tumor", "none", "Stroma", "Tumor"]


def test_bins_are_predicted_over_the_tissue(run, phantom, tmp_path):
    out = tmp_path / "bins.h5ad"
    slide = phantom / "slides" / "P3.tif"
    assert main(["predict", str(slide), str(out), "--model", str(run), "--bin-um", "16"]) == 0
    adata = ad.read_h5ad(out)
    assert adata.n_obs > 100
    assert np.isfinite(adata.X).all()
    assert (adata.obs["tissue_fraction"] > 0).all()
    about = adata.uns["pixnet"]
    assert about["effective_resolution_um"] == 8
    assert not about["interpolated"]
    assert about["unit_size_um"] == 16
    assert any("approximate" in w for w in about["warnings"])
    assert {"pcc_val", "ceiling_val", "n_patients_val", "same_patient_val"} <= set(adata.var)
    assert (adata.var["n_patients_val"] == 1).all()
    assert about["same_patient_val"] == adata.var["same_patient_val"].any() == False  # noqa: E712
    assert {name: list(genes) for name, genes in about["panels"].items()} == panel_of(run)["panels"]
    assert list(about["training_patients"]) == ["P1"]
    some = list(adata.var_names[[3, 1]])
    np.testing.assert_array_equal(expression_of(adata[5:50], some), adata[5:50, some].X)
    with pytest.raises(InputError, match="does not hold NOSUCH"):
        expression_of(adata, ["NOSUCH"])
    (library,) = adata.uns["spatial"].values()
    assert library["scalefactors"]["spot_diameter_fullres"] == pytest.approx(16.0)


def test_given_spots_are_all_predicted_and_equal_the_evaluation(run, phantom, tmp_path):
    spots = next((phantom / "units").glob("P3*spot*.h5ad"))
    out = tmp_path / "spots.h5ad"
    slide = str(phantom / "slides" / "P3.tif")
    gene = json.loads((run / "models/panel.json").read_text())["genes"][3]
    assert main(["predict", slide, str(out), "--model", str(run), "--spots", str(spots), "--genes", gene]) == 0
    adata, given = ad.read_h5ad(out), ad.read_h5ad(spots)
    assert list(adata.obs_names) == list(given.obs_names)
    assert list(adata.var_names) == [gene]
    assert list(adata.obs["in_tissue"]) == list(given.obs["in_tissue"].astype(bool))
    grid = ["array_row", "array_col"]
    np.testing.assert_array_equal(adata.obs[grid], given.obs[grid])
    workflows.evaluate(run)
    scored = ad.read_h5ad(run / "predictions" / "test" / "P3.h5ad")
    np.testing.assert_allclose(adata[scored.obs_names, gene].X, scored[:, gene].X, atol=1e-5)


def test_finer_than_the_map_is_called_interpolated(run, phantom, tmp_path):
    out = tmp_path / "fine.h5ad"
    arguments = ["--spot-um", "4", "--pitch-um", "40", "--lattice", "hex"]
    assert main(["predict", str(phantom / "slides" / "P3.tif"), str(out), "--model", str(run), *arguments]) == 0
    adata = ad.read_h5ad(out)
    about = adata.uns["pixnet"]
    obs, (x, y) = adata.obs, adata.obsm["spatial"].T
    assert (obs["array_col"] % 2 == obs["array_row"] % 2).all()  # as on a Visium slide
    np.testing.assert_allclose(x - x[0], (obs["array_col"] - obs["array_col"].iloc[0]) * 20)
    np.testing.assert_allclose(y - y[0], (obs["array_row"] - obs["array_row"].iloc[0]) * 40 * 3**0.5 / 2)
    assert about["interpolated"]
    assert any("interpolated" in w for w in about["warnings"])


def test_several_sizes_are_pooled_from_one_map(run, phantom, tmp_path):
    slide = str(phantom / "slides" / "P3.tif")
    assert main(["predict", slide, str(tmp_path / "b.h5ad"), "--model", str(run), "--bin-um", "8,16"]) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b_16um.h5ad", "b_8um.h5ad"]
    fine, coarse = (ad.read_h5ad(tmp_path / f"b_{size}um.h5ad") for size in (8, 16))
    alone = tmp_path / "alone.h5ad"
    assert main(["predict", slide, str(alone), "--model", str(run), "--bin-um", "16"]) == 0
    np.testing.assert_allclose(ad.read_h5ad(alone).X, coarse.X, atol=1e-6)
    # the linear head: a bin's y is the mean of its four parts'
    place = {(r, c): i for i, (r, c) in enumerate(zip(fine.obs.array_row, fine.obs.array_col, strict=True))}
    whole = 0
    for i, (r, c) in enumerate(zip(coarse.obs.array_row, coarse.obs.array_col, strict=True)):
        parts = [place.get((2 * r + dy, 2 * c + dx)) for dy in (0, 1) for dx in (0, 1)]
        if None not in parts:
            free = ((fine.X[parts] > 0) & (fine.X[parts] < np.float32(MAX_LOG_CP10K))).all(0)  # not clipped
            np.testing.assert_allclose(fine.X[parts].mean(0)[free], coarse.X[i][free], atol=1e-5)
            whole += free.mean() > 0.5
    assert whole > 50


def test_fine_bins_as_zarr_keep_the_factors_when_genes_would_not_fit(run, phantom, tmp_path, monkeypatch):
    slide = str(phantom / "slides" / "P3.tif")
    command = ["predict", slide, str(tmp_path / "f.zarr"), "--model", str(run), "--bin-um", "8"]
    assert main(command) == 0
    full = ad.read_zarr(tmp_path / "f.zarr")
    assert "features" not in full.obsm
    monkeypatch.setattr(predicted_units, "MAX_VALUES", 1000)
    assert main(command) == 0
    factors = ad.read_zarr(tmp_path / "f.zarr")
    assert factors.X is None
    assert list(factors.obs_names) == list(full.obs_names)
    some = list(full.var_names[[3, 1]])
    spread = full.X.max() - full.X.min()
    np.testing.assert_allclose(expression_of(factors[5:50], some), full[5:50, some].X, atol=1e-3 * spread)
    assert main([*command, "--genes", some[0]]) == 0
    one = ad.read_zarr(tmp_path / "f.zarr")
    np.testing.assert_allclose(one.X, full[:, [some[0]]].X, atol=1e-6)
    assert "features" in one.obsm
    assert [p.name for p in tmp_path.iterdir()] == ["f.zarr"]


def test_the_map_of_a_region_covers_its_bins(run, phantom, tmp_path):
    slide, genes = str(phantom / "slides" / "P3.tif"), json.loads((run / "models/panel.json").read_text())["genes"][:2]
    options = ["--model", str(run), "--region", "160,160,320,240", "--genes", ",".join(genes)]
    outputs = ["--map", str(tmp_path / "m.zarr"), "--nifti", str(tmp_path / "m.nii.gz")]
    assert main(["predict", slide, str(tmp_path / "b.h5ad"), *options, *outputs, "--bin-um", "8"]) == 0
    dense, bins = open_map(tmp_path / "m.zarr"), ad.read_h5ad(tmp_path / "b.h5ad")
    assert dense.genes == genes
    x0, y0 = (v // dense.stride for v in dense.origin_px)
    rows, columns = bins.obs.array_row - y0, bins.obs.array_col - x0  # a bin of 8 µm is a map pixel
    values = dense.array[:]
    np.testing.assert_allclose(values[:, rows, columns].T, bins.X, atol=1e-5)
    nifti = np.asarray(nib.load(tmp_path / "m.nii.gz").dataobj)
    assert nifti.shape == (40, 30, 1, 2)
    assert main(["predict", slide, *options, "--map", str(tmp_path / "alone.zarr")]) == 0
    np.testing.assert_array_equal(open_map(tmp_path / "alone.zarr").array[:], values)
    assert not list(ROOT.glob("predictions*"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["alone.zarr", "b.h5ad", "m.nii.gz", "m.zarr"]
    np.testing.assert_allclose(nifti[0, 0, 0], values[:, 20 - y0, 20 - x0], atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--bin-um", "8"], "no file to write"),
        ([], "Nothing to write"),
        (["OUT.csv", "--bin-um", "8"], "end its name in .h5ad or .zarr"),
        (["OUT.h5ad"], "which units"),
        (["OUT.h5ad", "--bin-um", "8", "--region", "9000,0,10,10"], "lies outside"),
        (["OUT.h5ad", "--bin-um", "8", "--region", "0,0,10"], "x,y,width,height"),
        (["OUT.h5ad", "--bin-um", "0.1"], "end the name in .zarr"),
        (["--nifti", "m.nii", "--genes", "nothing"], "does not predict nothing"),
        (["OUT.h5ad", "--bin-um", "8", "--set", "runtime=openvino"], '"runtime" of earlier versions is gone'),
        (["OUT.h5ad", "--bin-um", "8", "--set", "test_time_augmentation=[9]"], "name some of 0 to 7"),
    ],
)
def test_what_cannot_be_predicted_is_reported(run, phantom, tmp_path, monkeypatch, capsys, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    assert main(["predict", str(phantom / "slides" / "P3.tif"), *arguments, "--model", str(run)]) == 2
    assert sentence in capsys.readouterr().err
    assert [p.suffix for p in tmp_path.iterdir()] in ([], [".work"])


def test_several_slides_do_not_overwrite_one_file(run, phantom, tmp_path):
    with pytest.raises(InputError, match="is a folder"):
        workflows.predict(phantom / "slides", tmp_path / "o.h5ad", run, {"bin_um": 16.0})
    files = [ROOT / "configs" / "inference.json", run / "configs" / "model.json"]
    keys = {"slides": str(phantom / "slides"), "model_dir": str(run / "models"), "bin_um": 60.0}
    with pytest.raises(InputError, match="holds one slide, and 3 are given"):
        config.run_config("inferring", files, {**keys, "output": str(tmp_path / "o.h5ad")})
    config.run_config("inferring", files, {**keys, "output": str(tmp_path / "all.v2")})
    assert sorted(p.name for p in (tmp_path / "all.v2").iterdir()) == ["P1.h5ad", "P2.h5ad", "P3.h5ad"]


def test_a_prediction_that_was_killed_goes_on_to_the_same_contents(run, phantom, tmp_path, capsys, one_thread):
    def command(name: str) -> list[str]:
        out = str(tmp_path / f"{name}.h5ad")
        own = ["predict", str(phantom / "slides" / "P3.tif"), out, "--model", str(run)]
        return [*own, "--bin-um", "8", "--set", "tile_px=128"]

    start = [sys.executable, "-m", "bundle.cli", *command("killed")]
    process = forking.Popen(start, cwd=ROOT, env=ENV)
    done = tmp_path / "killed.h5ad.work" / "P3" / "done.json"
    while process.poll() is None and (not done.is_file() or '"tiles": 0' in done.read_text()):
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL, "it ended before it could be killed"
    assert not (tmp_path / "killed.h5ad").exists()
    assert main(command("killed")) == 0
    said = capsys.readouterr()
    assert "done already" in said.out + said.err
    assert main(command("whole")) == 0
    whole, resumed = (ad.read_h5ad(tmp_path / f"{name}.h5ad") for name in ("whole", "killed"))
    np.testing.assert_array_equal(whole.X, resumed.X)
    assert list(whole.obs_names) == list(resumed.obs_names)
    assert not list(tmp_path.glob("*.work"))


def test_a_bundle_without_weights_says_so(phantom, tmp_path):
    with pytest.raises(InputError, match="pixnet train"):
        workflows.evaluate(tmp_path)


def test_the_network_is_what_the_metadata_says():
    command = [sys.executable, "-m", "monai.bundle", "verify_net_in_out", "network_def"]
    command += ["--meta_file", "configs/metadata.json", "--config_file", "configs/inference.json", "--n", "2"]
    done = forking.run(command, cwd=ROOT, env=ENV)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "verified with no error" in done.stdout + done.stderr


OVERRIDES = {
    "programs.json": {"n_programs": 4},
    "mixed_sizes.json": {"n_programs": 4, "unit_sizes_um": [55, 16]},
    "swin_unetr.json": {"network_def#feature_size": 12, "crop_px": 128},
    "efficientnet_lite.json": {"crop_px": 128, "mpp": 2.0},
    "backbone.json": {
        "crop_px": 128,
        "mpp": 2.0,
        "network_def#encoder#window_px": 64,
        "network_def#encoder#pyramid_channels": 8,
    },
}
NEEDS = {"efficientnet_lite.json": "encoders", "backbone.json": "backbone"}
MODULES = {"encoders": "efficientnet_lite_pytorch", "backbone": "transformers"}


def test_every_override_is_run_here():
    bases = {"metadata.json", "train.json", "evaluate.json", "inference.json"}
    several = {"multi_gpu_train.json", "multi_gpu_evaluate.json"}  # in test_ranks.py
    elsewhere = {*several, "fine_tune.json"}  # bundle/integrations/monai_label/test_models.py
    assert {p.name for p in (ROOT / "configs").glob("*.json")} == {*bases, *elsewhere, *OVERRIDES}


@pytest.mark.parametrize("name", sorted(OVERRIDES))
def test_an_override_trains_evaluates_and_predicts(name, phantom, tiny, tmp_path, request):
    if name in NEEDS:
        pytest.importorskip(MODULES[NEEDS[name]], reason=f"the extra `{NEEDS[name]}` is not installed")
    settings = {k: v for k, v in tiny.items() if not k.startswith("network_def")}
    if name == "programs.json":
        settings |= {k: v for k, v in tiny.items() if k.startswith("network_def")}
    settings |= {"max_epochs": 2, "crops_per_slide": 2, **OVERRIDES[name]}
    if name == "backbone.json":
        folder = request.getfixturevalue("save_backbone")(tmp_path / "backbone", "registers")
        settings["network_def#encoder#folder"] = str(folder)
    workflows.train(phantom, tmp_path / "run", [ROOT / "configs" / name], settings)
    if name == "backbone.json":
        (folder / "model.safetensors").unlink()  # the run's own weights are enough from here on
    losses = pd.read_csv(tmp_path / "run" / "metrics.csv")["loss"]
    assert losses.nunique() == 2
    figures = json.loads(workflows.evaluate(tmp_path / "run").read_text())["scales"]["native"]
    assert -1 <= figures["PCC@M"] <= 1
    out = tmp_path / "p.h5ad"
    workflows.predict(phantom / "slides" / "P3.tif", out, tmp_path / "run", {"spot_um": 50.0, "pitch_um": 100.0})
    adata = ad.read_h5ad(out)
    assert ("rate_per_um2" in adata.layers) == (name in ("programs.json", "mixed_sizes.json"))


def test_an_encoder_that_does_not_fit_is_refused_in_a_sentence(phantom, tiny, tmp_path):
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "resnet.pt")
    encoder = {**tiny["network_def#encoder"], "weights": str(tmp_path / "resnet.pt")}
    with pytest.raises(InputError, match=r"networks\.SwinEncoder does not work.*resnet\.pt holds no Swin"):
        workflows.train(phantom, tmp_path / "run", [], {**tiny, "network_def#encoder": encoder})


def test_weights_of_the_start_are_not_needed_again(phantom, tiny, tmp_path):
    from networks import SwinEncoder

    shape = {k: v for k, v in tiny["network_def#encoder"].items() if k != "_target_"}
    state = {k.replace(".mlp.linear", ".mlp.fc"): v for k, v in SwinEncoder(**shape).state_dict().items()}
    state = {re.sub(r"^downsamples\.(\d)", r"layers.\1.downsample", k): v for k, v in state.items()}
    torch.save({k: v for k, v in state.items() if not k.startswith("norms")}, tmp_path / "swin.pt")
    settings = {
        **tiny,
        "max_epochs": 1,
        "network_def#encoder": {**tiny["network_def#encoder"], "weights": str(tmp_path / "swin.pt")},
    }
    workflows.train(phantom, tmp_path / "run", [], settings)
    (tmp_path / "swin.pt").unlink()
    assert workflows.evaluate(tmp_path / "run").is_file()


def test_the_same_command_goes_on_and_other_settings_or_slides_are_refused(run, override, phantom, tmp_path):
    before = (run / "models" / "model.pt").read_bytes()
    settings = {"max_epochs": 3}
    workflows.train(phantom, run, [override], settings)  # all epochs are done
    assert (run / "models" / "model.pt").read_bytes() == before
    other = json.loads((phantom / "dataset.json").read_text())
    other["training"], other["test"] = other["test"], other["training"]
    for record in [*other["training"], *other["validation"], *other["test"]]:
        record["image"] = str(phantom / record["image"])
        record["label"] = [str(phantom / label) for label in record["label"]]
    (tmp_path / "dataset.json").write_text(json.dumps(other))
    panel = (run / "models" / "panel.json").read_text()
    with pytest.raises(Exception, match="run on other slides or genes") as caught:
        workflows.train(tmp_path, run, [override], settings)
    assert caught.value
    assert (run / "models" / "panel.json").read_text() == panel
    with pytest.raises(InputError, match=r"other settings.*learning_rate"):
        workflows.train(phantom, run, [override], {"learning_rate": 0.1})
