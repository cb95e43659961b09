"""Bins summed to larger squares: what fine bins measure together, where each alone holds little but noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import scipy.sparse as sp

from .units import Units

__all__ = ["squares_at", "sum_bins", "summed_to"]

#: Share of a square that must have been measured for its sum to stand for the square.
_COVERED = 0.75


def summed_to(size_um: float, found: Sequence[Units]) -> list[Units]:
    """Squares of a size that was not measured, from the coarsest bins that fit in it a whole number of times.

    Args:
        size_um: side of the squares.
        found: units of one slide.

    Returns:
        The squares, one item for each file of such bins; none if no bins fit.
    """
    bins = [u for u in found if u.shape == "square" and u.mpp is not None and _divides(u.size_um, size_um)]
    coarsest = max((u.size_um for u in bins), default=0.0)
    return [sum_bins(u, size_um) for u in bins if u.size_um == coarsest]


def squares_at(at: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which square of a grid each unit lies in: `np.unique` over pairs, as one number each, which is far quicker.

    Args:
        at: column and row of each unit's square, int64 (U, 2).

    Returns:
        The squares in order of column and row, (S, 2), the number of each unit's, (U,), and the units in each, (S,).
    """
    low = at.min(0, initial=0)
    rows = int((at[:, 1] - low[1]).max(initial=0)) + 1
    code, square, n_units = np.unique(
        (at[:, 0] - low[0]) * rows + (at[:, 1] - low[1]), return_inverse=True, return_counts=True
    )
    return np.column_stack([code // rows, code % rows]) + low, square, n_units


def sum_bins(units: Units, size_um: float) -> Units:
    """Sum square bins over larger squares, which begin where the bins do.

    Args:
        units: bins with a known `mpp`.
        size_um: side of the squares, a multiple of the bins'.

    Returns:
        The squares of which three quarters or more were measured; in tissue where at least half of their bins are.
    """
    assert units.mpp is not None
    centers_um = units.centers_px * units.mpp
    corner_um = centers_um.min(0, initial=np.inf) - units.size_um / 2
    at = np.floor((centers_um - corner_um) / size_um).astype(np.int64)
    squares, square, n_bins = squares_at(at)
    entries = np.ones(len(units), np.float32), (square, np.arange(len(units)))
    members = sp.csr_matrix(entries, shape=(len(squares), len(units)))
    kept = np.flatnonzero(n_bins >= _COVERED * round(size_um / units.size_um) ** 2)
    members, squares, n_bins = members[kept], squares[kept], n_bins[kept]
    return replace(
        units,
        barcodes=np.array([f"s_{size_um:g}um_{row:05d}_{column:05d}" for column, row in squares], dtype=str),
        counts=sp.csr_matrix(members @ units.counts),
        centers_px=(corner_um + (squares + 0.5) * size_um) / units.mpp,
        in_tissue=members @ units.in_tissue.astype(np.float32) >= n_bins / 2,
        size_um=float(size_um),
        obs=None,
    )


def _divides(side_um: float, size_um: float) -> bool:
    times = size_um / side_um
    return round(times) >= 2 and bool(np.isclose(times, round(times)))
