"""Units to predict where none were measured: lattices of spots and grids of bins over the tissue.

A lattice is arithmetic: rows, columns and a pitch. Its units come band by band, never as one table.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from ..data.tissue import TissueMap
from ..data.units import Shape, bin_prefix, is_interpolated, unit_area_um2
from ..errors import InputError

__all__ = ["Band", "GridUnits", "UnitGrid", "file_suffixes", "unit_grids"]


#: Places of a lattice that can be counted, named and written in hours.
MAX_PLACES = 1e9


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
        if self.lattice not in ("square", "hex"):
            raise InputError(f'There is no lattice "{self.lattice}"; choose square or hex.')

    @property
    def row_pitch_um(self) -> float:
        """Distance of neighbouring rows."""
        return self.pitch_um * (math.sqrt(3) / 2 if self.lattice == "hex" else 1.0)

    def over(self, tissue: TissueMap, name: str, region_um: Sequence[float] | None = None) -> GridUnits:
        """The units that hold any tissue.

        Args:
            tissue: where the slide has tissue.
            name: of the slide, for messages.
            region_um: only units of this rectangle, (x, y, width, height) in micrometres.

        Raises:
            InputError: if there is no tissue, or no unit on it.
        """
        where = "on this slide" if region_um is None else "in this region"
        bounds = tissue.bounds_um
        if bounds is not None and region_um is not None:
            corner = np.asarray(region_um, dtype=float)
            bounds = np.maximum(bounds[0], corner[:2]), np.minimum(bounds[1], corner[:2] + corner[2:])
        if bounds is None or (bounds[0] >= bounds[1]).any():
            raise InputError(f"{name}: no tissue found {where}. Give the units with --spots to predict anyway.")
        low, high = bounds
        longest_um = max(tissue.mask.shape) * tissue.mpp
        if self.size_um > longest_um:
            raise InputError(f"{name} is {longest_um:g} µm long, too small for units of {self.size_um:g} µm.")
        sides = (np.asarray(high) - low) / np.array([self.pitch_um, self.row_pitch_um])
        spots = float(np.maximum(sides, 1).prod())
        if spots > MAX_PLACES:
            raise InputError(
                f"Units {self.pitch_um:g} µm apart on the tissue of {name} would be {spots:.3g}; {MAX_PLACES:.0e} are "
                "the most that can be written. Take larger ones, or a part with --region."
            )
        rows = range(math.floor(low[1] / self.row_pitch_um), math.ceil(high[1] / self.row_pitch_um) + 1)
        columns = range(
            math.floor(low[0] / self.pitch_um) - (self.lattice == "hex"), math.ceil(high[0] / self.pitch_um) + 1
        )
        found = GridUnits(self, tissue, rows, columns, name, None if region_um is None else tuple(region_um))
        if len(found) == 0:
            raise InputError(f"{name}: no unit of {self.size_um:g} µm is on tissue {where}; take smaller ones.")
        return found


@dataclass(frozen=True, eq=False)
class Band:
    """Some rows of a lattice, all columns.

    Attributes:
        lattice: whose rows they are.
        rows: row numbers, (R,).
        columns: column numbers, (K,).
        x_um: centres of the columns, (R, K): rows of a hex lattice are shifted.
        y_um: centres of the rows, (R,).
        fraction: share of each unit that is tissue, (R, K).
    """

    lattice: GridUnits
    rows: np.ndarray
    columns: np.ndarray
    x_um: np.ndarray
    y_um: np.ndarray
    fraction: np.ndarray

    @cached_property
    def kept(self) -> np.ndarray:
        """Which units hold tissue, (R, K)."""
        return self.fraction > 0

    @cached_property
    def places(self) -> tuple[np.ndarray, np.ndarray]:
        """Where in the band the kept units are, row by row: row and column, (U,) each."""
        row, column = np.nonzero(self.kept)
        return row, column

    @property
    def centers_um(self) -> np.ndarray:
        """Centres of the kept units, row by row, (U, 2)."""
        row, column = self.places
        return np.column_stack([self.x_um[row, column], self.y_um[row]])


@dataclass(frozen=True, eq=False)
class GridUnits:
    """The units of a lattice that hold tissue, ordered by row and column.

    Attributes:
        grid: the arrangement.
        tissue: where the tissue is.
        rows: rows that can hold tissue.
        columns: likewise.
        name: of the slide, for messages.
        region_um: units whose centre lies in this rectangle alone, (x, y, width, height).
    """

    grid: UnitGrid
    tissue: TissueMap
    rows: range
    columns: range
    name: str
    region_um: tuple[float, ...] | None = None

    @property
    def shape(self) -> Shape:
        """`circle` or `square`."""
        return self.grid.shape

    @property
    def size_um(self) -> float:
        """Diameter or side."""
        return self.grid.size_um

    @property
    def area_um2(self) -> float:
        """Area of one unit."""
        return unit_area_um2(self.shape, self.size_um)

    def is_interpolated(self, resolution_um: float) -> bool:
        """Whether units are smaller than a pixel of the map."""
        return is_interpolated(self.shape, self.size_um, resolution_um)

    @cached_property
    def _count(self) -> int:
        return sum(int(band.kept.sum()) for band in self.bands(2**20))

    def __len__(self) -> int:
        return self._count

    def bands(self, max_units: int, max_height_um: float = math.inf) -> Iterator[Band]:
        """The lattice in bands of at most `max_units` places and `max_height_um` (but one row at least)."""
        height = max(max_units // max(len(self.columns), 1), 1)
        if math.isfinite(max_height_um):
            height = min(height, max(int(max_height_um // self.grid.row_pitch_um), 1))
        for first in range(self.rows.start, self.rows.stop, height):
            yield self._band(np.arange(first, min(first + height, self.rows.stop)))

    def _band(self, rows: np.ndarray) -> Band:
        columns = np.arange(self.columns.start, self.columns.stop)
        shift = 0.5 * (rows % 2) if self.grid.lattice == "hex" else np.zeros(len(rows))
        x_um = (columns[None, :] + 0.5 + shift[:, None]) * self.grid.pitch_um
        y_um = (rows + 0.5) * self.grid.row_pitch_um
        fraction = self._fraction(x_um, y_um)
        if self.region_um is not None:
            x, y, width, height = self.region_um
            inside = (x_um >= x) & (x_um < x + width) & ((y_um >= y) & (y_um < y + height))[:, None]
            fraction = np.where(inside, fraction, np.float32(0))
        return Band(self, rows, columns, x_um, y_um, fraction)

    @cached_property
    def digest(self) -> str:
        """Identifies these units: the arrangement, its place and the tissue."""
        about = (self.grid, self.rows, self.columns, self.region_um, self.tissue.mpp, self.tissue.mask.shape)
        return hashlib.sha256(repr(about).encode() + np.packbits(self.tissue.mask).tobytes()).hexdigest()

    def _fraction(self, x_um: np.ndarray, y_um: np.ndarray) -> np.ndarray:
        """The same as `tissue_fraction`, row by row: rows share their x, so rows and columns index the mask."""
        tissue, size = self.tissue, self.size_um
        n = int(np.clip(np.ceil(size / tissue.mpp), 1, 7))
        steps = ((np.arange(n) + 0.5) / n - 0.5) * size
        padded = np.pad(tissue.mask, 1)  # nothing beyond the slide
        hits = np.zeros(x_um.shape, np.int16)
        n_points = 0
        shifted = [np.array([0])] if self.grid.lattice == "square" else [np.array([0]), np.array([1])]
        for dy in steps:
            row = np.clip(np.floor((y_um + dy) / tissue.mpp).astype(int) + 1, 0, padded.shape[0] - 1)
            for dx in steps:
                if self.shape == "circle" and dx**2 + dy**2 > (size / 2) ** 2:
                    continue
                n_points += 1
                for first in range(len(shifted)):  # every second row of a hex lattice has the same x
                    part = slice(first, None, len(shifted))
                    if len(x_um[part]) == 0:
                        continue
                    at = np.floor((x_um[part][0] + dx) / tissue.mpp).astype(int) + 1
                    column = np.clip(at, 0, padded.shape[1] - 1)
                    hits[part] += padded[np.ix_(row[part], column)]
        return (hits / n_points).astype(np.float32)

    @cached_property
    def _digits(self) -> int:
        return max(5, *(len(str(end)) for r in (self.rows, self.columns) for end in (r.start, r.stop)))

    @cached_property
    def _column_names(self) -> np.ndarray:
        return np.array([f"{c:0{self._digits}d}".encode() for c in self.columns])

    def names(self, band: Band) -> np.ndarray:
        """Names of a band's kept units: size, row, column, as 10x name their bins; bytes of one length, (U,)."""
        head, right = bin_prefix(self.size_um), self._column_names
        left = np.array([f"{head}{r:0{self._digits}d}_".encode() for r in band.rows])
        names = np.empty(band.kept.shape, dtype=[("left", left.dtype), ("right", right.dtype)])
        names["left"], names["right"] = left[:, None], right
        return names[band.kept].view(f"S{names.itemsize}")


