"""Bins too many to hold: their places are read, their counts stay in the file until they are summed to squares."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp

from ..files.reading import reading
from .section_identity import section_of, sections_of
from .units import Units

__all__ = ["LazyCounts", "read_lazy_bins"]

#: Files with fewer counts than this are read as a whole.
_MANY = 20_000_000
#: Values that are read at once.
_BLOCK_VALUES = 4_000_000
#: The sums are dense while they are summed; larger ones than this (3 GB) are left to the usual way.
_MOST_SUMS = 750_000_000


@dataclass(frozen=True)
class LazyCounts:
    """Counts of bins in an `.h5ad`, which can be indexed by rows and summed.

    Attributes:
        path: the file.
        shape: (U, G).
        kept: rows of the file, (U,); all if None.
    """

    path: Path
    shape: tuple[int, int]
    kept: np.ndarray | None = None

    def __getitem__(self, index: np.ndarray) -> LazyCounts:
        rows = np.arange(self.shape[0]) if self.kept is None else self.kept
        return LazyCounts(self.path, (len(rows[index]), self.shape[1]), rows[index])

    def summed(self, members: sp.csr_matrix) -> sp.csr_matrix:
        """`members @ counts`, block by block.

        Args:
            members: which bins make a square, (S, U).

        Returns:
            CSR (S, G).
        """
        by_bin = sp.csc_matrix(members)
        sums = np.zeros((members.shape[0], self.shape[1]), np.float32)
        place = None
        for start, block in self._blocks():
            stop = start + block.shape[0]
            if self.kept is None:
                part, rows = by_bin[:, start:stop], block
            else:
                if place is None:
                    place = np.argsort(self.kept, kind="stable")
                    in_order = self.kept[place]
                low, high = np.searchsorted(in_order, [start, stop])
                part, rows = by_bin[:, place[low:high]], block[in_order[low:high] - start]
            added = sp.csr_matrix(part @ rows)
            for squares in np.array_split(np.flatnonzero(np.diff(added.indptr)), max(1, added.shape[0] // 500)):
                sums[squares] += added[squares].toarray()
        parts = [sp.csr_matrix(sums[start : start + 500]) for start in range(0, len(sums), 500)]
        return sp.vstack(parts, "csr") if parts else sp.csr_matrix(sums)

    def _blocks(self) -> Iterator[tuple[int, sp.csr_matrix]]:
        with reading(self.path, "cannot be read as measured units"), h5py.File(self.path) as file:
            indptr = file["X/indptr"][:].astype(np.int64)
        start = 0
        while start < len(indptr) - 1:
            stop = int(np.searchsorted(indptr, indptr[start] + _BLOCK_VALUES, "right")) - 1
            stop = max(start + 1, min(stop, len(indptr) - 1))
            part = slice(int(indptr[start]), int(indptr[stop]))
            with reading(self.path, "cannot be read as measured units"), h5py.File(self.path) as file:
                values = file["X/data"][part], file["X/indices"][part], indptr[start : stop + 1] - indptr[start]
                block = sp.csr_matrix(values, shape=(stop - start, self.shape[1]))
                block.check_format(full_check=True)
            yield start, block
            start = stop


def read_lazy_bins(path: str | Path, sizes_um: Sequence[float] | None) -> Units | None:
    """Square bins whose counts stay in the file; None unless there are many and all sizes are sums of theirs.

    Args:
        path: an `.h5ad` of measured units.
        sizes_um: the sizes that are wanted.
    """
    path = Path(path)
    if sizes_um is None or path.suffix != ".h5ad" or not path.is_file():
        return None
    try:
        with h5py.File(path) as file:
            group: Any = file["X"]
            if group.attrs.get("encoding-type") != "csr_matrix" or len(group["data"]) < _MANY:
                return None
            uns: Any = ad.io.read_elem(file["uns"])
            unit = uns["unit"]
            size_um, n_units, n_genes = float(unit["size_um"]), *(int(n) for n in group.attrs["shape"])
            times = np.asarray(sizes_um, float) / size_um
            if unit["shape"] != "square" or (times < 1.99).any() or not np.allclose(times, np.rint(times)):
                return None
            if n_units / times.min() ** 2 * n_genes * 2 > _MOST_SUMS:
                return None
            obs = {name: file["obs"][name][:] for name in ("array_row", "array_col", "in_tissue")}
            centers = file["obsm/spatial"][:]
            genes = ad.io.read_elem(file["var"]).index.to_numpy(dtype=str)
    except (OSError, KeyError, ValueError, TypeError):  # the usual way says what is wrong with it
        return None
    mpp = next(iter(sections_of(uns).values()), {}).get("metadata", {}).get("mpp")
    grid = {"array_row": obs["array_row"], "array_col": obs["array_col"]}
    return Units(
        name=path.name,
        barcodes=np.zeros(n_units, "U1"),  # the squares get names of their own
        genes=genes,
        counts=LazyCounts(path, (n_units, n_genes)),  # type: ignore[arg-type]
        centers_px=np.asarray(centers, np.float64),
        in_tissue=np.asarray(obs["in_tissue"], bool),
        shape="square",
        size_um=size_um,
        kind=str(unit.get("kind", "counts")),
        mpp=None if mpp is None else float(mpp),
        obs=pd.DataFrame(grid),
        section=section_of(uns, path.name),
    )
