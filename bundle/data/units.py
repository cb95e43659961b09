"""Measured units (spots, bins, cells) of one slide, as plain arrays."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
import scipy.sparse as sp

from ..errors import InputError
from .polygons import Labels, Polygons
from .section_identity import SectionIdentity

__all__ = [
    "MIN_MEASURED",
    "Shape",
    "Units",
    "bin_prefix",
    "is_interpolated",
    "off_slide",
    "unit_area_um2",
    "units_table",
    "unmeasured_units",
]

logger = logging.getLogger(__name__)

#: The share of a panel's genes that a slide must have measured.
MIN_MEASURED = 0.1
Shape = Literal["circle", "square", "polygon", "label"]


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
        shape: `circle` (size is the diameter), `square` (size is the side), or `polygon` or `label`: cells, each with
            its own shape (size is the median diameter of disks of the same area).
        size_um: the size in micrometres.
        kind: `counts` for measurements, `rate` for a noise-free truth.
        mpp: micrometres per level-0 pixel that the units were registered with, if stated; always for cells.
        geometry: the shapes of `polygon` and `label`, whose centres are centroids.
        obs: further columns about the units, one row each, or None.
        section: the slide that they lie on, if their file names it.
        all_genes_total: sum of all measured genes per unit, (U,), where `counts` holds some genes alone; else None.
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
    geometry: Polygons | Labels | None = None
    obs: pd.DataFrame | None = None
    section: SectionIdentity | None = None
    all_genes_total: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.barcodes)

    @property
    def total(self) -> np.ndarray:
        """Sum of all measured genes per unit, (U,)."""
        if self.all_genes_total is not None:
            return self.all_genes_total
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
            all_genes_total=None if self.all_genes_total is None else self.all_genes_total[index],
        )

    def with_genes(self, genes: Sequence[str]) -> Units:
        """The same units with the counts of `genes` alone, as far as they were measured; totals stay those of all."""
        kept = [gene for gene, here in zip(genes, self.measures(genes), strict=True) if here]
        counts = sp.csr_matrix(self.counts[:, self.columns(kept)])
        return replace(self, genes=np.array(kept, dtype=str), counts=counts, all_genes_total=self.total)

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
        """Refuse grid squares that are finer than the units.

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
                f"{self.name} lacks {len(missing)} of the {len(genes)} genes (first: "
                f"{', '.join(missing[:3])}). Choose genes that it measures."
            )
        return [column[g] for g in genes]


def unmeasured_units(
    barcodes: np.ndarray,
    centers_px: np.ndarray,
    shape: Shape,
    size_um: float,
    name: str = "units",
    mpp: float | None = None,
    geometry: Polygons | Labels | None = None,
    obs: pd.DataFrame | None = None,
) -> Units:
    """Units to predict, without measurements; see `Units` for the arguments."""
    n = len(barcodes)
    nothing = sp.csr_matrix((n, 0), dtype=np.float32)
    inside, genes = np.ones(n, dtype=bool), np.array([], dtype=str)
    return Units(
        name, barcodes, genes, nothing, centers_px, inside, shape, float(size_um), "counts", mpp, geometry, obs
    )


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
    """What is known of each unit but its place, as columns for a prediction's `obs`.

    Cells have `area_um2`, and `classification` where their file gave one; spots and bins the row and the column of the
    array where their file has them.
    """
    table = pd.DataFrame(index=pd.Index(units.barcodes))
    if units.geometry is not None:
        table["area_um2"] = units.areas_um2
    for name in units.obs if units.obs is not None else ():
        table[name] = units.obs[name].array  # type: ignore[index]
    return table
