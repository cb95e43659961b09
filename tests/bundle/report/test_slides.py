from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pytest

from bundle.data.manifest import read_split
from bundle.errors import InputError
from bundle.report.run import read_run
from bundle.report.slides import read_picture, read_slide_maps


@pytest.mark.parametrize(("size_um", "head"), [(100.0, "linear"), (16.0, "linear"), (16.0, "programs")])
def test_maps_show_what_was_scored(make_run: Callable[..., Path], size_um: float, head: str) -> None:
    run = make_run(size_um=size_um, head=head)
    evaluation = read_run(run).evaluations[0]
    (record,) = read_split(run.parent / "data", "test")
    pcc = evaluation.column("pcc")
    genes = list(pcc.index)
    maps = read_slide_maps(record, evaluation.predictions / "C1.h5ad", size_um, genes)
    assert len(maps.units) == evaluation.main["units"]
    np.testing.assert_allclose([maps.pcc(gene) for gene in genes], pcc, atol=1e-4)
    assert maps.quantity == ("log1p CP10k" if size_um >= 55 else "log1p counts")
    error = np.mean([np.mean((maps.measured[g] - maps.predicted[g]) ** 2) for g in genes])
    np.testing.assert_allclose(error, evaluation.column("mse").mean(), rtol=1e-3)


def test_units_are_matched_by_name(make_run: Callable[..., Path]) -> None:
    run = make_run()
    (record,) = read_split(run.parent / "data", "test")
    path = run / "predictions" / "test" / "C1.h5ad"
    before = read_slide_maps(record, path, 100, ["G1"])
    adata = ad.read_h5ad(path)
    adata[np.random.default_rng(0).permutation(adata.n_obs)[:50]].copy().write_h5ad(path)
    after = read_slide_maps(record, path, 100, ["G1"])
    assert len(after.units) == 50
    for barcode, measured, predicted in zip(
        after.units.barcodes, after.measured["G1"], after.predicted["G1"], strict=True
    ):
        row = list(before.units.barcodes).index(barcode)
        assert (before.measured["G1"][row], before.predicted["G1"][row]) == (measured, predicted)


def test_a_constant_prediction_scores_zero(make_run: Callable[..., Path]) -> None:
    run = make_run()
    (record,) = read_split(run.parent / "data", "test")
    path = run / "predictions" / "test" / "C1.h5ad"
    adata = ad.read_h5ad(path)
    adata.X[:] = 1.0
    adata.write_h5ad(path)
    assert read_slide_maps(record, path, 100, ["G1"]).pcc("G1") == 0


def test_sentences(make_run: Callable[..., Path]) -> None:
    run = make_run()
    (record,) = read_split(run.parent / "data", "test")
    path = run / "predictions" / "test" / "C1.h5ad"
    with pytest.raises(InputError, match="cannot be read"):
        read_slide_maps(record, path, 100, ["no such gene"])
    adata = ad.read_h5ad(path)
    adata.obs_names = [f"other{i}" for i in range(adata.n_obs)]
    adata.write_h5ad(path)
    with pytest.raises(InputError, match="names none of the units"):
        read_slide_maps(record, path, 100, ["G1"])
    path.write_bytes(b"no HDF5")
    with pytest.raises(InputError, match="cannot be read"):
        read_slide_maps(record, path, 100, ["G1"])
    path.unlink()
    with pytest.raises(InputError, match=r"test/C1\.h5ad is not in the run folder"):
        read_slide_maps(record, path, 100, ["G1"])


def test_picture(make_run: Callable[..., Path]) -> None:
    run = make_run()
    label = run.parent / "data" / "spots" / "C1.h5ad"
    found = read_picture([str(label)])
    assert found is not None
    picture, scale = found
    adata = ad.read_h5ad(label)
    library = adata.uns["spatial"]["C1"]
    np.testing.assert_array_equal(picture, library["images"]["hires"])
    assert scale == library["scalefactors"]["tissue_hires_scalef"]
    library["images"]["hires"] = picture / np.float32(255)
    adata.write_h5ad(label)
    again = read_picture([str(label)])
    assert again is not None
    np.testing.assert_array_equal(again[0], picture)
    del library["images"]["hires"]
    adata.uns["spatial"]["is_single"] = np.bool_(True)  # CELLxGENE's schema
    adata.write_h5ad(label)
    assert read_picture([str(label)]) is None
