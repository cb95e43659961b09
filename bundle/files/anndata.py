"""Read an AnnData from outside; what comes back can be computed with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anndata as ad
import scipy.sparse as sp

from ..errors import InputError
from .reading import check_file, reading

__all__ = ["read_anndata"]


def read_anndata(path: str | Path, missing: str, damaged: str) -> ad.AnnData:
    """Read an `.h5ad` and check its sparse matrices, whose damaged indices crash the libraries that use them.

    Args:
        path: the file.
        missing: what to do where it is missing, a sentence.
        damaged: what to do where it cannot be read, a sentence.

    Raises:
        InputError: if it is missing, is no AnnData or is damaged.
    """
    path = check_file(path, missing)
    with reading(path, "cannot be read as AnnData", damaged):
        adata = ad.read_h5ad(path)
    for place, matrix in _matrices(adata):
        if not sp.issparse(matrix):
            continue
        try:
            matrix.check_format(full_check=True)
        except ValueError as error:
            raise InputError(f"{path}: the sparse matrix {place} is damaged ({error}). {damaged}") from error
    return adata


def _matrices(adata: ad.AnnData) -> Iterator[tuple[str, Any]]:
    yield "X", adata.X
    for name, held in (("layers", adata.layers), ("obsm", adata.obsm), ("obsp", adata.obsp)):
        for key, matrix in held.items():
            yield f'{name}["{key}"]', matrix
    if adata.raw is not None:
        yield "raw.X", adata.raw.X
