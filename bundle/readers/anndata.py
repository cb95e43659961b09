"""AnnData (`.h5ad` or `.zarr`) with a picture: raw counts wherever the file keeps them, positions in level-0 pixels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from ..data.section_identity import sections_of
from ..data.spacing import nearest_um
from ..data.units import Shape
from ..data.visium import CAPTURE_DISK_UM, PITCH_UM, visium_pitch_px
from ..errors import InputError
from ..files.anndata import read_anndata
from ..files.reading import reading
from .sample import Options, Place, Sample, UnitTable
from .tables import columns_of, pick, read_columns
from .tenx import clean_id

__all__ = ["TITLE", "Counts", "find", "find_counts", "gene_names", "read", "read_any"]

TITLE = "AnnData (.h5ad or .zarr) with a picture"
_LAYERS = ("counts", "raw_counts", "raw", "count", "counts_raw", "spliced_unspliced")
_SYMBOLS = ("gene_name", "gene_names", "gene_symbol", "gene_symbols", "symbol", "SYMBOL", "feature_name", "hgnc_symbol")
_IDS = ("gene_ids", "gene_id", "ensembl_id", "ensembl", "ENSEMBL", "feature_id", "id")
_CENTERS = ("spatial", "X_spatial", "spatial_fullres")
_PICTURES = (".tif", ".tiff", ".btf", ".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".jpg", ".jpeg", ".png", ".jp2")
_SAMPLE = 20_000  # values that are looked at to tell counts from other numbers


@dataclass(frozen=True)
class Counts:
    """Raw counts found in an AnnData.

    Attributes:
        matrix: (U, G), sparse or dense.
        where: they were found.
        var: about the genes.
    """

    matrix: Any
    where: str
    var: pd.DataFrame


def find(src: Path, options: Options) -> list[Place]:
    """An AnnData file or zarr, or all in a folder."""
    if _is_anndata(src):
        return [Place(src.name.removesuffix(src.suffix), src, (src,))]
    if not src.is_dir():
        return []
    return [Place(p.name.removesuffix(p.suffix), p, (p,)) for p in sorted(src.iterdir()) if _is_anndata(p)]


def _is_anndata(path: Path) -> bool:
    if path.suffix == ".h5ad":
        return path.is_file()
    return path.suffix == ".zarr" and (path / "obs").is_dir() and (path / "var").is_dir()


def read_any(path: Path) -> ad.AnnData:
    """Read an `.h5ad` or an AnnData zarr.

    Raises:
        InputError: if it is damaged or none.
    """
    if path.is_dir():
        with reading(path, "cannot be read as an AnnData zarr"):
            return ad.read_zarr(path)
    return read_anndata(
        path, "Give the .h5ad of counts and positions.", "Write it again with the program that made it."
    )


def read(place: Place, options: Options) -> Sample:
    """Read one file; what it leaves open about scale and size comes from the options."""
    adata = read_any(place.path)
    found: list[str] = []
    doubts: list[str] = []
    libraries = sections_of(adata.uns)
    if len(libraries) > 1:
        raise InputError(
            f"{place.path} holds {len(libraries)} slides ({', '.join(libraries)}); write one file for each."
        )
    library: dict[str, Any] = dict(next(iter(libraries.values()), {}))
    factors = {key: _number(value) for key, value in dict(library.get("scalefactors", {})).items()}
    counts = find_counts(adata, options.layer, place.path)
    found.append(f"Raw counts come from {counts.where}.")
    genes, ids = gene_names(counts.var, options, found)
    image = options.image or _picture_of(place)
    centers_px = _centers(adata, place.path)
    centers_px = _in_full_pixels(centers_px, factors, image, found)
    shape, size_um, mpp, mpp_from, pitch_um = _geometry(adata, library, factors, centers_px, options, place.path)
    matrix = counts.matrix
    in_tissue = None
    if "in_tissue" in adata.obs:
        in_tissue = adata.obs["in_tissue"].astype(str).str.lower().isin(["1", "1.0", "true"]).to_numpy()
    grid = ["array_col", "array_row"]
    table = UnitTable(
        "spots" if shape == "circle" else "squares",
        shape,
        size_um,
        adata.obs_names.to_numpy(str),
        genes,
        centers_px,
        lambda: _blocks(matrix),
        gene_ids=ids,
        in_tissue=in_tissue,
        array_xy=adata.obs[grid].to_numpy(int) if set(grid) <= set(adata.obs) and _are_whole(adata.obs[grid]) else None,
    )
    return Sample(place.name, image, mpp, mpp_from, [table], pitch_um=pitch_um, found=found, doubts=doubts)


def _number(value: Any) -> Any:
    return value.item() if isinstance(value, np.ndarray) and value.size == 1 else value


def _are_whole(table: pd.DataFrame) -> bool:
    values = table.apply(pd.to_numeric, errors="coerce").to_numpy(float)
    return bool(np.isfinite(values).all() and (values == np.rint(values)).all())


def _blocks(matrix: Any, rows: int = 65_536) -> Iterator[sp.csr_matrix]:
    """Rows of a matrix, sparse or dense."""
    if sp.issparse(matrix):
        matrix = sp.csr_matrix(matrix)
    for start in range(0, matrix.shape[0], rows):
        yield sp.csr_matrix(matrix[start : start + rows], dtype=np.float32)


def find_counts(adata: ad.AnnData, wanted: str | None, path: Path) -> Counts:
    """Where raw counts are: the wanted layer, else `layers["counts"]` and such, `raw`, or `X`, if they are whole.

    Raises:
        InputError: if none holds raw counts; it says what was seen.
    """
    places = {f'layers["{name}"]': (adata.layers[name], adata.var) for name in _LAYERS if name in adata.layers}
    if adata.raw is not None:
        places["raw.X"] = adata.raw.X, adata.raw.var
    if adata.X is not None:
        places["X"] = adata.X, adata.var
    if wanted is not None:
        key = {"X": "X", "raw": "raw.X"}.get(wanted, f'layers["{wanted}"]')
        if wanted in adata.layers:
            places = {key: (adata.layers[wanted], adata.var)}
        elif key in places:
            places = {key: places[key]}
        else:
            have = ", ".join([*(["X"] if adata.X is not None else []), *(["raw"] if adata.raw else []), *adata.layers])
            raise InputError(f'{path} has no layer "{wanted}"; it has {have}.')
    seen = []
    for where, (matrix, var) in places.items():
        fault = _no_counts(matrix)
        if fault is None:
            return Counts(matrix, where, var)
        seen.append(f"{where} {fault}")
    raise InputError(
        f"{path} holds no raw counts: {'; '.join(seen) or 'it has no matrix'}. PixNet needs raw counts in X, raw or "
        'layers["counts"], or a layer named with --layer.'
    )


def _no_counts(matrix: Any) -> str | None:
    """Why a matrix is no raw counts, with the evidence; None if it is."""
    values = matrix.data if sp.issparse(matrix) else np.asarray(matrix).ravel()
    if values.dtype.kind not in "iufb":
        return f"holds {values.dtype}"
    if not len(values):
        return None
    if not np.isfinite(values).all():
        return "holds missing or infinite values"
    low, high = float(values.min()), float(values.max())
    if low < 0:
        return f"is scaled (it reaches down to {low:.3g})"
    looked_at = values[:: max(len(values) // _SAMPLE, 1)]
    whole = float((looked_at == np.rint(looked_at)).mean())
    if whole == 1.0 and (values == np.rint(values)).all():
        return None
    sums = np.asarray(matrix.sum(axis=1), dtype=np.float64).ravel()
    kind = "normalised"
    if high < 20:
        few = matrix[:200]
        few = few.toarray() if sp.issparse(few) else np.asarray(few)
        back = np.expm1(few.astype(np.float64)).sum(1)
        back = back[back > 0]
        same = len(back) > 1 and np.std(back) < 0.01 * np.mean(back)
        kind = (
            f"log-normalised (exp(X) - 1 adds up to {np.mean(back):,.0f} in every unit)" if same else "probably logged"
        )
    elif len(sums) > 1 and np.std(sums) < 1e-3 * np.mean(sums):
        kind = f"normalised (every unit adds up to {np.mean(sums):,.0f})"
    return f"is {kind}: {1 - whole:.0%} of its values are fractions, and the largest is {high:.3g}"


def gene_names(var: pd.DataFrame, options: Options, found: list[str]) -> tuple[list[str], list[str]]:
    """Symbols and ids of genes: mapped where the file, or a table of the user's, has both."""
    index = [clean_id(name) for name in var.index.astype(str)]
    are_ids = np.mean([name.startswith("ENS") for name in index[:2000]]) > 0.5 if index else False
    symbols, ids = (None if are_ids else index), (index if are_ids else None)
    if symbols is None:
        column = next((name for name in _SYMBOLS if name in var), None)
        if column is not None:
            symbols = [str(v) if pd.notna(v) and str(v) else i for v, i in zip(var[column], index, strict=True)]
            found.append(f'Symbols come from var["{column}"].')
    if ids is None:
        column = next((name for name in _IDS if name in var), None)
        if column is not None:
            ids = [clean_id(str(v)) for v in var[column]]
    if options.gene_names is not None:
        known = _names_of(options.gene_names)
        keys = ids or index
        symbols = [known.get(key, key) for key in keys]
        mapped = sum(key in known for key in keys)
        found.append(f"{mapped:,} of {len(keys):,} genes have a symbol in {options.gene_names.name}.")
        if mapped < 0.5 * len(keys):
            raise InputError(
                f"{options.gene_names} names only {mapped} of the {len(keys)} genes ({keys[0]} is one of them). Its "
                "columns must be gene_id and gene_name."
            )
    if symbols is None:
        found.append("Genes are named by ids; --gene-names FILE maps them to symbols.")
    names = ids if options.by_ids and ids else (symbols or index)
    return list(names), list(ids or index)


