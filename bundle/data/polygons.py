"""Units that are not all alike: the shape of each as a polygon, or as the pixels of a label image."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np
import shapely

__all__ = ["POLYGON_ARRAYS", "LabelSource", "Labels", "Polygons", "take_ragged"]


def take_ragged(offsets: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Select groups of a ragged array.

    Args:
        offsets: where each group starts, (N + 1,).
        index: which groups, integers or a boolean mask.

    Returns:
        Positions of their members, and their own offsets.
    """
    offsets = np.asarray(offsets)
    start, length = offsets[:-1][index], np.diff(offsets)[index]
    taken = np.concatenate([[0], np.cumsum(length)])
    return np.repeat(start - taken[:-1], length) + np.arange(taken[-1]), taken


@dataclass(frozen=True)
class Polygons:
    """Polygons of units as one array of vertices and offsets into it.

    A unit is one or more rings, not closed by a repeated vertex. A point is inside where a ray from it crosses them an
    odd number of times.

    Attributes:
        vertices_px: (x, y) in level-0 pixels, a pixel's corner being 0, float32 (V, 2): to 1/128 px on a slide of
            100,000.
        ring_offsets: where each ring starts among the vertices, int64 (R + 1,).
        unit_offsets: where each unit starts among the rings, int64 (U + 1,).
        areas_px2: area of each unit, holes taken off, (U,).
        centroids_px: centroid (x, y) of each unit, (U, 2); it need not lie inside.
        reach_px: largest distance along x or y from the centroid to the polygon's edge, (U,).
    """

    vertices_px: np.ndarray
    ring_offsets: np.ndarray
    unit_offsets: np.ndarray
    areas_px2: np.ndarray
    centroids_px: np.ndarray
    reach_px: np.ndarray

    @classmethod
    def of_shapes(cls, shapes: np.ndarray) -> Polygons:
        """From polygons and multipolygons of shapely, (U,), that are simple and not empty."""
        shapes = np.asarray(shapes, dtype=object)
        if len(shapes) == 0:
            none = np.zeros(0)
            offsets = np.zeros(1, np.int64)
            return cls(np.zeros((0, 2), np.float32), offsets, offsets, none, np.zeros((0, 2)), none)
        parts, owner = shapely.get_parts(shapes, return_index=True)
        whole = shapely.multipolygons(parts, indices=owner)
        _, vertices, (rings, pieces, units) = shapely.to_ragged_array(whole)
        open_rings = np.delete(vertices, rings[1:] - 1, axis=0)  # without the first point, repeated at the end
        centroids = shapely.get_coordinates(shapely.centroid(whole))
        bounds = shapely.bounds(whole)
        return cls(
            open_rings.astype(np.float32),
            rings - np.arange(len(rings)),
            pieces[units],
            shapely.area(whole),
            centroids,
            np.maximum(centroids - bounds[:, :2], bounds[:, 2:] - centroids).max(axis=1),
        )

    def __len__(self) -> int:
        return len(self.unit_offsets) - 1

    def take(self, index: np.ndarray) -> Polygons:
        """The units at `index` (integers or a boolean mask)."""
        rings, unit_offsets = take_ragged(self.unit_offsets, index)
        vertices, ring_offsets = take_ragged(self.ring_offsets, rings)
        return Polygons(
            self.vertices_px[vertices],
            ring_offsets,
            unit_offsets,
            self.areas_px2[index],
            self.centroids_px[index],
            self.reach_px[index],
        )

    def layer(self, mpp: float) -> dict[str, Any]:
        """What a layer of them holds besides centres, shape and size (see `layer_of`)."""
        return {
            "areas_um2": self.areas_px2 * mpp**2,
            "vertices_px": self.vertices_px,
            "vertex_mpp": mpp,
            "ring_offsets": self.ring_offsets,
            "unit_offsets": self.unit_offsets,
        }


class LabelSource(Protocol):
    """What this package asks of a label image (`transforms.LabelImage` is one)."""

    size_px: tuple[int, int]

    def measure(self) -> dict[str, np.ndarray]:
        """`ids` (U,), `pixels` (U,), and in label pixels `center`, `low`, `high`, all (U, 2) as (x, y)."""


#: The arrays that polygons are made of, by which files keep them.
POLYGON_ARRAYS = tuple(field.name for field in fields(Polygons))


@dataclass(frozen=True)
class Labels:
    """Units as the pixels of a label image that hold one value.

    Attributes:
        image: the open label image, read region by region when it is drawn.
        ids: each unit's value, uint64 (U,).
        pixel_px: (x, y), level-0 pixels per label pixel.
        areas_px2: area of each unit in level-0 pixels, (U,).
        reach_px: largest distance along x or y from its centre to its edge in level-0 pixels, (U,).
    """

    image: LabelSource
    ids: np.ndarray
    pixel_px: tuple[float, float]
    areas_px2: np.ndarray
    reach_px: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, index: np.ndarray) -> Labels:
        """The units at `index` (integers or a boolean mask)."""
        return Labels(self.image, self.ids[index], self.pixel_px, self.areas_px2[index], self.reach_px[index])

    def layer(self, mpp: float) -> dict[str, Any]:
        """What a layer of them holds besides centres, shape and size (see `layer_of`)."""
        return {
            "areas_um2": self.areas_px2 * mpp**2,
            "reach_um": self.reach_px * mpp,
            "ids": self.ids,
            "image": self.image,
            "pixel_um": (self.pixel_px[0] * mpp, self.pixel_px[1] * mpp),
        }
