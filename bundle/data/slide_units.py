"""A record's units: read from its files, and checked against its slide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from ..errors import InputError
from .binning import binned_to
from .lazy_bins import read_lazy_bins
from .manifest import slide_name
from .opening import OpenSlide
from .read_units import read_units
from .section_identity import SectionIdentity, other_slide
from .units import Units, off_slide

__all__ = ["check_on_slide", "in_block", "load_units", "slide_units"]

#: Units registered at a scale this far from the slide's are refused.
_MPP_TOLERANCE = 0.05

_LOOK_PX = 512  # of a slide's picture, to tell it from another slide's


def load_units(record: Mapping[str, Any], sizes_um: Sequence[float] | None = None) -> list[Units]:
    """Read a record's units of some sizes; of the coarsest size that it has by default.

    A size that it lacks is binned from square bins whose side divides it (`bin_to`), and left out if there are none.

    Raises:
        InputError: if the record has no units, or none of that size.
    """
    labels = record.get("label") or []
    labels = [labels] if isinstance(labels, str) else list(labels)
    if not labels:
        raise InputError(f'{record.get("image")} has no "label": name the .h5ad of its measured units in dataset.json.')
    lazy = [read_lazy_bins(label, sizes_um) for label in labels]
    found = [read_units(label) if bins is None else bins for label, bins in zip(labels, lazy, strict=True)]
    if record.get("block") is not None:
        found = [units.take(in_block(record, units)) for units in found]
    if sizes_um is None:
        coarsest = max(u.size_um for u in found)
        return [u for u in found if u.size_um == coarsest]
    chosen: list[Units] = []
    for size in sizes_um:
        measured = [u for u in found if np.isclose(u.size_um, size)]
        chosen += measured or binned_to(size, found)
    if not chosen:
        have, asked = (", ".join(f"{size:g}" for size in sizes) for sizes in ([u.size_um for u in found], sizes_um))
        raise InputError(
            f"{record['image']} has no units of {asked} µm; it has {have} µm, and no bins of a known mpp whose side "
            "divides one of these. To score coarser squares of spots, give --scales-um."
        )
    return chosen


def in_block(record: Mapping[str, Any], units: Units) -> np.ndarray:
    """Which units are the record's, bool (U,): of a slide that is split in space, those of its rectangle."""
    if record.get("block") is None:
        return np.ones(len(units), bool)
    low, high = np.array(record["block"][:2]), np.array(record["block"][2:])
    return np.all((units.centers_px >= low) & (units.centers_px < high), axis=1)


def slide_units(record: Mapping[str, Any], slide: OpenSlide, sizes_um: Sequence[float] | None = None) -> list[Units]:
    """Read a record's units and check that they lie on the slide.

    Raises:
        InputError: see `load_units` and `check_on_slide`.
    """
    return check_on_slide(load_units(record, sizes_um), record, slide)


def check_on_slide(found: list[Units], record: Mapping[str, Any], slide: OpenSlide) -> list[Units]:
    """Check that a record's units lie on its slide, and return them.

    Raises:
        InputError: if units lie outside the slide, or were registered at another scale.
    """
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
    if units.section is None or units.section.name == name:
        return
    why, certain = other_slide(
        units.section, SectionIdentity.of_picture(Path(record["image"]).name, name, slide.thumbnail(_LOOK_PX)[0])
    )
    if certain:
        raise InputError(
            f"{why}; barcodes repeat between sections. Name the units of this very slide; if these are, call "
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