def file_suffixes(grids: Sequence[UnitGrid]) -> list[str]:
    """What distinguishes the file of each arrangement; nothing where there is one."""
    return [f"_{grid.size_um:g}um" for grid in grids] if len(grids) > 1 else [""]


def unit_grids(
    spot_um: float | None = None,
    pitch_um: float | None = None,
    lattice: str = "square",
    bin_um: float | list[float] | None = None,
) -> list[UnitGrid]:
    """The arrangements of units that a command names; none where each slide brings its own units.

    Args:
        spot_um: diameter of spots.
        pitch_um: distance of their centres; the diameter by default.
        lattice: `square` or `hex`.
        bin_um: side of square bins, or several.

    Raises:
        InputError: if there are both spots and bins, or an arrangement is incomplete.
    """
    if bin_um is not None:
        if spot_um is not None or pitch_um is not None:
            raise InputError("PixNet predicts bins or spots at once, not both: give --bin-um, or --spot-um.")
        sizes = list(bin_um) if isinstance(bin_um, (list, tuple)) else [bin_um]
        return [UnitGrid("square", float(size), float(size)) for size in dict.fromkeys(sizes)]
    if spot_um is None:
        if pitch_um is not None:
            raise InputError("A pitch alone says nothing about the spots: give --spot-um too.")
        return []
    return [UnitGrid("circle", float(spot_um), float(spot_um if pitch_um is None else pitch_um), lattice)]  # type: ignore[arg-type]
