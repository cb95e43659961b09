"""Measured units (spots, bins, cells) of one slide as AnnData, in the form scanpy and squidpy read."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from ..errors import InputError
from ..files.anndata import read_anndata
from ..files.reading import reading
from .manifest import check_mpp
from .polygons import Labels, Outlines
from .section_identity import Library, libraries_of, library_of
from .visium import CAPTURE_DISK_UM, CONVENTION_UM, PITCH_UM, visium_pitch_px

__all__ = [
    "MIN_MEASURED",
    "OUTLINES",
    "Shape",
    "Units",
    "bin_prefix",
    "build_units",
    "is_interpolated",
    "off_slide",
    "read_units",
    "unit_area_um2",
    "units_table",
]

logger = logging.getLogger(__name__)

#: The share of a panel's genes that a slide must have measured.
MIN_MEASURED = 0.1
#: A stated mpp this far from what the pitch of spots says is refused.
_PITCH_TOLERANCE = 0.05

Shape = Literal["circle", "square", "polygon", "label"]
#: What `uns["outlines"]` holds beside the names of the cells.
OUTLINES = ("vertices_px", "ring_offsets", "unit_offsets")
#: A slide measures 25 x 75 mm.
_LARGEST_UM = 1e5


@dataclass(frozen=True)
class Units:
    """Units of one slide and one size, as plain arrays.

    Attributes:
        name: where they came from, for messages.
        barcodes: names of the units, (U,).
        genes: names of the genes, (G,).
        counts: raw counts (or the noise-free rate per unit where `kind` is `rate`), CSR (U, G).
        centers_px: centres (x, y) in level-0 pixels, a pixel's corner being 0, (U, 2).
        in_tissue: the source's mark, (U,) bool.
        shape: `circle` (size is the diameter), `square` (size is the side), or `polygon` or `label`: cells, each of
            its own outline (size is the median diameter of disks of the same area).
        size_um: the size in micrometres.
        kind: `counts` for measurements, `rate` for a noise-free truth.
        mpp: micrometres per level-0 pixel that the units were registered with, if stated; always for cells.
        geometry: the outlines of `polygon` and `label`, whose centres are centroids.
        obs: further columns about the units, one row each, or None.
        library: the slide they lie on, if their file names it.
    """

    name: str
    barcodes: np.ndarray
    genes: np.ndarray
    counts: sp.csr_matrix
    centers_px: np.ndarray
    in_tissue: np.ndarray
    shape: Shape
    size_um: float
    kind: str
    mpp: float | None
    geometry: Outlines | Labels | None = None
    obs: pd.DataFrame | None = None
    library: Library | None = None

    def __len__(self) -> int:
        return len(self.barcodes)

    @property
    def total(self) -> np.ndarray:
        """Sum of all measured genes per unit, (U,)."""
        return np.asarray(self.counts.sum(axis=1), dtype=np.float64).ravel()

    @property
    def area_um2(self) -> float:
        """Area of one unit in square micrometres; the mean of cells."""
        if self.geometry is not None and len(self):
            return float(self.areas_um2.mean())
        return unit_area_um2(self.shape, self.size_um)

    @property
    def areas_um2(self) -> np.ndarray:
        """Area of each unit in square micrometres, (U,)."""
        if self.geometry is not None and self.mpp is not None:
            return self.geometry.areas_px2 * self.mpp**2
        return np.full(len(self), unit_area_um2(self.shape, self.size_um))

    @property
    def reach_um(self) -> np.ndarray:
        """How far each unit reaches from its centre along x or y, in micrometres, (U,)."""
        if self.geometry is not None and self.mpp is not None:
            return self.geometry.reach_px * self.mpp
        return np.full(len(self), self.size_um / 2)

    def take(self, index: np.ndarray) -> Units:
        """The units at `index` (integers or a boolean mask)."""
        return replace(
            self,
            barcodes=self.barcodes[index],
            counts=self.counts[index],
            centers_px=self.centers_px[index],
            in_tissue=self.in_tissue[index],
            geometry=None if self.geometry is None else self.geometry.take(index),
            obs=None if self.obs is None else self.obs.iloc[index],
        )

    def check_counts(self) -> None:
        """Refuse what cannot be measurements.

        Raises:
            InputError: if a value is missing, negative or, in counts, fractional, or a gene's name occurs twice.
        """
        data = self.counts.data
        fault = None
        if not np.isfinite(data).all():
            fault = "missing or infinite"
        elif (data < 0).any():
            fault = "negative"
        elif self.kind == "counts" and (data != np.rint(data)).any():
            fault = "fractional"
        twice = len(self.genes) - len(set(self.genes))
        if twice:
            raise InputError(f"{self.name}: {twice} gene names occur twice; sum their counts under one name.")
        if fault is not None:
            raise InputError(f"{self.name} holds {fault} values; X must be the raw counts, neither logged nor scaled.")

    def check_scales(self, scales_um: Sequence[float]) -> None:
        """Refuse cells that are finer than the units.

        Raises:
            InputError: if a scale is finer than the measured units.
        """
        finer = [s for s in scales_um if s < self.size_um]
        if finer:
            raise InputError(
                f"{self.name} was measured in {self.size_um:g} µm units, so a scale of {finer[0]:g} µm has no truth "
                "to compare with. Leave it out of scales_um, or evaluate on a data set with finer units."
            )

    def counts_of(self, genes: Sequence[str], partly: bool = False) -> np.ndarray:
        """Dense counts of `genes` in their order, float32 (U, len(genes)).

        Args:
            genes: which.
            partly: give NaN for a gene that was not measured here, instead of refusing it.

        Raises:
            InputError: if a gene was not measured here.
        """
        if not partly:
            return np.asarray(self.counts[:, self.columns(genes)].todense(), dtype=np.float32)
        measured = self.measures(genes)
        counts = np.full((len(self), len(genes)), np.nan, np.float32)
        counts[:, measured] = self.counts_of([gene for gene, here in zip(genes, measured, strict=True) if here])
        return counts

    def measures(self, genes: Sequence[str]) -> np.ndarray:
        """Which of `genes` were measured here, bool (len(genes),)."""
        return np.isin(np.asarray(genes, dtype=str), self.genes)

    def check_panel(self, genes: Sequence[str], what: str) -> None:
        """Say which genes of a panel were not measured here.

        Args:
            genes: the panel.
            what: what is done with the others, such as "scores".

        Raises:
            InputError: if fewer than a tenth of them were measured.
        """
        measured = self.measures(genes)
        missing = [gene for gene, here in zip(genes, measured, strict=True) if not here]
        if not missing:
            return
        lacks = (
            f"{self.name} lacks {len(missing)} of the {len(genes)} genes of the model's panel (first: "
            f"{', '.join(missing[:3])})"
        )
        if measured.mean() < MIN_MEASURED:
            raise InputError(
                f"{lacks}; PixNet needs {MIN_MEASURED:.0%} of them. Do both use symbols, or both ids? Else choose the "
                "panel from the genes that this slide measures."
            )
        logger.warning("%s. They were not measured there: PixNet %s the other %d.", lacks, what, measured.sum())

    def columns(self, genes: Sequence[str]) -> list[int]:
        """Where `genes` stand among the genes measured.

        Raises:
            InputError: if a gene was not measured here.
        """
        column = {g: i for i, g in enumerate(self.genes.tolist())}  # once for each crop
        missing = [g for g in genes if g not in column]
        if missing:
            raise InputError(
                f"{self.name} lacks {len(missing)} of the {len(genes)} genes asked for (first: "
                f"{', '.join(missing[:3])}). Choose genes that it measures."
            )
        return [column[g] for g in genes]


def off_slide(what: str, centers_px: np.ndarray, names: np.ndarray, size_px: tuple[int, int], slide: str) -> str | None:
    """Which positions lie off a slide, as the beginning of a sentence; None where all lie on it."""
    outside = ((centers_px < 0) | (centers_px > size_px)).any(1)
    if not outside.any():
        return None
    first = int(outside.argmax())
    x, y = centers_px[first]
    return (
        f"{outside.sum()} of {len(names)} {what} lie outside {slide} ({size_px[0]} x {size_px[1]} px), first "
        f"{names[first]} at ({x:.0f}, {y:.0f})"
    )


def unit_area_um2(shape: str, size_um: float) -> float:
    """Area of a unit: a square of side `size_um`, else a disk of diameter `size_um` (cells: of the median area)."""
    return size_um**2 if shape == "square" else math.pi / 4 * size_um**2


def bin_prefix(size_um: float) -> str:
    """What the names of bins begin with, as 10x names them; row and column follow."""
    return f"s_{f'{size_um:g}'.zfill(3)}um_"


def is_interpolated(shape: str, size_um: float, resolution_um: float) -> bool:
    """Whether a unit is smaller than a pixel of the map, so that its value is interpolated between pixels."""
    return unit_area_um2(shape, size_um) < resolution_um**2


def units_table(units: Units) -> pd.DataFrame:
    """What is known of each unit beside its place, as columns for a prediction's `obs`.

    Cells have `area_um2`, and `classification` where their file gave one; spots and bins the row and the column of the
    array where their file has them.
    """
    table = pd.DataFrame(index=pd.Index(units.barcodes))
    if units.geometry is not None:
        table["area_um2"] = units.areas_um2
    for name in units.obs if units.obs is not None else ():
        table[name] = units.obs[name].array  # type: ignore[index]
    return table


def build_units(
    counts: sp.spmatrix | np.ndarray,
    genes: Sequence[str],
    barcodes: Sequence[str],
    centers_px: np.ndarray,
    *,
    shape: Shape,
    size_um: float,
    mpp: float,
    library: str,
    gene_ids: Sequence[str] | None = None,
    in_tissue: np.ndarray | None = None,
    array_xy: np.ndarray | None = None,
    hires: np.ndarray | None = None,
    hires_scale: float | None = None,
    kind: str = "counts",
    outlines: Outlines | None = None,
) -> ad.AnnData:
    """Build the AnnData of measured units.

    Duplicate gene names are summed. `uns["spatial"][library]` follows scanpy's and squidpy's Visium form.

    Args:
        counts: (U, G), raw counts.
        genes: symbols, or ids without version.
        barcodes: the source's names of the units, unique.
        centers_px: (U, 2), (x, y) of the centres in level-0 pixels.
        shape: `circle`, `square`, or `polygon` (with `outlines`).
        size_um: diameter or side in micrometres; of polygons, the median diameter of disks of the same area.
        mpp: micrometres per level-0 pixel.
        library: name of the section.
        gene_ids: the source's ids, (G,).
        in_tissue: (U,) bool; all true by default.
        array_xy: (U, 2) integer positions on the array, if there is one.
        hires: a small picture of the slide, uint8 (h, w, 3).
        hires_scale: hires pixels per level-0 pixel.
        kind: `counts` or `rate`.
        outlines: of polygons.
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
        raise InputError(f"{library}: {obs.index.duplicated().sum()} unit names occur twice; name each unit once.")
    adata = ad.AnnData(matrix, obs=obs, var=var)
    adata.obsm["spatial"] = np.asarray(centers_px, dtype=np.float64)
    spatial: dict = {"scalefactors": {"spot_diameter_fullres": size_um / mpp}, "metadata": {"mpp": mpp}, "images": {}}
    if hires is not None and hires_scale is not None:
        spatial["images"]["hires"] = hires
        spatial["scalefactors"]["tissue_hires_scalef"] = hires_scale
    adata.uns["spatial"] = {library: spatial}
    adata.uns["unit"] = {"shape": shape, "size_um": float(size_um), "kind": kind}
    if outlines is not None:
        adata.uns["outlines"] = {"names": obs.index.to_numpy(), **{key: getattr(outlines, key) for key in OUTLINES}}
    return adata


