"""Cells of a square grid over a slide: how measured units are summed to coarser scales."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from ..data.binning import squares_at

__all__ = ["MIN_CELLS", "MIN_UNITS_PER_CELL", "OFFSETS", "cells_at_scale"]

#: A scale is reported only if its median cell holds this many native units ...
MIN_UNITS_PER_CELL = 4
#: ... and this many cells remain.
MIN_CELLS = 30
#: Scores are averaged over these origins of the grid, in fractions of a cell.
OFFSETS = ((0.0, 0.0), (0.5, 0.0), (0.0, 0.5), (0.5, 0.5))


def cells_at_scale(
    centers_um: np.ndarray, size_um: float, offset: tuple[float, float] = (0.0, 0.0)
) -> sp.csr_matrix | None:
    """Which units each grid cell holds: a unit belongs to the cell that holds its centre.

    The grid's origin is the slide's; cells with under half the median number of units are dropped.

    Args:
        centers_um: centres (x, y), (U, 2).
        size_um: side of a cell.
        offset: shift of the grid in cells.

    Returns:
        A 0/1 matrix (cells, U), or None where the scale cannot be reported (see `MIN_UNITS_PER_CELL`, `MIN_CELLS`).
    """
    n_units = len(centers_um)
    if n_units == 0:
        return None
    _, cell, count = squares_at(np.floor(centers_um / size_um + np.asarray(offset)).astype(np.int64))
    median = np.median(count)
    kept = count >= median / 2
    if median < MIN_UNITS_PER_CELL or kept.sum() < MIN_CELLS:
        return None
    members = sp.csr_matrix((np.ones(n_units, np.float32), (cell, np.arange(n_units))), shape=(len(count), n_units))
    return members[np.flatnonzero(kept)]
