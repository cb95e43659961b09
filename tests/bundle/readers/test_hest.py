"""HEST-1k's folders: pseudo-spots, wrong scales, patients of the same name, splits."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from bundle.data.manifest import read_manifest
from bundle.data.read_units import read_units
from bundle.errors import InputError
from bundle.importing import prepare
from bundle.readers import recognise


@pytest.fixture
def hest(tmp_path: Path, specimen, write_slide) -> Callable[..., Path]:
    """Writes one sample into a folder of HEST-1k."""
    root = tmp_path / "hest"

    def write(
        name: str, technology: str = "Visium", patient: object = "Patient 1", title: str = "Study A", **metadata: object
    ) -> Path:
        for part in ("st", "wsis", "metadata", "transcripts"):
            (root / part).mkdir(parents=True, exist_ok=True)
        pitch_px = float(metadata.pop("real_pitch_um", 100)) / specimen.mpp  # type: ignore[arg-type]
        if technology == "Visium":
            _, centers = specimen.hexagonal(pitch_px)
        else:
            across, down = int(specimen.width_px / pitch_px), int(specimen.height_px / pitch_px)
            x, y = np.meshgrid(np.arange(across) + 0.5, np.arange(down) + 0.5)
            centers = np.column_stack([x.ravel(), y.ravel()]) * pitch_px
        on = specimen.amount(centers) > 0
        genes = [*(f"G{i}" for i in range(18)), "NegControlProbe_0001", "BLANK_0002"]
        adata = ad.AnnData(
            sp.csr_matrix(specimen.counts(centers[on]), dtype=np.float64),
            obs=pd.DataFrame({"in_tissue": 1}, index=[f"{i:03d}x{i % 7:03d}" for i in range(on.sum())]),
            var=pd.DataFrame(index=genes),
        )
        adata.obsm["spatial"] = centers[on]
        adata.uns["spatial"] = {"ST": {"scalefactors": {"spot_diameter_fullres": pitch_px}, "images": {}}}
        adata.write_h5ad(root / "st" / f"{name}.h5ad")
        write_slide(root / "wsis" / f"{name}.tif", specimen.picture, specimen.mpp, tile_px=256)
        about = {
            "id": name,
            "st_technology": technology,
            "patient": patient,
            "dataset_title": title,
            "pixel_size_um_estimated": specimen.mpp,
            **metadata,
        }
        (root / "metadata" / f"{name}.json").write_text(json.dumps(about))
        return root

    return write


def test_a_folder_is_read_in_place(hest, tmp_path, specimen):
    root = hest("MEND1")
    assert recognise(root) == recognise(root / "st") == "hest"
    prepare(root, tmp_path / "out")
    (record,) = read_manifest(tmp_path / "out")["training"]
    assert Path(record["image"]) == root / "wsis" / "MEND1.tif"
    units = read_units(record["label"][0])
    assert (units.shape, units.size_um, units.mpp) == ("circle", 55.0, pytest.approx(specimen.mpp))
    assert list(units.genes) == [f"G{i}" for i in range(18)]  # controls are gone
    assert json.loads((tmp_path / "out" / "checks" / "MEND1.json").read_text())["doubts"] == []


def test_the_same_patients_name_in_two_studies_is_two_patients(hest, tmp_path):
    hest("A1", title="Study A")
    root = hest("B1", title="Study B")
    prepare(root, tmp_path / "out")
    assert {r["patient"] for r in read_manifest(tmp_path / "out")["training"]} == {
        "Patient 1 of Study A",
        "Patient 1 of Study B",
    }


def test_patients_that_are_wrong_are_overridden_by_a_file(hest, tmp_path):
    hest("A1", patient=float("nan"))
    root = hest("A2")
    pd.DataFrame({"sample": ["A1", "A2"], "patient": ["P", "P"]}).to_csv(tmp_path / "patients.csv", index=False)
    prepare(root, tmp_path / "out", patients=tmp_path / "patients.csv")
    assert {r["patient"] for r in read_manifest(tmp_path / "out")["training"]} == {"P"}
    (tmp_path / "splits.csv").write_text("sample,split\nA2,test\n")
    with pytest.raises(InputError, match='patient "P" is in both'):
        prepare(root, tmp_path / "leak", patients=tmp_path / "patients.csv", splits=tmp_path / "splits.csv")


def test_pseudo_spots_of_xenium_are_squares_of_their_own_pitch_with_a_message(hest, tmp_path, caplog):
    root = hest("XEN1", technology="Xenium", spot_diameter=100.0, inter_spot_dist=100.0)
    with caplog.at_level(logging.WARNING):
        prepare(root, tmp_path / "out")
    assert "Its spots are pseudo-spots: HEST counted xenium in squares that lie 100 µm apart" in caplog.text
    units = read_units(read_manifest(tmp_path / "out")["training"][0]["label"][0])
    assert (units.shape, units.size_um) == ("square", 100.0)


def test_pseudo_spots_once_lay_58_µm_apart(hest, tmp_path):
    root = hest("XEN2", technology="Xenium", spot_diameter=100.0, inter_spot_dist=100.0, real_pitch_um=58)
    prepare(root, tmp_path / "out")
    units = read_units(read_manifest(tmp_path / "out")["training"][0]["label"][0])
    assert (units.shape, units.size_um) == ("square", 58.0)


def test_transcripts_on_the_h_and_e_are_counted_in_bins(hest, tmp_path, specimen):
    pytest.importorskip("pyarrow")
    root = hest("XEN1", technology="Xenium")
    rng = np.random.default_rng(0)
    at = rng.uniform(0, (specimen.width_px, specimen.height_px), (20_000, 2))
    at = at[rng.uniform(size=len(at)) < specimen.amount(at)]
    table = pd.DataFrame({"he_x": at[:, 0], "he_y": at[:, 1], "x_location": at[:, 1], "feature_name": "G1", "qv": 30.0})
    table.loc[::2, "feature_name"] = "NegControlProbe_1"
    table.to_parquet(root / "transcripts" / "XEN1.parquet")
    prepare(root, tmp_path / "out", units="transcripts", sizes_um=[20])
    units = read_units(read_manifest(tmp_path / "out")["training"][0]["label"][0])
    assert (list(units.genes), units.size_um) == (["G1"], 20.0)
    assert units.total.sum() == pytest.approx(len(table) // 2, abs=2)


def test_a_stated_scale_that_the_pitch_contradicts_is_reported_and_not_taken(hest, tmp_path, specimen, caplog):
    root = hest("MEND1", pixel_size_um_estimated=specimen.mpp * 0.5)
    with caplog.at_level(logging.WARNING):
        prepare(root, tmp_path / "out")
    assert "The metadata state 1 µm per pixel, but spots 100 µm apart lie 50 px apart, which makes 2" in caplog.text
    assert read_manifest(tmp_path / "out")["training"][0]["mpp"] == pytest.approx(specimen.mpp)


def test_its_own_splits_are_taken_and_ids_are_chosen(hest, tmp_path):
    for name, title in (("A1", "Study A"), ("B1", "Study B"), ("C1", "Study C")):
        root = hest(name, title=title)
    (root / "splits").mkdir()
    (root / "splits" / "train_0.csv").write_text("sample_id,patches_path\nA1,patches/A1.h5\n")
    (root / "splits" / "test_0.csv").write_text("sample_id,patches_path\nB1,patches/B1.h5\n")
    manifest = read_manifest(prepare(root, tmp_path / "out", only=["A1", "B1"]).parent)
    assert [r["section"] for r in manifest["training"]] == ["A1"]
    assert [r["section"] for r in manifest["test"]] == ["B1"]
    with pytest.raises(InputError, match="holds no sample Z9; it holds A1, B1, C1"):
        prepare(root, tmp_path / "none", only=["Z9"])


def test_a_missing_picture_fails_its_sample_alone(hest, tmp_path):
    hest("A1")
    root = hest("A2")
    (root / "wsis" / "A1.tif").unlink()
    with pytest.raises(InputError, match=r"1 sample could not be imported.*lacks wsis/A1\.tif.*holds the other 1"):
        prepare(root, tmp_path / "out")
    assert [r["section"] for r in read_manifest(tmp_path / "out")["training"]] == ["A2"]
    before = (tmp_path / "out" / "spots" / "A2.h5ad").stat().st_mtime_ns
    hest("A1")
    prepare(root, tmp_path / "out")
    assert [r["section"] for r in read_manifest(tmp_path / "out")["training"]] == ["A1", "A2"]
    assert (tmp_path / "out" / "spots" / "A2.h5ad").stat().st_mtime_ns == before
