"""Score matched slides by the code that scores PixNet, with intervals and with what depth alone would score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse as sp

from ..data.normalisation import LARGE_UNIT_UM
from ..data.units import Units
from ..metrics import ScoredSlide, score_slide, summarise
from ..metrics.bootstrap import BLOCK_UNITS, block_bootstrap, block_side, block_sums, interval
from ..metrics.depth import fit_depth
from ..metrics.moments import prediction_is_constant
from ..metrics.score import Comparison, Prediction, compare_units

__all__ = ["MIN_UNITS", "MatchedSlide", "difference", "given", "score"]

#: A correlation over fewer units says nothing.
MIN_UNITS = 10


@dataclass(frozen=True, eq=False)
class MatchedSlide:
    """One slide whose measured units each have a prediction.

    Attributes:
        name: the slide's.
        patient: whose slide it is.
        units: the measured units that are scored.
        predict: what was predicted for them and the shared genes.
        mpp: µm per level-0 pixel; None where unknown, and then only the units' own scale is scored.
        filtered_units: measured units left out before.
        about: how it was matched, for the result.
        covered: share of units within ±1.96 of the prediction's standard errors, per gene; None where it has none that
            can be scored.
    """

    name: str
    patient: str
    units: Units
    predict: Prediction
    mpp: float | None
    filtered_units: int
    about: dict[str, Any] = field(default_factory=dict)
    covered: np.ndarray | None = None


def score(
    slides: Sequence[MatchedSlide],
    genes: Sequence[str],
    panels: Mapping[str, np.ndarray],
    scales_um: Sequence[float] = (),
    min_total: float = 0.0,
) -> dict[str, Any]:
    """Figures in the form of `bundle.metrics.summarise`, with shares of the ceiling, intervals and the depth oracle.

    Args:
        slides: matched slides, with units of one size.
        genes: what `predict` predicts, in its order.
        panels: named positions of genes; the first panel is the headline's.
        scales_um: sides of the grid squares that units are binned to.
        min_total: squares of 55 µm and above with fewer counts are left out, as units are.
    """
    scored = [_scored(s, s.predict, genes, scales_um, min_total, {}) for s in slides]
    result = summarise(scored, panels, scales_um)
    for figures in [*result["scales"].values(), *(f for own in result["per_slide"].values() for f in own.values())]:
        figures["share_of_ceiling"] = _share(figures["PCC@M"], figures["ceiling@M"])
        figures["share_of_ceiling_residual"] = _share(figures["PCC@M_residual"], figures["ceiling@M_residual"])
    main = next(iter(panels.values()))
    constant = np.stack([prediction_is_constant(s.scores[0].moments).numpy() for s in scored])
    result["constant_predictions"] = int(constant[:, main].all(0).sum())
    compared = [compare_units(s.predict, s.units, genes) for s in slides]
    draws = _draws([c.prediction for c in compared], compared, slides, main)
    blocks = [len(_sums(c.prediction[:, :1], c.truth[:, :1], s)) for c, s in zip(compared, slides, strict=True)]
    result["interval_95"] = {
        "PCC@M": list(interval(draws)),
        "draws": len(draws),
        "blocks": sum(blocks),
        "block": _block(slides),
    }
    result["depth_oracle"] = None
    if all(s.units.kind == "counts" and s.units.size_um >= LARGE_UNIT_UM for s in slides):
        result["depth_oracle"] = _depth_oracle(slides, compared, genes, panels, result, draws)
    return result


def difference(first: Sequence[MatchedSlide], second: Sequence[MatchedSlide], genes: Sequence[str]) -> dict[str, Any]:
    """PCC@M of two tools on the same units and genes, and their difference with a paired interval."""
    everything = np.arange(len(genes))
    pcc, draws = [], []
    for slides in (first, second):
        figures = summarise([_scored(s, s.predict, genes) for s in slides], {"common": everything})["scales"]["native"]
        compared = [compare_units(s.predict, s.units, genes) for s in slides]
        pcc.append(figures["PCC@M"])
        draws.append(_draws([c.prediction for c in compared], compared, slides, everything))
    return {
        "PCC@M": pcc[0],
        "PCC@M_against": pcc[1],
        "difference": pcc[0] - pcc[1],
        "difference_interval_95": list(interval(draws[0] - draws[1])),
    }


def _scored(
    slide: MatchedSlide,
    predict: Prediction,
    genes: Sequence[str],
    scales_um: Sequence[float] = (),
    min_total: float = 0.0,
    ceilings: dict[tuple, np.ndarray] | None = None,
) -> ScoredSlide:
    mpp = slide.mpp or 1.0  # the units' own scale does not depend on it
    scores = score_slide(predict, slide.units, genes, mpp, scales_um, min_total, ceilings)
    return ScoredSlide(slide.name, slide.patient, slide.units.size_um, slide.filtered_units, scores)


def _depth_oracle(
    slides: Sequence[MatchedSlide],
    compared: Sequence[Comparison],
    genes: Sequence[str],
    panels: Mapping[str, np.ndarray],
    result: dict[str, Any],
    draws: np.ndarray,
) -> dict[str, Any]:
    """Each slide from the total of its units, as fitted on the other slides, or on itself where it is alone."""
    totals, ys = [np.maximum(s.units.total, 1.0) for s in slides], [c.truth for c in compared]
    predicted = []
    for number, total in enumerate(totals):
        rest = [i for i in range(len(slides)) if i != number] or [number]
        predicted.append(fit_depth([totals[i] for i in rest], [ys[i] for i in rest])(total))
    summary = summarise([_scored(s, given(y), genes) for s, y in zip(slides, predicted, strict=True)], panels)
    figures = summary["scales"]["native"]
    result["per_gene"]["native"]["pcc_depth_oracle"] = summary["per_gene"]["native"]["pcc"]
    own = _draws(predicted, compared, slides, next(iter(panels.values())))
    difference = result["scales"]["native"]["PCC@M"] - figures["PCC@M"]
    kept = ("PCC@F", "PCC@S", "PCC@M", "PCC@M_pooled", "PCC@M_residual", "MSE", "MAE")
    return {
        **{key: figures[key] for key in kept},
        "fitted_on": "the other slides" if len(slides) > 1 else "the slide itself",
        "PCC@M_interval_95": list(interval(own)),
        "prediction_minus_oracle": difference,
        "prediction_minus_oracle_interval_95": list(interval(draws - own)),
    }


def given(y: np.ndarray) -> Prediction:
    """A prediction of the units themselves, y (U, G)."""

    def predict(groups: sp.csr_matrix) -> tuple[np.ndarray, None]:
        return groups @ y, None

    return predict


def _draws(
    predicted: Sequence[np.ndarray], compared: Sequence[Comparison], slides: Sequence[MatchedSlide], main: np.ndarray
) -> np.ndarray:
    sums = [_sums(p[:, main], c.truth[:, main], slide) for p, c, slide in zip(predicted, compared, slides, strict=True)]
    return block_bootstrap(sums, patients=[slide.patient for slide in slides])


def _sums(prediction: np.ndarray, truth: np.ndarray, slide: MatchedSlide) -> np.ndarray:
    centers = slide.units.centers_px
    return block_sums(prediction, truth, centers, block_side(centers, slide.mpp))


def _block(slides: Sequence[MatchedSlide]) -> str:
    """How large a block is, for tables."""
    sides = [block_side(s.units.centers_px, s.mpp) * s.mpp for s in slides if s.mpp is not None]
    if len(sides) < len(slides):
        return f"{BLOCK_UNITS} x {BLOCK_UNITS} units"
    low, high = f"{min(sides):.0f}", f"{max(sides):.0f}"
    return f"{low} µm" if low == high else f"{low} to {high} µm"


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else float("nan")
