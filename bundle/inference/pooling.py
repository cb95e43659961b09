"""Answer for units from a map on disk, a block of the map at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from ..units import Units
from .accumulate import UnitAccumulator
from .dense_map import DenseMap
from .grids import Band, GridUnits, empty_units
from .tiles import Tile

__all__ = ["pool_band", "pool_units"]

_BLOCK_CELLS = 256  # side of the block of the map whose units are answered for together
_WINDOW_CELLS = 512  # side of what is read at once; a larger unit is summed over several
_COLUMNS = 128  # bins of a row pooled by one matrix product


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
    for index in np.split(order, ends):
        if len(index):
            yield index, _pool_block(dense, units.take(index), slide_mpp, rasterize)


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


def pool_band(
    dense: DenseMap, units: GridUnits, band: Band, rasterize: Callable[..., Any], half: bool = False
) -> np.ndarray:
    """Mean features of a band's kept units, row by row, (n, C).

    Bins cover a rectangle of working pixels, so what they average is a product of a row's and a column's weights; so is
    bilinear sampling of units smaller than a map pixel. Larger disks are drawn.

    Args:
        dense: the map, computed wherever a unit reaches.
        units: the lattice.
        band: some of its rows.
        rasterize: see `UnitAccumulator`.
        half: round to half precision at once, which saves half of the time of millions of bins.
    """
    kept, channels = band.kept, dense.array.shape[0]
    dtype = torch.float16 if half else torch.float32
    if not kept.any():
        return torch.empty((0, channels), dtype=dtype).numpy()
    if units.shape == "circle" and not units.is_interpolated(dense.resolution_um):
        spots = _explicit(units, band)
        out = np.empty((len(spots), channels), np.float32)
        for index, features in pool_units(dense, spots, 1.0, rasterize):
            out[index] = features
        return out.astype(np.float16) if half else out
    lattice = torch.empty((*kept.shape, channels), dtype=dtype)
    phases = 2 if units.grid.lattice == "hex" else 1
    for phase in range(min(phases, len(band.rows))):  # every second row of a hex lattice has the same columns
        rows = slice(phase, None, phases)
        _fill(lattice[rows], dense, units, band.x_um[phase], band.y_um[rows], np.flatnonzero(kept[rows].any(0)))
    flat = lattice.numpy()
    return flat.reshape(-1, channels) if kept.all() else flat[kept]


def _fill(
    lattice: torch.Tensor, dense: DenseMap, units: GridUnits, x_um: np.ndarray, y_um: np.ndarray, columns: np.ndarray
) -> None:
    """Features of a rectangular lattice, (rows, columns, C), from the first to the last of the columns wanted."""
    if len(columns) == 0:
        return
    y_low, y_weight = _weights(y_um, units, dense)
    strip = dense.read_rows(y_low, y_weight.shape[1])
    rows = torch.from_numpy(y_weight) @ torch.from_numpy(strip.reshape(len(strip), -1))
    rows = rows.reshape(len(y_um), *strip.shape[1:])
    for first in range(columns[0], columns[-1] + 1, _COLUMNS):
        some = slice(first, min(first + _COLUMNS, columns[-1] + 1))
        x_low, x_weight = _weights(x_um[some], units, dense)
        cells = rows[:, torch.from_numpy(dense.column(np.arange(x_low, x_low + x_weight.shape[1])))]
        lattice[:, some] = torch.matmul(torch.from_numpy(x_weight), cells)


def _weights(center_um: np.ndarray, units: GridUnits, dense: DenseMap) -> tuple[int, np.ndarray]:
    """Weights of cells along one axis: the first cell, and float32 (units, cells)."""
    stride = dense.stride
    center = center_um / dense.mpp
    if units.is_interpolated(dense.resolution_um):
        at = center / stride - 0.5
        first = np.floor(at).astype(np.int64)
        entries = [(first, 1 - (at - first)), (first + 1, at - first)]
    else:
        # A pixel belongs to the bin that its centre lies in; see `transforms.RasterizeUnits`.
        half, epsilon = units.size_um / dense.mpp / 2, 1e-6
        start = np.ceil(center - half - 0.5 - epsilon).astype(np.int64)
        stop = np.ceil(center + half - 0.5 - epsilon).astype(np.int64)
        reach = (start // stride)[:, None] + np.arange(int((stop - start).max()) // stride + 2)
        overlap = np.minimum(stop[:, None], (reach + 1) * stride) - np.maximum(start[:, None], reach * stride)
        share = np.clip(overlap, 0, None) / (stop - start)[:, None]
        entries = [(reach[:, i], share[:, i]) for i in range(reach.shape[1])]
    low = int(min(cell.min() for cell, _ in entries))
    width = int(max(cell[weight > 0].max(initial=low) for cell, weight in entries)) - low + 1
    weights = np.zeros((len(center), width), np.float32)
    for cell, weight in entries:
        some = weight > 0
        weights[np.flatnonzero(some), cell[some] - low] += weight[some]
    return low, weights


def _explicit(units: GridUnits, band: Band) -> Units:
    centers_um = band.centers_um
    names = np.arange(len(centers_um)).astype(str)
    return empty_units(names, centers_um, units.shape, units.size_um, units.name)
