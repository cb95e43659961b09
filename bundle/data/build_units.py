"""Build the AnnData of measured units, in the form that scanpy and squidpy read."""

from __future__ import annotations

from collections.abc import Sequence

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from ..errors import InputError
from .polygons import POLYGON_ARRAYS, Polygons
from .units import Shape

__all__ = ["build_units"]


def build_units(
    counts: sp.spmatrix | np.ndarray,
    genes: Sequence[str],
    barcodes: Sequence[str],
    centers_px: np.ndarray,
    *,
    shape: Shape,
    size_um: float,
    mpp: float,
    section: str,
    gene_ids: Sequence[str] | None = None,
    in_tissue: np.ndarray | None = None,
    array_xy: np.ndarray | None = None,
    hires: np.ndarray | None = None,
    hires_scale: float | None = None,
    kind: str = "counts",
    polygons: Polygons | None = None,
) -> ad.AnnData:
    """Build the AnnData of measured units.

    Duplicate gene names are summed. `uns["spatial"][section]` follows scanpy's and squidpy's Visium form.

    Args:
        counts: (U, G), raw counts.
        genes: symbols, or ids without version.
        barcodes: the source's names of the units, unique.
        centers_px: (U, 2), (x, y) of the centres in level-0 pixels.
        shape: `circle`, `square`, or `polygon` (with `polygons`).
        size_um: diameter or side in micrometres; of polygons, the median diameter of disks of the same area.
        mpp: micrometres per level-0 pixel.
        section: name of the section.
        gene_ids: the source's ids, (G,).
        in_tissue: (U,) bool; all true by default.
        array_xy: (U, 2) integer positions on the array, if there is one.
        hires: a small picture of the slide, uint8 (h, w, 3).
        hires_scale: hires pixels per level-0 pixel.
        kind: `counts` or `rate`.
        polygons: of the units, if that is their shape.
    """
    matrix = sp.csr_matrix(counts, dtype=np.float32)
    names = pd.Index([str(g) for g in genes])
    var = pd.DataFrame({"gene_ids": list(gene_ids) if gene_ids is not None else list(names)}, index=names)
    if names.has_duplicates:
        unique = pd.Index(pd.unique(names))
        fold = sp.csr_matrix(
            (np.ones(len(names), np.float32), (np.arange(len(names)), unique.get_indexer(names))),
            shape=(len(names), len(unique)),
        )
        matrix = sp.csr_matrix(matrix @ fold)
        var = var[~names.duplicated()]
    obs = pd.DataFrame(
        {"in_tissue": np.ones(matrix.shape[0], bool) if in_tissue is None else np.asarray(in_tissue, bool)},
        index=pd.Index([str(b) for b in barcodes]),
    )
    if array_xy is not None:
        obs["array_row"], obs["array_col"] = np.asarray(array_xy)[:, 1], np.asarray(array_xy)[:, 0]
    if not obs.index.is_unique:
        raise InputError(f"{section}: {obs.index.duplicated().sum()} unit names occur twice; name each unit once.")
    adata = ad.AnnData(matrix, obs=obs, var=var)
    adata.obsm["spatial"] = np.asarray(centers_px, dtype=np.float64)
    spatial: dict = {"scalefactors": {"spot_diameter_fullres": size_um / mpp}, "metadata": {"mpp": mpp}, "images": {}}
    if hires is not None and hires_scale is not None:
        spatial["images"]["hires"] = hires
        spatial["scalefactors"]["tissue_hires_scalef"] = hires_scale
    adata.uns["spatial"] = {section: spatial}
    adata.uns["unit"] = {"shape": shape, "size_um": float(size_um), "kind": kind}
    if polygons is not None:
        arrays = {name: getattr(polygons, name) for name in POLYGON_ARRAYS}
        adata.uns["polygons"] = {"names": obs.index.to_numpy(), **arrays}
    return adata
