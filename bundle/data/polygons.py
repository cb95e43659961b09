"""Units that are not all alike: the outline of each as a polygon, or as the pixels of a label image."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

__all__ = ["LabelSource", "Labels", "Outlines", "take_ragged"]


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
class Outlines:
    """Polygons of units as one array of vertices and offsets into it.

    A unit is one or more rings, not closed by a repeated vertex; a point is inside where a ray from it crosses them an
    odd number of times. Outer rings run one way round and holes the other, so that signed areas add up; rings must not
    cross themselves or each other for the areas to be true.

    Attributes:
        vertices_px: (x, y) in level-0 pixels, a pixel's corner being 0, float32 (V, 2): to 1/128 px on a slide of
            100,000.
        ring_offsets: where each ring starts among the vertices, int64 (R + 1,).
        unit_offsets: where each unit starts among the rings, int64 (U + 1,).
    """

    vertices_px: np.ndarray
    ring_offsets: np.ndarray
    unit_offsets: np.ndarray

    @classmethod
    def of_rings(
        cls, vertices_px: np.ndarray, ring_offsets: np.ndarray, unit_offsets: np.ndarray, hole: np.ndarray
    ) -> Outlines:
        """Outlines of rings that run either way round.

        Args:
            vertices_px: (V, 2).
            ring_offsets: (R + 1,).
            unit_offsets: (U + 1,).
            hole: which rings are holes, bool (R,).
        """
        vertices = np.asarray(vertices_px, dtype=np.float32).reshape(-1, 2)
        rings = np.asarray(ring_offsets, dtype=np.int64)
        each = cls(vertices, rings, np.arange(len(rings)))
        turned = np.repeat((each._sums[0] > 0) == np.asarray(hole, dtype=bool), np.diff(rings))
        place = np.arange(len(vertices))
        back = np.repeat(rings[:-1] + rings[1:] - 1, np.diff(rings)) - place
        return cls(vertices[np.where(turned, back, place)], rings, np.asarray(unit_offsets, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.unit_offsets) - 1

    def take(self, index: np.ndarray) -> Outlines:
        """The units at `index` (integers or a boolean mask)."""
        rings, unit_offsets = take_ragged(self.unit_offsets, index)
        vertices, ring_offsets = take_ragged(self.ring_offsets, rings)
        return Outlines(self.vertices_px[vertices], ring_offsets, unit_offsets)

    @cached_property
    def areas_px2(self) -> np.ndarray:
        """Area of each unit, holes taken off, (U,)."""
        return np.abs(self._sums[0])

    @cached_property
    def centroids_px(self) -> np.ndarray:
        """Centroid (x, y) of each unit, (U, 2); it need not lie inside."""
        return self._sums[1]

    @cached_property
    def reach_px(self) -> np.ndarray:
        """Largest distance along x or y from the centroid to the outline, (U,)."""
        if len(self) == 0:
            return np.zeros(0)
        first = self._first
        low, high = np.minimum.reduceat(self.vertices_px, first), np.maximum.reduceat(self.vertices_px, first)
        return np.maximum(self.centroids_px - low, high - self.centroids_px).max(axis=1)

    def layer(self, mpp: float) -> dict[str, Any]:
        """What a layer of them holds beside centres, shape and size (see `layer_of`)."""
        return {
            "areas_um2": self.areas_px2 * mpp**2,
            "vertices_px": self.vertices_px,
            "vertex_mpp": mpp,
            "ring_offsets": self.ring_offsets,
            "unit_offsets": self.unit_offsets,
        }

    @property
    def _first(self) -> np.ndarray:
        """Each unit's first vertex."""
        return self.ring_offsets[self.unit_offsets[:-1]]

    @cached_property
    def _sums(self) -> tuple[np.ndarray, np.ndarray]:
        """Signed area and centroid of each unit (the shoelace formula)."""
        if len(self) == 0:
            return np.zeros(0), np.zeros((0, 2))
        first = self._first
        count = np.diff(np.append(first, len(self.vertices_px)))
        anchor = self.vertices_px[first].astype(np.float64)  # differences stay exact far from the slide's corner
        here = self.vertices_px - np.repeat(anchor, count, axis=0)
        following = np.arange(1, len(here) + 1)
        following[self.ring_offsets[1:] - 1] = self.ring_offsets[:-1]
        there = here[following]
        cross = here[:, 0] * there[:, 1] - there[:, 0] * here[:, 1]
        area2 = np.add.reduceat(cross, first)
        moment = np.add.reduceat((here + there) * cross[:, None], first)
        low, high = np.minimum.reduceat(here, first), np.maximum.reduceat(here, first)
        with np.errstate(divide="ignore", invalid="ignore"):
            inner = moment / (3 * area2[:, None])
        # A unit whose area cancels (a ring that crosses itself) has its rectangle's middle for a centre.
        sound = ((inner >= low) & (inner <= high)).all(axis=1, keepdims=True)
        return area2 / 2, anchor + np.where(sound, inner, (low + high) / 2)


class LabelSource(Protocol):
    """What this package asks of a label image (`transforms.LabelImage` is one)."""

    size_px: tuple[int, int]

    def measure(self) -> dict[str, np.ndarray]:
        """`ids` (U,), `pixels` (U,), and in label pixels `center`, `low`, `high`, all (U, 2) as (x, y)."""


@dataclass(frozen=True)
class Labels:
    """Units as the pixels of a label image that hold one value.

    Attributes:
        image: the open label image, read region by region when it is drawn.
        ids: each unit's value, uint64 (U,).
        pixel_px: (x, y), level-0 pixels per label pixel.
        areas_px2: area of each unit in level-0 pixels, (U,).
        reach_px: largest distance along x or y from its centre to its outline in level-0 pixels, (U,).
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
        """What a layer of them holds beside centres, shape and size (see `layer_of`)."""
        return {
            "areas_um2": self.areas_px2 * mpp**2,
            "reach_um": self.reach_px * mpp,
            "ids": self.ids,
            "image": self.image,
            "pixel_um": (self.pixel_px[0] * mpp, self.pixel_px[1] * mpp),
        }
