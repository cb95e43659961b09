"""Polygons whose rings do not cross, and that lie on the slide.

A point lies inside a polygon where a ray from it crosses its rings an odd number of times, as they are drawn.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import shapely

from ..errors import InputError, short

__all__ = ["clip", "simple"]

#: Crossings of one polygon, and of all of a file, that are resolved, in some seconds each.
MAX_CROSSINGS, MAX_ALL_CROSSINGS = 2_000, 20_000
#: Edges of one polygon that crosses itself.
MAX_CROSSED_EDGES = 100_000
#: Edges of a polygon whose crossings are counted; those of longer ones are estimated.
_SAMPLE, _PAIRS = 500, 2**24


def simple(
    shapes: np.ndarray, names: Sequence[str], where: str, most_in_all: int = MAX_ALL_CROSSINGS
) -> tuple[np.ndarray, int]:
    """The same areas as polygons whose rings do not cross, and how many had to be resolved.

    Args:
        shapes: polygons and multipolygons, (U,).
        names: what each is called, for messages.
        where: the file, for messages.
        most_in_all: crossings of all polygons together.

    Raises:
        InputError: if a polygon crosses itself too often for a cell's, or all of a file do.
    """
    crossed = np.flatnonzero(~shapely.is_valid(shapes))
    if len(crossed) == 0:
        return shapes, 0
    shapes, total = shapes.copy(), 0.0
    for i in crossed.tolist():
        edges = _edges(shapes[i])
        found = _crossings(edges)
        total += found
        if found > MAX_CROSSINGS or total > most_in_all or len(edges) > MAX_CROSSED_EDGES:
            raise InputError(
                f'{where}: the polygon of "{short(names[i])}" has {len(edges):,} points and crosses itself about '
                f"{found:,.0f} times, which no cell's does. Draw it anew, or leave it out."
            )
        shapes[i] = _areas_of(shapely.make_valid(shapes[i]))  # by the even-odd rule, as GEOS noding has it
    return shapes, len(crossed)


def clip(shapes: np.ndarray, size_px: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Simple polygons cut at a slide's edges, and which of them reach over these, bool (U,).

    What lies wholly outside becomes empty.
    """
    width, height = size_px
    bounds = shapely.bounds(shapes)
    over = ~((bounds[:, :2] >= 0).all(1) & (bounds[:, 2:] <= (width, height)).all(1))
    if over.any():
        shapes = shapes.copy()
        cut = shapely.intersection(shapes[over], shapely.box(0, 0, width, height))
        shapes[over] = [_areas_of(shape) for shape in cut]
    return shapes, over


def _areas_of(shape: shapely.Geometry) -> shapely.Geometry:
    """What of a geometry has an area: where a polygon touches itself or the edge there are points and lines too."""
    parts = shapely.get_parts(shapely.get_parts(shape))  # of collections in a collection too
    return shapely.multipolygons(parts[shapely.get_type_id(parts) == shapely.GeometryType.POLYGON])


def _edges(shape: shapely.Geometry) -> np.ndarray:
    """Edges of all rings, (E, 2, 2)."""
    points, ring = shapely.get_coordinates(shapely.get_rings(shapely.get_parts(shape)), return_index=True)
    pairs = np.stack([points[:-1], points[1:]], axis=1)[ring[:-1] == ring[1:]]
    return pairs[(pairs[:, 0] != pairs[:, 1]).any(1)]


def _crossings(edges: np.ndarray) -> float:
    """About how often edges cross or meet, beyond each with its two neighbours."""
    if len(edges) == 0:
        return 0.0
    lines = shapely.linestrings(edges)
    sample = lines[:: max(len(lines) // _SAMPLE, len(lines) ** 2 // _PAIRS, 1)]
    found = shapely.STRtree(lines).query(sample, predicate="intersects").shape[1]
    return max(found / len(sample) - 3, 0) * len(lines) / 2