def read_units(path: str | Path) -> Units:
    """Read the AnnData of measured units.

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
    library = next(iter(libraries_of(adata.uns).values()), {})
    mpp = library.get("metadata", {}).get("mpp")
    unit = adata.uns.get("unit")
    if unit is None:
        unit, mpp = _guessed_unit(path, adata, library.get("scalefactors", {}).get("spot_diameter_fullres"), mpp)
    outlines = _outlines_of(adata, path) if unit.get("shape") == "polygon" and "outlines" in adata.uns else None
    is_known = unit.get("shape") in ("circle", "square") or outlines is not None
    if not is_known or not float(unit.get("size_um", 0)) > 0:
        raise InputError(
            f'{path}: uns["unit"] needs a "shape", circle or square, and a "size_um" above 0; cells, which have '
            "outlines of their own, come as GeoJSON or as a label image."
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
        geometry=outlines,
        library=library_of(adata.uns, path.name),
        obs=adata.obs[grid] if grid else None,
    )


def _outlines_of(adata: ad.AnnData, path: Path) -> Outlines:
    """The outlines of measured cells, also where some cells were taken out of the file since it was written."""
    held = adata.uns["outlines"]
    outlines = Outlines(*(np.asarray(held[key]) for key in OUTLINES))
    place = pd.Index(np.asarray(held["names"], dtype=str)).get_indexer(adata.obs_names.astype(str))
    if (place < 0).any():
        raise InputError(f'{path}: uns["outlines"] has no outline for {(place < 0).sum()} of {len(place)} cells.')
    return outlines if (place == np.arange(len(outlines))).all() else outlines.take(place)


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
