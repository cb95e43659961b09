"""A plain picture in the place of a slide."""

from __future__ import annotations

import shutil

import anndata as ad
import numpy as np
import tifffile
from PIL import Image

from bundle.cli.main import main


def test_a_png_is_predicted_as_the_same_pixels_in_a_slide(phantom, tiny_run, tmp_path, capsys):
    slide, picture = phantom / "slides" / "P3.tif", tmp_path / "p.png"
    Image.fromarray(tifffile.imread(slide)).save(picture)
    out = tmp_path / "out" / "o.h5ad"
    command = ["predict", str(picture), str(out), "--model", str(tiny_run), "--bin-um", "64"]
    assert main(command) == 2
    assert "Give --mpp" in capsys.readouterr().err
    assert main([*command, "--mpp", "1"]) == 0
    copy = out.with_name("p.slide.tif")
    written = copy.stat().st_mtime_ns
    assert main([*command, "--mpp", "1"]) == 0
    assert copy.stat().st_mtime_ns == written
    again = tmp_path / "again.h5ad"
    assert main(["predict", str(copy), str(again), "--model", str(tiny_run), "--bin-um", "64"]) == 0
    np.testing.assert_array_equal(ad.read_h5ad(out).X, ad.read_h5ad(again).X)


def test_a_file_of_that_name_is_kept(phantom, tiny_run, tmp_path, capsys):
    picture, own = tmp_path / "p.jpg", tmp_path / "p.slide.tif"
    Image.fromarray(tifffile.imread(phantom / "slides" / "P3.tif")).save(picture)
    own.write_text("mine")
    command = ["predict", str(picture), str(tmp_path / "o.h5ad"), "--model", str(tiny_run), "--bin-um", "64"]
    assert main([*command, "--mpp", "1"]) == 2
    assert "PixNet did not write it" in capsys.readouterr().err
    assert own.read_text() == "mine"


def test_a_standard_error_takes_one_copy_and_leaves_nothing_else(phantom, tiny_run, tmp_path, monkeypatch):
    monkeypatch.setattr("bundle.inference.uncertainty._MEMBERS", 2)
    picture, out, run = tmp_path / "p.png", tmp_path / "out" / "o.h5ad", tmp_path / "run"
    Image.fromarray(tifffile.imread(phantom / "slides" / "P3.tif")).save(picture)
    shutil.copytree(tiny_run, run)
    command = ["predict", str(picture), str(out), "--model", str(run), "--bin-um", "100", "--mpp", "1"]
    assert main([*command, "--standard-error"]) == 0
    assert {path.name for path in out.parent.iterdir()} == {"o.h5ad", "p.slide.tif", ".p.slide.tif.made.json"}
