"""Predicted units in pieces that fit into memory, in the order in which they are written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from ..data.units import Units, units_table
from ..files.atomic import open_array
from .dense_map import DenseMap
from .lattice_pooling import pool_band
from .lattices import GridUnits
from .pooling import pool_units
from .prediction_dataset import Request

__all__ = ["Answer", "answers"]

_UNITS_AT_ONCE = 2**18
# What a band of units may cover of the map, in cells: large ones in rows, on a wide slide in all.
_ROWS_AT_ONCE, _CELLS_AT_ONCE = 128, 2**16


@dataclass(frozen=True, eq=False)
class Answer:
    """Some units and their features.

    Attributes:
        names: bytes or str, (n,).
        centers_um: (x, y) from the slide's corner, (n, 2).
        features: (n, C), in single or half precision.
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

    def part(self, first: int, last: int | None = None) -> Answer:
        """The units from `first` up to `last`, not copied."""
        some = slice(first, last)
        columns = {key: values[some] for key, values in self.obs.items()}
        done = max(self.done - first, 0)
        return Answer(self.names[some], self.centers_um[some], self.features[some], columns, done)


def answers(
    request: Request,
    pred: DenseMap | torch.Tensor,
    slide_mpp: float,
    rasterize: Callable[..., Any] | None,
    scratch: Path | None,
    skip: int = 0,
    half: bool = False,
) -> Iterator[Answer]:
    """Answer for a request's units, in their order.

    Args:
        request: the units.
        pred: the slide's map, or the units' pooled features (U, C).
        slide_mpp: micrometres per level-0 pixel.
        rasterize: see `UnitAccumulator`; needed for given units with a map.
        scratch: folder for the features of given units, which are pooled in another order than they are written.
        skip: so many units were answered for already; see `Answer.done`.
        half: features in half precision are enough.
    """
    units = request.units
    if isinstance(units, GridUnits):
        assert isinstance(pred, DenseMap)
        yield from _of_grid(units, pred, skip, half)
        return
    if isinstance(pred, DenseMap):
        assert rasterize is not None
        assert scratch is not None
        features: np.ndarray = open_array(
            scratch / f"pooled{request.suffix}.npy", (len(units), pred.array.shape[0]), np.float32
        )
        for index, pooled in pool_units(pred, units, slide_mpp, rasterize):
            features[index] = pooled
    else:
        features = pred.float().cpu().numpy()
    for first in range(skip // _UNITS_AT_ONCE * _UNITS_AT_ONCE, len(units), _UNITS_AT_ONCE):
        answer = _of_units(units, request, features, slide_mpp, slice(first, first + _UNITS_AT_ONCE))
        yield replace(answer, done=max(skip - first, 0))


def _of_units(units: Units, request: Request, features: np.ndarray, slide_mpp: float, part: slice) -> Answer:
    if request.tissue_fraction is None:  # an evaluation's units are measured ones
        obs = {"in_tissue": units.in_tissue[part]}
    else:
        fraction = request.tissue_fraction[part].astype(np.float32)
        obs = {"in_tissue": units.in_tissue[part], "tissue_fraction": fraction}  # the source's own mark is kept
    for name, column in units_table(units).iloc[part].items():
        text = isinstance(column.dtype, pd.CategoricalDtype) or column.dtype == object
        obs[str(name)] = column.astype(object).fillna("").to_numpy(object) if text else column.to_numpy()
    return Answer(units.barcodes[part], units.centers_px[part] * slide_mpp, np.asarray(features[part]), obs)


def _of_grid(units: GridUnits, dense: DenseMap, skip: int, half: bool) -> Iterator[Answer]:
    done = 0
    height = min(_ROWS_AT_ONCE, _CELLS_AT_ONCE // dense.array.shape[2])
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
        features = pool_band(dense, units, band, half)
        yield Answer(units.names(band), band.centers_um, features, obs, max(n - (done - skip), 0))
