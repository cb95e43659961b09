"""Pool a lattice of units from a map on disk: which pixels a unit averages is arithmetic, so no mask is drawn.

`bundle.inference.pool` of the same units as a list is the plain twin; drawing takes tens of times as long for millions
of bins (`python -m benchmarks.flat`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
import torch

if TYPE_CHECKING:
    from ..inference.dense_map import DenseMap
    from ..inference.lattices import Band, GridUnits

__all__ = ["pool_band"]

_COLUMNS = 128  # bins of a row pooled by one matrix product


def pool_band(dense: DenseMap, band: Band, half: bool = False) -> np.ndarray:
    """Mean features of a band's kept units, row by row, (n, C).

    A unit averages the working pixels whose centres lie in it, as where units are drawn (`transforms.RasterizeUnits`).
    Bins cover a rectangle of them, so what they average is a product of a row's and a column's weights; so is bilinear
    sampling of units smaller than a map pixel. A disk is an interval of pixels in each row of them.

    Args:
        dense: the map, computed wherever a unit reaches.
        band: some rows of a lattice.
        half: compute in half precision what there is most of, which saves half of the time of millions of bins.
    """
    units, kept, channels = band.lattice, band.kept, dense.channels
    dtype = torch.float16 if half else torch.float32
    if not kept.any():
        return torch.empty((0, channels), dtype=dtype).numpy()
    if units.shape == "circle" and not units.is_interpolated(dense.resolution_um):
        lines = zip(band.x_um, band.y_um, kept, strict=True)
        disks = np.concatenate([_disks(dense, units.size_um, x[some], y) for x, y, some in lines])
        return disks.astype(np.float16) if half else disks
    lattice = torch.empty((*kept.shape, channels), dtype=dtype)
    phases = 2 if units.grid.lattice == "hex" else 1
    for phase in range(min(phases, len(band.rows))):  # every second row of a hex lattice has the same columns
        rows = slice(phase, None, phases)
        _fill(lattice[rows], dense, units, band.x_um[phase], band.y_um[rows], np.flatnonzero(kept[rows].any(0)))
    flat = lattice.numpy()
    whole = flat.view(f"V{channels * flat.itemsize}")[..., 0]  # a unit's features as one item are copied faster
    return whole[kept].view(flat.dtype).reshape(-1, channels)


def _fill(
    lattice: torch.Tensor, dense: DenseMap, units: GridUnits, x_um: np.ndarray, y_um: np.ndarray, columns: np.ndarray
) -> None:
    """Features of a rectangular lattice, (rows, columns, C), from the first to the last of the columns wanted."""
    if len(columns) == 0:
        return
    wanted = slice(columns[0], columns[-1] + 1)
    lattice, x_um = lattice[:, wanted], x_um[wanted]
    at = y_um / dense.resolution_um - 0.5
    above = np.floor(at).astype(np.int64)
    n_pixels = int(above[-1] - above[0]) + 2
    if not units.is_interpolated(dense.resolution_um) or len(y_um) < n_pixels:
        y_low, y_weight = _weights(y_um, units, dense)
        strip = torch.from_numpy(dense.read_rows(y_low, y_weight.shape[1]))
        rows = torch.from_numpy(y_weight) @ strip.flatten(1)
        _fill_columns(lattice, rows.unflatten(1, strip.shape[1:]), dense, units, x_um)
        return
    # More rows of units than of map pixels: each lies between two rows of those, and is made and written in one pass.
    strip = torch.from_numpy(dense.read_rows(int(above[0]), n_pixels))
    lines = torch.empty((n_pixels, *lattice.shape[1:]), dtype=lattice.dtype)
    _fill_columns(lines, strip, dense, units, x_um)
    for row, line, weight in zip(lattice, above - above[0], at - above, strict=True):
        torch.lerp(lines[line], lines[line + 1], float(weight), out=row)


def _fill_columns(
    lattice: torch.Tensor, rows: torch.Tensor, dense: DenseMap, units: GridUnits, x_um: np.ndarray
) -> None:
    """From rows of map pixels, (rows, W, C), to rows of units at `x_um`."""
    for first in range(0, len(x_um), _COLUMNS):
        low, weight = _weights(x_um[first : first + _COLUMNS], units, dense)
        some = rows[:, torch.from_numpy(dense.column(np.arange(low, low + weight.shape[1])))]
        lattice[:, first : first + _COLUMNS] = torch.matmul(torch.from_numpy(weight), some)


def _weights(center_um: np.ndarray, units: GridUnits, dense: DenseMap) -> tuple[int, np.ndarray]:
    """Weights of map pixels along one axis: the first pixel, and float32 (units, pixels)."""
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
    low = int(min(pixel.min() for pixel, _ in entries))
    width = int(max(pixel[weight > 0].max(initial=low) for pixel, weight in entries)) - low + 1
    weights = np.zeros((len(center), width), np.float32)
    for pixel, weight in entries:
        some = weight > 0
        weights[np.flatnonzero(some), pixel[some] - low] += weight[some]
    return low, weights


def _disks(dense: DenseMap, size_um: float, x_um: np.ndarray, y_um: float) -> np.ndarray:
    """Mean features of disks in a row, float32 (n, C).

    Args:
        dense: the map.
        size_um: their diameter.
        x_um: their centres, (n,).
        y_um: likewise, of all.
    """
    if len(x_um) == 0:
        return np.empty((0, dense.channels), np.float32)
    stride, radius, x, y = dense.stride, size_um / dense.mpp / 2, x_um / dense.mpp, y_um / dense.mpp
    row = np.arange(np.floor(y - radius), np.floor(y + radius) + 1, dtype=np.int64)  # of working pixels
    half = np.sqrt(np.clip(radius**2 - (row + 0.5 - y) ** 2, 0, None))
    start = np.floor(x[:, None] - half - 0.5).astype(np.int64) + 1
    stop = np.ceil(x[:, None] + half - 0.5).astype(np.int64)
    first = np.floor(x - radius).astype(np.int64) // stride
    edge = (first[:, None] + np.arange(2 * radius // stride + 3, dtype=np.int64)) * stride
    shared = np.minimum(stop[..., None], edge[:, None] + stride) - np.maximum(start[..., None], edge[:, None])
    map_row = row // stride
    begins = np.flatnonzero(np.diff(map_row, prepend=map_row[0] - 1))
    pixels = np.add.reduceat(np.clip(shared, 0, None), begins, axis=1)  # (n, rows, columns) of the map
    empty = pixels.sum((1, 2)) == 0  # no pixel's centre: the pixel that its own centre lies in
    if empty.any():
        home = np.floor(x[empty]).astype(np.int64) // stride - first[empty]
        pixels[empty, int(np.floor(y)) // stride - map_row[0], home] = 1
    strip = dense.read_rows(int(map_row[0]), len(begins))
    place = np.arange(len(begins))[:, None] * strip.shape[1] + dense.column(edge // stride)[:, None]
    weights = pixels / pixels.sum((1, 2), keepdims=True)
    each = pixels[0].size
    product = sp.csr_matrix(
        (weights.astype(np.float32).ravel(), place.ravel(), np.arange(len(x) + 1) * each),
        shape=(len(x), strip.shape[0] * strip.shape[1]),
    )
    return product @ strip.reshape(-1, strip.shape[2])
