"""Draw polygons (outlines of cells) on a region's pixels: a scanline with the even-odd rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from .canvas import EPSILON_PX, Canvas, UnitError

__all__ = ["PolygonLayer"]


@dataclass(frozen=True)
class PolygonLayer:
    """Units with outlines of their own, which may overlap.

    A unit is a set of rings, closed without repeating the first vertex; a point is inside where a ray from it crosses
    them an odd number of times (even-odd), so rings inside rings are holes and several parts are allowed.

    Attributes:
        centers_um: (U, 2), (x, y) in micrometres from the slide's corner.
        shape: `polygon`.
        size_um: a typical diameter; not used for drawing.
        areas_um2: (U,), area of each unit.
        vertices_px: (V, 2), (x, y) of all rings' vertices, in units of `vertex_mpp`.
        vertex_mpp: micrometres per unit of `vertices_px`.
        ring_offsets: (R + 1,), where each ring starts among the vertices.
        unit_offsets: (U + 1,), where each unit starts among the rings.
    """

    centers_um: np.ndarray
    shape: Literal["polygon"]
    size_um: float
    areas_um2: np.ndarray
    vertices_px: np.ndarray
    vertex_mpp: float
    ring_offsets: np.ndarray
    unit_offsets: np.ndarray

    def check(self, number: int) -> None:
        """Refuse a malformed layer.

        Raises:
            UnitError: if offsets and vertices do not fit each other, or a ring has fewer than three vertices.
        """
        n, rings, units = len(self.centers_um), self.ring_offsets, self.unit_offsets
        if len(self.areas_um2) != n:
            raise UnitError(f"Layer {number}: areas_um2 has {len(self.areas_um2)} entries for {n} units.")
        fits = len(units) == n + 1 and units[0] == 0 and units[-1] == len(rings) - 1 and (np.diff(units) > 0).all()
        if not fits or rings[0] != 0 or rings[-1] != len(self.vertices_px) or (np.diff(rings) < 3).any():
            raise UnitError(
                f"Layer {number}: unit_offsets (U + 1) must cut the rings into units and ring_offsets (R + 1) the "
                "vertices into rings of at least 3."
            )

    def contained(self, canvas: Canvas) -> np.ndarray:
        """Which units lie wholly inside the region, bool (U,)."""
        low, high = self._bounds(np.asarray(self.vertices_px, dtype=np.float64) * self.vertex_mpp)
        return canvas.contains(low, high)

    def cover(self, canvas: Canvas) -> tuple[np.ndarray, np.ndarray]:
        """The pixels of each unit by itself: places in the flat drawing, and whose they are.

        Those whose centre lies in it. A unit that covers no pixel centre anywhere has the pixel of its own centre.
        """
        n_units = len(self.centers_um)
        if n_units == 0:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        # Pixel centres become whole numbers, and lie EPSILON inside, so that rounding decides no edge.
        point = canvas.to_px(np.asarray(self.vertices_px, dtype=np.float64) * self.vertex_mpp) - (0.5 + EPSILON_PX)
        low, high = self._bounds(point)
        near = np.all((high > canvas.corner_px - 1) & (low < canvas.far_px), axis=1)
        first, end = int(canvas.corner_px[1]), int(canvas.far_px[1])
        unit, row, start, stop = self._spans(point, near, first, end)
        covers = np.zeros(n_units, dtype=bool)
        covers[unit] = True
        # A unit whose centre lies on the canvas may cover pixels in other rows alone.
        unsure = near & ~covers & ((low[:, 1] < first) | (high[:, 1] > end))
        unsure &= canvas.holds(np.floor(canvas.to_px(self.centers_um)).astype(np.int64))
        if unsure.any():
            lowest, highest = np.floor(low[unsure, 1].min()), np.ceil(high[unsure, 1].max())
            covers[self._spans(point, unsure, int(lowest), int(highest))[0]] = True

        start, stop = np.maximum(start, canvas.corner_px[0]), np.minimum(stop, canvas.far_px[0])
        seen = (row >= canvas.corner_px[1]) & (row < canvas.far_px[1]) & (stop > start)
        unit, start, length = unit[seen], canvas.pixel(start[seen], row[seen]), (stop - start)[seen]
        ramp = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
        places, units = np.repeat(start, length) + ramp, np.repeat(unit, length)
        home, lost = canvas.at_home(np.flatnonzero(near & ~covers), canvas.to_px(self.centers_um))
        return np.concatenate([places, home]), np.concatenate([units, lost])

    def _bounds(self, point: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Each unit's rectangle, (low, high), both (U, 2)."""
        if len(self.centers_um) == 0:
            return np.zeros((0, 2)), np.zeros((0, 2))
        first = np.asarray(self.ring_offsets)[self.unit_offsets[:-1]]
        return np.minimum.reduceat(point, first), np.maximum.reduceat(point, first)

    def _spans(
        self, point: np.ndarray, chosen: np.ndarray, first: int, end: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """What chosen units cover in rows `first` to `end`, without `end`: unit, row, and columns `start` to `stop`."""
        unit, row, column = self._crossings(point, chosen, first, end)
        # Sorted crossings of one row pair up into the spans between them; there is always an even number.
        left = int(column.min(initial=0))
        width = int(column.max(initial=0)) - left + 1
        rank = np.cumsum(chosen) - 1
        key = np.sort((rank[unit] * (end - first) + row - first) * width + column - left)
        slot, start = np.divmod(key[0::2], width)
        start, stop = start + left, key[1::2] % width + left
        wide = stop > start
        place, row = np.divmod(slot[wide], end - first)
        return np.flatnonzero(chosen)[place], row + first, start[wide], stop[wide]

    def _crossings(
        self, point: np.ndarray, chosen: np.ndarray, first: int, end: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Where edges of chosen units cross rows of pixel centres: unit, row, and the first pixel right of the edge."""
        rings = np.asarray(self.ring_offsets)
        following = np.arange(1, len(point) + 1)
        following[rings[1:] - 1] = rings[:-1]
        owner = np.repeat(np.arange(len(chosen)), np.diff(rings[self.unit_offsets]))
        line = np.clip(np.ceil(point[:, 1]), first, end).astype(np.int64)
        edge = np.flatnonzero(chosen[owner] & (line != line[following]))
        a, b = edge, following[edge]
        a, b = np.where(line[a] < line[b], a, b), np.where(line[a] < line[b], b, a)  # upwards, whichever way it is told
        count = line[b] - line[a]
        row = np.repeat(line[a] - (np.cumsum(count) - count), count) + np.arange(count.sum())
        slope = (point[b, 0] - point[a, 0]) / (point[b, 1] - point[a, 1])
        x = np.repeat(point[a, 0], count) + (row - np.repeat(point[a, 1], count)) * np.repeat(slope, count)
        return np.repeat(owner[edge], count), row, np.ceil(x).astype(np.int64)
