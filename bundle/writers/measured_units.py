"""Write measured units as AnnData, their counts block by block: ten million bins never lie in memory at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp

from ..data.build_units import build_units
from ..data.polygons import POLYGON_ARRAYS, Polygons
from ..errors import InputError
from ..files.atomic import replacing

__all__ = ["write_units"]

_CHUNK = 2**18  # values in one chunk of the file
_MANY = 500_000  # units whose names are written with one length
_COMPRESSION: dict[str, Any] = {"compression": "lzf", "shuffle": True}


def write_units(
    path: str | Path,
    blocks: Iterable[sp.csr_matrix],
    genes: Sequence[str],
    barcodes: Sequence[Any] | np.ndarray,
    centers_px: np.ndarray,
    *,
    gene_ids: Sequence[str] | None = None,
    in_tissue: np.ndarray | None = None,
    array_xy: np.ndarray | None = None,
    polygons: Polygons | None = None,
    extra: Mapping[str, Any] | None = None,
    **options: Any,
) -> np.ndarray:
    """Write the AnnData of measured units (`bundle.data.build_units`) in one move.

    Args:
        path: the `.h5ad`.
        blocks: raw counts as CSR blocks of rows, in the order of `barcodes`.
        genes: symbols or ids; the counts of genes of one name are summed.
        barcodes: names of the units, of str or bytes.
        centers_px: (U, 2).
        gene_ids: the source's ids, (G,).
        in_tissue: (U,) bool; all true by default.
        array_xy: (U, 2) integer positions on the array (column, row).
        polygons: of polygons.
        extra: further entries of `uns`.
        options: of `build_units`: shape, size_um, mpp, section, hires, hires_scale.

    Returns:
        The sum of all genes for each unit, float64 (U,).

    Raises:
        InputError: if the counts are not those of so many units, or are negative, fractional or missing, or two units
            have one name.
    """
    path, n_units = Path(path), len(barcodes)
    names = _names(barcodes)
    _check_unique(names, array_xy, options.get("section", path.stem))
    # The frame of the file has no units; columns and counts are written into it.
    none = sp.csr_matrix((0, len(genes)), dtype=np.float32)
    adata = build_units(none, genes, [], np.zeros((0, 2)), gene_ids=gene_ids, **options)
    column = pd.Index(adata.var_names).get_indexer(pd.Index([str(g) for g in genes])).astype(np.int32)
    adata.uns.update(extra or {})
    if polygons is not None:
        adata.uns["polygons"] = {key: getattr(polygons, key) for key in POLYGON_ARRAYS}
    with replacing(path) as temporary:
        adata.write_h5ad(temporary, compression="lzf")
        with h5py.File(temporary, "r+") as file:
            columns = {"in_tissue": np.ones(n_units, bool) if in_tissue is None else np.asarray(in_tissue, bool)}
            if array_xy is not None:
                columns |= {"array_row": np.asarray(array_xy)[:, 1], "array_col": np.asarray(array_xy)[:, 0]}
            _write_obs(file, names, columns)
            del file["obsm/spatial"]
            _put(file["obsm"], "spatial", np.asarray(centers_px, np.float64), "array")
            if polygons is not None:
                _put(file["uns/polygons"], "names", names, "string-array")
            return _write_counts(file, blocks, column, (n_units, adata.n_vars), path)


def _names(barcodes: Sequence[Any] | np.ndarray) -> np.ndarray:
    """Names as str objects; those of millions as bytes of one length, which are written far faster."""
    if len(barcodes) > _MANY:
        try:
            return np.asarray(barcodes, dtype="S")
        except UnicodeEncodeError:
            pass
    return np.array([b.decode() if isinstance(b, bytes) else str(b) for b in barcodes], dtype=object)


def _check_unique(names: np.ndarray, array_xy: np.ndarray | None, section: str) -> None:
    """Refuse names that occur twice; places on the array tell its bins apart."""
    values: np.ndarray = names
    if len(names) > _MANY and array_xy is not None:
        low, high = array_xy.min(0), array_xy.max(0)
        columns, rows = (int(n) + 1 for n in high - low)
        values = (array_xy[:, 0] - low[0]).astype(np.int64) * rows + (array_xy[:, 1] - low[1])
        if columns * rows < 16 * len(values):
            seen = np.zeros(columns * rows, bool)
            seen[values] = True
            values = np.flatnonzero(seen)
    twice = len(names) - len(pd.unique(values) if values.dtype != object else set(values.tolist()))
    if twice:
        raise InputError(f"{section}: {twice} unit names occur twice; name each unit once.")


def _write_obs(file: h5py.File, names: np.ndarray, columns: Mapping[str, np.ndarray]) -> None:
    """The table of units as anndata writes a dataframe (encoding 0.2.0)."""
    del file["obs"]
    group = file.create_group("obs")
    group.attrs.update({"encoding-type": "dataframe", "encoding-version": "0.2.0", "_index": "_index"})
    group.attrs["column-order"] = np.array(list(columns), dtype=h5py.string_dtype())
    _put(group, "_index", names, "string-array")
    for name, values in columns.items():
        _put(group, name, values, "array")


def _put(group: h5py.Group, name: str, values: np.ndarray, kind: str) -> None:
    dtype = h5py.string_dtype() if values.dtype == object else values.dtype
    options = _COMPRESSION if len(values) else {}
    dataset = group.create_dataset(name, data=values, dtype=dtype, **options)
    dataset.attrs.update({"encoding-type": kind, "encoding-version": "0.2.0"})


def _write_counts(
    file: h5py.File, blocks: Iterable[sp.csr_matrix], column: np.ndarray, shape: tuple[int, int], path: Path
) -> np.ndarray:
    if "X" in file:
        del file["X"]
    group = file.create_group("X")
    group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": np.array(shape)})
    data, indices = (
        group.create_dataset(name, (0,), dtype, maxshape=(None,), chunks=(_CHUNK,), **_COMPRESSION)
        for name, dtype in (("data", np.float32), ("indices", np.int32))
    )
    indptr, totals, rows, values = np.zeros(shape[0] + 1, np.int64), np.zeros(shape[0]), 0, 0
    is_renamed = shape[1] != len(column)
    for block in blocks:
        if rows + block.shape[0] > shape[0]:
            break
        if is_renamed:
            block = sp.csr_matrix((block.data, column[block.indices], block.indptr), shape=(block.shape[0], shape[1]))
            block.sum_duplicates()
        _check(block.data, path)
        for dataset, part in ((data, block.data), (indices, block.indices)):
            dataset.resize((values + len(part),))
            dataset[values:] = part
        indptr[rows + 1 : rows + block.shape[0] + 1] = values + block.indptr[1:].astype(np.int64)
        totals[rows : rows + block.shape[0]] = (
            block.sum(axis=1).A1 if hasattr(block.sum(axis=1), "A1") else block.sum(axis=1)
        )
        rows, values = rows + block.shape[0], values + block.nnz
    else:
        if rows == shape[0]:
            group.create_dataset("indptr", data=indptr, **_COMPRESSION)
            return totals
    raise InputError(f"{path.name}: the counts are not of {shape[0]:,} units. Do counts and positions belong together?")


def _check(values: np.ndarray, path: Path) -> None:
    """Refuse what cannot be counts."""
    if not len(values):
        return
    low, high = values.min(), values.max()
    fault = None
    if not (np.isfinite(low) and np.isfinite(high)):
        fault = "missing or infinite"
    elif low < 0:
        fault = "negative"
    elif (values != np.rint(values)).any():
        fault = "fractional"
    if fault is not None:
        raise InputError(f"{path.name} would hold {fault} values; PixNet needs raw counts, neither logged nor scaled.")
