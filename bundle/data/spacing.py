"""How far apart units lie."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

__all__ = ["nearest_um"]

#: Neighbours are searched among so many units.
_MOST_POINTS = 200_000


def nearest_um(centers_um: np.ndarray) -> float:
    """Median distance of neighbouring units; NaN for fewer than two."""
    if len(centers_um) < 2:
        return float("nan")
    if len(centers_um) > _MOST_POINTS:  # those about the middle
        away = ((centers_um - np.median(centers_um, axis=0)) ** 2).sum(1)
        centers_um = centers_um[np.argpartition(away, _MOST_POINTS)[:_MOST_POINTS]]
    sample = centers_um[:: max(len(centers_um) // 20_000, 1)]
    return float(np.median(cKDTree(centers_um).query(sample, k=2)[0][:, 1]))
