"""Units to predict where none were measured: lattices of spots and grids of bins over the tissue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.sparse as sp

from ..errors import InputError
from ..tissue import TissueMap, tissue_fraction
from ..units import Shape, Units

__all__ = ["UnitGrid", "empty_units"]


def empty_units(barcodes: np.ndarray, centers_px: np.ndarray, shape: Shape, size_um: float, name: str) -> Units:
    """Units without measurements."""
    n = len(barcodes)
    none = sp.csr_matrix((n, 0), dtype=np.float32)
    inside = np.ones(n, bool)
    return Units(name, barcodes, np.array([], dtype=str), none, centers_px, inside, shape, size_um, "counts", None)


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
        column = np.arange(np.floor(low[0] / self.pitch_um) - 1, np.ceil(high[0] / self.pitch_um) + 1)
        rows, columns = (grid.ravel().astype(int) for grid in np.meshgrid(row, column, indexing="ij"))
        shift = 0.5 * (rows % 2) if self.lattice == "hex" else 0.0
        centers_um = np.column_stack([(columns + 0.5 + shift) * self.pitch_um, (rows + 0.5) * dy])
        kept = tissue_fraction(tissue, centers_um, self.shape, self.size_um) > 0
        barcodes = np.array([f"{self.size_um:g}um_{r}x{c}" for r, c in zip(rows[kept], columns[kept], strict=True)])
        return empty_units(barcodes, centers_um[kept] / mpp, self.shape, self.size_um, name)
