from __future__ import annotations

import numpy as np

from bundle.metrics.scales import MIN_SQUARES, MIN_UNITS_PER_SQUARE, OFFSETS, squares_at_scale


def _lattice(n: int, pitch_um: float) -> np.ndarray:
    return (np.stack(np.meshgrid(np.arange(n), np.arange(n)), -1).reshape(-1, 2) + 0.5) * pitch_um


def test_each_unit_is_in_the_cell_that_holds_its_centre():
    centers = _lattice(24, 10.0)
    squares = squares_at_scale(centers, 40.0)
    assert squares.shape == (36, len(centers))
    assert (squares.sum(0) == 1).all()
    for row in squares.toarray().astype(bool):
        assert len(np.unique(np.floor(centers[row] / 40.0), axis=0)) == 1


def test_an_offset_moves_the_grid_against_the_slide():
    centers = _lattice(24, 10.0)
    for offset in OFFSETS:
        squares = squares_at_scale(centers, 40.0, offset)
        for row in squares.toarray().astype(bool):
            low = (np.floor(centers[row] / 40.0 + offset) - offset) * 40.0
            np.testing.assert_array_equal(low, low[:1].repeat(row.sum(), 0))
    assert len(set(OFFSETS)) == 4


def test_scales_with_too_few_units_or_cells_are_not_reported():
    assert squares_at_scale(_lattice(24, 10.0), 10.0) is None  # one unit a square
    assert squares_at_scale(_lattice(8, 10.0), 20.0) is None  # 16 squares
    assert squares_at_scale(np.zeros((0, 2)), 20.0) is None
    assert MIN_UNITS_PER_SQUARE == 4
    assert MIN_SQUARES == 30


def test_cells_with_under_half_the_median_are_dropped():
    centers = np.concatenate([_lattice(24, 10.0), [[1000.0, 1000.0]]])
    squares = squares_at_scale(centers, 40.0)
    assert squares.shape[0] == 36
    assert squares[:, -1].sum() == 0
