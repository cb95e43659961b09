"""Which predicted unit is which measured one: by barcode, else by position."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from ..data.section_identity import other_slide
from ..data.units import Units
from ..errors import InputError
from .predicted import Predicted

__all__ = ["MIN_SHARE", "Match", "match_units", "slide_doubts"]

#: Of the file with fewer units, this share must be found in the other.
MIN_SHARE = 0.5
#: Positions whose spread differs by more than this count other pixels, as those of a smaller picture do.
_SCALE_TOLERANCE = 0.05
#: How far positions of one slide may lie apart, as tools round them.
_ROUNDING_PX = 2


@dataclass(frozen=True, eq=False)
class Match:
    """Pairs of units, one to one.

    Attributes:
        by: `barcode`, `position` or `row number`.
        pred: rows of the prediction, (M,).
        truth: rows of the measured units, (M,), rising.
        apart_px: distances of the pairs' centres where both files have positions, (M,).
    """

    by: str
    pred: np.ndarray
    truth: np.ndarray
    apart_px: np.ndarray | None

    def rows(self, n_units: int) -> np.ndarray:
        """The predicted row of each of the measured units, -1 for none, (n_units,)."""
        rows = np.full(n_units, -1)
        rows[self.truth] = self.pred
        return rows


def match_units(predicted: Predicted, units: Units, mpp: float | None) -> Match:
    """Match the units of a prediction with measured ones.

    Args:
        predicted: the prediction.
        units: the measured units, filtered or not.
        mpp: µm per level-0 pixel; positions are compared only where it is known.

    Raises:
        InputError: if a barcode occurs twice, or too few units match either way.
    """
    twice = len(units) - len(set(units.barcodes))
    if twice:
        raise InputError(f"{units.name}: {twice} unit names occur twice; name each unit once.")
    least = max(MIN_SHARE * min(len(predicted), len(units)), 1)
    place = pd.Index(predicted.barcodes).get_indexer(pd.Index(units.barcodes))
    named = _match("barcode", place, predicted, units)
    if len(named.truth) >= least and not _are_row_numbers(predicted.barcodes):
        return named
    near = None
    if predicted.centers_px is not None and mpp is not None:
        near = _match("position", _nearest(predicted.centers_px, units, mpp), predicted, units)
        if len(near.truth) >= least:
            return near
    if len(named.truth) >= least:  # nothing but the order says which is which
        return Match("row number", named.pred, named.truth, named.apart_px)
    if near is not None:
        hint = (
            f"and {len(near.truth):,} lie within half a unit of one. Both need the same barcodes, or positions in "
            "level-0 pixels of the same slide"
        )
    elif predicted.centers_px is None:
        hint = 'and the prediction has no positions in obsm["spatial"] to go by. Name its units as measured'
    else:
        hint = "and without µm per pixel their positions cannot be compared. Name its units as measured, or give --mpp"
    raise InputError(
        f"{predicted.name} predicts other units than {units.name}: of {len(predicted):,} predicted and "
        f"{len(units):,} measured units {len(named.truth):,} share a barcode, {hint}."
    )


def slide_doubts(predicted: Predicted, units: Units, match: Match, mpp: float | None) -> list[str]:
    """What makes it doubtful that a prediction is of the very slide that was measured.

    Raises:
        InputError: if it is of another one: the two name different slides whose pictures differ, or units of one
            barcode lie further apart than a unit is wide while both files count pixels of one size.
    """
    found = []
    why, certain = other_slide(predicted.section, units.section)
    if certain:
        raise InputError(
            f"{why}; barcodes repeat between sections. Give the prediction of this very slide, or name it alike in "
            'uns["spatial"].'
        )
    if why:
        found.append(f"{why}; if they are different slides, the figures mean nothing.")
    named_alike = predicted.section is not None and units.section is not None and not why
    if match.apart_px is None or mpp is None or predicted.centers_px is None:
        if match.by == "barcode" and not named_alike:
            found.append(
                "barcodes alone say which slide this is, and they repeat between sections: neither positions nor a "
                "slide named in both files could be compared."
            )
        return found
    apart_um = float(np.median(match.apart_px)) * mpp
    spread = [centers.std(0).mean() for centers in (predicted.centers_px[match.pred], units.centers_px[match.truth])]
    if match.by == "barcode" and apart_um > units.size_um and abs(np.log(spread[0] / spread[1])) < _SCALE_TOLERANCE:
        raise InputError(
            f"Units of one barcode lie {apart_um:.4g} µm apart in {predicted.name} and {units.name} (median), more "
            f"than a unit's {units.size_um:g} µm: another section's barcodes, or positions of a shifted picture. Give "
            'the prediction of this very slide; if it is, take obsm["spatial"] out of it to go by barcodes alone.'
        )
    if apart_um > units.size_um / 2:
        found.append(
            f"units of one name lie {apart_um:.4g} µm apart in the two files (median), if both count level-0 pixels."
        )
    elif not named_alike and np.median(match.apart_px) > _ROUNDING_PX:
        found.append(
            f"units taken for the same lie {apart_um:.4g} µm apart in the two files (median), as those of two sections "
            "on one array do: nothing else says that this is the very slide. Name it in both files."
        )
    return found


def _match(by: str, place: np.ndarray, predicted: Predicted, units: Units) -> Match:
    """Args: place: the predicted row of each measured unit, -1 for none."""
    truth = np.flatnonzero(place >= 0)
    pred = place[truth]
    apart = None
    if predicted.centers_px is not None:
        apart = np.linalg.norm(predicted.centers_px[pred] - units.centers_px[truth], axis=1)
    return Match(by, pred, truth, apart)


def _nearest(centers_px: np.ndarray, units: Units, mpp: float) -> np.ndarray:
    """For each measured unit the predicted one within half a unit, where each is the other's nearest; else -1."""
    reach_px = units.size_um / 2 / mpp
    distance, place = cKDTree(centers_px).query(units.centers_px)
    _, back = cKDTree(units.centers_px).query(centers_px)
    mutual = back[place] == np.arange(len(units))
    return np.where(mutual & (distance <= reach_px), place, -1)


def _are_row_numbers(names: np.ndarray) -> bool:
    """Whether units were never named, so that two files' names agree whatever they hold."""
    return bool((names == np.arange(len(names)).astype(str)).all())
