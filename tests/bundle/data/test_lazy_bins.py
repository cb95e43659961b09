"""Bins that are summed from the file are those summed in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from bundle.data import lazy_bins
from bundle.data.lazy_bins import LazyCounts, read_lazy_bins
from bundle.data.slide_units import load_units
from bundle.writers.measured_units import write_units


@pytest.fixture
def bins(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    row, column = (v.ravel() for v in np.meshgrid(np.arange(24), np.arange(20), indexing="ij"))
    order = rng.permutation(len(row))
    row, column = row[order], column[order]
    counts = sp.csr_matrix(rng.poisson(0.5, (len(row), 7)).astype(np.float32))
    write_units(
        tmp_path / "b.h5ad",
        [counts],
        list("ABCDEFG"),
        [f"s_008um_{r:05d}_{c:05d}-1" for r, c in zip(row, column, strict=True)],
        np.column_stack([column, row]) * 16.0 + 8,
        shape="square",
        size_um=8.0,
        mpp=0.5,
        section="S",
        in_tissue=rng.uniform(size=len(row)) < 0.7,
        array_xy=np.column_stack([column, row]),
    )
    return tmp_path / "b.h5ad"


@pytest.mark.parametrize("block", [None, [0, 0, 200, 1000]])
@pytest.mark.parametrize("values", [10, 10_000])
def test_sums_from_the_file_are_those_in_memory(bins: Path, monkeypatch, block, values: int) -> None:
    record = {"image": "S.tif", "label": [str(bins)], **({} if block is None else {"block": block})}
    want = load_units(record, [32, 40])
    monkeypatch.setattr(lazy_bins, "_MANY", 0)
    monkeypatch.setattr(lazy_bins, "_BLOCK_VALUES", values)
    assert isinstance(read_lazy_bins(bins, [32]).counts, LazyCounts)
    got = load_units(record, [32, 40])
    for a, b in zip(want, got, strict=True):
        assert (a.counts != b.counts).nnz == 0
        np.testing.assert_array_equal(a.barcodes, b.barcodes)
        np.testing.assert_allclose(a.centers_px, b.centers_px)
        np.testing.assert_array_equal(a.in_tissue, b.in_tissue)
        assert (a.size_um, a.mpp, a.section.name) == (b.size_um, b.mpp, b.section.name)


@pytest.mark.parametrize("sizes", [None, [8], [8, 32], [20]])
def test_what_is_no_sum_is_read_as_a_whole(bins: Path, monkeypatch, sizes) -> None:
    monkeypatch.setattr(lazy_bins, "_MANY", 0)
    assert read_lazy_bins(bins, sizes) is None


def test_few_counts_are_read_as_a_whole(bins: Path) -> None:
    assert read_lazy_bins(bins, [32]) is None
