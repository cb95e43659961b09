"""A slide as the baselines see it; its image is measured only once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np

from bundle.data.manifest import slide_name
from bundle.data.normalisation import log1p_cp10k, passes_quality_control
from bundle.data.slide_units import load_units
from bundle.data.units import Units
from bundle.errors import InputError

__all__ = ["Slide", "load_slide", "remembered"]


@dataclass(frozen=True, eq=False)
class Slide:
    """One slide as the baselines see it.

    Attributes:
        name: its name.
        image: the slide's file.
        mpp: micrometres per level-0 pixel.
        size_um: diameter (or side) of its units.
        centers_um: centres (x, y) of the units, (U, 2).
        total: counts of all genes per unit, (U,).
        y: log1p CP10k of the panel, (U, G); NaN for a gene that the slide did not measure.
        record: its record in the data set.
        units: the measured units, in the same order.
        filtered_units: how many units were left out.
    """

    name: str
    image: Path
    mpp: float
    size_um: float
    centers_um: np.ndarray
    total: np.ndarray
    y: np.ndarray
    record: dict[str, Any] = field(default_factory=dict)
    units: Units | None = None
    filtered_units: int = 0

    @property
    def place(self) -> np.ndarray:
        """Position within the section: from the units' centroid, in units of their spread, (U, 2)."""
        centred = self.centers_um - self.centers_um.mean(0)
        return centred / max(float(np.sqrt((centred**2).sum(1).mean())), 1e-9)


def load_slide(record: Mapping[str, Any], genes: Sequence[str], min_total: float) -> Slide:
    """Read a record's units on tissue with enough counts.

    Raises:
        InputError: if no unit is left, or the slide's mpp is unknown.
    """
    everything = load_units(record)[0]
    units = everything.take(passes_quality_control(everything, min_total, training=False))
    mpp = record.get("mpp") or units.mpp
    if mpp is None or not len(units):
        raise InputError(f"{record['image']} has no mpp, or no unit on tissue with {min_total:g} counts or more.")
    y = log1p_cp10k(units.counts_of(genes, partly=True), units.total).astype(np.float64)
    return Slide(
        slide_name(record),
        Path(record["image"]),
        mpp,
        units.size_um,
        units.centers_px * mpp,
        units.total,
        y,
        dict(record),
        units,
        len(everything) - len(units),
    )


def remembered(measure: Callable[[Slide], np.ndarray]) -> Callable[[Slide], np.ndarray]:
    """Measure an image at the same units only once, since the folds of a data set share its slides."""
    known: dict[tuple, np.ndarray] = {}

    @wraps(measure)
    def once(slide: Slide) -> np.ndarray:
        key = (slide.image, slide.mpp, slide.size_um, slide.centers_um.tobytes())
        if key not in known:
            known[key] = measure(slide)
        return known[key]

    return once
