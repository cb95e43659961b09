"""Intervals of PCC@M and of its differences: a paired bootstrap over spatial blocks of units within slides."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp
import torch
from scipy.spatial import cKDTree

from .moments import correlation, mean_of_defined

__all__ = ["BLOCK", "BLOCK_UM", "BLOCK_UNITS", "block_bootstrap", "block_side", "block_sums", "interval"]

# Neighbours are alike, so they are drawn together; bins are alike over many of their own widths.
BLOCK_UNITS = 3
BLOCK_UM = 300.0
#: What a block is, for tables of several data sets.
BLOCK = f"{BLOCK_UNITS} x {BLOCK_UNITS} units, {BLOCK_UM:g} µm wide at least"
_GENES_AT_ONCE = 512


def block_side(centers: np.ndarray, mpp: float | None = 1.0) -> float:
    """Side of a block of units, in the unit of `centers`, (U, 2): three times their distance, and 300 µm at least.

    Args:
        centers: of the units.
        mpp: µm per unit of `centers`; where it is None, units' distance alone decides.
    """
    distance, _ = cKDTree(centers).query(centers, k=2)
    side = BLOCK_UNITS * float(np.median(distance[:, 1]))
    return max(side, BLOCK_UM / mpp) if mpp else side or 1.0


def interval(draws: np.ndarray) -> tuple[float, float]:
    """The interval that holds 95 % of the draws."""
    low, high = np.percentile(draws, (2.5, 97.5))
    return float(low), float(high)


def block_sums(prediction: np.ndarray, truth: np.ndarray, centers: np.ndarray, block: float) -> np.ndarray:
    """Sums over each spatial block from which a correlation over any multiset of blocks follows.

    Args:
        prediction: (U, G).
        truth: (U, G).
        centers: centres (x, y) of the units, (U, 2).
        block: side of a block, in the unit of `centers`; neighbouring units are alike, so it must hold several.

    Returns:
        (blocks, 6, G): number of units, sums of p, t, p², t² and p·t, taken about the slide's means.
    """
    p = prediction - prediction.mean(0, dtype=np.float64)
    t = truth - truth.mean(0, dtype=np.float64)
    _, number = np.unique(np.floor(centers / block).astype(np.int64), axis=0, return_inverse=True)
    number = number.ravel()
    members = sp.csr_matrix((np.ones(len(number)), (number, np.arange(len(number)))))
    return np.stack([members @ term for term in (np.ones_like(p), p, t, p * p, t * t, p * t)], axis=1)


def block_bootstrap(
    slides: Sequence[np.ndarray], draws: int = 1000, seed: int = 0, patients: Sequence[str] | None = None
) -> np.ndarray:
    """PCC@M of resampled slides, (draws,): each gene's correlation, averaged over slides, patients and genes.

    The blocks drawn follow from the seed and the number of blocks alone, so that two methods scored on the same units
    are resampled alike and the difference of two results is a paired one.

    Args:
        slides: `block_sums` of each slide.
        draws: number of resamples.
        seed: of the draws.
        patients: whose slides they are; each its own patient's by default.
    """
    rng = np.random.default_rng(seed)
    weights = [rng.multinomial(len(s), np.full(len(s), 1 / len(s)), size=draws).astype(np.float64) for s in slides]
    owners = [str(i) for i in range(len(slides))] if patients is None else list(patients)
    total, defined = np.zeros(draws), np.zeros(draws)
    for start in range(0, slides[0].shape[2], _GENES_AT_ONCE):
        genes = slice(start, start + _GENES_AT_ONCE)
        by_patient: dict[str, list[np.ndarray]] = {}
        for sums, weight, owner in zip(slides, weights, owners, strict=True):
            by_patient.setdefault(owner, []).append(_correlations(sums[:, :, genes], weight))
        r = mean_of_defined([mean_of_defined(values) for values in by_patient.values()])
        total, defined = total + np.nansum(r, axis=1), defined + np.isfinite(r).sum(1)
    return np.divide(total, defined, out=np.full(draws, np.nan), where=defined > 0)


def _correlations(sums: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Correlation of each gene in each draw, (draws, G): NaN where the truth is constant."""
    n, p, t, pp, tt, pt = np.moveaxis(np.tensordot(weight, sums, axes=1), 1, 0)
    about = np.stack([n, p / n, t / n, pp - p * p / n, tt - t * t / n, pt - p * t / n], axis=-1)
    return correlation(torch.from_numpy(about)).numpy()