def _names_of(path: Path) -> dict[str, str]:
    columns = columns_of(path)
    key = pick(path, columns, None, (*_IDS, columns[0]), "ids of genes")
    value = pick(path, columns, None, (*_SYMBOLS, "name", columns[-1]), "symbols of genes")
    table = read_columns(path, dtype=str, keep_default_na=False)
    return {clean_id(k): v for k, v in zip(table[key], table[value], strict=True) if v}


def _centers(adata: ad.AnnData, path: Path) -> np.ndarray:
    for key in _CENTERS:
        if key in adata.obsm:
            held = np.asarray(adata.obsm[key], dtype=np.float64)
            if held.ndim == 2 and held.shape[1] >= 2:
                return held[:, :2]
    # Space Ranger's own columns are row before column.
    for x, y in (
        ("pxl_col_in_fullres", "pxl_row_in_fullres"),
        ("pixel_x", "pixel_y"),
        ("imagecol", "imagerow"),
        ("x", "y"),
    ):
        if x in adata.obs and y in adata.obs:
            return adata.obs[[x, y]].to_numpy(np.float64)
    raise InputError(f'{path} has no positions: put (x, y) in level-0 pixels of the picture into obsm["spatial"].')


def _in_full_pixels(centers: np.ndarray, factors: dict[str, Any], image: Path | None, found: list[str]) -> np.ndarray:
    """Centres in full-resolution pixels; the spots' diameter shows which are in pixels of the hires picture."""
    diameter = factors.get("spot_diameter_fullres")
    scale = factors.get("tissue_hires_scalef")
    if not diameter or not scale or scale >= 0.9 or len(centers) < 7:
        return centers
    pitch = nearest_um(centers)
    # Visium's diameter is 0.65 of the pitch; centres in hires pixels lie closer than the disks are wide.
    if abs(diameter * scale / pitch / 0.65 - 1) < 0.1 and diameter > 1.1 * pitch:
        found.append(f"Positions were in pixels of the hires picture; PixNet divided them by {scale:.4g}.")
        return centers / scale
    return centers


