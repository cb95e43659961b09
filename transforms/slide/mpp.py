"""Micrometres per pixel (mpp): what a file's tags say, which of it counts, and what is doubtful about it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import tifffile

from .errors import SlideError

__all__ = ["Said", "checked_mpp", "openslide_mpp", "tiff_mpp"]

MPP_RANGE = (0.05, 20.0)  # outside, a tag is a default of some drawing program (72 dpi is 353 µm/px), not a scanner's
MPP_TOLERANCE = 0.05  # two values this far apart, relatively, disagree
_SCANNERS = (0.1, 1.1)  # what scanners give
_USUAL = (0.1725, 0.2, 0.22, 0.23, 0.25, 0.263, 0.325, 0.345, 0.44, 0.46, 0.5, 0.65, 0.69, 0.75)  # what most give
_MISTAKES = {  # what a value is divided by if so
    "pixels per cm are labelled as per inch": 2.54,
    "pixels per mm are labelled as per inch": 25.4,
    "pixels per inch are labelled as per cm": 1 / 2.54,
    "it is ten times too large": 10.0,
}
_EXPLAINED = 0.02  # a mistake explains a value that lies this close, relatively, to a usual one
_UM = {"nm": 1e-3, "µm": 1.0, "μm": 1.0, "um": 1.0, "mm": 1e3, "cm": 1e4, "m": 1e6}  # micro sign and Greek mu


class Said(NamedTuple):
    """One statement of a file: where it stands, and the micrometres per pixel along x and y."""

    where: str
    x: float
    y: float

    @property
    def plausible(self) -> bool:
        """Whether both can be a slide's at all."""
        return _plausible(self.x) and _plausible(self.y)


def checked_mpp(path: Path, given: float | None, said: Sequence[Said]) -> tuple[float, list[str]]:
    """Choose the mpp: the given one, else the first plausible one of the file's tags.

    Args:
        path: the slide's file.
        given: what the user says.
        said: what the file says, most trustworthy first.

    Returns:
        The mpp, and what is doubtful about it, in sentences.

    Raises:
        SlideError: if there is none, the given one is impossible, or pixels are not square.
    """
    plausible = [tag for tag in said if tag.plausible]
    if given is not None:
        return float(given), _doubts_of_given(path, float(given), plausible)
    if not plausible:
        why = f" (its {said[0].where} says {said[0].x:.4g}, which is no scanner's)" if said else ""
        raise SlideError(
            f"{path} does not say how many micrometres a pixel measures{why}. Give the slide's mpp: --mpp 0.5 on the "
            'command line, or "mpp" beside "image" in dataset.json.'
        )
    _, x, y = plausible[0]
    if abs(x - y) > 0.01 * max(x, y):
        raise SlideError(
            f"{path} has pixels that are not square ({x:g} x {y:g} um). Resample it to square pixels, or give --mpp if "
            "the tags are wrong."
        )
    mpp = (x + y) / 2
    return mpp, [*_disagreement(mpp, plausible), *_unusual(mpp, plausible[0].where)]


def tiff_mpp(tiff: tifffile.TiffFile) -> list[Said]:
    """What a TIFF says of its mpp, most trustworthy first: Aperio's description, OME-XML, resolution tags."""
    page: Any = tiff.pages.first
    said = []
    aperio = re.search(r"\bMPP\s*=\s*([0-9]*\.?[0-9]+)", page.description or "")
    if aperio:
        said.append(Said("description", float(aperio[1]), float(aperio[1])))
    with contextlib.suppress(ElementTree.ParseError, ValueError):  # metadata that says nothing readable
        said += _ome_mpp(tiff.ome_metadata)
    unit_um = {2: 25400.0, 3: 10000.0, 4: 1000.0, 5: 1.0}.get(_whole(page.tags.valueof("ResolutionUnit")))
    with contextlib.suppress(TypeError, ValueError, IndexError):  # resolutions that are no fractions
        (x, per_x), (y, per_y) = (page.tags.valueof(name) for name in ("XResolution", "YResolution"))
        if unit_um and x and y:
            said.append(Said("resolution", unit_um * per_x / x, unit_um * per_y / y))
    return said


def openslide_mpp(path: Path) -> list[Said]:
    """What OpenSlide knows of a slide's mpp; nothing if it is not installed or cannot read the file."""
    with contextlib.suppress(Exception):
        import openslide

        with openslide.OpenSlide(path) as slide:
            x, y = (float(slide.properties[f"openslide.mpp-{axis}"]) for axis in "xy")
            return [Said("scanner's record", x, y)]
    return []


def _ome_mpp(metadata: str | None) -> list[Said]:
    pixels = ElementTree.fromstring(metadata).find(".//{*}Pixels") if metadata else None
    if pixels is None or "PhysicalSizeX" not in pixels.attrib:
        return []
    x = pixels.attrib["PhysicalSizeX"], pixels.get("PhysicalSizeXUnit", "µm")
    y = pixels.get("PhysicalSizeY", x[0]), pixels.get("PhysicalSizeYUnit", x[1])
    if x[1] not in _UM or y[1] not in _UM:
        return []
    return [Said("OME metadata", float(x[0]) * _UM[x[1]], float(y[0]) * _UM[y[1]])]


def _whole(value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        return 1  # no unit


def _plausible(mpp: float) -> bool:
    return MPP_RANGE[0] <= mpp <= MPP_RANGE[1]


def _differ(a: float, b: float) -> bool:
    return abs(a / b - 1) > MPP_TOLERANCE


def _doubts_of_given(path: Path, given: float, plausible: Sequence[Said]) -> list[str]:
    if not _plausible(given):
        raise SlideError(
            f"mpp={given} was given for {path}; a pixel measures {MPP_RANGE[0]} to {MPP_RANGE[1]} micrometres."
        )
    others = [tag for tag in plausible if _differ(given, tag.x)]
    if not others:
        return []
    stated = " and ".join(f"{tag.x:.4g} µm per pixel ({tag.where})" for tag in others)
    return [f"The file says {stated}; PixNet uses the {given:.4g} given."]


def _disagreement(mpp: float, plausible: Sequence[Said]) -> list[str]:
    if not any(_differ(mpp, tag.x) for tag in plausible):
        return []
    values = ", ".join(f"its {tag.where} says {tag.x:.4g}" for tag in plausible)
    return [
        f"The file's tags disagree on the µm per pixel: {values}. PixNet uses {mpp:.4g}; if that is wrong, give --mpp."
    ]


def _unusual(mpp: float, where: str) -> list[str]:
    """Doubt what no scanner gives, and what a known mistake explains better than that a copy was halved k times."""
    low, high = _SCANNERS
    off = {why: _off_usual(mpp / factor) for why, factor in _MISTAKES.items()}
    why = min(off, key=lambda name: off[name])
    halved = min(_off_usual(mpp / 2**k) for k in range(1, 8))
    explained = off[why] < min(_EXPLAINED, halved)
    if low <= mpp <= high or (mpp > high and not explained):
        return []
    perhaps = f" It is {mpp / _MISTAKES[why]:.3g} if {why}." if explained else ""
    return [
        f"The file's {where} says {mpp:.4g} µm per pixel, which is unusual: scanners give {low:g} to {high:g}, and "
        f"copies 2, 4, 8 ... times that.{perhaps} Check it, and give --mpp if it is wrong."
    ]


def _off_usual(mpp: float) -> float:
    """How far, relatively, the nearest usual value is."""
    return min(abs(mpp / usual - 1) for usual in _USUAL)
