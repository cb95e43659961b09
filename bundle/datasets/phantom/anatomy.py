"""Where what tissue lies and which cells it holds: functions of the place, in micrometres."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np
from scipy.spatial import cKDTree

from .noise import Field, sigmoid, uniform

__all__ = ["ADIPOCYTE", "EPITHELIUM", "FIBROBLAST", "LYMPHOCYTE", "TUMOUR", "Anatomy", "Cells", "Gland"]

TUMOUR, EPITHELIUM, LYMPHOCYTE, FIBROBLAST, ADIPOCYTE = range(5)

_CHUNK_UM = 320.0  # cells are made and kept by squares of this side
_LATTICE_UM = 5.0  # one candidate for a nucleus per lattice cell
_REACH_UM = 16.0  # the farthest that one candidate can displace another
_GLAND_UM = 150.0  # lattice of glands
_GLAND_MAX_UM = 56.0
_FAT_UM = 58.0  # lattice of fat cells
_HIDDEN_UM = (35.0, 80.0, 170.0, 350.0)
_CYCLING = 0.15


@dataclass(frozen=True)
class Cells:
    """Cells of a region; all arrays are (N,) but `hidden`, (N, 5).

    Attributes:
        x_um: centre, to the right.
        y_um: centre, downwards.
        kind: `TUMOUR`, `EPITHELIUM`, `LYMPHOCYTE`, `FIBROBLAST` or `ADIPOCYTE`.
        radius_um: radius of a disk with the nucleus' area.
        aspect: long over short axis of the nucleus.
        angle: direction of the long axis in radians.
        grade: 0 small to 1 large nuclei (tumour); the covered area stays the same.
        spindle: 0 round to 1 elongated nuclei (tumour); the area stays the same.
        depth_um: distance into the tumour, negative outside.
        wavy: 0 straight to 1 crimped fibres around it (stroma).
        identity: a uniform number of its own.
        hidden: four smooth fields (standard normal) and a cell state (0 or 1) that no pixel depends on.
    """

    x_um: np.ndarray
    y_um: np.ndarray
    kind: np.ndarray
    radius_um: np.ndarray
    aspect: np.ndarray
    angle: np.ndarray
    grade: np.ndarray
    spindle: np.ndarray
    depth_um: np.ndarray
    wavy: np.ndarray
    identity: np.ndarray
    hidden: np.ndarray

    def __len__(self) -> int:
        return len(self.x_um)

    def take(self, index: np.ndarray) -> Cells:
        """The cells at `index` (integers or a boolean mask)."""
        return Cells(*(getattr(self, f.name)[index] for f in fields(self)))

    @staticmethod
    def join(parts: list[Cells]) -> Cells:
        """Concatenate."""
        return Cells(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Cells)))


@dataclass(frozen=True)
class Gland:
    """A ring of epithelium around a lumen."""

    x_um: float
    y_um: float
    radius_um: float
    squeeze: float
    angle: float
    lobe: float
    lumen: float

    def radial(self, x_um: np.ndarray, y_um: np.ndarray) -> np.ndarray:
        """0 at the centre, 1 at the outer border."""
        c, s = np.cos(self.angle), np.sin(self.angle)
        dx, dy = x_um - self.x_um, y_um - self.y_um
        u, v = (c * dx + s * dy) / self.squeeze, (c * dy - s * dx) * self.squeeze
        r = np.hypot(u, v)
        # cos 3φ from the unit vector, cheaper than an arctangent per pixel
        cos3 = np.where(r > 0, (u**3 - 3 * u * v**2) / np.maximum(r, 1e-9) ** 3, 0.0)
        return np.asarray(r / (self.radius_um * (1 + 0.1 * self.lobe * cos3)))

    def point(self, phi: np.ndarray, radial: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The inverse of `radial` at angle `phi` of the gland's own axes."""
        r = radial * self.radius_um * (1 + 0.1 * self.lobe * np.cos(3 * phi))
        u, v = r * np.cos(phi) * self.squeeze, r * np.sin(phi) / self.squeeze
        c, s = np.cos(self.angle), np.sin(self.angle)
        return self.x_um + c * u - s * v, self.y_um + s * u + c * v


