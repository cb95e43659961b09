"""Centred moments of (prediction, truth) per gene, which add up exactly over parts, and the correlation from them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

__all__ = [
    "FIELDS",
    "combine",
    "correlation",
    "mean_of_defined",
    "moments",
    "not_measured",
    "pearson",
    "prediction_is_constant",
    "truth_is_constant",
]

#: Columns of a moments tensor (G, 8).
FIELDS = ("n", "mean_p", "mean_t", "m2_p", "m2_t", "c_pt", "sse", "sae")
_TINY = 1e-9


def moments(prediction: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Moments of (U, G) prediction and truth over units, float64 (G, 8); columns are `FIELDS`.

    Genes whose truth is NaN were not measured: all of their moments are 0, n too, and add nothing when combined.
    """
    p, t = prediction.double(), truth.double()
    measured = ~t.isnan().any(0)
    n = torch.full((p.shape[1],), float(p.shape[0]), dtype=torch.float64)
    mean_p, mean_t = p.mean(0), t.mean(0)
    dp, dt = p - mean_p, t - mean_t
    error = p - t
    found = torch.stack(
        [
            n,
            mean_p,
            mean_t,
            (dp * dp).sum(0),
            (dt * dt).sum(0),
            (dp * dt).sum(0),
            (error**2).sum(0),
            error.abs().sum(0),
        ],
        1,
    )
    return torch.where(measured[:, None], found, torch.zeros_like(found))


def combine(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Moments of the union of two disjoint parts.

    Chan, Golub & LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979.
    """
    n = a[:, 0] + b[:, 0]
    share = b[:, 0] / n.clamp(min=1)
    dp, dt = b[:, 1] - a[:, 1], b[:, 2] - a[:, 2]
    cross = a[:, 0] * share
    return torch.stack(
        [
            n,
            a[:, 1] + dp * share,
            a[:, 2] + dt * share,
            a[:, 3] + b[:, 3] + dp * dp * cross,
            a[:, 4] + b[:, 4] + dt * dt * cross,
            a[:, 5] + b[:, 5] + dp * dt * cross,
            a[:, 6] + b[:, 6],
            a[:, 7] + b[:, 7],
        ],
        1,
    )


def not_measured(m: torch.Tensor) -> torch.Tensor:
    """Genes that no unit was measured of, (G,) bool."""
    return m[..., 0] == 0


def truth_is_constant(m: torch.Tensor) -> torch.Tensor:
    """Genes whose truth does not vary over the units, (G,) bool: the only ones left out of a summary."""
    return m[..., 4] <= _TINY * m[..., 0].clamp(min=1) * (1 + m[..., 2] ** 2)


def prediction_is_constant(m: torch.Tensor) -> torch.Tensor:
    """Genes whose prediction does not vary over the units, (G,) bool: they score 0."""
    return m[..., 3] <= _TINY * m[..., 0].clamp(min=1) * (1 + m[..., 1] ** 2)


def correlation(m: torch.Tensor) -> torch.Tensor:
    """Pearson correlation per gene, (G,): NaN where the truth is constant, 0 for a constant or NaN prediction."""
    r = m[..., 5] / (m[..., 3] * m[..., 4]).clamp(min=1e-300).sqrt()
    r = torch.where(prediction_is_constant(m) | ~torch.isfinite(r), torch.zeros_like(r), r.clamp(-1, 1))
    return torch.where(truth_is_constant(m), torch.full_like(r, float("nan")), r)


def pearson(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson correlation of each gene of two arrays (U, G), (G,): NaN where either is constant."""
    m = moments(torch.as_tensor(a), torch.as_tensor(b))
    r = correlation(m)
    return torch.where(prediction_is_constant(m), torch.full_like(r, float("nan")), r).numpy()


def mean_of_defined(values: Sequence[np.ndarray]) -> np.ndarray:
    """Mean over arrays of one shape, entry by entry and without NaN; NaN where no entry is defined."""
    stacked = np.stack(values)
    defined = np.isfinite(stacked)
    total = np.where(defined, stacked, 0).sum(0)
    return np.divide(total, defined.sum(0), out=np.full(stacked.shape[1:], np.nan), where=defined.any(0))
