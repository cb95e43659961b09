"""The depth oracle: what knowing a unit's measured total, and nothing else, would score. A diagnostic."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

__all__ = ["fit_depth"]


def fit_depth(totals: Sequence[np.ndarray], ys: Sequence[np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """Least squares of every gene on the logarithm of a unit's total.

    No model can know a total before it is measured. A model that scores below this has learnt less than how many
    counts a unit holds.

    Args:
        totals: counts of all genes per unit, above 0, (U,) for each slide.
        ys: log1p CP10k, (U, G) for each slide; a gene that a slide did not measure is NaN there.

    Returns:
        From the totals of a slide's units, (U,), to their log1p CP10k, (U, G).
    """
    depth, y = np.log(np.concatenate(totals)), np.concatenate(ys).astype(np.float64)
    measured = np.isfinite(y)
    n = np.maximum(measured.sum(0), 1)
    mean, level = depth @ measured / n, np.where(measured, y, 0).sum(0) / n
    away = np.where(measured, depth[:, None] - mean, 0)
    slope = (away * np.where(measured, y - level, 0)).sum(0) / np.maximum((away * away).sum(0), 1e-12)
    return lambda total: level + (np.log(total)[:, None] - mean) * slope
