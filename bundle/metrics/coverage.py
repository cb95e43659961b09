"""Whether a standard error says how far off a prediction is."""

from __future__ import annotations

import numpy as np

__all__ = ["coverage_95"]

_NORMAL_95 = 1.96


def coverage_95(error: np.ndarray, standard_error: np.ndarray) -> np.ndarray:
    """Share of units whose error is at most 1.96 standard errors, per gene.

    Units whose error is NaN were not measured and do not count.

    With a right standard error and normal errors it is .95. Against counts it must hold their noise too: one of the
    expression alone covers fewer.

    Args:
        error: predicted minus measured, of either sign, (U, G).
        standard_error: what the prediction says of it, (U, G).

    Returns:
        (G,), of 0 to 1; NaN where no unit was measured.
    """
    measured = ~np.isnan(error)
    covered = (np.abs(error) <= _NORMAL_95 * standard_error).sum(0)
    return np.divide(covered, measured.sum(0), out=np.full(error.shape[1], np.nan), where=measured.any(0))
