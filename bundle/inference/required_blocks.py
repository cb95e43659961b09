"""Which blocks of a slide's map its units require."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ..data.tissue import TissueMap
from ..data.units import Units
from .lattices import GridUnits
from .tiles import Tile

__all__ = [
    "Blocks",
    "blocks_of_grid",
    "blocks_of_rectangle",
    "blocks_of_tissue",
    "blocks_of_units",
    "required_blocks",
    "tiles_with",
]

Blocks = np.ndarray  # (n, 2), unique (row, column) of blocks counted from the slide's corner


def required_blocks(sample: Mapping[str, Any], block_um: float, margin_um: float) -> Blocks:
    """The blocks that a slide's units reach into, and those of its tissue or region where the map itself is wanted.

    Args:
        sample: a slide as `PredictionDataset` gives it: `unit_sets`, `mpp`, `tissue`, `region_um`, `whole_map`.
        block_um: side of a block.
        margin_um: what pooling reads around a unit: a map pixel.
    """
    found = [np.zeros((0, 2), np.int64)]
    for unit_set in sample["unit_sets"]:
        if isinstance(unit_set.units, GridUnits):
            found.append(blocks_of_grid(unit_set.units, block_um, margin_um))
        else:
            found.append(blocks_of_units(unit_set.units, sample["mpp"], block_um, margin_um))
    if sample["whole_map"] and sample["region_um"] is not None:
        found.append(blocks_of_rectangle(sample["region_um"], block_um))
    elif sample["whole_map"]:
        found.append(blocks_of_tissue(sample["tissue"], block_um, 0.0))
    return np.unique(np.concatenate(found), axis=0)


def blocks_of_units(units: Units, slide_mpp: float, block_um: float, margin_um: float) -> Blocks:
    """Blocks that units reach into, `margin_um` around them included."""
    centers_um = units.centers_px * slide_mpp
    reach = units.reach_um[:, None] + margin_um
    low = np.floor((centers_um - reach) / block_um).astype(np.int64)
    high = np.floor((centers_um + reach) / block_um).astype(np.int64)
    return _between(low, high)


def blocks_of_tissue(tissue: TissueMap, block_um: float, margin_um: float) -> Blocks:
    """Blocks that hold tissue, `margin_um` around it included."""
    bounds = tissue.bounds_um
    if bounds is None:
        return np.zeros((0, 2), np.int64)
    # tissue pixels up to each place, so that the number in any rectangle is a difference of four
    below = np.zeros(np.add(tissue.mask.shape, 1), np.int64)
    below[1:, 1:] = tissue.mask.cumsum(0, dtype=np.int64).cumsum(1)
    (x0, y0), (x1, y1) = (
        np.floor((v + m) / block_um).astype(int) for v, m in zip(bounds, (-margin_um, margin_um), strict=True)
    )
    rows, columns = np.arange(y0, y1 + 1), np.arange(x0, x1 + 1)

    def pixels(block: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
        first = np.floor((block * block_um - margin_um) / tissue.mpp).astype(int)
        last = np.ceil(((block + 1) * block_um + margin_um) / tissue.mpp).astype(int)
        return np.clip(first, 0, n), np.clip(last, 0, n)

    (top, bottom), (left, right) = pixels(rows, tissue.mask.shape[0]), pixels(columns, tissue.mask.shape[1])
    count = below[bottom][:, right] - below[top][:, right] - below[bottom][:, left] + below[top][:, left]
    row, column = np.nonzero(count)
    return np.column_stack([rows[row], columns[column]])


def blocks_of_grid(units: GridUnits, block_um: float, margin_um: float) -> Blocks:
    """Blocks that a lattice's units reach into: those near tissue, inside the lattice's rows and columns."""
    grid, margin_um = units.grid, margin_um + units.size_um
    blocks = blocks_of_tissue(units.tissue, block_um, margin_um)
    low = np.array([units.rows.start * grid.row_pitch_um, units.columns.start * grid.pitch_um]) - margin_um
    high = np.array([units.rows.stop * grid.row_pitch_um, units.columns.stop * grid.pitch_um]) + margin_um
    inside = ((blocks + 1) * block_um > low) & (blocks * block_um < high)
    return blocks[inside.all(1)]


def blocks_of_rectangle(region_um: tuple[float, float, float, float], block_um: float) -> Blocks:
    """Blocks of a rectangle (x, y, width, height)."""
    x, y, width, height = region_um
    low, high = np.array([[x, y]]), np.array([[x + width, y + height]])
    return _between(np.floor(low / block_um).astype(np.int64), (np.ceil(high / block_um) - 1).astype(np.int64))


def tiles_with(tiles: Iterable[Tile], blocks: Blocks, block_px: int) -> list[Tile]:
    """The tiles whose core holds any of the blocks."""
    needed = {(int(row), int(column)) for row, column in blocks}
    found = []
    for tile in tiles:
        rows = range(tile.y_px // block_px, (tile.y_px + tile.height_px) // block_px)
        columns = range(tile.x_px // block_px, (tile.x_px + tile.width_px) // block_px)
        if any((row, column) in needed for row in rows for column in columns):
            found.append(tile)
    return found


def _between(low: np.ndarray, high: np.ndarray) -> Blocks:
    """All blocks of the rectangles low..high (x, y), both included; as unique (row, column)."""
    found = [np.zeros((0, 2), np.int64)]
    span = high - low
    for columns, rows in np.unique(span, axis=0):  # most units touch one block or four, so there are few spans
        some = low[(span == (columns, rows)).all(1)]
        step = np.stack(np.meshgrid(np.arange(rows + 1), np.arange(columns + 1), indexing="ij"), -1).reshape(-1, 2)
        found.append(np.unique((some[:, None, ::-1] + step[None]).reshape(-1, 2), axis=0))
    return np.unique(np.concatenate(found), axis=0)
