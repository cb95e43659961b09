"""Units to predict where none were measured: lattices of spots and grids of bins over the tissue."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp

from ..crops import OpenSlide
from ..errors import InputError
from ..units import Shape, Units

__all__ = ["UnitGrid", "empty_units", "tissue_fraction"]

_TISSUE_MAX_PX = 2048


def empty_units(barcodes: np.ndarray, centers_px: np.ndarray, shape: Shape, size_um: float, name: str) -> Units:
    """Units without measurements."""
    n = len(barcodes)
    none = sp.csr_matrix((n, 0), dtype=np.float32)
    inside = np.ones(n, bool)
    return Units(name, barcodes, np.array([], dtype=str), none, centers_px, inside, shape, size_um, "counts", None)


class TissueMap:
    """Where a slide has tissue, from a small picture of it.

    Args:
        slide: an open slide.
        mask: from a picture, uint8 (3, h, w), and its mpp to bool (1, h, w) (`transforms.TissueMask` is one).
    """

    def __init__(self, slide: OpenSlide, mask: Callable[[np.ndarray, float], Any]) -> None:
        picture, self.mpp = slide.thumbnail(_TISSUE_MAX_PX)
        self.mask = np.asarray(mask(np.ascontiguousarray(picture.transpose(2, 0, 1)), self.mpp))[0].astype(bool)

    @property
    def bounds_um(self) -> tuple[np.ndarray, np.ndarray] | None:
        """The tissue's rectangle, (low, high) as (x, y); None on blank glass."""
        rows, columns = np.nonzero(self.mask)
        if len(rows) == 0:
            return None
        low = np.array([columns.min(), rows.min()]) * self.mpp
        return low, np.array([columns.max() + 1, rows.max() + 1]) * self.mpp

    def at(self, points_um: np.ndarray) -> np.ndarray:
        """Whether points (x, y) lie on tissue, bool (N,)."""
        column, row = np.floor(points_um / self.mpp).astype(int).T
        inside = (row >= 0) & (column >= 0) & (row < self.mask.shape[0]) & (column < self.mask.shape[1])
        found = np.zeros(len(points_um), bool)
        found[inside] = self.mask[row[inside], column[inside]]
        return found


def tissue_fraction(tissue: TissueMap, centers_um: np.ndarray, shape: str, size_um: float) -> np.ndarray:
    """Share of each unit's area that is tissue, (U,); sampled at up to 7 x 7 points."""
    n = int(np.clip(np.ceil(size_um / tissue.mpp), 1, 7))
    steps = ((np.arange(n) + 0.5) / n - 0.5) * size_um
    dx, dy = (grid.ravel() for grid in np.meshgrid(steps, steps))
    keep = dx**2 + dy**2 <= (size_um / 2) ** 2 if shape == "circle" else np.ones(len(dx), bool)
    hits = np.zeros(len(centers_um))
    for x, y in zip(dx[keep], dy[keep], strict=True):
        hits += tissue.at(centers_um + np.array([x, y]))
    return hits / keep.sum()


@dataclass(frozen=True)
class UnitGrid:
    """A regular arrangement of units; the origin of bins is the slide's.

    Args:
        shape: `circle` or `square`.
        size_um: diameter or side.
        pitch_um: distance between neighbours' centres.
        lattice: `square` or `hex` (rows shifted by half a pitch, as on a Visium slide).
    """

    shape: Shape
    size_um: float
    pitch_um: float
    lattice: Literal["square", "hex"] = "square"

    def __post_init__(self) -> None:
        if self.size_um <= 0 or self.pitch_um <= 0:
            raise InputError("The size and the pitch of units must be above 0 µm.")
        if self.pitch_um < self.size_um:
            raise InputError(
                f"Units of {self.size_um:g} µm at a pitch of {self.pitch_um:g} µm overlap; use a pitch of at least "
                f"{self.size_um:g} µm."
            )
        if self.lattice not in ("square", "hex"):
            raise InputError(f'There is no lattice "{self.lattice}"; choose square or hex.')

    def over(self, tissue: TissueMap, mpp: float, name: str) -> Units:
        """The units that hold any tissue.

        Raises:
            InputError: if the slide has no tissue.
        """
        bounds = tissue.bounds_um
        if bounds is None:
            raise InputError(f"{name}: no tissue found on this slide. Give the units with --spots to predict anyway.")
        low, high = bounds
        dy = self.pitch_um * (np.sqrt(3) / 2 if self.lattice == "hex" else 1.0)
        row = np.arange(np.floor(low[1] / dy), np.ceil(high[1] / dy) + 1)
        column = np.arange(np.floor(low[0] / self.pitch_um), np.ceil(high[0] / self.pitch_um) + 1)
        rows, columns = (grid.ravel().astype(int) for grid in np.meshgrid(row, column, indexing="ij"))
        shift = 0.5 * (rows % 2) if self.lattice == "hex" else 0.0
        centers_um = np.column_stack([(columns + 0.5 + shift) * self.pitch_um, (rows + 0.5) * dy])
        kept = tissue_fraction(tissue, centers_um, self.shape, self.size_um) > 0
        barcodes = np.array([f"{self.size_um:g}um_{r}x{c}" for r, c in zip(rows[kept], columns[kept], strict=True)])
        return empty_units(barcodes, centers_um[kept] / mpp, self.shape, self.size_um, name)