class Anatomy:
    """The tissue of one slide of `size_um` x `size_um`; `blank_fraction` of it is glass.

    Compartments, first match wins: glass, gland, tumour (42 % of the tissue), fat (about 10 %), stroma with
    lymphoid aggregates. Thresholds are quantiles over a coarse grid of the slide, so that every slide has each.
    """

    def __init__(self, seed: int, size_um: float, blank_fraction: float) -> None:
        rng = np.random.default_rng([seed, 1])
        self.seed, self.size_um = seed, size_um
        self._outline = Field(rng, size_um / 5), Field(rng, 45.0)
        self._tumour, self._fat, self._gland, self._immune = (Field(rng, length) for length in (240, 260, 300, 110))
        self._grade, self._spindle, self._wavy = (Field(rng, length) for length in (150, 130, 140))
        self._bend, self._crimp = Field(rng, 220.0), Field(rng, 11.0)
        self._direction = rng.uniform(0, np.pi)
        self._hidden = [Field(rng, length) for length in _HIDDEN_UM]
        grid = (np.arange(64) + 0.5) / 64 * size_um
        x, y = grid[None, :] + 0 * grid[:, None], grid[:, None] + 0 * grid[None, :]
        self._edge = np.quantile(self._rim(x, y), 1 - blank_fraction) if blank_fraction else np.inf
        inside = self.margin_um(x, y) >= 0
        x, y = x[inside], y[inside]
        self._tumour_from = np.quantile(self._tumour(x, y), 0.58)
        outside = self.depth_um(x, y) < -20
        x, y = x[outside], y[outside]
        self._fat_from = np.quantile(self._fat(x, y), 0.8) if len(x) else np.inf
        self._gland_from = np.quantile(self._gland(x, y), 0.5) if len(x) else np.inf
        # Chunks are revisited by neighbouring tiles only; 64 of them are a few tens of megabytes.
        self._chunk = lru_cache(maxsize=64)(self._make_chunk)

    def _rim(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        half = self.size_um / 2
        round_square = (((x - half) / half) ** 4 + ((y - half) / half) ** 4) ** 0.25
        return round_square + 0.1 * self._outline[0](x, y) + 4.0 / half * self._outline[1](x, y)

    def margin_um(self, x_um: np.ndarray, y_um: np.ndarray) -> np.ndarray:
        """About the distance to the glass, negative on it."""
        if np.isinf(self._edge):
            return np.full(np.broadcast_shapes(np.shape(x_um), np.shape(y_um)), self.size_um)
        return (self._edge - self._rim(x_um, y_um)) * self.size_um / 2

    def depth_um(self, x_um: np.ndarray, y_um: np.ndarray) -> np.ndarray:
        """Distance into the tumour to first order, negative outside, within ±200."""
        slope = np.maximum(self._tumour.slope(x_um, y_um), 0.4 / self._tumour.length_um)
        return np.clip((self._tumour(x_um, y_um) - self._tumour_from) / slope, -200, 200)

    def fat_um(self, x_um: np.ndarray, y_um: np.ndarray, depth_um: np.ndarray) -> np.ndarray:
        """About the distance into fat, negative outside; fat keeps 25 µm away from tumour."""
        return np.minimum((self._fat(x_um, y_um) - self._fat_from) * 130, -depth_um - 25)

    def wavy(self, x_um: np.ndarray, y_um: np.ndarray) -> np.ndarray:
        """How crimped the collagen is, 0 to 1."""
        return sigmoid(2.5 * self._wavy(x_um, y_um))

    def fibre_um(self, x_um: np.ndarray, y_um: np.ndarray) -> np.ndarray:
        """A coordinate across the collagen fibres, which run along its contours."""
        across = x_um * np.sin(self._direction) - y_um * np.cos(self._direction)
        return across + 130 * self._bend(x_um, y_um) + 7 * self.wavy(x_um, y_um) * self._crimp(x_um, y_um)

    def fat_membrane_um(self, x_um: np.ndarray, y_um: np.ndarray) -> np.ndarray:
        """Distance between the nearest and the second fat cell's walls: 0 on the membrane between two."""
        i, j = np.floor(x_um / _FAT_UM).astype(np.int64), np.floor(y_um / _FAT_UM).astype(np.int64)
        first, second = np.full(np.shape(x_um), np.inf), np.full(np.shape(x_um), np.inf)
        for di in (-1, 0, 1):
            for dj in (-1, 0, 1):
                cx = (i + di + 0.5 + 0.7 * (uniform(self.seed, 20, i + di, j + dj) - 0.5)) * _FAT_UM
                cy = (j + dj + 0.5 + 0.7 * (uniform(self.seed, 21, i + di, j + dj) - 0.5)) * _FAT_UM
                d = np.hypot(x_um - cx, y_um - cy)
                second = np.minimum(second, np.maximum(first, d))
                first = np.minimum(first, d)
        return second - first

    def glands(self, x0: float, y0: float, x1: float, y1: float) -> list[Gland]:
        """Glands that may touch the rectangle."""
        reach = _GLAND_MAX_UM * 1.4 + 0.2 * _GLAND_UM
        lattice = np.meshgrid(
            np.arange(np.floor((x0 - reach) / _GLAND_UM), np.ceil((x1 + reach) / _GLAND_UM)),
            np.arange(np.floor((y0 - reach) / _GLAND_UM), np.ceil((y1 + reach) / _GLAND_UM)),
        )
        i, j = (a.ravel().astype(np.int64) for a in lattice)
        u = [uniform(self.seed, 10 + c, i, j) for c in range(7)]
        x, y = (i + 0.5 + 0.25 * (u[0] - 0.5)) * _GLAND_UM, (j + 0.5 + 0.25 * (u[1] - 0.5)) * _GLAND_UM
        depth = self.depth_um(x, y)
        keep = (self._gland(x, y) > self._gland_from) & (depth < -60) & (self.margin_um(x, y) > 60)
        keep &= self.fat_um(x, y, depth) < -60
        radius, squeeze = 36 + 20 * u[2], 0.85 + 0.3 * u[3]
        table = np.stack([x, y, radius, squeeze, np.pi * u[4], u[5], 0.3 + 0.3 * u[6]], axis=1)[keep]
        return [Gland(*(float(v) for v in row)) for row in table]

    def cells(self, x0: float, y0: float, x1: float, y1: float) -> Cells:
        """Cells whose centre lies in [x0, x1) x [y0, y1)."""
        parts = [
            self._chunk(int(ci), int(cj))
            for cj in range(int(np.floor(y0 / _CHUNK_UM)), int(np.ceil(y1 / _CHUNK_UM)))
            for ci in range(int(np.floor(x0 / _CHUNK_UM)), int(np.ceil(x1 / _CHUNK_UM)))
        ]
        cells = Cells.join(parts)
        inside = (cells.x_um >= x0) & (cells.x_um < x1) & (cells.y_um >= y0) & (cells.y_um < y1)
        return cells.take(inside)

    def _make_chunk(self, ci: int, cj: int) -> Cells:
        x0, y0 = ci * _CHUNK_UM, cj * _CHUNK_UM
        x1, y1 = x0 + _CHUNK_UM, y0 + _CHUNK_UM
        glands = self.glands(x0 - _REACH_UM, y0 - _REACH_UM, x1 + _REACH_UM, y1 + _REACH_UM)
        cells = Cells.join([self._loose(x0, y0, x1, y1, glands), self._lining(glands)])
        inside = (cells.x_um >= x0) & (cells.x_um < x1) & (cells.y_um >= y0) & (cells.y_um < y1)
        return cells.take(inside)

    def _loose(self, x0: float, y0: float, x1: float, y1: float, glands: list[Gland]) -> Cells:
        """Cells off the glands: lattice candidates, thinned so that no two nuclei collide (Matérn's second rule)."""
        low_x, high_x = np.floor((x0 - _REACH_UM) / _LATTICE_UM) - 1, np.ceil((x1 + _REACH_UM) / _LATTICE_UM) + 1
        low_y, high_y = np.floor((y0 - _REACH_UM) / _LATTICE_UM) - 1, np.ceil((y1 + _REACH_UM) / _LATTICE_UM) + 1
        lattice = np.meshgrid(np.arange(low_x, high_x), np.arange(low_y, high_y))
        i, j = (a.ravel().astype(np.int64) for a in lattice)
        x = (i + 0.5 + 0.95 * (uniform(self.seed, 0, i, j) - 0.5)) * _LATTICE_UM
        y = (j + 0.5 + 0.95 * (uniform(self.seed, 1, i, j) - 0.5)) * _LATTICE_UM
        depth = self.depth_um(x, y)
        fat = self.fat_um(x, y, depth)
        crowd = sigmoid(6 * (self._immune(x, y) - 1.15))
        lot = uniform(self.seed, 2, i, j)
        immune = np.where(depth > 0, 0.012 + 0.25 * crowd, 0.012 + 0.9 * crowd)
        kind = np.where(lot < immune, LYMPHOCYTE, np.where(depth > 0, TUMOUR, FIBROBLAST))
        keep = (self.margin_um(x, y) > 3) & ((kind != FIBROBLAST) | (lot < immune + 0.14))
        in_fat = fat > 0
        keep &= ~in_fat | (lot < 0.35)
        keep[in_fat & keep] &= self.fat_membrane_um(x[in_fat & keep], y[in_fat & keep]) < 2.0
        kind = np.where(in_fat, ADIPOCYTE, kind)
        for gland in glands:
            keep &= gland.radial(x, y) > 1.06
        i, j, x, y, depth, kind = (a[keep] for a in (i, j, x, y, depth, kind))

        grade, spindle = sigmoid(3 * self._grade(x, y)), sigmoid(3 * self._spindle(x, y))
        size = uniform(self.seed, 3, i, j) - 0.5
        radius = np.choose(
            kind,
            [
                (3.1 + 2.7 * grade) * (1 + 0.2 * size),
                3.3 + 0 * size,
                2.6 + 0.5 * size,
                2.9 + 0.8 * size,
                2.2 + 0.5 * size,
            ],
        )
        room = np.choose(kind, [1.82 * radius, 2 * radius, 1.95 * radius, 15 + 0 * radius, 9 + 0 * radius])
        priority = uniform(self.seed, 4, i, j)
        pairs = cKDTree(np.stack([x, y], axis=1)).query_pairs(_REACH_UM, output_type="ndarray")
        a, b = pairs[:, 0], pairs[:, 1]
        close = np.hypot(x[a] - x[b], y[a] - y[b]) < (room[a] + room[b]) / 2
        a, b = a[close], b[close]
        alive = np.ones(len(x), bool)
        alive[np.where(priority[a] < priority[b], a, b)] = False
        i, j, x, y, depth, kind, grade, spindle, radius = (
            v[alive] for v in (i, j, x, y, depth, kind, grade, spindle, radius)
        )
        step = 1.0
        along = np.arctan2(
            self.fibre_um(x + step, y) - self.fibre_um(x - step, y),
            -(self.fibre_um(x, y + step) - self.fibre_um(x, y - step)),
        )
        turn = uniform(self.seed, 5, i, j)
        aspect = np.choose(kind, [1.1 + 1.1 * spindle, 1.5 + 0 * x, 1.08 + 0 * x, 3.2 + 1.6 * turn, 2.6 + 0 * x])
        loose = (kind == LYMPHOCYTE) | ((kind == TUMOUR) & (spindle < 0.5))
        angle = np.where(loose, np.pi * turn, along + 0.5 * (turn - 0.5))
        return self._finish(x, y, kind, radius, aspect, angle, grade, spindle, depth, uniform(self.seed, 6, i, j))

    def _lining(self, glands: list[Gland]) -> Cells:
        """Epithelial cells: basal nuclei along the wall of each gland, their long axis towards the lumen."""
        xs, ys, angles, names = [np.empty(0)], [np.empty(0)], [np.empty(0)], [np.empty(0)]
        for gland in glands:
            n = int(2 * np.pi * gland.radius_um / 6.0)
            index = np.arange(n)
            key = np.full(n, round(gland.x_um * 8) * 1_000_003 + round(gland.y_um * 8))
            phi = 2 * np.pi * (index + 0.7 * (uniform(self.seed, 30, index, key) - 0.5)) / n
            basal = 1 - (5.0 + 4.0 * uniform(self.seed, 31, index, key)) / gland.radius_um
            x, y = gland.point(phi, basal)
            xs.append(x)
            ys.append(y)
            angles.append(np.arctan2(y - gland.y_um, x - gland.x_um))
            names.append(uniform(self.seed, 32, index, key))
        x, y, angle, name = (np.concatenate(v) for v in (xs, ys, angles, names))
        zero = np.zeros(len(x))
        kind = np.full(len(x), EPITHELIUM)
        return self._finish(
            x, y, kind, zero + 3.3 + 0.6 * (name - 0.5), zero + 1.6, angle, zero, zero, self.depth_um(x, y), name
        )

    def _finish(
        self,
        x: np.ndarray,
        y: np.ndarray,
        kind: np.ndarray,
        radius: np.ndarray,
        aspect: np.ndarray,
        angle: np.ndarray,
        grade: np.ndarray,
        spindle: np.ndarray,
        depth: np.ndarray,
        identity: np.ndarray,
    ) -> Cells:
        i = np.floor(x * 64).astype(np.int64)
        cycling = uniform(self.seed, 40, i, np.floor(y * 64).astype(np.int64)) < _CYCLING
        hidden = np.stack([*(field(x, y) for field in self._hidden), cycling.astype(float)], axis=1)
        return Cells(x, y, kind, radius, aspect, angle, grade, spindle, depth, self.wavy(x, y), identity, hidden)
