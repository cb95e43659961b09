"""An exported bundle is a folder that MONAI runs by itself, with the answers of the run it came from."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
import zipfile
from pathlib import Path

import anndata as ad
import numpy as np
import pytest

from bundle import workflows
from bundle.cli.main import main
from bundle.errors import InputError
from bundle.integrations import bundle_zip
from bundle.integrations.bundle_zip import _carry_folders, export_bundle
from tests import forking

ROOT = Path(__file__).parents[3]
#: Without our repository on the path.
ENV = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


@pytest.fixture(scope="module")
def archive(tiny_run, tmp_path_factory) -> Path:
    return export_bundle(tiny_run, tmp_path_factory.mktemp("archive") / "tiny_breast.zip")


@pytest.fixture(scope="module")
def unzipped(archive, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("unzipped")
    with zipfile.ZipFile(archive) as file:
        file.extractall(folder)
    (bundle,) = folder.iterdir()
    return bundle


def test_it_unpacks_to_a_bundle_of_the_zips_name(unzipped):
    assert unzipped.name == "tiny_breast"
    for room in ("bundle", "networks", "transforms", "configs", "docs"):
        kept = [p for p in (ROOT / room).rglob("*") if p.suffix in {".py", ".json", ".conf", ".md", ".txt", ".typed"}]
        assert kept
        for path in kept:  # a page that is missing here needs a link from docs/README.md, or from a page it leads to
            is_there = (unzipped / path.relative_to(ROOT)).is_file()
            assert is_there != ("public" in path.parts), path
    assert (unzipped / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert not list(unzipped.rglob("__pycache__"))


def test_pages_that_the_model_card_leads_to_go_along(tmp_path):
    (tmp_path / "guide").mkdir()
    pages = {
        "README.md": "[a](guide/a.md#top), [web](https://example.org/x.md), [outside](../secret.md)",
        "guide/a.md": "![b](b.jpg) [back](../README.md)",
        "guide/b.jpg": "",
        "notes.md": "nobody links here",
        "../secret.md": "",
    }
    for name, text in pages.items():
        (tmp_path / name).write_text(text)
    found = {path.relative_to(tmp_path).as_posix() for path in bundle_zip._pages(tmp_path)}
    assert found == {"README.md", "guide/a.md", "guide/b.jpg"}


def test_its_configurations_and_metadata_are_the_models(unzipped, tiny_run):
    model = json.loads((tiny_run / "configs" / "model.json").read_text())
    for name in ("train", "evaluate", "inference"):
        config = json.loads((unzipped / "configs" / f"{name}.json").read_text())
        assert {key: config[key] for key in model} == model
        assert list(config) == list(json.loads((ROOT / "configs" / f"{name}.json").read_text()))
    genes = json.loads((tiny_run / "models" / "panel.json").read_text())["genes"]
    shapes = json.loads((unzipped / "configs" / "metadata.json").read_text())["network_data_format"]
    assert shapes["inputs"]["image"]["spatial_shape"] == ["32*n", "32*n"]
    assert shapes["outputs"]["pred"]["spatial_shape"] == ["8*n", "8*n"]
    assert shapes["outputs"]["pred"]["num_channels"] == len(genes)
    assert shapes["outputs"]["pred"]["channel_def"]["3"].endswith(genes[3])


def test_it_holds_no_path_of_this_machine(unzipped, tiny_run, phantom):
    for path in unzipped.rglob("*"):
        if path.suffix in {".json", ".csv", ".conf"}:
            text = path.read_text()
            assert not any(str(place) in text for place in (tiny_run, phantom, ROOT, unzipped.parent)), path


def test_a_backbones_folder_goes_along(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "dinov2"}')
    encoder = {"_target_": "networks.BackboneEncoder", "folder": str(tmp_path), "window_px": 256}
    files: dict[str, bytes] = {}
    carried = _carry_folders({"mpp": 0.5, "network_def": {"encoder": encoder}}, files, tmp_path / "run")
    assert str(tmp_path) not in json.dumps(carried)
    assert carried["network_def"]["encoder"] == encoder | {"folder": "$@bundle_root + '/models/backbone'"}
    assert files == {"models/backbone/config.json": b'{"model_type": "dinov2"}'}


def test_so_does_one_that_the_run_keeps(tmp_path):
    (tmp_path / "models" / "backbone").mkdir(parents=True)
    (tmp_path / "models" / "backbone" / "config.json").write_text('{"model_type": "dinov2"}')
    files: dict[str, bytes] = {}
    encoder = {"_target_": "networks.BackboneEncoder", "folder": "$@model_dir + '/backbone'"}
    carried = _carry_folders({"network_def": {"encoder": encoder}}, files, tmp_path)
    assert carried["network_def"]["encoder"]["folder"] == "$@bundle_root + '/models/backbone'"
    assert files == {"models/backbone/config.json": b'{"model_type": "dinov2"}'}


def test_the_same_run_gives_the_same_bytes(archive, tiny_run, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(tiny_run, copy)
    for path in copy.rglob("*"):
        os.utime(path, (time.time() + 1e5,) * 2)
    assert main(["export-bundle", str(copy), str(tmp_path / archive.name)]) == 0
    assert (tmp_path / archive.name).read_bytes() == archive.read_bytes()


def test_monai_predicts_from_inside_it_what_pixnet_predicts(unzipped, tiny_run, phantom, tmp_path):
    slide, alone, ours = phantom / "slides" / "P3.tif", tmp_path / "alone.h5ad", tmp_path / "ours.h5ad"
    command = [sys.executable, "-m", "monai.bundle", "run", "inferring", "--config_file", "configs/inference.json"]
    command += ["--slides", str(slide), "--bin_um", "16", "--output", str(alone)]
    done = forking.run(command, cwd=unzipped, env=ENV)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    assert str(ROOT) not in done.stdout + done.stderr
    workflows.predict(slide, ours, tiny_run, {"bin_um": 16.0})
    alone, ours = ad.read_h5ad(alone), ad.read_h5ad(ours)
    assert list(alone.obs_names) == list(ours.obs_names)
    assert list(alone.var_names) == list(ours.var_names)
    np.testing.assert_allclose(alone.X, ours.X, rtol=0, atol=1e-5)
    assert np.ptp(ours.X) > 0.1
    assert alone.uns["pixnet"]["checkpoint_sha256"] == ours.uns["pixnet"]["checkpoint_sha256"]
    np.testing.assert_array_equal(alone.var["pcc_val"], ours.var["pcc_val"])


def test_a_folder_that_is_no_run_and_places_that_cannot_be_are_refused(tiny_run, tmp_path):
    with pytest.raises(InputError, match="pixnet train"):
        export_bundle(tmp_path, tmp_path / "b.zip")
    with pytest.raises(InputError, match=r"end its name in \.zip"):
        export_bundle(tiny_run, tmp_path / "b.tar")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="choose another place"):
        export_bundle(tiny_run, tmp_path / "file" / "b.zip")
    other = Path(shutil.copytree(tiny_run, tmp_path / "other"))
    model = json.loads((other / "configs" / "model.json").read_text())
    model["network_def"]["decoder_channels"] = [8, 16]
    (other / "configs" / "model.json").write_text(json.dumps(model))
    with pytest.raises(InputError, match="does not hold the weights"):
        export_bundle(other, tmp_path / "b.zip")
    assert not list(tmp_path.glob("*.zip"))
