"""The started server over HTTP, in the environment of `make test-label`; run with -s, it prints what it got."""

from __future__ import annotations

import hashlib
import json
import time

import nibabel as nib
import numpy as np
import pytest

from bundle import workflows
from bundle.data.read_geojson import read_polygons

pytest.importorskip("monailabel", reason="MONAI Label is not installed here: make test-label")


@pytest.fixture(scope="module")
def genes(served) -> list[str]:
    return json.loads((served / "models" / "panel.json").read_text())["genes"]


@pytest.fixture
def polygons(tmp_path):
    def read(answer):
        assert answer.status_code == 200, answer.text
        path = tmp_path / "answer.geojson"
        path.write_bytes(answer.content)
        return read_polygons(path), answer.json()

    return read


def test_info_lists_genes_and_options(server, genes, studies):
    info = server.get("/info/").json()
    task = info["models"]["pixnet"]
    assert task["labels"] == task["config"]["gene"] == genes
    assert {"result", "unit_um", "threshold", "max_units"} <= task["config"].keys()
    assert info["datastore"]["total"] == 3
    options = {key: value for key, value in task["config"].items() if key != "gene"}
    server.say("GET /info/", f"{len(genes)} genes: {', '.join(genes[:4])}, ...", options, info["trainers"]["pixnet"])


def test_a_whole_slide_comes_as_units_with_measurements(server, polygons, genes, studies, served, tmp_path):
    read, content = polygons(server.infer("P3", {"gene": genes[:2], "unit_um": 30}))
    workflows.predict(studies / "P3.tif", tmp_path / "p.h5ad", served, {"bin_um": 30.0, "genes": genes[:2]})
    import anndata as ad

    expected = ad.read_h5ad(tmp_path / "p.h5ad")
    assert list(read.names) == list(expected.obs_names)
    measured = np.array([[f["properties"]["measurements"][g] for g in genes[:2]] for f in content["features"]])
    np.testing.assert_allclose(measured, expected.X, atol=1e-4)
    first = json.dumps(content["features"][0])
    server.say(
        "POST /infer/pixnet, a whole slide", f"{len(read.names)} units, the same as pixnet predict's; first:", first
    )


def test_the_default_response_has_two_parts(server):
    answer = server.infer("P3", {"unit_um": 60, "max_units": 5}, output=None)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("multipart/form-data")
    assert answer.content.count(b'"units": 5') == 2  # beside the file and in it
    only = server.infer("P3", {"unit_um": 60, "max_units": 5}, output="json").json()
    assert (only["units"], only["left_out_by_max_units"]) == (5, only["units_found"] - 5)
    server.say("POST /infer/pixnet?output=json", only)


def test_a_region_is_the_whole_slide_s_part(server, polygons, genes):
    asked = {"params": {"gene": genes[0], "unit_um": 30}}
    part, content = polygons(server.infer_region("P3", {"location": [150, 210], "size": [240, 180], **asked}))
    whole, everything = polygons(server.infer_region("P3", {"size": [0, 0], **asked}))
    value = {f["properties"]["name"]: f["properties"]["measurements"][genes[0]] for f in everything["features"]}
    assert 0 < len(part.names) < len(whole.names)
    there = [f["properties"]["measurements"][genes[0]] for f in content["features"]]
    difference = np.abs(np.array(there) - [value[name] for name in part.names]).max()
    assert difference <= 2e-4
    said = f"{len(part.names)} of {len(whole.names)} units, largest difference to the whole slide's {difference:.1e}"
    server.say("POST /infer/wsi_v2/pixnet, a region", said)


def test_contours_of_a_gene(server, polygons, genes):
    region = {"location": [50, 50], "size": [500, 500]}
    asked = {**region, "params": {"result": "contours", "gene": genes[1], "unit_um": 20}}
    read, content = polygons(server.infer_region("P3", asked))
    assert len(read.names) == content["pixnet"]["contours"] > 0
    assert set(read.types) == {"annotation"}
    about = {key: content["pixnet"][key] for key in ("genes", "threshold", "contours", "warnings")}
    server.say("POST /infer/wsi_v2/pixnet, contours", about, f"first: {read.names[0]}")


def test_the_map_of_a_region_is_a_file(server, genes, tmp_path):
    asked = {"location": [160, 80], "size": [240, 160], "params": {"result": "map", "gene": genes[0]}}
    answer = server.infer_region("P3", asked)
    assert answer.status_code == 200, answer.text
    path = tmp_path / "map.nii.gz"
    path.write_bytes(answer.content)
    image = nib.load(path)
    cell_um = image.affine[0, 0] * 1000
    assert image.shape == (round(240 / cell_um), round(160 / cell_um), 1, 1)
    assert np.isfinite(image.get_fdata()).all()
    server.say(
        "POST /infer/wsi_v2/pixnet, the map", answer.headers["content-disposition"], f"{image.shape}, {cell_um:g} µm"
    )


def test_the_next_request_uses_the_newly_trained_model(server, polygons, genes, served):
    asked = {"gene": genes[0], "unit_um": 60}
    _, before = polygons(server.infer("P3", asked))
    settings = {"max_epochs": 2, "learning_rate": 0.01}
    task = server.post("/train/pixnet", json=settings).json()
    assert task["status"] in ("SUBMITTED", "RUNNING")
    for _ in range(60):
        if server.get("/train/").json()["status"] == "RUNNING":
            break
        time.sleep(0.5)
    second = server.post("/train/pixnet?run_sync=true&enqueue=true", json=settings)
    assert second.status_code == 429
    assert "is running" in second.json()["detail"]
    for _ in range(240):
        status = server.get("/train/").json()
        if status["status"] not in ("SUBMITTED", "RUNNING"):
            break
        time.sleep(1)
    details = list(status.get("details", []))
    assert status["status"] == "DONE", details
    _, after = polygons(server.infer("P3", asked))
    weights = hashlib.sha256((served / "tuned" / "0001" / "models" / "model.pt").read_bytes()).hexdigest()
    assert after["pixnet"]["model_sha256"] == weights != before["pixnet"]["model_sha256"]
    values = [[f["properties"]["measurements"][genes[0]] for f in c["features"]] for c in (before, after)]
    assert values[0] != values[1]
    stats = server.get("/info/").json()["train_stats"]["pixnet"]
    assert stats["run"] == "0001"
    assert len(stats["loss"]) == 2
    hashes = [c["pixnet"]["model_sha256"][:12] for c in (before, after)]
    change = np.abs(np.subtract(*values)).mean()
    server.say(
        "POST /train/pixnet",
        stats,
        f"weights {hashes[0]} before, {hashes[1]} after; the next answer's values moved by {change:.3f} on average",
    )


def test_nothing_is_left_in_the_temporary_folder(server):
    assert server.left() == []
