"""Draw measured units (spots, bins, cells) into index masks on a region's pixels."""

from __future__ import annotations

from .canvas import UnitError
from .label_image import LabelImage
from .labels import LabelLayer
from .polygons import PolygonLayer
from .units import RasterizeUnits, RasterizeUnitsD, RasterizeUnitsd, RasterizeUnitsDict, UnitLayer

__all__ = [
    "LabelImage",
    "LabelLayer",
    "PolygonLayer",
    "RasterizeUnits",
    "RasterizeUnitsD",
    "RasterizeUnitsDict",
    "RasterizeUnitsd",
    "UnitError",
    "UnitLayer",
]
