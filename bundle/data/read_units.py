"""Read the AnnData of measured units."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from ..errors import InputError
from ..files.anndata import read_anndata
from ..files.reading import reading
from .manifest import check_mpp
from .polygons import POLYGON_ARRAYS, Polygons
from .section_identity import section_of, sections_of
from .units import Units
from .visium import CAPTURE_DISK_UM, CONVENTION_UM, PITCH_UM, visium_pitch_px

__all__ = ["read_units"]

logger = logging.getLogger(__name__)

#: A stated mpp this far from what the pitch of spots says is refused.
_PITCH_TOLERANCE = 0.05
#: A slide measures 25 x 75 mm.
_LARGEST_UM = 1e5


def read_units(path: str | Path) -> Units:
    """Read the AnnData of measured units.

    Args:
        path: `.h5ad` with raw counts in X, (x, y) in level-0 pixels in `obsm["spatial"]` and the unit's `shape` and
            `size_um` in `uns["unit"]`; see `build_units`, which makes one.

    Raises:
        InputError: if the file is missing, damaged or not AnnData, lacks positions or the unit's size, or two units
            have one name.
    """
    path = Path(path)
    again = "Write it again with `pixnet prepare`."
    adata = read_anndata(path, "Give the .h5ad of the units' counts and positions.", again)
    with reading(path, "cannot be read as measured units", "Check what its obs, obsm and uns hold, or write it again."):
        units = _units_of(adata, path)
    _check(units, path)
    return units


def _check(units: Units, path: Path) -> None:
    """Refuse names that occur twice, and numbers that no slide has."""
    twice = len(units) - len(set(units.barcodes.tolist()))
    if twice:
        raise InputError(f"{path}: {twice} unit names occur twice; name each unit once.")
    check_mpp(units.mpp, f'{path}, uns["spatial"]')
    if not units.size_um < _LARGEST_UM:
        raise InputError(f'{path}: units of {units.size_um:g} µm in uns["unit"] are larger than a slide; correct it.')


def _units_of(adata: ad.AnnData, path: Path) -> Units:
    if "spatial" not in adata.obsm:
        raise InputError(f'{path} has no positions: put (x, y) in level-0 pixels into obsm["spatial"].')
    if np.ndim(adata.obsm["spatial"]) != 2 or np.shape(adata.obsm["spatial"])[1] < 2:
        raise InputError(f'{path}: obsm["spatial"] must hold x and y of every unit.')
    slide = next(iter(sections_of(adata.uns).values()), {})
    mpp = slide.get("metadata", {}).get("mpp")
    unit = adata.uns.get("unit")
    if unit is None:
        unit, mpp = _guessed_unit(path, adata, slide.get("scalefactors", {}).get("spot_diameter_fullres"), mpp)
    polygons = _polygons_of(adata, path) if unit.get("shape") == "polygon" and "polygons" in adata.uns else None
    is_known = unit.get("shape") in ("circle", "square") or polygons is not None
    if not is_known or not float(unit.get("size_um", 0)) > 0:
        raise InputError(
            f'{path}: uns["unit"] needs a "shape", circle or square, and a "size_um" above 0; cells, which have '
            "shapes of their own, come as GeoJSON or as a label image."
        )
    centers = np.asarray(adata.obsm["spatial"], dtype=np.float64)
    if not np.isfinite(centers).all():
        raise InputError(
            f'{path}: {np.sum(~np.isfinite(centers).all(1))} units have no finite position in obsm["spatial"].'
        )
    grid = [name for name in ("array_row", "array_col") if name in adata.obs]
    in_tissue = adata.obs["in_tissue"].astype(str) if "in_tissue" in adata.obs else pd.Series(["1"] * adata.n_obs)
    return Units(
        name=path.name,
        barcodes=adata.obs_names.to_numpy(dtype=str),
        genes=adata.var_names.to_numpy(dtype=str),
        counts=sp.csr_matrix(adata.X, dtype=np.float32)
        if adata.X is not None
        else sp.csr_matrix(adata.shape, dtype=np.float32),
        centers_px=centers[:, :2],
        in_tissue=in_tissue.str.lower().isin(["1", "1.0", "true"]).to_numpy(),
        shape=str(unit["shape"]),  # type: ignore[arg-type]
        size_um=float(unit["size_um"]),
        kind=str(unit.get("kind", "counts")),
        mpp=None if mpp is None else float(mpp),
        geometry=polygons,
        section=section_of(adata.uns, path.name),
        obs=adata.obs[grid] if grid else None,
    )


def _polygons_of(adata: ad.AnnData, path: Path) -> Polygons:
    """The polygons of measured cells, also where cells were taken out of the file since it was written."""
    held = adata.uns["polygons"]
    polygons = Polygons(*(np.asarray(held[name]) for name in POLYGON_ARRAYS))
    place = pd.Index(np.asarray(held["names"], dtype=str)).get_indexer(adata.obs_names.astype(str))
    if (place < 0).any():
        raise InputError(f'{path}: uns["polygons"] has no polygon for {(place < 0).sum()} of {len(place)} cells.')
    return polygons if (place == np.arange(len(polygons))).all() else polygons.take(place)


def _guessed_unit(
    path: Path, adata: ad.AnnData, diameter_px: float | None, mpp: float | None
) -> tuple[dict[str, Any], float | None]:
    """The unit of a file without `uns["unit"]`, and its mpp: Visium's where it is Visium, else with a warning."""
    centers = np.asarray(adata.obsm["spatial"], dtype=np.float64)[:, :2]
    pitch_px = visium_pitch_px(adata.obs, centers, diameter_px) if np.isfinite(centers).all() else None
    if pitch_px is not None:
        found_mpp = PITCH_UM / pitch_px
        if mpp is not None and abs(mpp / found_mpp - 1) > _PITCH_TOLERANCE:
            raise InputError(
                f"{path} states {mpp:.4g} µm per pixel, but its Visium spots lie {PITCH_UM:g} µm apart only at "
                f'{found_mpp:.4g}. Put positions in level-0 pixels into obsm["spatial"], or correct the mpp in '
                'uns["spatial"].'
            )
        logger.info(
            "%s: Visium spots, %g µm across and %g µm apart (%.4g µm per pixel).",
            path.name,
            CAPTURE_DISK_UM,
            PITCH_UM,
            found_mpp,
        )
        if diameter_px is not None and abs(diameter_px * found_mpp / CONVENTION_UM - 1) > _PITCH_TOLERANCE:
            logger.warning(
                "%s: spot_diameter_fullres is %.3g µm by the spots' pitch, and Space Ranger writes %g. Are positions "
                "in pixels of a smaller picture? They must be in level-0 pixels.",
                path.name,
                diameter_px * found_mpp,
                CONVENTION_UM,
            )
        return {"shape": "circle", "size_um": CAPTURE_DISK_UM}, found_mpp if mpp is None else mpp
    if diameter_px is None or mpp is None:
        raise InputError(
            f'{path} does not say how large its units are: set uns["unit"] = {{"shape": "circle", "size_um": 55}}.'
        )
    size_um = float(diameter_px) * float(mpp)
    logger.warning(
        "%s does not say how large its units are. PixNet takes disks of %.3g µm, its spot_diameter_fullres; set "
        'uns["unit"] = {"shape": "circle", "size_um": ...} if they are not.',
        path.name,
        size_um,
    )
    return {"shape": "circle", "size_um": size_um}, mpp
