from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from bundle.data.binning import bin_to, binned_to, squares_at
from bundle.data.build_units import build_units
from bundle.data.fit_panel import fit_panel
from bundle.data.read_units import read_units
from bundle.data.slide_units import load_units
from bundle.data.units import Units

GENES = ["A", "B"]


def _bins(tmp_path, rows: int = 21, columns: int = 15, size_um: float = 8.0, corner_um=(3.0, 5.0), mpp: float = 0.5):
    """A grid of bins, its path and counts (rows, columns, G)."""
    counts = np.random.default_rng(0).poisson(20, (rows, columns, len(GENES)))
    row, column = np.mgrid[:rows, :columns].reshape(2, -1)
    centers_px = (np.column_stack([column, row]) * size_um + size_um / 2 + corner_um) / mpp
    names = [f"b{i}" for i in range(len(row))]
    table = counts.reshape(-1, len(GENES))
    adata = build_units(table, GENES, names, centers_px, shape="square", size_um=size_um, mpp=mpp, section="S")
    path = tmp_path / f"bins_{size_um:g}.h5ad"
    adata.write_h5ad(path)
    return path, counts


def _record(*paths) -> dict:
    return {"image": "S.tif", "label": [str(p) for p in paths], "patient": "P"}


def test_squares_hold_the_sums_of_their_bins_where_these_are(tmp_path):
    path, counts = _bins(tmp_path)
    squares = bin_to(read_units(path), 56.0)
    whole = counts[:, :14]  # the last column of bins makes no square
    expected = whole.reshape(3, 7, 2, 7, 2).sum((1, 3))
    assert (squares.size_um, squares.shape, len(squares)) == (56.0, "square", 6)
    np.testing.assert_allclose(squares.centers_px[:, 0].reshape(2, 3)[:, 0] * 0.5, [3 + 28, 3 + 84])
    at = np.rint((squares.centers_px * 0.5 - (3 + 28, 5 + 28)) / 56).astype(int)
    np.testing.assert_array_equal(squares.counts_of(GENES), expected[at[:, 1], at[:, 0]])
    assert squares.in_tissue.all()
    assert len(set(squares.barcodes)) == 6


def test_squares_keep_to_an_array_that_is_turned_and_of_another_pitch(tmp_path):
    """By positions alone the last columns of a wide array would fall into the wrong squares."""
    path, counts = _bins(tmp_path, rows=14, columns=210)
    units = read_units(path)
    row, column = np.mgrid[:14, :210].reshape(2, -1)
    turn = np.array([[np.cos(0.05), np.sin(0.05)], [-np.sin(0.05), np.cos(0.05)]]) * 1.01
    turned = replace(
        units, centers_px=units.centers_px @ turn, obs=pd.DataFrame({"array_row": row + 3, "array_col": column})
    )
    order = np.random.default_rng(0).permutation(len(units))
    squares = bin_to(turned.take(order), 56.0)
    straight = bin_to(units, 56.0)
    np.testing.assert_allclose(squares.centers_px, straight.centers_px @ turn, atol=1e-6)
    np.testing.assert_array_equal(squares.counts_of(GENES), straight.counts_of(GENES))
    assert straight.total.sum() == counts.sum()


def test_squares_are_those_of_unique_pairs():
    for at in (np.random.default_rng(0).integers(-9, 9, (200, 2)), np.array([[5, -3]]), np.zeros((0, 2), np.int64)):
        expected = np.unique(at, axis=0, return_inverse=True, return_counts=True)
        for found, wanted in zip(squares_at(at), expected, strict=True):
            np.testing.assert_array_equal(found, wanted.reshape(found.shape))


def test_a_square_is_tissue_where_half_of_its_bins_are_and_spots_make_none(tmp_path):
    units = read_units(_bins(tmp_path, rows=7, columns=14)[0])
    right, low = units.centers_px[:, 0] * 0.5 > 59, units.centers_px[:, 1] * 0.5 > 29
    assert list(bin_to(replace(units, in_tissue=~(right & low)), 56.0).in_tissue) == [True, False]
    assert binned_to(56.0, [units])
    assert not binned_to(56.0, [replace(units, shape="circle")])
    assert not binned_to(56.0, [replace(units, mpp=None)])


def test_a_square_is_kept_if_three_quarters_of_it_were_measured(tmp_path):
    units = read_units(_bins(tmp_path, rows=7, columns=14)[0])
    column = np.rint((units.centers_px[:, 0] * 0.5 - 7) / 8)
    row = np.rint((units.centers_px[:, 1] * 0.5 - 9) / 8)

    def squares(units: Units) -> Units:
        return bin_to(units, 56.0)

    assert list(squares(units).barcodes) == ["s_056um_00000_00000", "s_056um_00000_00001"]
    some = (column < 7) | (row < 6)  # 42 of the second's 49
    assert len(squares(units.take(some))) == 2
    few = (column < 7) | (row < 5)  # 35
    assert len(squares(units.take(few))) == 1
    assert len(squares(units.take(np.zeros(0, int)))) == 0
    assert squares(units.take(some)).total.sum() == units.take(some).total.sum()


def test_a_size_that_was_not_measured_is_summed_from_the_coarsest_bins_that_fit(tmp_path):
    fine, coarse = (_bins(tmp_path, size_um=size)[0] for size in (4.0, 8.0))
    record = _record(fine, coarse)
    assert [u.size_um for u in load_units(record, [56, 8])] == [56.0, 8.0]
    assert [len(u) > 0 for u in load_units(_record(coarse, coarse), [56])] == [True, True]  # as two files of [8] are
    assert load_units(record, [24])[0].name == read_units(coarse).name
    assert load_units(record, [12])[0].name == read_units(fine).name
    with pytest.raises(Exception, match="no bins of a known mpp whose side divides"):
        load_units(record, [55])
    with pytest.raises(Exception, match="no bins of a known mpp whose side divides"):
        load_units(record, [2])


def test_training_on_fine_bins_alone_warns_what_to_do(tmp_path, caplog):
    record = _record(_bins(tmp_path)[0])
    with caplog.at_level(logging.WARNING):
        fit_panel([record], min_total=1)
    assert "unit_sizes_um=[56]" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        panel = fit_panel([record], min_total=1, unit_sizes_um=[56])
    assert not caplog.text
    assert panel.unit_sizes_um == [56.0]
