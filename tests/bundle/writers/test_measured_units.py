"""Units written block by block are those that `build_units` makes in memory."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp

from bundle.data.build_units import build_units
from bundle.data.read_units import read_units
from bundle.errors import InputError
from bundle.writers import measured_units
from bundle.writers.measured_units import write_units


@pytest.fixture
def made() -> dict:
    rng = np.random.default_rng(0)
    return {
        "counts": sp.csr_matrix(rng.poisson(0.7, (50, 6)).astype(np.float32)),
        "genes": ["A", "B", "A", "C", "D", "B"],
        "barcodes": np.array([f"s_002um_{i:05d}_00001-1" for i in range(50)], "S"),
        "centers_px": rng.uniform(0, 100, (50, 2)),
        "options": {
            "shape": "square",
            "size_um": 2.0,
            "mpp": 0.5,
            "section": "S",
            "gene_ids": [f"ENSG{i}" for i in range(6)],
            "in_tissue": rng.uniform(size=50) < 0.8,
            "array_xy": np.column_stack([np.ones(50, int), np.arange(50)]),
        },
    }


@pytest.mark.parametrize("many", [0, 500_000])
@pytest.mark.parametrize("rows", [1, 7, 50])
def test_blocks_are_the_whole(tmp_path: Path, made, rows: int, many: int, monkeypatch) -> None:
    monkeypatch.setattr(measured_units, "_MANY", many)
    blocks = (made["counts"][i : i + rows] for i in range(0, 50, rows))
    totals = write_units(
        tmp_path / "u.h5ad",
        blocks,
        made["genes"],
        made["barcodes"],
        made["centers_px"],
        extra={"x": "y"},
        **made["options"],
    )
    got = ad.read_h5ad(tmp_path / "u.h5ad")
    names = [b.decode() for b in made["barcodes"]]
    want = build_units(made["counts"], made["genes"], names, made["centers_px"], **made["options"])
    np.testing.assert_array_equal(got.X.toarray(), want.X.toarray())
    np.testing.assert_array_equal(totals, made["counts"].toarray().sum(1))
    np.testing.assert_array_equal(got.obsm["spatial"], want.obsm["spatial"])
    assert list(got.obs_names) == names
    assert list(got.var_names) == ["A", "B", "C", "D"]
    assert got.var["gene_ids"].equals(want.var["gene_ids"])
    assert (got.obs.to_numpy() == want.obs[got.obs.columns].to_numpy()).all()
    assert set(got.obs.columns) == set(want.obs.columns)
    assert got.uns["x"] == "y"
    assert got.uns["unit"] == want.uns["unit"]
    assert (read_units(tmp_path / "u.h5ad").counts != want.X).nnz == 0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda m: m.update(counts=m["counts"] * 0.5), "fractional"),
        (lambda m: m.update(counts=-m["counts"]), "negative"),
        (lambda m: m.update(counts=m["counts"] * np.nan), "missing"),
        (lambda m: m.update(counts=m["counts"][:40]), "the counts are not of 50 units"),
        (lambda m: m.update(counts=sp.vstack([m["counts"], m["counts"]])), "the counts are not of 50 units"),
        (lambda m: m.update(barcodes=np.array(["same"] * 50, "S")), "49 unit names occur twice"),
    ],
)
def test_what_is_no_measurement_is_refused_and_nothing_is_written(tmp_path: Path, made, change, says) -> None:
    change(made)
    blocks = [sp.csr_matrix(made["counts"])]
    with pytest.raises(InputError, match=says):
        write_units(tmp_path / "u.h5ad", blocks, made["genes"], made["barcodes"], made["centers_px"], **made["options"])
    assert list(tmp_path.iterdir()) == []
