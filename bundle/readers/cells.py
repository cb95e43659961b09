"""Measured cells: a cell × gene matrix with the cells' polygons."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from ..data.polygons import Polygons
from ..data.read_geojson import read_polygons
from ..errors import InputError
from .sample import UnitTable
from .tenx import Matrix

__all__ = ["cells_table", "with_polygons"]

_NUMBER = re.compile(r"cellid_0*(\d+)-\d+")
#: This share of cells may have no polygon.
_LOST = 0.05


def cells_table(
    matrix: Matrix,
    features: np.ndarray,
    genes: Sequence[str],
    ids: Sequence[str],
    path: Path,
    scale: float,
    mpp: float,
    found: list[str],
) -> UnitTable:
    """The cells of a matrix with the polygons of a GeoJSON file.

    Args:
        matrix: cell × feature.
        features: positions of its genes.
        genes: their names.
        ids: their ids.
        path: the file of polygons, in pixels of the full-resolution picture.
        scale: pixels of the picture for one of the full-resolution picture.
        mpp: micrometres per pixel of the picture.
        found: gets what is to be said.

    Raises:
        InputError: if most cells have no polygon.
    """
    polygons = read_polygons(path)
    shapes = polygons.shapes if scale == 1 else shapely.transform(polygons.shapes, lambda xy: xy * scale)
    names = [b.decode() if isinstance(b, bytes) else str(b) for b in matrix.barcodes]
    numbers = [match[1] if (match := _NUMBER.fullmatch(name)) else name for name in names]
    plain = [name.lstrip("0") or "0" if name.isdigit() else name for name in polygons.names.tolist()]
    table = UnitTable(
        "cells", "polygon", 0.0, np.array(names), genes, np.zeros((len(names), 2)), lambda: matrix.blocks(features)
    )
    table.gene_ids = ids
    return with_polygons(table, numbers, plain, shapes, mpp, path, found)


def with_polygons(
    table: UnitTable,
    keys: Sequence[Any],
    names: Sequence[Any],
    shapes: np.ndarray,
    mpp: float,
    path: Path,
    found: list[str],
) -> UnitTable:
    """A table of cells with the polygons that have their names; cells without one are left out.

    Args:
        table: of the cells; its centres and size are replaced.
        keys: what the polygons call each cell, (U,).
        names: the polygons' names, (N,).
        shapes: polygons, (N,).
        mpp: micrometres per pixel.
        path: the file of the polygons, for the sentence.
        found: gets what is to be said.
    """
    place = {name: i for i, name in enumerate(names)}
    index = np.array([place.get(key, -1) for key in keys], dtype=np.int64)
    kept = index >= 0
    if (~kept).mean() > _LOST:
        raise InputError(
            f"{path} has no polygon for {(~kept).sum():,} of the {len(kept):,} cells (first: "
            f"{keys[int((~kept).argmax())]}). Are both of the same sample?"
        )
    if not kept.all():
        found.append(f"{(~kept).sum():,} cells without a polygon were left out.")
        table = table.take(kept)
    polygons = Polygons.of_shapes(shapes[index[kept]])
    table.polygons = polygons
    table.centers_px = polygons.centroids_px
    table.size_um = float(np.median(2 * np.sqrt(polygons.areas_px2 / np.pi)) * mpp)
    return table
