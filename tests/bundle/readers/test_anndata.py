"""AnnData of other programs: where raw counts are, what genes are called, and in which pixels units lie."""

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
from PIL import Image

from bundle.data.manifest import read_manifest
from bundle.data.read_units import read_units
from bundle.errors import InputError
from bundle.importing import prepare
from bundle.readers import recognise

LETTERS = np.array(list("ACGT"))


@pytest.fixture
def adata(specimen) -> ad.AnnData:
    """Visium's spots on tissue as scanpy keeps them, raw counts in X."""
    place, centers = specimen.hexagonal(100 / specimen.mpp)
    on = specimen.amount(centers) > 0
    names = ["".join(row) + "-1" for row in np.random.default_rng(1).choice(LETTERS, (on.sum(), 16))]
    obs = pd.DataFrame({"array_row": place[on, 0], "array_col": place[on, 1]}, index=names)
    var = pd.DataFrame({"gene_ids": [f"ENSG{i:011d}.3" for i in range(20)]}, index=[f"G{i}" for i in range(20)])
    adata = ad.AnnData(sp.csr_matrix(specimen.counts(centers[on]), dtype=np.float32), obs=obs, var=var)
    adata.obsm["spatial"] = centers[on]
    factors = {"spot_diameter_fullres": 65 / specimen.mpp, "tissue_hires_scalef": 0.25}
    adata.uns["spatial"] = {"S": {"scalefactors": factors, "images": {}}}
    return adata


@pytest.fixture
def imported(tmp_path: Path, specimen) -> Callable[..., object]:
    """Imports an AnnData with the specimen's picture and reads the units back."""

    def run(adata: ad.AnnData, zarr: bool = False, **options):
        src = tmp_path / "in"
        src.mkdir(exist_ok=True)
        Image.fromarray(specimen.picture).save(src / "S.png", compress_level=1)
        if zarr:
            adata.write_zarr(src / "S.zarr")
        else:
            adata.write_h5ad(src / "S.h5ad")
        assert recognise(src) == "anndata"
        prepare(src, tmp_path / "out", **options)
        return read_units(read_manifest(tmp_path / "out")["training"][0]["label"][0])

    return run


@pytest.mark.parametrize("form", ["csr", "csc", "int64", "dense", "zarr"])
def test_csr_csc_int64_dense_and_zarr_are_the_same(adata, imported, form, specimen):
    want = adata.X.toarray()
    adata.X = {"csc": sp.csc_matrix, "int64": lambda x: x.astype(np.int64), "dense": lambda x: x.toarray()}.get(
        form, lambda x: x
    )(adata.X)
    units = imported(adata, zarr=form == "zarr")
    np.testing.assert_array_equal(units.counts.toarray(), want)
    assert (units.shape, units.size_um, units.mpp) == ("circle", 55.0, pytest.approx(specimen.mpp, rel=1e-3))


@pytest.mark.parametrize("where", ['layers["counts"]', "raw.X"])
def test_counts_are_looked_for_where_x_is_log_normalised(adata, imported, where):
    want = adata.X.toarray()
    if where == "raw.X":
        adata.raw = adata.copy()
    else:
        adata.layers["counts"] = adata.X.copy()
    adata.X = sp.csr_matrix(np.log1p(want / want.sum(1, keepdims=True) * 1e4))
    messages: list[str] = []
    units = imported(adata, progress=messages.append)
    np.testing.assert_array_equal(units.counts.toarray(), want)
    assert f"Raw counts come from {where}" in messages[0]


def test_log_normalised_x_is_refused_with_the_evidence(adata, imported):
    raw = adata.X.toarray()
    adata.X = sp.csr_matrix(np.log1p(raw / raw.sum(1, keepdims=True) * 1e4))
    with pytest.raises(
        InputError, match=r"holds no raw counts: X is log-normalised \(exp\(X\) - 1 adds up to 10,000 in"
    ):
        imported(adata)
    adata.X = sp.csr_matrix(raw - 1.5)
    with pytest.raises(InputError, match="X is scaled"):
        imported(adata)


