"""One slide whose prediction is matched with its measurement, and what is doubtful about the two."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..data.normalisation import LARGE_UNIT_UM, log1p_cp10k, passes_quality_control
from ..data.units import Units
from ..errors import InputError
from ..metrics import coverage_95
from .match import match_units, slide_doubts
from .pairs import Pair
from .predicted import Predicted
from .scoring import MIN_UNITS, MatchedSlide

__all__ = ["match_slide"]


def match_slide(
    pair: Pair,
    predicted: Predicted,
    units: Units,
    genes: Sequence[str],
    min_total: float,
    mpp: float | None,
    scales_um: Sequence[float],
) -> MatchedSlide:
    """Match a slide's predicted units with the measured ones that pass quality control.

    Args:
        pair: the two files.
        predicted: what the first of them holds.
        units: what the second holds.
        genes: those to score.
        min_total: measured units (55 µm and above) with fewer counts are left out.
        mpp: µm per level-0 pixel, where the measured units do not say.
        scales_um: scales to score, which need an mpp.

    Raises:
        InputError: if the two share too few units, or are of different slides.
    """
    mpp = mpp or units.mpp
    if mpp is None and len(scales_um):
        raise InputError(f"{units.name} does not say how many µm a pixel has, so it has no scales; give --mpp.")
    match = match_units(predicted, units, mpp)
    keep = passes_quality_control(units, min_total, training=False)
    scored = keep[match.truth]
    if scored.sum() < MIN_UNITS:
        raise InputError(
            f"{predicted.name} predicts {int(scored.sum())} units of {units.name} on tissue with {min_total:g} "
            f"counts or more; at least {MIN_UNITS} are needed. Lower --min-total, or check the counts."
        )
    kept = units.take(match.truth[scored])
    rows, columns = match.pred[scored], predicted.columns(genes)
    predict = predicted.for_groups(rows, columns)
    filtered = int((~keep).sum())
    unpredicted = int(keep.sum() - scored.sum())
    doubts = slide_doubts(predicted, units, match, mpp) + _doubts(predicted, units, match.by)
    covered, why_not = _coverage(predicted, kept, np.ix_(rows, columns), genes)
    doubts += why_not
    unmeasured = int((~kept.measures(genes)).sum())
    if unmeasured:
        doubts.append(
            f"{units.name} did not measure {unmeasured} of the {len(genes)} genes: it is scored on the others."
        )
    if unpredicted > 0.05 * keep.sum():
        doubts.append(
            f"{unpredicted:,} of the {int(keep.sum()):,} measured units have no prediction and are not scored; figures "
            "of tools that leave out other units do not compare."
        )
    about = {
        "pred": str(pair.pred),
        "truth": str(pair.truth),
        "patient": pair.patient,
        "same_patient": predicted.same_patient(pair.patient),
        "by": match.by,
        "scored_units": len(kept),
        "predicted_units": len(predicted),
        "predicted_units_unmatched": len(predicted) - len(match.pred),
        "measured_units": len(units),
        "measured_units_unmatched": unpredicted,
        "filtered_units": filtered,
        "predicted_genes": len(predicted.genes),
        "measured_genes": len(units.genes),
        "unmeasured_genes": unmeasured,
        "unit_of_X": predicted.unit_of_x,
        "squares": predicted.coarser,
        "warnings": [f"{pair.name}: {text}" for text in doubts],
    }
    patient = pair.patient or pair.name  # an unnamed one is taken for another than all others
    return MatchedSlide(pair.name, patient, kept, predict, mpp, filtered, about, covered)


def _coverage(
    predicted: Predicted, units: Units, at: tuple[np.ndarray, ...], genes: Sequence[str]
) -> tuple[np.ndarray | None, list[str]]:
    """Per gene the share of units within ±1.96 standard errors, or why PixNet does not score them."""
    if predicted.standard_error is None:
        return None, []
    spread = predicted.standard_error[at]
    if predicted.unit_of_x != "log1p_cp10k":
        why = f"they are of X, {predicted.unit_of_x}, and not of log1p CP10k"
    elif units.size_um < LARGE_UNIT_UM:
        why = "below 55 µm a unit's log1p CP10k is no measurement"
    elif spread.dtype.kind != "f" or not np.isfinite(spread).all() or (spread < 0).any():
        why = "some are missing or negative"
    else:
        return coverage_95(predicted.y[at] - log1p_cp10k(units.counts_of(genes, partly=True), units.total), spread), []
    return None, [f'layers["standard_error"] is not scored: {why}.']


def _doubts(predicted: Predicted, units: Units, by: str) -> list[str]:
    """What else lets a figure be read wrongly."""
    found = []
    if by == "row number":
        found.append("units have no names, so the order of rows alone says which is which.")
    trained_on = {str(name) for name in predicted.about.get("training_sections", ())}
    if units.section is not None and units.section.name in trained_on:
        found.append("the model was trained on this very slide.")
    if predicted.size_um is not None and not np.isclose(predicted.size_um, units.size_um):
        found.append(f"predicted for units of {predicted.size_um:g} µm, measured in units of {units.size_um:g} µm.")
    if predicted.unit_of_x == "counts" and len(predicted.genes) < 0.5 * len(units.genes):
        found.append(
            f"totals of the predicted counts are over {len(predicted.genes):,} genes, those of the measured ones over "
            f"{len(units.genes):,}: MSE and MAE compare different things."
        )
    if (predicted.y < 0).any():
        found.append(
            f"X goes down to {predicted.y.min():.3g}, and log1p CP10k ends at 0: clip it; it is scored as it is."
        )
    if units.size_um < LARGE_UNIT_UM:
        found.append("below 55 µm log1p counts are compared, with one depth for the whole slide.")
    return found
