"""Bins summed to larger squares: what fine bins measure together, where each alone holds little but noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import scipy.sparse as sp

from .units import Units

__all__ = ["sum_bins", "summed_to"]

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
    return [sum_bins(u, size_um) for u in bins if u.size_um == max(b.size_um for b in bins)]


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
    columns = int(at[:, 0].max(initial=0)) + 1  # one number a square: far quicker to sort than pairs
    number, square, n_bins = np.unique(at[:, 1] * columns + at[:, 0], return_inverse=True, return_counts=True)
    squares = np.column_stack([number % columns, number // columns])
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
