"""Fine bins binned to larger squares: together they measure, each alone holds little but noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import scipy.sparse as sp
from pandas.api.types import is_integer_dtype

from .lazy_bins import LazyCounts
from .units import Units, bin_prefix

__all__ = ["bin_to", "binned_to", "squares_at"]

#: Share of a square that must have been measured for its counts to stand for the square.
_COVERED = 0.75


def binned_to(size_um: float, found: Sequence[Units]) -> list[Units]:
    """Squares of a size that was not measured, from the coarsest bins that fit in it a whole number of times.

    Args:
        size_um: side of the squares.
        found: units of one slide.

    Returns:
        The squares, one item for each file of such bins; none if no bins fit.
    """
    bins = [u for u in found if u.shape == "square" and u.mpp is not None and _divides(u.size_um, size_um)]
    coarsest = max((u.size_um for u in bins), default=0.0)
    return [bin_to(u, size_um) for u in bins if u.size_um == coarsest]


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


def bin_to(units: Units, size_um: float) -> Units:
    """Bin square bins to larger squares, which begin where the bins do.

    Args:
        units: bins with a known `mpp`.
        size_um: side of the squares, a multiple of the bins'.

    Returns:
        The squares of which three quarters or more were measured; in tissue where at least half of their bins are.
    """
    times = round(size_um / units.size_um)
    place = _places(units)
    squares, square, n_bins = squares_at(place // times)
    entries = np.ones(len(units), np.float32), (square, np.arange(len(units)))
    members = sp.csr_matrix(entries, shape=(len(squares), len(units)))
    kept = np.flatnonzero(n_bins >= _COVERED * times**2)
    members, squares, n_bins = members[kept], squares[kept], n_bins[kept]
    # From the bins' own positions, so that squares keep to an array that is turned or not exactly of its nominal pitch.
    to_px = np.linalg.lstsq(_affine(place), units.centers_px, rcond=None)[0]
    prefix = bin_prefix(size_um)
    return replace(
        units,
        barcodes=np.array([f"{prefix}{row:05d}_{column:05d}" for column, row in squares], dtype=str),
        counts=units.counts.summed(members)
        if isinstance(units.counts, LazyCounts)
        else sp.csr_matrix(members @ units.counts),
        centers_px=_affine(squares * times + (times - 1) / 2) @ to_px,
        in_tissue=members @ units.in_tissue.astype(np.float32) >= n_bins / 2,
        size_um=float(size_um),
        obs=None,
        all_genes_total=None if units.all_genes_total is None else members @ units.all_genes_total,
    )


def _places(units: Units) -> np.ndarray:
    """Column and row of each bin from the first, (U, 2): the array's own where the file has them, else by position."""
    names = ["array_col", "array_row"]
    if units.obs is not None and all(n in units.obs and is_integer_dtype(units.obs[n]) for n in names):
        place = units.obs[names].to_numpy(np.int64)
        return place - place.min(0, initial=np.iinfo(np.int64).max)
    assert units.mpp is not None
    from_first_px = units.centers_px - units.centers_px.min(0, initial=np.inf)
    return np.rint(from_first_px * units.mpp / units.size_um).astype(np.int64)


def _affine(place: np.ndarray) -> np.ndarray:
    return np.column_stack([place, np.ones(len(place))])


def _divides(side_um: float, size_um: float) -> bool:
    times = size_um / side_um
    return round(times) >= 2 and bool(np.isclose(times, round(times)))
