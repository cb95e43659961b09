"""The highest correlation that counting noise allows."""

from __future__ import annotations

import numpy as np

from ..data.normalisation import log1p_cp10k, pearson_residuals
from .moments import mean_of_defined, pearson

__all__ = ["thinning_ceiling"]


def thinning_ceiling(
    counts: np.ndarray, total: np.ndarray, transform: str, draws: int = 20, seed: int = 0
) -> np.ndarray:
    """The highest correlation that counting noise lets any predictor reach, per gene, (G,).

    Each draw splits the counts binomially into halves; r is the halves' correlation averaged over draws and
    rho_max = sqrt(2r / (1 + r)). It covers counting noise only, so under overdispersion it is an upper bound.

    Args:
        counts: integer counts of the panel, (U, G).
        total: counts of all genes, (U,).
        transform: one of `bundle.metrics.score.TARGETS`.
        draws: number of random splits.
        seed: of the splits.
    """
    rng = np.random.default_rng(seed)
    whole = np.rint(counts).astype(np.int64)
    rest = np.maximum(np.rint(total).astype(np.int64) - whole.sum(1), 0)
    correlations = []
    for _ in range(draws):
        half = rng.binomial(whole, 0.5)
        half_total = half.sum(1) + rng.binomial(rest, 0.5)
        other, other_total = whole - half, whole.sum(1) + rest - half_total
        if transform == "log1p_cp10k":
            pair = log1p_cp10k(half, half_total), log1p_cp10k(other, other_total)
        elif transform == "residual":
            pair = pearson_residuals(half, half_total), pearson_residuals(other, other_total)
        else:
            pair = np.log1p(half), np.log1p(other)
        correlations.append(pearson(*pair))
    r = np.clip(np.nan_to_num(mean_of_defined(correlations)), 0, 1)
    return np.sqrt(2 * r / (1 + r))