def test_a_layer_is_named_or_its_absence_reported(adata, imported):
    adata.layers["mine"] = (adata.X * 2).tocsr()
    np.testing.assert_array_equal(imported(adata, layer="mine").counts.toarray(), 2 * adata.X.toarray())
    with pytest.raises(InputError, match='has no layer "other"; it has X, mine'):
        imported(adata, layer="other")


def test_ids_are_mapped_to_symbols_by_the_files_own_column(adata, imported):
    adata.var["feature_name"] = adata.var_names.to_numpy()
    adata.var_names = adata.var["gene_ids"].to_numpy()
    units = imported(adata)
    assert list(units.genes)[:2] == ["G0", "G1"]


def test_ids_are_mapped_to_symbols_by_a_table_of_the_users(adata, imported, tmp_path):
    adata.var_names = adata.var.pop("gene_ids").to_numpy()
    table = pd.DataFrame(
        {"gene_id": [f"ENSG{i:011d}" for i in range(20)], "gene_name": [f"S{i % 19}" for i in range(20)]}
    )
    table.to_csv(tmp_path / "names.tsv", sep="\t", index=False)
    messages: list[str] = []
    assert imported(adata, progress=messages.append).genes[0] == "ENSG00000000000"
    assert "--gene-names FILE maps them" in messages[0]
    units = imported(adata, gene_names=tmp_path / "names.tsv")
    assert list(units.genes) == [f"S{i}" for i in range(19)]
    np.testing.assert_array_equal(units.counts_of(["S0"]).ravel(), adata.X[:, [0, 19]].toarray().sum(1))


def test_swapped_x_and_y_are_named_with_their_evidence(adata, imported, specimen, caplog):
    adata.obsm["spatial"] = adata.obsm["spatial"][:, ::-1].copy()
    adata = adata[adata.obsm["spatial"][:, 1] < specimen.height_px].copy()
    with caplog.at_level(logging.WARNING):
        imported(adata)
    assert "The positions may be wrong: x and y swapped, " in caplog.text
    with pytest.raises(InputError, match="x and y swapped"):
        imported(adata, strict=True)


def test_centres_in_pixels_of_the_hires_picture_are_scaled_back(adata, imported, specimen):
    want = adata.obsm["spatial"].copy()
    adata.obsm["spatial"] = want * 0.25
    messages: list[str] = []
    units = imported(adata, progress=messages.append)
    np.testing.assert_allclose(units.centers_px, want)
    assert units.mpp == pytest.approx(specimen.mpp, rel=1e-3)
    assert "in pixels of the hires picture" in messages[0]


def test_units_of_unknown_size_need_a_size(adata, imported):
    del adata.obs["array_row"], adata.uns["spatial"]
    adata.obs_names = [f"u{i}" for i in range(adata.n_obs)]
    with pytest.raises(InputError, match=r"does not say how large its units are\. Give --size-um"):
        imported(adata)
    units = imported(adata, size_um=40, mpp=2.0)
    assert (units.size_um, units.mpp) == (40.0, 2.0)


def test_an_mpp_that_makes_the_pitch_wrong_is_reported(adata, imported, caplog):
    with pytest.raises(InputError, match=r"--mpp says 1 µm per pixel, but Visium spots 100 µm apart"):
        imported(adata, mpp=1.0)


def test_several_slides_in_one_file_are_refused(adata, imported):
    adata.uns["spatial"]["T"] = {"images": {}}
    with pytest.raises(InputError, match="holds 2 slides"):
        imported(adata)


def test_a_file_without_a_picture_asks_for_one(adata, tmp_path):
    adata.write_h5ad(tmp_path / "S.h5ad")
    with pytest.raises(InputError, match=r"has no picture\. Name its H&E with --image"):
        prepare(tmp_path / "S.h5ad", tmp_path / "out")


def test_a_state_of_the_check_is_kept(adata, imported, tmp_path):
    imported(adata)
    state = json.loads((tmp_path / "out" / "checks" / "S.json").read_text())
    assert state["layout"] == "anndata"
    assert state["doubts"] == []
