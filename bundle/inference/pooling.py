"""Answer for given units from a map on disk, a block of the map at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

from ..data.units import Units
from .accumulate import UnitAccumulator
from .dense_map import DenseMap
from .threads import keep_to_cores
from .tiles import Tile

__all__ = ["pool_units"]

_BLOCK_CELLS = 256  # side of the block of the map whose units are answered for together
_WINDOW_CELLS = 512  # side of what is read at once; a larger unit is summed over several
_THREADS = 2  # blocks answered for at the same time: drawing and sparse sums use one core each


def pool_units(
    dense: DenseMap, units: Units, slide_mpp: float, rasterize: Callable[..., Any]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Mean features of units, block by block of the map in a fixed order.

    Args:
        dense: the map, computed wherever a unit reaches.
        units: the units.
        slide_mpp: micrometres per level-0 pixel of their slide.
        rasterize: see `UnitAccumulator`.

    Yields:
        Indices of some units, and their features, float32 (n, C).
    """
    side_um = _BLOCK_CELLS * dense.resolution_um
    block = np.floor(units.centers_px * slide_mpp / side_um).astype(np.int64)
    order = np.lexsort((block[:, 0], block[:, 1]))
    ends = np.flatnonzero(np.diff(block[order], axis=0).any(1)) + 1
    blocks = [index for index in np.split(order, ends) if len(index)]
    with ThreadPoolExecutor(_THREADS, initializer=keep_to_cores) as pool:
        ahead = deque[Future]()
        for number, index in enumerate(blocks):
            following = blocks[number + len(ahead) : number + 1 + _THREADS]
            ahead.extend(pool.submit(_pool_block, dense, units.take(i), slide_mpp, rasterize) for i in following)
            yield index, ahead.popleft().result()


def _pool_block(dense: DenseMap, units: Units, slide_mpp: float, rasterize: Callable[..., Any]) -> np.ndarray:
    pool = UnitAccumulator(units, slide_mpp, dense.mpp, dense.stride, rasterize)
    low, high = pool.bounds_px
    x0, y0 = (int(np.floor(v / dense.stride)) for v in low)
    x1, y1 = (int(np.floor(v / dense.stride)) + 1 for v in high)
    for y in range(y0, y1, _WINDOW_CELLS):
        for x in range(x0, x1, _WINDOW_CELLS):
            width, height = min(_WINDOW_CELLS, x1 - x), min(_WINDOW_CELLS, y1 - y)
            tile = Tile(*(v * dense.stride for v in (x, y, width, height, 1)))
            if len(pool.touching(tile)) == 0:
                continue
            cells = dense.read(x - 1, y - 1, width + 2, height + 2)
            pool.add(tile, torch.from_numpy(cells).permute(2, 0, 1)[None])
    return pool.pooled().numpy()
