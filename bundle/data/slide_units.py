"""Read a slide's units and check that they lie on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from ..errors import InputError
from .manifest import slide_name
from .opening import OpenSlide
from .panel import load_units
from .section_identity import Library, other_slide
from .units import Units, off_slide

__all__ = ["slide_units"]

#: Units registered at a scale this far from the slide's are refused.
_MPP_TOLERANCE = 0.05

_LOOK_PX = 512  # of a slide's picture, to tell it from another slide's


def slide_units(record: Mapping[str, Any], slide: OpenSlide, sizes_um: Sequence[float] | None = None) -> list[Units]:
    """Read a record's units and check that they lie on the slide.

    Raises:
        InputError: if units lie outside the slide, or were registered at another scale.
    """
    found = load_units(record, sizes_um)
    sizes = [units.size_um for units in found]
    for size in set(sizes):
        if sizes.count(size) > 1:
            raise InputError(
                f"{record['image']}: several files of the slide hold units of one size, {size:g} µm; list one a size."
            )
    for units in found:
        if units.mpp is not None and abs(units.mpp / slide.mpp - 1) > _MPP_TOLERANCE:
            raise InputError(
                f"{units.name} was registered at {units.mpp:.4g} µm per pixel, {record['image']} has {slide.mpp:.4g}. "
                "One of them is wrong, or the units belong to another picture of the slide."
            )
    longest_um = max(slide.level_dimensions[0]) * slide.mpp
    for units in found:
        if units.size_um > longest_um:
            raise InputError(
                f"{units.name} holds units of {units.size_um:g} µm, and {record['image']} is {longest_um:g} µm long. "
                'Correct the size in uns["unit"], or the mpp.'
            )
        _check_distance(units, slide.mpp)
        _check_slide(units, record, slide)
        outside = off_slide("units", units.centers_px, units.barcodes, slide.level_dimensions[0], record["image"])
        if outside is not None:
            raise InputError(
                f"{units.name}: {outside}. Positions must be (x, y) in level-0 pixels of this very picture; was a "
                "smaller one registered?"
            )
    return found


def _check_slide(units: Units, record: Mapping[str, Any], slide: OpenSlide) -> None:
    """Refuse units whose file names another slide and shows another picture of it."""
    name = slide_name(record)
    if units.library is None or units.library.name == name:
        return
    told, certain = other_slide(
        units.library, Library.of_picture(Path(record["image"]).name, name, slide.thumbnail(_LOOK_PX)[0])
    )
    if certain:
        raise InputError(
            f"{told}; barcodes repeat between sections. Name the units of this very slide; if these are, call "
            f'it {name} in uns["spatial"].'
        )


def _check_distance(units: Units, mpp: float) -> None:
    """Refuse units whose neighbours lie much closer than their size: they were registered on a smaller picture."""
    if len(units) < 2:
        return
    sample = units.centers_px[:: max(len(units) // 20_000, 1)]  # a tenth of a second, however many
    nearest = cKDTree(units.centers_px).query(sample, k=2)[0][:, 1] * mpp
    if np.median(nearest) < 0.65 * units.size_um:
        raise InputError(
            f"{units.name}: units of {units.size_um:g} µm lie {np.median(nearest):.3g} µm apart. "
            f"Positions must be (x, y) in level-0 pixels of a slide of {mpp:.4g} µm per pixel; was a smaller picture "
            "registered, or is the size or mpp wrong?"
        )
