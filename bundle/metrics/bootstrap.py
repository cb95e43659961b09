"""Intervals of PCC@M and of its differences: a paired bootstrap over spatial blocks of units within slides."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["block_bootstrap", "block_sums"]


def block_sums(prediction: np.ndarray, truth: np.ndarray, centers_um: np.ndarray, block_um: float) -> np.ndarray:
    """Sums over each spatial block from which a correlation over any multiset of blocks follows.

    Args:
        prediction: (U, G).
        truth: (U, G).
        centers_um: centres (x, y) of the units, (U, 2).
        block_um: side of a block; neighbouring units are alike, so a block must hold several.

    Returns:
        (blocks, 6, G): number of units, sums of p, t, p², t² and p·t, taken about the slide's means.
    """
    p = prediction - prediction.mean(0, dtype=np.float64)
    t = truth - truth.mean(0, dtype=np.float64)
    index = np.floor(centers_um / block_um).astype(np.int64)
    _, block = np.unique(index, axis=0, return_inverse=True)
    block = block.ravel()
    terms = np.stack([np.ones_like(p), p, t, p * p, t * t, p * t], axis=1)
    sums = np.zeros((block.max() + 1, *terms.shape[1:]))
    np.add.at(sums, block, terms)
    return sums


def block_bootstrap(slides: Sequence[np.ndarray], draws: int = 1000, seed: int = 0) -> np.ndarray:
    """PCC@M of resampled slides, (draws,): mean over genes of the mean over slides of each gene's correlation.

    The blocks drawn follow from the seed and the number of blocks alone, so that two methods scored on the same units
    are resampled alike and the difference of two results is a paired one.

    Args:
        slides: `block_sums` of each slide.
        draws: number of resamples.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    correlations = []
    for sums in slides:
        weight = rng.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=draws).astype(np.float64)
        n, p, t, pp, tt, pt = np.moveaxis(np.tensordot(weight, sums, axes=1), 1, 0)
        covariance, variance_p, variance_t = pt - p * t / n, pp - p * p / n, tt - t * t / n
        varies = variance_t > 1e-9 * n
        scale = np.sqrt(np.maximum(variance_p, 0) * np.maximum(variance_t, 0))
        r = np.divide(covariance, scale, out=np.zeros_like(scale), where=scale > 1e-9)
        correlations.append(np.where(varies, r, np.nan))
    return np.nanmean(np.nanmean(np.stack(correlations), axis=0), axis=1)
