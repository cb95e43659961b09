"""How far apart units lie."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

__all__ = ["nearest_um"]

#: Neighbours are searched among so many units.
_MOST_POINTS = 200_000


def nearest_um(centers_um: np.ndarray) -> float:
    """Median distance of neighbouring units; NaN for fewer than two.

    The nearest neighbour alone is too near where units lie off their array a little: of four, one always is. So all
    neighbours count that lie up to 1.3 of that away; the diagonal of a square lies 1.41 away.
    """
    if len(centers_um) < 2:
        return float("nan")
    if len(centers_um) > _MOST_POINTS:  # those about the middle
        away = ((centers_um - np.median(centers_um, axis=0)) ** 2).sum(1)
        centers_um = centers_um[np.argpartition(away, _MOST_POINTS)[:_MOST_POINTS]]
    sample = centers_um[:: max(len(centers_um) // 20_000, 1)]
    distances = cKDTree(centers_um).query(sample, k=min(7, len(centers_um)))[0][:, 1:]
    nearest = float(np.median(distances[:, 0]))
    near = distances[(distances > 0.7 * nearest) & (distances < 1.3 * nearest)]
    return float(np.median(near)) if near.size else nearest
