"""From cells to units: transcripts spread as Gaussians, units integrate them, sequencing counts them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.sparse as sp
from scipy.special import erf

from ...data.units import Shape, unit_area_um2
from ...errors import InputError
from .anatomy import Anatomy, Cells
from .expression import Expression
from .noise import Field

__all__ = ["Layout", "Specimen", "parse_layouts"]

_BIN_UM = 2.0  # everything is integrated on this grid, and the truth is written on it
_CHUNK_UM = 500.0
_CELL_UM = 3.0  # standard deviation of a cell's transcripts about its centre
_DIFFUSION_UM = 4.0  # ... and of what diffuses before capture, added in squares
_SHIFT_UM = 15.0
_DISPERSION = 0.1
_UNIT_DEPTH_SIGMA = 0.25
_SLIDE_DEPTH_SIGMA = 0.25


@dataclass(frozen=True)
class Layout:
    """Units of one size: `spot` disks on a hexagonal array, or `bin` squares side by side.

    Attributes:
        kind: `spot` or `bin`.
        size_um: diameter or side.
        pitch_um: distance between centres; a bin's is its side.
    """

    kind: Literal["spot", "bin"]
    size_um: float
    pitch_um: float

    @property
    def name(self) -> str:
        """As in file names: spot100, bin16."""
        return f"{self.kind}{self.size_um:g}"

    @property
    def shape(self) -> Shape:
        """The unit's shape as AnnData names it."""
        return "circle" if self.kind == "spot" else "square"

    def centers_um(self, side_um: float) -> tuple[np.ndarray, np.ndarray]:
        """Centres (U, 2) of the units that lie wholly on a slide, and their places (column, row) in the array."""
        if self.kind == "bin":
            n = int(np.floor(side_um / self.size_um + 1e-9))
            row, col = (a.ravel() for a in np.mgrid[:n, :n])
            return (np.stack([col, row], axis=1) + 0.5) * self.size_um, np.stack([col, row], axis=1)
        step = self.pitch_um * np.sqrt(3) / 2
        inset = max(self.size_um, self.pitch_um) / 2
        rows = np.arange(max(0, int(np.floor((side_um - 2 * inset) / step)) + 1))
        cols = np.arange(max(0, int(np.floor((side_um - 2 * inset) / self.pitch_um)) + 1))
        row, col = (a.ravel() for a in np.meshgrid(rows, cols, indexing="ij"))
        x = inset + (col + 0.5 * (row % 2)) * self.pitch_um
        keep = x + self.size_um / 2 <= side_um
        centers = np.stack([x, inset + row * step], axis=1)[keep]
        return centers, np.stack([2 * col + row % 2, row], axis=1)[keep]


def parse_layouts(text: str) -> tuple[Layout, ...]:
    """Read `spot:DIAMETER:PITCH` and `bin:SIDE` separated by commas, in micrometres: `spot:55:100,bin:8`.

    Raises:
        InputError: if a part is neither.
    """
    layouts = []
    for part in text.split(","):
        kind, *numbers = part.strip().split(":")
        try:
            sizes = [float(n) for n in numbers]
        except ValueError:
            sizes = []
        if kind == "bin" and len(sizes) == 1 and sizes[0] >= _BIN_UM:
            layouts.append(Layout("bin", sizes[0], sizes[0]))
        elif kind == "spot" and len(sizes) == 2 and sizes[1] >= sizes[0] >= _BIN_UM:
            layouts.append(Layout("spot", sizes[0], sizes[1]))
        else:
            raise InputError(
                f'Units "{part}" are not understood. Write spot:DIAMETER:PITCH (pitch at least the diameter) or '
                f"bin:SIDE in micrometres, at least {_BIN_UM:g}, for example spot:55:100,bin:8."
            )
    return tuple(layouts)


