"""What 10x Genomics' programs share: the feature-barcode matrix (h5 or mtx) and the table of tissue positions."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp

from ..errors import InputError
from ..files.reading import check_file, reading
from .tables import first_line, is_parquet, read_columns

__all__ = ["Matrix", "clean_id", "find_matrix", "gene_features", "read_json_gz", "read_matrix", "read_positions"]

#: Values of a matrix that are read at once: 16 MB of counts and as many of indices.
_BLOCK_VALUES = 4_000_000
_POSITIONS = ["barcode", "in_tissue", "array_row", "array_col", "pxl_row_in_fullres", "pxl_col_in_fullres"]
_VERSION = re.compile(r"^(ENS[A-Z]*G\d{11})\.\d+$")
_MTX = re.compile(r"(?P<prefix>.*?)matrix\.mtx(\.gz)?$")


@dataclass(frozen=True)
class Matrix:
    """A feature-barcode matrix, whose counts are read block by block.

    Attributes:
        path: the file or folder.
        barcodes: (U,) of bytes or str.
        names: symbols of the features, (F,).
        ids: their ids, (F,).
        kinds: `Gene Expression`, `Antibody Capture`, ..., (F,).
    """

    path: Path
    barcodes: np.ndarray
    names: np.ndarray
    ids: np.ndarray
    kinds: np.ndarray

    def blocks(self, features: np.ndarray) -> Iterator[sp.csr_matrix]:
        """Counts of some features, block by block of barcodes.

        Args:
            features: positions of the features to keep.

        Yields:
            CSR (rows, len(features)), float32.

        Raises:
            InputError: if the file is damaged.
        """
        column = np.full(len(self.ids), -1, np.int32)
        column[features] = np.arange(len(features), dtype=np.int32)
        everything = len(features) == len(self.ids)
        for data, indices, indptr in self._read():
            if len(indices) and not 0 <= indices.min() <= indices.max() < len(column):
                raise InputError(f"{self.path} names features that it does not list. It is damaged: copy it again.")
            block = sp.csr_matrix(
                (data.astype(np.float32), indices.astype(np.int32), indptr), shape=(len(indptr) - 1, len(column))
            )
            if not everything:
                place = column[block.indices]
                kept = place >= 0
                starts = np.concatenate([[0], np.cumsum(kept)])[block.indptr]
                block = sp.csr_matrix((block.data[kept], place[kept], starts), shape=(block.shape[0], len(features)))
            block.sort_indices()
            yield block

    def _read(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Data, feature indices and row starts of each block of barcodes."""
        if self.path.suffix != ".h5":
            matrix = _read_mtx(self.path)
            if matrix.shape != (len(self.barcodes), len(self.ids)):
                raise InputError(
                    f"{self.path}: the matrix has {matrix.shape[0]} barcodes and {matrix.shape[1]} features, its lists "
                    f"{len(self.barcodes)} and {len(self.ids)}. Do all three files belong together?"
                )
            yield matrix.data, matrix.indices, matrix.indptr
            return
        with reading(self.path, "cannot be read as a feature-barcode matrix"), h5py.File(self.path) as file:
            group = file["matrix"]
            indptr = group["indptr"][:].astype(np.int64)
        if len(indptr) != len(self.barcodes) + 1 or (np.diff(indptr) < 0).any():
            raise InputError(f"{self.path}: its matrix does not fit its barcodes. It is damaged: copy it again.")
        start = 0
        while start < len(indptr) - 1:
            stop = int(np.searchsorted(indptr, indptr[start] + _BLOCK_VALUES, "right")) - 1
            stop = max(start + 1, min(stop, len(indptr) - 1))
            with reading(self.path, "cannot be read as a feature-barcode matrix"), h5py.File(self.path) as file:
                part = slice(int(indptr[start]), int(indptr[stop]))
                data, indices = file["matrix/data"][part], file["matrix/indices"][part]
            if len(data) != part.stop - part.start:
                raise InputError(f"{self.path} ends before its counts do. It is cut short: copy it again.")
            yield data, indices, indptr[start : stop + 1] - indptr[start]
            start = stop


