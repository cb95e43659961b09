"""A region's pixels on the slide's grid: what all shapes are drawn with."""

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

    def at_home(self, unit: np.ndarray, center_px: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The pixel of its own centre for each unit that covers no pixel centre, where that is in the region.

        Args:
            unit: such units, ascending.
            center_px: centres of all units on the grid, (U, 2).

        Returns:
            Places in the flat drawing, and whose they are.
        """
        home = np.floor(center_px[unit]).astype(np.int64)
        held = self.holds(home)
        return self.pixel(home[held, 0], home[held, 1]), unit[held]

    def draw(self, pixel: np.ndarray, number: np.ndarray) -> np.ndarray:
        """Numbers at places in the flat drawing and 0 elsewhere, without the margin, int32 (height, width)."""
        drawn = np.zeros(self.height * self.width, dtype=np.int32)
        drawn[pixel] = number
        return self.region(drawn)

    def place(self, pixel: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Which places in the flat drawing lie in the region proper, bool (N,), and row and column of those."""
        row, column = np.divmod(pixel, self.width)
        row, column = row - MARGIN_PX, column - MARGIN_PX
        inside = (
            (row >= 0) & (column >= 0) & (row < self.height - 2 * MARGIN_PX) & (column < self.width - 2 * MARGIN_PX)
        )
        return inside, row[inside], column[inside]

    def region(self, drawn: np.ndarray) -> np.ndarray:
        """The drawing without its margin, (height, width)."""
        return drawn.reshape(self.height, self.width)[MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX]

    def contains(self, low_um: np.ndarray, high_um: np.ndarray) -> np.ndarray:
        """Which rectangles (x, y) lie wholly inside the region, bool (N,)."""
        low, high = self.to_px(low_um) - self.low_px, self.to_px(high_um) - self.low_px
        return np.all((low >= -EPSILON_PX) & (high <= self.high_px - self.low_px + EPSILON_PX), axis=1)