class Specimen:
    """One slide: its tissue, its factors, and how its units are registered with the picture."""

    def __init__(self, expression: Expression, seed: int, size_um: float, blank_fraction: float) -> None:
        rng = np.random.default_rng([seed, 200])
        self.seed, self.size_um, self.expression = seed, size_um, expression
        self.anatomy = Anatomy(seed, size_um, blank_fraction)
        self._factors = expression.slide_factors(seed) * np.exp(rng.normal(0, _SLIDE_DEPTH_SIGMA))
        direction = rng.uniform(0, 2 * np.pi)
        self._shift = _SHIFT_UM * np.array([np.cos(direction), np.sin(direction)])
        self._warp = Field(rng, 600.0), Field(rng, 600.0)

    def shift_um(self, x_um: np.ndarray, y_um: np.ndarray) -> np.ndarray:
        """How far the measurement lies from the picture, (N, 2): 15 µm one way, bent by up to about 4 µm."""
        bend = np.stack([f(x_um, y_um) for f in self._warp], axis=1)
        return self._shift + 1.5 * np.clip(bend, -2, 2)

    def expected(
        self, centers_um: np.ndarray, layout: Layout, *, as_measured: bool, visible_only: bool = False
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Expected counts at the slide's mean depth, chunk by chunk of tissue.

        Args:
            centers_um: (U, 2).
            layout: size and shape of the units.
            as_measured: with diffusion and misregistration; without, the truth that belongs to the picture.
            visible_only: with the invisible part averaged out.

        Yields:
            (indices into `centers_um` (u,), expected counts (u, genes)).
        """
        cell_um = float(np.hypot(_CELL_UM, _DIFFUSION_UM)) if as_measured else _CELL_UM
        half_um = layout.size_um / 2
        reach = half_um + 4 * cell_um + (_SHIFT_UM + 5 if as_measured else 0)
        ambient = self.expression.ambient_per_um2 * unit_area_um2(layout.shape, layout.size_um) * self._factors
        chunk = np.floor(centers_um / _CHUNK_UM).astype(np.int64)
        order = np.lexsort((chunk[:, 0], chunk[:, 1]))
        for index in np.split(order, np.flatnonzero(np.any(np.diff(chunk[order], axis=0), axis=1)) + 1):
            if not len(index):
                continue
            (x0, y0), (x1, y1) = chunk[index[0]] * _CHUNK_UM, (chunk[index[0]] + 1) * _CHUNK_UM
            cells = self.anatomy.cells(x0 - reach, y0 - reach, x1 + reach, y1 + reach)
            rates = self.expression.of_visible(cells) if visible_only else self.expression.of_cells(cells)
            at = np.stack([cells.x_um, cells.y_um], axis=1)
            if as_measured:
                at = at + self.shift_um(cells.x_um, cells.y_um)
            low = np.floor((np.array([x0, y0]) - half_um) / _BIN_UM).astype(np.int64) - 1
            n = int(np.ceil((_CHUNK_UM + 2 * half_um) / _BIN_UM)) + 3
            share = _units_by_bins(centers_um[index], layout, low, n) @ _bins_by_cells(at, cell_um, low, n)
            yield index, np.asarray(share @ (rates * self._factors)) + ambient

    def count(self, centers_um: np.ndarray, layout: Layout) -> sp.csr_matrix:
        """Measured counts, (U, genes): negative binomial about the expectation times the unit's own depth."""
        rng = np.random.default_rng([self.seed, 201, round(layout.size_um * 1000), layout.kind == "spot"])
        parts, order = [], []
        for index, mean in self.expected(centers_um, layout, as_measured=True):
            depth = np.exp(rng.normal(-(_UNIT_DEPTH_SIGMA**2) / 2, _UNIT_DEPTH_SIGMA, (len(index), 1)))
            spread = rng.gamma(1 / _DISPERSION, _DISPERSION, mean.shape)
            parts.append(sp.csr_matrix(rng.poisson(mean * depth * spread).astype(np.float32)))
            order.append(index)
        if not parts:
            return sp.csr_matrix((0, len(self.expression.names)), dtype=np.float32)
        return sp.csr_matrix(sp.vstack(parts))[np.argsort(np.concatenate(order))]

    def cells(self) -> Cells:
        """All cells of the slide."""
        return self.anatomy.cells(0, 0, self.size_um, self.size_um)


def _bins_by_cells(at_um: np.ndarray, sigma_um: float, low: np.ndarray, n: int) -> sp.csr_matrix:
    """Share of each cell's transcripts in each bin of an n x n grid from bin `low`: the exact Gaussian integral."""
    reach = int(np.ceil(3 * sigma_um / _BIN_UM))
    steps = np.arange(-reach, reach + 1)
    home = np.floor(at_um / _BIN_UM).astype(np.int64)
    weights = []
    for axis in (0, 1):
        edges = (home[:, axis, None] + np.append(steps, reach + 1)) * _BIN_UM - at_um[:, axis, None]
        weight = np.diff(erf(edges / (sigma_um * np.sqrt(2))), axis=1)
        weights.append(weight / weight.sum(1, keepdims=True))
    col = (home[:, 0, None] + steps - low[0])[:, None, :]
    row = (home[:, 1, None] + steps - low[1])[:, :, None]
    inside = (col >= 0) & (col < n) & (row >= 0) & (row < n)
    value = weights[1][:, :, None] * weights[0][:, None, :]
    cell = np.broadcast_to(np.arange(len(at_um))[:, None, None], value.shape)
    place = (row * n + col)[inside]
    return sp.csr_matrix((value[inside], (place, cell[inside])), shape=(n * n, len(at_um)))


def _units_by_bins(centers_um: np.ndarray, layout: Layout, low: np.ndarray, n: int) -> sp.csr_matrix:
    """Which bins of the grid each unit holds: those whose centre lies inside it."""
    reach = int(np.ceil(layout.size_um / 2 / _BIN_UM))
    steps = np.arange(-reach, reach + 1)
    home = np.floor(centers_um / _BIN_UM).astype(np.int64)
    col = home[:, 0, None, None] + steps[None, None, :]
    row = home[:, 1, None, None] + steps[None, :, None]
    dx = (col + 0.5) * _BIN_UM - centers_um[:, 0, None, None]
    dy = (row + 0.5) * _BIN_UM - centers_um[:, 1, None, None]
    half = layout.size_um / 2
    if layout.kind == "spot":
        inside = np.hypot(dx, dy) < half
    else:
        inside = (dx >= -half) & (dx < half) & (dy >= -half) & (dy < half)
    unit = np.broadcast_to(np.arange(len(centers_um))[:, None, None], inside.shape)
    place = ((row - low[1]) * n + (col - low[0]))[inside]
    return sp.csr_matrix((np.ones(len(place)), (unit[inside], place)), shape=(len(centers_um), n * n))
