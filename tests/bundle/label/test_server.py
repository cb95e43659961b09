"""The started server over HTTP, in the environment of `make test-label`; run with -s, it prints what it got."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bundle import commands
from bundle.geojson import read_polygons

pytest.importorskip("monailabel", reason="MONAI Label is not installed here: make test-label")
requests = pytest.importorskip("requests")

ROOT = Path(__file__).parents[3]


def _say(title: str, *lines: object) -> None:
    print(f"\n== {title}", *lines, sep="\n   ", flush=True)


class Server:
    def __init__(self, url: str, log: Path, process: subprocess.Popen) -> None:
        self.url, self.log, self.process = url, log, process

    def get(self, path: str, **kw):
        return requests.get(self.url + path, timeout=60, **kw)

    def infer(self, image: str, params: dict | None = None, output: str | None = "image"):
        query = {"image": image, **({"output": output} if output else {})}
        body = {"params": json.dumps(params or {})}
        return requests.post(f"{self.url}/infer/pixnet", params=query, data=body, timeout=300)

    def infer_region(self, image: str, wsi: dict, output: str | None = None):
        query = {"image": image, **({"output": output} if output else {})}
        return requests.post(
            f"{self.url}/infer/wsi_v2/pixnet", params=query, data={"wsi": json.dumps(wsi)}, timeout=300
        )


@pytest.fixture(scope="module")
def server(studies, served, tmp_path_factory):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("server")
    log = folder / "server.log"
    command = [sys.executable, "-m", "monailabel.main", "start_server", "--app", str(ROOT / "bundle" / "label")]
    command += ["--studies", str(studies), "--conf", "run", str(served), "--conf", "device", "cpu"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    env = {**os.environ, "MONAI_LABEL_SESSION_PATH": str(folder / "sessions")}
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=env, cwd=folder)
    started = Server(f"http://127.0.0.1:{port}", log, process)
    try:
        for _ in range(240):
            assert process.poll() is None, log.read_text()[-3000:]
            try:
                started.get("/info/")
                break
            except requests.ConnectionError:
                time.sleep(0.5)
        _say("server started", started.url)
        yield started
    finally:
        process.terminate()
        process.wait(30)
        _say(f"server stopped, status {process.returncode}")


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
    _say("GET /info/", f"{len(genes)} genes: {', '.join(genes[:4])}, ...", options, info["trainers"]["pixnet"])


def test_a_whole_slide_comes_as_units_with_measurements(server, polygons, genes, studies, served, tmp_path):
    read, content = polygons(server.infer("P3", {"gene": genes[:2], "unit_um": 30}))
    commands.predict(studies / "P3.tif", tmp_path / "p.h5ad", served, {"bin_um": 30.0, "genes": genes[:2]})
    import anndata as ad

    expected = ad.read_h5ad(tmp_path / "p.h5ad")
    assert list(read.names) == list(expected.obs_names)
    measured = np.array([[f["properties"]["measurements"][g] for g in genes[:2]] for f in content["features"]])
    np.testing.assert_allclose(measured, expected.X, atol=1e-4)
    first = json.dumps(content["features"][0])
    _say("POST /infer/pixnet, a whole slide", f"{len(read.names)} units, the same as pixnet predict's; first:", first)


def test_the_default_answer_has_two_parts(server):
    answer = server.infer("P3", {"unit_um": 60, "max_units": 5}, output=None)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("multipart/form-data")
    assert answer.content.count(b'"units": 5') == 2  # beside the file and in it
    only = server.infer("P3", {"unit_um": 60, "max_units": 5}, output="json").json()
    assert (only["units"], only["left_out_by_max_units"]) == (5, only["units_found"] - 5)
    _say("POST /infer/pixnet?output=json", only)


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
    _say("POST /infer/wsi_v2/pixnet, a region", said)


def test_contours_of_a_gene(server, polygons, genes):
    region = {"location": [50, 50], "size": [500, 500]}
    asked = {**region, "params": {"result": "contours", "gene": genes[1], "unit_um": 20}}
    read, content = polygons(server.infer_region("P3", asked))
    assert len(read.names) == content["pixnet"]["contours"] > 0
    assert set(read.types) == {"annotation"}
    about = {key: content["pixnet"][key] for key in ("genes", "threshold", "contours", "warnings")}
    _say("POST /infer/wsi_v2/pixnet, contours", about, f"first: {read.names[0]}")


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
    _say("POST /infer/wsi_v2/pixnet, the map", answer.headers["content-disposition"], f"{image.shape}, {cell_um:g} µm")


BAD = {
    "unknown gene": ("infer", "P3", {"gene": "ERBB9000"}),
    "path outside of the studies folder": ("infer", "../../../../etc/hostname", {}),
    "file of this machine": ("infer", str(ROOT / "README.md"), {}),
    "path in the parameters": ("infer", "P3", {"image": "/etc/hostname"}),
    "absurd size": ("region", "P3", {"size": [10**8, 10**8]}),
    "absurdly small units": ("infer", "P3", {"unit_um": 1e-9}),
    "size below 0": ("region", "P3", {"size": [-5, 10]}),
    "region outside of the slide": ("region", "P3", {"location": [10**6, 0], "size": [100, 100]}),
    "unknown result": ("infer", "P3", {"result": "picture"}),
    "unknown slide": ("infer", "P99", {}),
    "a size that is no list": ("region", "P3", {"size": "large"}),
    "unknown output": ("output", "P3", {}),
    "output of another kind": ("asap", "P3", {}),
    "unknown model": ("model", "P3", {}),
    "parameters that are no JSON": ("json", "P3", {}),
    "no slide": ("infer", "", {}),
    "an option's name with a slip": ("infer", "P3", {"treshold": 2}),
    "training without epochs": ("train", "", {"max_epochs": 0}),
    "training with a slip": ("train", "", {"max_epoch": 3}),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_request_gets_a_sentence_and_the_server_stays_up(server, what):
    kind, image, asked = BAD[what]
    if kind == "infer":
        answer = server.infer(image, asked)
    elif kind == "region":
        answer = server.infer_region(image, asked)
    elif kind == "asap":
        answer = server.infer_region(image, {}, "asap")
    elif kind == "output":
        answer = server.infer(image, output="painting")
    elif kind == "model":
        answer = requests.post(f"{server.url}/infer/nobody", params={"image": image}, timeout=60)
    elif kind == "train":
        answer = requests.post(f"{server.url}/train/pixnet?run_sync=true", json=asked, timeout=60)
    else:
        answer = requests.post(f"{server.url}/infer/pixnet?image=P3", data={"params": "{gene"}, timeout=60)
    _say(f"bad request, {what}", f"{answer.status_code} {json.dumps(answer.json()['detail'])[:300]}")
    assert 400 <= answer.status_code < 500
    detail = answer.json()["detail"]
    assert "Traceback" not in answer.text
    assert 20 < len(detail) < 300
    assert "\n" not in detail
    assert server.get("/info/").status_code == 200
    assert server.process.poll() is None


def test_training_changes_what_the_next_request_is_answered_with(server, polygons, genes, served):
    asked = {"gene": genes[0], "unit_um": 60}
    _, before = polygons(server.infer("P3", asked))
    settings = {"max_epochs": 2, "crops_per_slide": 2, "min_total": 20, "learning_rate": 0.01}
    task = requests.post(f"{server.url}/train/pixnet", json=settings, timeout=60).json()
    assert task["status"] in ("SUBMITTED", "RUNNING")
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
    _say(
        "POST /train/pixnet",
        stats,
        f"weights {hashes[0]} before, {hashes[1]} after; the next answer's values moved by {change:.3f} on average",
    )


def test_nothing_is_left_in_the_temporary_folder(server):
    import tempfile

    names = [p.name for p in Path(tempfile.gettempdir()).glob("P3_*_*") if p.suffix in (".geojson", ".gz")]
    assert not names
