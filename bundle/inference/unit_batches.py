"""Units with their features in pieces that fit into memory, in the order in which they are written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from ..data.units import Units, units_table
from ..files.atomic import open_array
from .dense_map import DenseMap
from .lattices import GridUnits
from .pool import pool
from .prediction_dataset import UnitSet

__all__ = ["UnitBatch", "unit_batches"]

_UNITS_AT_ONCE = 2**18
# What a band of a lattice may cover of the map, in map pixels: large units in rows, on a wide slide in all.
_ROWS_AT_ONCE, _PIXELS_AT_ONCE = 128, 2**16


@dataclass(frozen=True, eq=False)
class UnitBatch:
    """Some units and their features.

    Attributes:
        names: bytes or str, (n,).
        centers_um: (x, y) from the slide's corner, (n, 2).
        features: (n, C), float32 or float16.
        obs: further columns, each (n,).
        done: so many of the first were written before. They stay, since a product's rounding depends on its size.
    """

    names: np.ndarray
    centers_um: np.ndarray
    features: np.ndarray
    obs: dict[str, np.ndarray]
    done: int = 0

    def __len__(self) -> int:
        return len(self.names)

    def part(self, first: int, last: int | None = None) -> UnitBatch:
        """The units from `first` up to `last`, not copied."""
        some = slice(first, last)
        columns = {key: values[some] for key, values in self.obs.items()}
        done = max(self.done - first, 0)
        return UnitBatch(self.names[some], self.centers_um[some], self.features[some], columns, done)


def unit_batches(
    unit_set: UnitSet,
    source: DenseMap | torch.Tensor,
    slide_mpp: float,
    rasterize: Any = None,
    scratch: Path | None = None,
    skip: int = 0,
    dtype: Any = np.float32,
) -> Iterator[UnitBatch]:
    """The units of one file with their features, in their order.

    Args:
        unit_set: the units.
        source: the slide's map, or the units' pooled features (U, C).
        slide_mpp: micrometres per level-0 pixel.
        rasterize: see `pool`; needed for given units with a map.
        scratch: folder for the features of given units, which are pooled in another order than they are written.
        skip: so many units were written before; see `UnitBatch.done`.
        dtype: of a lattice's features, float32 or float16.
    """
    units = unit_set.units
    if isinstance(units, GridUnits):
        assert isinstance(source, DenseMap)
        yield from _lattice_batches(units, source, skip, dtype)
        return
    if isinstance(source, DenseMap):
        assert scratch is not None
        shape = (len(units), source.channels)
        kept = open_array(scratch / f"pooled{unit_set.suffix}.npy", shape, np.float32)
        features: np.ndarray = pool(source, units, rasterize, out=kept)
    else:
        features = source.float().cpu().numpy()
    for first in range(skip // _UNITS_AT_ONCE * _UNITS_AT_ONCE, len(units), _UNITS_AT_ONCE):
        batch = _given_batch(units, unit_set, features, slide_mpp, slice(first, first + _UNITS_AT_ONCE))
        yield replace(batch, done=max(skip - first, 0))


def _given_batch(units: Units, unit_set: UnitSet, features: np.ndarray, slide_mpp: float, part: slice) -> UnitBatch:
    obs = {"in_tissue": units.in_tissue[part]}  # the source's own mark is kept
    if unit_set.tissue_fraction is not None:  # an evaluation's units have none
        obs["tissue_fraction"] = unit_set.tissue_fraction[part].astype(np.float32)
    for name, column in units_table(units).iloc[part].items():
        text = isinstance(column.dtype, pd.CategoricalDtype) or column.dtype == object
        obs[str(name)] = column.astype(object).fillna("").to_numpy(object) if text else column.to_numpy()
    return UnitBatch(units.barcodes[part], units.centers_px[part] * slide_mpp, np.asarray(features[part]), obs)


def _lattice_batches(units: GridUnits, dense: DenseMap, skip: int, dtype: Any) -> Iterator[UnitBatch]:
    done = 0
    height = min(_ROWS_AT_ONCE, _PIXELS_AT_ONCE // dense.array.shape[2])
    for band in units.bands(_UNITS_AT_ONCE, height * dense.resolution_um):
        row, column = band.places
        n = len(row)
        done += n
        if n == 0 or done <= skip:
            continue
        fraction = band.fraction[band.kept]
        array_row, array_col = band.rows[row], band.columns[column]
        if units.grid.lattice == "hex":  # as 10x count: shifted rows take the odd columns
            array_col = 2 * array_col + array_row % 2
        obs = {
            "in_tissue": fraction >= 0.5,
            "tissue_fraction": fraction,
            "array_row": array_row.astype(np.int32),
            "array_col": array_col.astype(np.int32),
        }
        features = pool(dense, band, dtype=dtype)
        yield UnitBatch(units.names(band), band.centers_um, features, obs, max(n - (done - skip), 0))
