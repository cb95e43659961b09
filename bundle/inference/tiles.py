"""Where tiles lie so that the network's windows fall on the same pixels whatever their size."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Tile", "block_px", "default_tile_px", "margin_px", "tile_grid"]

#: Pixels computed over pixels needed that the default tile is sized for.
_HALO_OVERHEAD = 1.6
#: A block of the map on disk has at least this many map pixels a side.
_BLOCK_PIXELS = 64


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


def margin_px(grid_px: int, halo_px: int, stride: int) -> int:
    """What is read around a core: the halo and one map pixel more (for bilinear sampling), in whole grid steps."""
    return math.ceil((halo_px + stride) / grid_px) * grid_px


def block_px(grid_px: int, stride: int) -> int:
    """Side of a block of the map in working pixels: whole grid steps, at least 64 map pixels."""
    return math.ceil(_BLOCK_PIXELS * stride / grid_px) * grid_px


def default_tile_px(grid_px: int, halo_px: int, stride: int) -> int:
    """The smallest tile, in whole blocks, whose margin costs at most 60 % more pixels: (T + 2m)² <= 1.6 T²."""
    block = block_px(grid_px, stride)
    smallest = 2 * margin_px(grid_px, halo_px, stride) / (math.sqrt(_HALO_OVERHEAD) - 1)
    return math.ceil(smallest / block) * block


def tile_grid(
    low_px: tuple[float, float],
    high_px: tuple[float, float],
    *,
    tile_px: int,
    grid_px: int,
    halo_px: int,
    stride: int,
    align_px: int | None = None,
) -> Iterator[Tile]:
    """Tiles that cover [low, high), on a grid fixed to the slide's origin, row by row.

    Origins and sizes are multiples of `align_px` (itself a multiple of `grid_px`, its default), and the margin of
    `grid_px`: so tiled equals untiled. The last tile of a row or column is what is left.
    """
    align_px = grid_px if align_px is None else align_px
    margin = margin_px(grid_px, halo_px, stride)
    start = [math.floor(v / align_px) * align_px for v in low_px]
    stop = [max(math.ceil(v / align_px) * align_px, s + align_px) for v, s in zip(high_px, start, strict=True)]
    step = max(round(tile_px / align_px), 1) * align_px
    for y in range(start[1], stop[1], step):
        for x in range(start[0], stop[0], step):
            yield Tile(x, y, min(step, stop[0] - x), min(step, stop[1] - y), margin)
