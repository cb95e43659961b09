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
from ..errors import InputError
from ..files.atomic import replacing

__all__ = ["write_units"]

_CHUNK = 2**18  # values in one chunk of the file
_COMPRESSION: dict[str, Any] = {"compression": "lzf", "shuffle": True}


def write_units(
    path: str | Path,
    blocks: Iterable[sp.csr_matrix],
    genes: Sequence[str],
    barcodes: Sequence[Any] | np.ndarray,
    centers_px: np.ndarray,
    *,
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
        extra: further entries of `uns`.
        options: of `build_units`.

    Returns:
        The sum of all genes for each unit, float64 (U,).

    Raises:
        InputError: if the counts are not those of so many units, or are negative, fractional or missing.
    """
    names = [b.decode() if isinstance(b, bytes) else str(b) for b in barcodes]
    n_units = len(names)
    adata = build_units(sp.csr_matrix((n_units, len(genes)), dtype=np.float32), genes, names, centers_px, **options)
    del names
    n_genes = adata.n_vars
    column = pd.Index(adata.var_names).get_indexer(pd.Index([str(g) for g in genes])).astype(np.int32)
    adata.uns.update(extra or {})
    adata.X = None
    path = Path(path)
    with replacing(path) as temporary:
        adata.write_h5ad(temporary, compression="lzf")
        del adata
        with h5py.File(temporary, "r+") as file:
            return _write_counts(file, blocks, column, (n_units, n_genes), path)


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