def _geometry(
    adata: ad.AnnData,
    library: dict[str, Any],
    factors: dict[str, Any],
    centers_px: np.ndarray,
    options: Options,
    path: Path,
) -> tuple[Shape, float, float | None, str, float | None]:
    """Shape and size of the units, the picture's mpp and where it comes from, and the promised pitch."""
    stated = library.get("metadata", {}) if isinstance(library.get("metadata", {}), dict) else {}
    mpp = _number(stated.get("mpp")) if stated else None
    mpp_from = "the file states it"
    unit = adata.uns.get("unit")
    diameter_px = factors.get("spot_diameter_fullres")
    pitch_px = visium_pitch_px(adata.obs, centers_px, diameter_px) if np.isfinite(centers_px).all() else None
    pitch_um = options.pitch_um
    if pitch_px is not None:
        pitch_um = pitch_um or PITCH_UM
        mpp, mpp_from = pitch_um / pitch_px, f"Visium spots {pitch_um:g} µm apart lie {pitch_px:.4g} px apart"
    elif pitch_um is not None:
        nearest_px = nearest_um(centers_px)
        mpp, mpp_from = pitch_um / nearest_px, f"units {pitch_um:g} µm apart lie {nearest_px:.4g} px apart"
    if options.size_um is not None:
        shape: Shape = "square" if options.shape == "square" else "circle"
        return shape, options.size_um, mpp, mpp_from, pitch_um
    if isinstance(unit, dict) and unit.get("shape") in ("circle", "square"):
        return unit["shape"], float(unit["size_um"]), mpp, mpp_from, pitch_um
    if pitch_px is not None:
        return "circle", CAPTURE_DISK_UM, mpp, mpp_from, pitch_um
    raise InputError(
        f"{path} does not say how large its units are. Give --size-um (and --shape square for bins), or set "
        'uns["unit"] = {"shape": "circle", "size_um": 55}.'
    )


def _picture_of(place: Place) -> Path | None:
    """A picture of the same name beside the file, or the only one there."""
    pictures = [p for p in sorted(place.path.parent.iterdir()) if p.suffix.lower() in _PICTURES and p.is_file()]
    named = [p for p in pictures if p.name.startswith(f"{place.name}.")]
    files = [p for p in place.path.parent.iterdir() if _is_anndata(p)]
    chosen = named or (pictures if len(files) == 1 else [])
    return chosen[0] if len(chosen) == 1 else None
