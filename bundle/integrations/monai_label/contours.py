"""Iso-contours of a gene over square units, as polygons with holes."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from contourpy import FillType, contour_generator

__all__ = ["contour_polygons", "grid_of"]


def grid_of(rows: np.ndarray, columns: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
    """Units' values as a picture, NaN where there is no unit.

    Args:
        rows: row numbers, (U,).
        columns: column numbers, (U,).
        values: (U,).

    Returns:
        The picture (R, K), and the (column, row) of its first value.
    """
    top, left = int(rows.min()), int(columns.min())
    picture = np.full((int(rows.max()) - top + 1, int(columns.max()) - left + 1), np.nan)
    picture[rows - top, columns - left] = values
    return picture, (left, top)


def contour_polygons(picture: np.ndarray, threshold: float) -> list[list[np.ndarray]]:
    """Where a picture is at least `threshold`, linear between the centres of neighbouring values.

    Nothing is said beyond the centres of the outermost values: an area ends where the values do.

    Args:
        picture: values at (column, row) = (0, 0), (1, 0) ..., (R, K), NaN where there is none.
        threshold: the level.

    Returns:
        Polygons; each a list of closed rings, (x, y) in columns and rows, float64 (N, 2): the outer one, then holes.
    """
    if min(picture.shape) < 2 or not np.nanmax(picture, initial=-np.inf) >= threshold:
        return []
    generator: Any = contour_generator(
        z=np.ma.masked_invalid(picture), fill_type=FillType.OuterOffset, corner_mask=True
    )
    points, offsets = generator.filled(threshold, float(np.nanmax(picture)) + 1)
    return [[polygon[first:last] for first, last in pairwise(at)] for polygon, at in zip(points, offsets, strict=True)]
