"""Where tiles lie so that the network's windows fall on the same pixels whatever their size."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Tile", "tile_grid"]


@dataclass(frozen=True)
class Tile:
    """A core whose map is kept, and the margin read around it; all in working pixels."""

    x_px: int
    y_px: int
    width_px: int
    height_px: int
    margin_px: int

    @property
    def region(self) -> tuple[int, int, int, int]:
        """What to read: the core with its margin, (x, y, width, height)."""
        m = self.margin_px
        return self.x_px - m, self.y_px - m, self.width_px + 2 * m, self.height_px + 2 * m


def tile_grid(
    low_px: tuple[float, float],
    high_px: tuple[float, float],
    *,
    tile_px: int,
    grid_px: int,
    halo_px: int,
    stride: int,
) -> Iterator[Tile]:
    """Tiles that cover [low, high), on a grid fixed to the slide's origin.

    Origins and sizes are multiples of `grid_px`, the margin is the halo and one map pixel more (for bilinear
    sampling across a core's edge), rounded up to the grid: so tiled equals untiled.
    """
    margin = math.ceil((halo_px + stride) / grid_px) * grid_px
    start = [math.floor(v / grid_px) * grid_px for v in low_px]
    stop = [max(math.ceil(v / grid_px) * grid_px, s + grid_px) for v, s in zip(high_px, start, strict=True)]
    step = max(round(tile_px / grid_px), 1) * grid_px
    for y in range(start[1], stop[1], step):
        for x in range(start[0], stop[0], step):
            yield Tile(x, y, min(step, stop[0] - x), min(step, stop[1] - y), margin)
