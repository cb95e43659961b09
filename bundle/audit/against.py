"""Compare two tools on the units and genes that both predict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..data.normalisation import passes_quality_control
from ..data.units import Units
from ..errors import InputError
from .match import match_units, slide_doubts
from .pairs import Pair
from .predicted import Predicted
from .scoring import MIN_UNITS, MatchedSlide, difference

__all__ = ["compare_tools"]


def compare_tools(
    read: Sequence[tuple[Pair, Predicted, Units]],
    others: Sequence[Predicted],
    genes: Sequence[str],
    min_total: float,
    mpp: float | None,
) -> dict[str, Any]:
    """PCC@M of one tool minus another's, with a paired interval, on the units and genes that both predict.

    Args:
        read: pairs with the first tool's predictions and the measured units.
        others: the second tool's predictions of the same slides.
        genes: those that figures are over.
        min_total: measured units (55 µm and above) with fewer counts are left out.
        mpp: µm per level-0 pixel, where the measured units do not say.

    Raises:
        InputError: if the two share no gene, or too few units of some slide.
    """
    common = list(genes)
    for other in others:
        present = set(other.genes)
        common = [gene for gene in common if gene in present]
    if not common:
        raise InputError(f"{others[0].name} predicts none of the {len(genes)} genes that are compared.")
    warnings: list[str] = []
    sides: tuple[list[MatchedSlide], list[MatchedSlide]] = ([], [])
    for (pair, first, units), second in zip(read, others, strict=True):
        pixel_um = mpp or units.mpp
        matches = [match_units(tool, units, pixel_um) for tool in (first, second)]
        warnings += [f"{pair.name}: {doubt}" for doubt in slide_doubts(second, units, matches[1], pixel_um)]
        rows = [match.rows(len(units)) for match in matches]
        both = np.flatnonzero(
            passes_quality_control(units, min_total, training=False) & (rows[0] >= 0) & (rows[1] >= 0)
        )
        if len(both) < MIN_UNITS:
            raise InputError(
                f"{first.name} and {second.name} both predict {len(both)} units of {units.name} on tissue with "
                f"{min_total:g} counts or more; at least {MIN_UNITS} are needed to compare them."
            )
        kept = units.take(both)
        for side, tool, place in zip(sides, (first, second), rows, strict=True):
            predict = tool.for_groups(place[both], tool.columns(common))
            side.append(MatchedSlide(pair.name, pair.patient or pair.name, kept, predict, pixel_um, 0))
    return {
        "pred": [str(pair.against) for pair, _, _ in read],
        "units": sum(len(slide.units) for slide in sides[0]),
        "genes": len(common),
        "warnings": warnings,
        **difference(*sides, common),
    }
