"""The second verb: mean features of units. Any units are drawn; a lattice takes a faster way to the same values."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
import torch

from ..data.units import Units
from ..speed.lattice_pooling import pool_band
from ..speed.threads import keep_to_cores
from .dense_map import DenseMap
from .lattices import Band
from .tiles import Tile
from .unit_sums import UnitSums

__all__ = ["FeatureMap", "pool"]

_THREADS = 2  # groups pooled at the same time: drawing and sparse sums use one core each


class FeatureMap(Protocol):
    """A slide's map, on disk (`DenseMap`) or computed while it is pooled (`TileStream`).

    Attributes:
        slide_mpp: micrometres per level-0 pixel.
        mpp: micrometres per working pixel.
        stride: working pixels per map pixel.
        channels: features at each map pixel, C.
        group_pixels: units of one square of so many map pixels are pooled together; None for all at once.
    """

    slide_mpp: float
    mpp: float
    stride: int
    channels: int
    group_pixels: int | None

    def windows(
        self, low_px: Sequence[float], high_px: Sequence[float], wanted: Callable[[Tile], bool]
    ) -> Iterator[tuple[Tile, torch.Tensor]]:
        """The map over [low, high) working pixels in pieces that do not overlap, those that are wanted alone.

        Yields:
            A tile with a margin of one map pixel at least, and its map, margin included, (1, C, h, w).
        """


def pool(
    dense: FeatureMap,
    units: Units | Band,
    rasterize: Any = None,
    *,
    dtype: Any = np.float32,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Mean features of units: each averages the working pixels whose centres lie in it.

    A unit smaller than a map pixel is sampled bilinearly at its centre instead.

    Args:
        dense: the slide's map.
        units: U units in any arrangement, or a band of a lattice on a map on disk, whose pooling is arithmetic.
        rasterize: its `pixels` says which pixels of a region each unit covers (`transforms.RasterizeUnits` is one);
            for units in any arrangement.
        dtype: of the result, float32 or float16.
        out: (U, C), to write into, such as a file's memory map; for units in any arrangement.

    Returns:
        (U, C) in the order of the units.
    """
    if isinstance(units, Band):
        assert isinstance(dense, DenseMap)
        return pool_band(dense, units, half=dtype == np.float16)
    found = np.empty((len(units), dense.channels), dtype) if out is None else out
    groups = _groups(dense, units)
    if len(groups) == 1:
        found[:] = _pool_group(dense, units, rasterize)
        return found
    with ThreadPoolExecutor(_THREADS, initializer=keep_to_cores) as threads:
        ahead = deque[Future]()
        for number, index in enumerate(groups):
            for following in groups[number + len(ahead) : number + 1 + _THREADS]:
                ahead.append(threads.submit(_pool_group, dense, units.take(following), rasterize))
            found[index] = ahead.popleft().result()
    return found


def _groups(dense: FeatureMap, units: Units) -> list[np.ndarray]:
    """Indices of the units that are pooled together: neighbours, in a fixed order."""
    if dense.group_pixels is None:
        return [np.arange(len(units))] if len(units) else []
    side_um = dense.group_pixels * dense.stride * dense.mpp
    square = np.floor(units.centers_px * dense.slide_mpp / side_um).astype(np.int64)
    order = np.lexsort((square[:, 0], square[:, 1]))
    ends = np.flatnonzero(np.diff(square[order], axis=0).any(1)) + 1
    return [index for index in np.split(order, ends) if len(index)]


def _pool_group(dense: FeatureMap, units: Units, rasterize: Any) -> np.ndarray:
    sums = UnitSums(units, dense.slide_mpp, dense.mpp, dense.stride, rasterize)
    for tile, features in dense.windows(*sums.bounds_px, wanted=lambda tile: len(sums.touching(tile)) > 0):
        sums.add(tile, features)
    return sums.means()