def find_matrix(folder: Path, prefix: str = "", raw: bool = False) -> Path:
    """The matrix of a folder: filtered before raw, h5 before mtx.

    Args:
        folder: where it lies.
        prefix: what file names of the sample begin with, if the folder holds several samples.
        raw: take the raw matrix, which also holds barcodes off the tissue.

    Returns:
        An `.h5` file, a folder of the three mtx files, or the `.mtx` file of three that lie in `folder` itself.

    Raises:
        InputError: if there is none, or several that could be meant.
    """
    kinds = ("raw",) if raw else ("filtered", "raw")
    for kind in kinds:
        stem = rf"(?P<prefix>.*?){kind}_feature_bc_matrix"
        for pattern, is_folder in ((stem + r"\.h5", False), (stem, True)):
            found = [
                (match["prefix"], path)
                for path in sorted(folder.iterdir())
                if (match := re.fullmatch(pattern, path.name)) and path.is_dir() == is_folder
            ]
            if found:
                return _one_of(found, prefix, folder)
    found = [(m["prefix"], path) for path in sorted(folder.iterdir()) if (m := _MTX.fullmatch(path.name))]
    if found:
        return _one_of(found, prefix, folder)
    raise InputError(
        f"{folder} holds no counts: filtered_feature_bc_matrix.h5, or the folder filtered_feature_bc_matrix of three "
        "mtx files, is missing. Put it there."
    )


def _one_of(found: list[tuple[str, Path]], prefix: str, folder: Path) -> Path:
    matching = [path for own, path in found if own == prefix] or [path for _, path in found]
    if len(matching) > 1:
        names = ", ".join(path.name for path in matching[:4])
        raise InputError(
            f"{folder} holds several matrices ({names}); keep one, or put each sample into its own folder."
        )
    return matching[0]


def read_matrix(path: Path) -> Matrix:
    """Read a matrix's barcodes and features; its counts stay in the file.

    Raises:
        InputError: if the file is damaged, or of another form.
    """
    if path.suffix == ".h5":
        check_file(path)
        with reading(path, "cannot be read as a feature-barcode matrix"), h5py.File(path) as file:
            if "matrix" not in file or "features" not in file["matrix"]:
                raise ValueError('it has no group "matrix/features", so Cell Ranger 2 or another program wrote it')
            group = file["matrix"]
            features = group["features"]
            ids = _text(features["id"][:])
            names = _text(features["name"][:])
            kinds = _text(features["feature_type"][:]) if "feature_type" in features else np.full(len(ids), GENES)
            return Matrix(path, group["barcodes"][:], names, ids, kinds)
    parts = _mtx_parts(path)
    options: dict[str, Any] = {"sep": "\t", "header": None, "dtype": str, "keep_default_na": False, "quoting": 3}
    with reading(parts["features"], "cannot be read as a table of features"):
        table = pd.read_csv(parts["features"], **options)
    with reading(parts["barcodes"], "cannot be read as a list of barcodes"):
        barcodes = pd.read_csv(parts["barcodes"], **options)[0].to_numpy(str)
    ids = table[0].to_numpy(str)
    names = table[1].to_numpy(str) if table.shape[1] > 1 else ids
    return Matrix(
        path, barcodes, names, ids, table[2].to_numpy(str) if table.shape[1] > 2 else np.full(len(ids), GENES)
    )


GENES = "Gene Expression"


