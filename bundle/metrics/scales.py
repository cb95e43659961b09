"""A grid of squares over a slide: how measured units are binned to coarser scales."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from ..data.binning import squares_at

__all__ = ["MIN_SQUARES", "MIN_UNITS_PER_SQUARE", "OFFSETS", "squares_at_scale"]

#: A scale is reported only if its median square holds this many native units ...
MIN_UNITS_PER_SQUARE = 4
#: ... and this many squares remain.
MIN_SQUARES = 30
#: Scores are averaged over these origins of the grid, in fractions of a square.
OFFSETS = ((0.0, 0.0), (0.5, 0.0), (0.0, 0.5), (0.5, 0.5))


def squares_at_scale(
    centers_um: np.ndarray, size_um: float, offset: tuple[float, float] = (0.0, 0.0)
) -> sp.csr_matrix | None:
    """Which units each grid square holds: a unit belongs to the square that holds its centre.

    The grid's origin is the slide's; squares with under half the median number of units are dropped.

    Args:
        centers_um: centres (x, y), (U, 2).
        size_um: side of a square.
        offset: shift of the grid in squares.

    Returns:
        A 0/1 matrix (squares, U), or None where there are fewer than `MIN_UNITS_PER_SQUARE` or `MIN_SQUARES`.
    """
    n_units = len(centers_um)
    if n_units == 0:
        return None
    _, square, count = squares_at(np.floor(centers_um / size_um + np.asarray(offset)).astype(np.int64))
    median = np.median(count)
    kept = count >= median / 2
    if median < MIN_UNITS_PER_SQUARE or kept.sum() < MIN_SQUARES:
        return None
    members = sp.csr_matrix((np.ones(n_units, np.float32), (square, np.arange(n_units))), shape=(len(count), n_units))
    return members[np.flatnonzero(kept)]
