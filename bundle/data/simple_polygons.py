"""Outlines as simple polygons: rings that cross are resolved, what is off the slide is cut off.

A point lies inside an outline where a ray from it crosses its rings an odd number of times, as they are drawn.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import shapely

from ..errors import InputError, short
from .polygons import Outlines

__all__ = ["clip", "simple", "to_outlines", "to_shapes"]

#: Crossings of one outline, and of all of a file, that are resolved, in some seconds each.
MAX_CROSSINGS, MAX_ALL_CROSSINGS = 2_000, 20_000
#: Edges of one outline that crosses itself.
MAX_CROSSED_EDGES = 100_000
#: Edges of an outline whose crossings are counted; those of longer ones are estimated.
_SAMPLE, _PAIRS = 500, 2**24
_POINTS_AT_ONCE = 2**22


def to_shapes(
    vertices_px: np.ndarray, ring_offsets: Sequence[int], part_offsets: Sequence[int], unit_offsets: Sequence[int]
) -> np.ndarray:
    """Multipolygons of a ragged array, an object array (U,).

    Args:
        vertices_px: (x, y) of all rings, float64 (V, 2), the first of a ring repeated at its end.
        ring_offsets: where each ring starts among the vertices, (R + 1,).
        part_offsets: where each part starts among the rings, an outer ring and its holes, (P + 1,).
        unit_offsets: where each unit starts among the parts, (U + 1,).
    """
    offsets = tuple(np.asarray(o, dtype=np.int64) for o in (ring_offsets, part_offsets, unit_offsets))
    return shapely.from_ragged_array(shapely.GeometryType.MULTIPOLYGON, vertices_px, offsets)


def to_outlines(shapes: np.ndarray) -> Outlines:
    """Outlines of polygons and multipolygons that are simple and not empty."""
    if len(shapes) == 0:
        none = np.zeros(1, np.int64)
        return Outlines(np.zeros((0, 2), np.float32), none, none)
    parts, owner = shapely.get_parts(shapes, return_index=True)
    _, vertices, (rings, parts, units) = shapely.to_ragged_array(shapely.multipolygons(parts, owner))
    hole = np.ones(len(rings) - 1, bool)
    hole[parts[:-1]] = False
    last = np.zeros(len(vertices), bool)
    last[rings[1:] - 1] = True  # the repeated first point
    return Outlines.of_rings(vertices[~last], rings - np.arange(len(rings)), parts[units], hole)


def simple(
    shapes: np.ndarray, names: Sequence[str], where: str, most_in_all: int = MAX_ALL_CROSSINGS
) -> tuple[np.ndarray, int]:
    """The same areas as polygons whose rings do not cross, and how many had to be resolved.

    Args:
        shapes: polygons and multipolygons, (U,).
        names: what each is called, for messages.
        where: the file, for messages.
        most_in_all: crossings of all outlines together.

    Raises:
        InputError: if an outline crosses itself too often for a cell's, or all of a file do.
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
                f'{where}: the outline of "{short(names[i])}" has {len(edges):,} points and crosses itself about '
                f"{found:,.0f} times, which no cell's does. Draw it anew, or leave it out."
            )
        shapes[i] = _even_odd(shapes[i], edges)
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
    """What of an intersection has an area: where an outline touches the edge there are points and lines too."""
    parts = shapely.get_parts(shape)
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


def _even_odd(shape: shapely.Geometry, edges: np.ndarray) -> shapely.Geometry:
    """The faces between the edges that lie inside by the even-odd rule."""
    if len(edges) == 0:
        return shapely.MultiPolygon()
    faces = shapely.get_parts(shapely.polygonize([shapely.node(shapely.multilinestrings(shapely.linestrings(edges)))]))
    points = shapely.get_coordinates(shapely.point_on_surface(faces))
    inside = [np.zeros(0, bool)]
    for some in np.array_split(points, max(len(points) * len(edges) // _POINTS_AT_ONCE, 1)):
        inside.append(_inside(some, edges))
    return _areas_of(shapely.union_all(faces[np.concatenate(inside)]))


def _inside(points: np.ndarray, edges: np.ndarray) -> np.ndarray:
    x, y = points[:, :1], points[:, 1:]
    (x0, y0), (x1, y1) = edges[:, 0].T, edges[:, 1].T
    with np.errstate(divide="ignore", invalid="ignore"):
        right = x < x0 + (y - y0) * (x1 - x0) / (y1 - y0)
    return (((y0 > y) != (y1 > y)) & right).sum(1) % 2 == 1
