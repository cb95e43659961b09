"""Arrays in, arrays out: read a region of a slide, draw measured units into masks, restain, find tissue."""

from __future__ import annotations

from .rasterize import (
    LabelImage,
    LabelLayer,
    PolygonLayer,
    RasterizeUnits,
    RasterizeUnitsD,
    RasterizeUnitsd,
    RasterizeUnitsDict,
    UnitError,
    UnitLayer,
)
from .read_region import ReadRegion, ReadRegionD, ReadRegiond, ReadRegionDict
from .slide import Slide, SlideError, SlideReader
from .stain import HEStain, RandHEStain, RandHEStainD, RandHEStaind, RandHEStainDict
from .tissue import TissueMask

__all__ = [
    "HEStain",
    "LabelImage",
    "LabelLayer",
    "PolygonLayer",
    "RandHEStain",
    "RandHEStainD",
    "RandHEStainDict",
    "RandHEStaind",
    "RasterizeUnits",
    "RasterizeUnitsD",
    "RasterizeUnitsDict",
    "RasterizeUnitsd",
    "ReadRegion",
    "ReadRegionD",
    "ReadRegionDict",
    "ReadRegiond",
    "Slide",
    "SlideError",
    "SlideReader",
    "TissueMask",
    "UnitError",
    "UnitLayer",
]
