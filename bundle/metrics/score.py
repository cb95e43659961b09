"""Score one slide: bin its units to each scale, normalise them, reduce them to moments per gene."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
import torch

from ..data.normalisation import LARGE_UNIT_UM, log1p_cp10k, pearson_residuals
from ..data.units import Units
from .ceiling import thinning_ceiling
from .moments import moments, truth_is_constant
from .scales import MIN_SQUARES, OFFSETS, squares_at_scale

__all__ = ["NATIVE", "TARGETS", "Comparison", "Prediction", "Score", "compare_units", "score_slide", "scored_squares"]

#: The scale of the units themselves.
NATIVE = 0.0
#: What is compared: log1p CP10k, Pearson residuals of the counts, or log1p counts (below 55 µm).
TARGETS = ("log1p_cp10k", "residual", "log1p_counts")

#: From groups of units, 0/1 (groups, U), to their log1p CP10k, (groups, G), and rates, (groups, G + 1), or None.
Prediction = Callable[[sp.csr_matrix], tuple[np.ndarray, np.ndarray | None]]


@dataclass(frozen=True)
class Score:
    """One comparison on one slide.

    Attributes:
        scale_um: side of the squares, `NATIVE` for the units themselves.
        offset: index of the grid's origin.
        target: one of `TARGETS`.
        units: how many units or squares were compared.
        moments: (G, 8), see `bundle.metrics.moments`.
        ceiling: highest correlation that counting noise allows, (G,); NaN where not computed or the truth is constant.
        deviance: mean Poisson deviance per gene, (G,); NaN unless the target is counts.
    """

    scale_um: float
    offset: int
    target: str
    units: int
    moments: torch.Tensor
    ceiling: np.ndarray
    deviance: np.ndarray


def score_slide(
    predict: Prediction,
    units: Units,
    genes: Sequence[str],
    mpp: float,
    scales_um: Sequence[float] = (),
    min_total: float = 0.0,
    ceilings: dict[tuple, np.ndarray] | None = None,
) -> list[Score]:
    """Compare a prediction with one slide's measured units, at their own scale and at coarser ones.

    At a scale of s µm a square's truth is the raw counts of the units whose centre it holds, binned first and
    normalised then; its prediction integrates the map over the same units. A gene that the slide did not measure has no
    truth: its moments are of no unit.

    Args:
        predict: predicted expression for groups of units.
        units: the measured units, already filtered.
        genes: genes in the order that `predict` gives them.
        mpp: the slide's µm per level-0 pixel.
        scales_um: sides of the squares; a scale with too few units or squares is left out.
        min_total: squares of 55 µm and above with fewer counts are left out, as units are.
        ceilings: where counting-noise ceilings are kept from one call to the next, the truth being the same; none are
            computed if None.

    Raises:
        InputError: if a scale is finer than the measured units.
    """
    units.check_scales(scales_um)
    counts, total = units.counts_of(genes, partly=True), units.total
    scores = _compare(predict, sp.identity(len(units), format="csr"), units, counts, total, NATIVE, 0, ceilings)
    for scale in scales_um:
        if scale == units.size_um:
            continue
        wanted = ceilings  # once a scale: the grid's origin hardly matters to it
        for number, squares in scored_squares(units, mpp, scale, min_total):
            summed = np.asarray(squares @ counts), squares @ total
            scores += _compare(predict, squares, units, *summed, scale, number, wanted)
            wanted = None
    return scores


def scored_squares(
    units: Units, mpp: float, scale_um: float, min_total: float = 0.0
) -> Iterator[tuple[int, sp.csr_matrix]]:
    """The squares that `score_slide` scores at a scale: each grid's index in `OFFSETS` and 0/1 matrix (squares, U)."""
    centers_um, total = units.centers_px * mpp, units.total
    least = min_total if units.kind == "counts" else 0.0
    for number, offset in enumerate(OFFSETS):
        squares = squares_at_scale(centers_um, scale_um, offset)
        if squares is not None and scale_um >= LARGE_UNIT_UM:
            squares = squares[np.flatnonzero(squares @ total >= least)]
        if squares is not None and squares.shape[0] >= MIN_SQUARES:
            yield number, squares


def _compare(
    predict: Prediction,
    groups: sp.csr_matrix,
    units: Units,
    counts: np.ndarray,
    total: np.ndarray,
    scale_um: float,
    offset: int,
    ceilings: dict[tuple, np.ndarray] | None,
) -> list[Score]:
    measured = units.kind == "counts"
    found = []
    for compared in _comparisons(predict, groups, units, counts, total, scale_um):
        reduced = moments(torch.as_tensor(compared.prediction), torch.as_tensor(compared.truth))
        ceiling = np.full(counts.shape[1], np.nan)
        if ceilings is not None and measured:
            key = (scale_um, compared.target)
            if key not in ceilings:
                known = np.isfinite(counts).all(0)
                ceilings[key] = np.full(counts.shape[1], np.nan)
                ceilings[key][known] = thinning_ceiling(counts[:, known], total, compared.target)
            # A constant gene has no correlation, and so no ceiling that a mean over genes could hold.
            ceiling = np.where(truth_is_constant(reduced).numpy(), np.nan, ceilings[key])
        found.append(Score(scale_um, offset, compared.target, len(total), reduced, ceiling, compared.deviance))
    return found


class Comparison(NamedTuple):
    """A prediction and its truth, both (U, G), the target, and the mean Poisson deviance per gene, (G,).

    The truth of genes that were not measured is NaN.
    """

    target: str
    prediction: np.ndarray
    truth: np.ndarray
    deviance: np.ndarray


def compare_units(
    predict: Prediction,
    units: Units,
    genes: Sequence[str],
    squares: sp.csr_matrix | None = None,
    scale_um: float = NATIVE,
) -> Comparison:
    """What `score_slide` reduces to PCC, MSE and MAE at the units' own scale, or of squares of another."""
    counts, total = units.counts_of(genes, partly=True), units.total
    if squares is None:
        squares = sp.identity(len(units), format="csr")
    else:
        counts, total = np.asarray(squares @ counts), squares @ total
    return _comparisons(predict, squares, units, counts, total, scale_um)[0]


def _comparisons(
    predict: Prediction, groups: sp.csr_matrix, units: Units, counts: np.ndarray, total: np.ndarray, scale_um: float
) -> list[Comparison]:
    y, rate = predict(groups)
    none = np.full(counts.shape[1], np.nan)
    measured = units.kind == "counts"
    if measured and max(scale_um, units.size_um) < LARGE_UNIT_UM:
        expected = _expected_counts(y, rate, total, np.asarray(groups.sum(1)).ravel())
        ratio = np.where(counts > 0, counts * np.log(np.maximum(counts, 1e-12) / expected), 0)
        deviance = 2 * (ratio - (counts - expected)).mean(0)
        return [Comparison("log1p_counts", np.log1p(expected), np.log1p(counts), deviance)]
    found = [Comparison("log1p_cp10k", y, log1p_cp10k(counts, total), none)]
    if measured:
        found.append(Comparison("residual", y, pearson_residuals(counts, total), none))
    return found


def _expected_counts(y: np.ndarray, rate: np.ndarray | None, total: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Expected counts of groups of `size` units with one size factor for the slide, so that no own depth is used."""
    if rate is None:  # the same depth everywhere
        return np.maximum(np.expm1(y) / 1e4, 1e-9) * (size * (total.sum() / size.sum()))[:, None]
    return np.maximum(rate[:, :-1] * (total.sum() / rate.sum()), 1e-9)
