"""A region's pixels on the slide's grid, and which of several units owns one: what all shapes are drawn with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["EPSILON_PX", "Canvas", "UnitError"]

EPSILON_PX = 1e-6  # edges closer than this to a pixel's centre count as on it, so neighbours agree on who owns it
MARGIN_PX = 1  # drawn around the region: a unit small enough to lose all its pixels covers none further away


class UnitError(ValueError):
    """Units that cannot be drawn, told in a sentence: what is wrong, where, and what to do."""

    for_user = True  # the command line prints the sentence alone


class Canvas:
    """The pixels of a region and a margin around them, by their place on the slide-global grid.

    Whole pixels of the origin are taken off as integers, so a pixel's test is the same numbers in every region.

    Args:
        size_px: (height, width) of the region.
        origin_um: (x, y) of the region's corner.
        mpp: micrometres per pixel.

    Attributes:
        low_px: first column and row of the region, int64 (x, y).
        high_px: the ones beyond its last.
        corner_px: first column and row drawn, margin included.
        far_px: the ones beyond the last drawn.
        fraction_px: the grid's own offset, (x, y) below one pixel.
    """

    def __init__(self, size_px: Sequence[int], origin_um: Sequence[float], mpp: float) -> None:
        origin_px = np.round(np.asarray(origin_um, dtype=np.float64) / mpp, 6)
        self.mpp = float(mpp)
        self.low_px = np.floor(origin_px).astype(np.int64)
        self.high_px = self.low_px + np.array(size_px[::-1], dtype=np.int64)
        self.fraction_px = origin_px - self.low_px
        self.corner_px, self.far_px = self.low_px - MARGIN_PX, self.high_px + MARGIN_PX
        self.width, self.height = (int(v) for v in self.far_px - self.corner_px)

    def to_px(self, points_um: np.ndarray) -> np.ndarray:
        """Points (x, y) in pixels of the grid, float64 (N, 2); a pixel's corner is a whole number."""
        return points_um / self.mpp - self.fraction_px

    def pixel(self, column: np.ndarray, row: np.ndarray) -> np.ndarray:
        """Place of pixels in the flat drawing."""
        return (row - self.corner_px[1]) * self.width + column - self.corner_px[0]

    def holds(self, home: np.ndarray) -> np.ndarray:
        """Whether pixels (x, y) lie in the region proper, bool (N,)."""
        return np.all((home >= self.low_px) & (home < self.high_px), axis=1)

    def settle(self, pixel: np.ndarray, unit: np.ndarray, center_px: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Give every claimed pixel to the claimant with the nearest centre, the first of equals.

        Args:
            pixel: places in the flat drawing, (N,).
            unit: who claims each, (N,).
            center_px: centres of all units on the grid, (U, 2).

        Returns:
            The flat drawing, unit + 1 or 0, int64; and pairs of units that claimed one pixel, (P, 2).
        """
        drawn = np.zeros(self.height * self.width, dtype=np.int64)
        drawn[pixel] = unit + 1
        beaten = drawn[pixel] != unit + 1
        rivals = np.stack([unit[beaten], drawn[pixel[beaten]] - 1], axis=1)
        if beaten.any():
            contested = np.zeros(drawn.shape, dtype=bool)
            contested[pixel[beaten]] = True
            shared = np.flatnonzero(contested[pixel])
            row, column = np.divmod(pixel[shared], self.width)
            at = np.stack([column, row], axis=1) + self.corner_px
            distance2 = ((at + 0.5 - center_px[unit[shared]]) ** 2).sum(axis=1)
            order = shared[np.lexsort((-unit[shared], -distance2))]  # the nearest last, so that it stays
            drawn[pixel[order]] = unit[order] + 1
        return drawn, rivals

    def place(self, drawn: np.ndarray, unit: np.ndarray, home: np.ndarray) -> None:
        """Give units that cover no pixel centre the pixel of their own centre, where that is free.

        Args:
            drawn: the flat drawing, changed in place.
            unit: such units whose home is in the region, ascending.
            home: their pixels (x, y), (N, 2).
        """
        target = self.pixel(home[:, 0], home[:, 1])
        free = np.flatnonzero(drawn[target] == 0)[::-1]  # the first of two that want one pixel is written last
        drawn[target[free]] = unit[free] + 1

    def region(self, drawn: np.ndarray) -> np.ndarray:
        """The drawing without its margin, (height, width)."""
        return drawn.reshape(self.height, self.width)[MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX]

    def contains(self, low_um: np.ndarray, high_um: np.ndarray) -> np.ndarray:
        """Which rectangles (x, y) lie wholly inside the region, bool (N,)."""
        low, high = self.to_px(low_um) - self.low_px, self.to_px(high_um) - self.low_px
        return np.all((low >= -EPSILON_PX) & (high <= self.high_px - self.low_px + EPSILON_PX), axis=1)