def gene_features(matrix: Matrix, found: list[str], by_ids: bool = False) -> tuple[np.ndarray, list[str], list[str]]:
    """Which features are genes, their names, and their ids without version.

    Args:
        matrix: with its features.
        found: gets a sentence about features that are none.
        by_ids: name genes by their ids.

    Raises:
        InputError: if no feature is a gene.
    """
    genes = np.flatnonzero(matrix.kinds == GENES)
    others = len(matrix.ids) - len(genes)
    if not len(genes):
        raise InputError(f"{matrix.path} holds no gene expression, but {', '.join(sorted(set(matrix.kinds))[:4])}.")
    if others:
        kinds = sorted(set(matrix.kinds) - {GENES})
        found.append(f"{others} features that are no genes ({', '.join(kinds[:4])}) were left out.")
    ids = [clean_id(i) for i in matrix.ids[genes]]
    return genes, ids if by_ids else [clean_id(n) or i for n, i in zip(matrix.names[genes], ids, strict=True)], ids


def clean_id(name: str) -> str:
    """An Ensembl id without its version; anything else as it is."""
    return _VERSION.sub(r"\1", str(name))


def read_positions(path: Path) -> pd.DataFrame:
    """Positions of barcodes: Space Ranger 1 writes no header, 2 and later write one; both are taken by their content.

    Returns:
        `barcode`, `in_tissue`, `array_row`, `array_col`, `pxl_row_in_fullres`, `pxl_col_in_fullres`.

    Raises:
        InputError: if the table cannot be read or lacks a column.
    """
    if is_parquet(path):
        table = read_columns(path)
    else:
        line = first_line(path)
        fields = [part.strip().strip('"') for part in line.split("\t" if "\t" in line else ",")]
        if "pxl_row_in_fullres" in fields or "in_tissue" in fields:
            table = read_columns(path)
        elif len(fields) == len(_POSITIONS):
            table = read_columns(path, header=None, names=_POSITIONS)
        else:
            raise InputError(
                f"{path} has {len(fields)} columns in its first line; a table of tissue positions has 6: "
                f"{', '.join(_POSITIONS)}."
            )
    missing = [name for name in _POSITIONS if name not in table]
    if missing:
        raise InputError(f"{path} has no column {', '.join(missing)}. It has {', '.join(map(str, table.columns))}.")
    numbers = table[_POSITIONS[1:]].apply(pd.to_numeric, errors="coerce")
    bad = numbers.isna().any(axis=1)
    if bad.any() or table.empty:
        raise InputError(f"{path}: {bad.sum()} of {len(table)} rows lack a number. Copy it again.")
    table[_POSITIONS[1:]] = numbers
    return table[_POSITIONS]


def read_json_gz(path: Path) -> dict[str, Any]:
    """A JSON object, gzipped or not.

    Raises:
        InputError: if it cannot be read.
    """
    check_file(path)
    with reading(path, "is not valid JSON", "Copy it again."):
        data = path.read_bytes()
        content = json.loads(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data)
    if not isinstance(content, dict):
        raise InputError(f"{path} is not a JSON object. Copy it again.")
    return content


def _mtx_parts(path: Path) -> dict[str, Path]:
    """The three files of an mtx matrix: of a folder, or beside a `.mtx` with the same prefix."""
    folder = path if path.is_dir() else path.parent
    prefix = "" if path.is_dir() else _MTX.fullmatch(path.name)["prefix"]  # type: ignore[index]
    parts = {}
    for what, names in (
        ("matrix", ("matrix.mtx",)),
        ("features", ("features.tsv", "genes.tsv")),
        ("barcodes", ("barcodes.tsv",)),
    ):
        files = [folder / f"{prefix}{name}{ending}" for name in names for ending in ("", ".gz")]
        present = [file for file in files if file.is_file()]
        if not present:
            raise InputError(f"{folder} lacks {prefix}{names[0]} (or .gz), one of the three files of an mtx matrix.")
        parts[what] = present[0]
    return parts


def _read_mtx(path: Path) -> sp.csr_matrix:
    from scipy.io import mmread

    file = _mtx_parts(path)["matrix"]
    check_file(file)
    with reading(file, "cannot be read as a Matrix Market file"):
        return sp.csr_matrix(mmread(file, spmatrix=True).T)


def _text(values: np.ndarray) -> np.ndarray:
    return np.array([v.decode() if isinstance(v, bytes) else str(v) for v in values], dtype=str)
