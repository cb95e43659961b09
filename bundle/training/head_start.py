"""Start a network's head from the training units' expression."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from ..data.binning import squares_at
from ..data.normalisation import LARGE_UNIT_UM, log1p_cp10k
from ..data.panel import GenePanel
from ..errors import InputError

__all__ = ["components", "head_statistics", "loadings", "start_head", "training_rates"]


def start_head(network: Any, panel: GenePanel, n_programs: int | None = None, n_components: int | None = None) -> None:
    """Call a network's `initialize` with the panel's statistics (see `head_statistics`)."""
    network.initialize(**head_statistics(panel, n_programs, n_components))


def head_statistics(
    panel: GenePanel, n_programs: int | None = None, n_components: int | None = None
) -> dict[str, np.ndarray]:
    """The statistics that a head starts from (see `networks.Head.initialize`).

    Args:
        panel: fitted on the data set.
        n_programs: number of programs of `loadings`; without it there are no `loadings`.
        n_components: number of principal components; without it there are no `components`.

    Returns:
        `mean` (G,) and `std` (G,) of log1p CP10k; `loadings` (G + 1, n_programs); `components` (G, n_components).

    Raises:
        InputError: see `loadings` and `components`.
    """
    stats = {"mean": np.asarray(panel.mean, np.float32), "std": np.asarray(panel.std, np.float32)}
    if n_programs:
        stats["loadings"] = loadings(panel, n_programs).astype(np.float32)
    if n_components:
        stats["components"] = components(panel, n_components).astype(np.float32)
    return stats


def training_rates(panel: GenePanel) -> np.ndarray:
    """Counts per µm² at size factor 1, genes outside the panel last, (U, G + 1).

    Of the training units; those below 55 µm, which hold little but noise, are binned to squares of 55 µm.
    """
    rows = []
    for units in panel.training_units():
        counts = units.counts_of(panel.genes)
        counts = np.column_stack([counts, np.maximum(units.total - counts.sum(1), 0)])
        depth, area_um2 = units.total.mean() / units.area_um2, np.full(len(units), units.area_um2)
        if units.size_um < LARGE_UNIT_UM and units.mpp is not None:
            _, square, n = squares_at(np.floor(units.centers_px * units.mpp / LARGE_UNIT_UM).astype(np.int64))
            members = sp.csr_matrix((np.ones(len(units)), (square, np.arange(len(units)))))
            keep = np.flatnonzero(n >= np.median(n) / 2)
            counts, area_um2 = (members @ counts)[keep], (n * units.area_um2)[keep]
        rows.append(counts / area_um2[:, None] * (panel.depth_per_um2 / depth))
    return np.concatenate(rows)


def loadings(panel: GenePanel, n_programs: int, seed: int = 0) -> np.ndarray:
    """Loadings of a non-negative factorisation of the training units' rates, (G + 1, n_programs) per µm².

    Each program's mean activity over the training units is 1, so a network that says 1 everywhere predicts
    the mean rate. Lee & Seung, "Learning the parts of objects by non-negative matrix factorization", 1999.

    Raises:
        InputError: if there are fewer training units than programs, or the panel was read from a file.
    """
    from sklearn.decomposition import NMF

    rates = training_rates(panel)
    _check_enough(rates, n_programs, "programs", "n_programs")
    mean = np.maximum(rates.mean(0), 1e-12)
    scale = np.sqrt(mean)  # stabilises the variance, or the most abundant genes take every program
    model = NMF(n_programs, init="nndsvda", random_state=seed, max_iter=400, tol=1e-3)
    activity = model.fit_transform(rates / scale)
    loadings = (model.components_ * activity.mean(0)[:, None] * scale).T + 1e-3 * mean[:, None] / n_programs
    return loadings * (mean / loadings.sum(1))[:, None]


def components(panel: GenePanel, n_components: int, seed: int = 0) -> np.ndarray:
    """Principal components of (log1p CP10k - mean) / std over the training units, each slide's mean taken off.

    Scaled so that a component's activity has variance 1, (G, n_components).

    Raises:
        InputError: if there are fewer training units or genes than components, or the panel was read from a file.
    """
    from sklearn.decomposition import PCA

    slides = [log1p_cp10k(u.counts_of(panel.genes), u.total) / np.asarray(panel.std) for u in panel.training_units()]
    y = np.concatenate([y - y.mean(0) for y in slides])
    _check_enough(y, n_components, "components", "head_components")
    model = PCA(n_components, svd_solver="randomized", random_state=seed).fit(y)
    return (model.components_ * np.sqrt(model.explained_variance_)[:, None]).T


def _check_enough(table: np.ndarray, n: int, what: str, key: str) -> None:
    if min(table.shape) < n:
        n_units, n_genes = table.shape
        raise InputError(f"{n_units} training units of {n_genes} genes cannot start {n} {what}; lower {key}.")
