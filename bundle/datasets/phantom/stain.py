"""The picture of the tissue: haematoxylin and eosin by Beer-Lambert, rendered block by block on demand."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.ndimage import gaussian_filter

from .anatomy import ADIPOCYTE, EPITHELIUM, FIBROBLAST, LYMPHOCYTE, TUMOUR, Anatomy, Cells
from .noise import Field, sigmoid

__all__ = ["SlideImage"]

# Optical density per unit of stain in R, G, B: Ruifrok & Johnston, Anal. Quant. Cytol. Histol. 23 (2001).
_RUIFROK = np.array([[0.644, 0.717, 0.267], [0.093, 0.954, 0.283]])
_BLOCK_PX = 512
_HALO_PX = 8
_COARSE_UM = 4.0  # smooth maps are evaluated on this grid and interpolated
_TABLE_PX = (512, 389)
_FIBRE_STEP_UM = 0.25
_BLUR_UM = 0.3
_DRIFT = 0.2  # standard deviation of the stain's strength within a slide

# Haematoxylin of a nucleus' body and how much darker its rim is, by kind of cell.
_BODY = {TUMOUR: 0.85, EPITHELIUM: 1.15, LYMPHOCYTE: 1.75, FIBROBLAST: 1.3, ADIPOCYTE: 1.3}
_RIM = {TUMOUR: 0.55, EPITHELIUM: 0.25, LYMPHOCYTE: 0.1, FIBROBLAST: 0.1, ADIPOCYTE: 0.1}


class SlideImage:
    """A slide that renders what is sliced from it: uint8 (height, width, 3), the same pixels however it is cut.

    Stain strength varies from slide to slide (vectors and gains) and smoothly within one (±20 %, unrelated to
    expression), so that colour alone says little.
    """

    def __init__(self, anatomy: Anatomy, mpp: float) -> None:
        rng = np.random.default_rng([anatomy.seed, 2])
        self.anatomy, self.mpp = anatomy, mpp
        side_px = round(anatomy.size_um / mpp)
        self.shape: tuple[int, ...] = (side_px, side_px, 3)
        vectors = _RUIFROK + rng.normal(0, 0.02, (2, 3))
        self._vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
        self._gain = np.exp(rng.normal(0, 0.13, 2)).astype(np.float32)
        self._glass = (243 + rng.uniform(-3, 3, 3)).astype(np.float32)
        self._drift = Field(rng, 110.0), Field(rng, 90.0)
        self._ragged = Field(rng, 9.0)
        self._grain = [_smooth_noise(rng, (n, n), 0.7 / mpp) for n in _TABLE_PX]
        self._cloud = _smooth_noise(rng, (_TABLE_PX[0],) * 2, 6.0 / mpp)
        fine, coarse = (_smooth_noise(rng, (8192,), s / _FIBRE_STEP_UM) for s in (0.8, 2.5))
        self._fibres = (0.6 * fine + 0.8 * coarse).astype(np.float32)
        self._block = lru_cache(maxsize=8)(self._render)

    def __getitem__(self, index: tuple[slice, slice]) -> np.ndarray:
        """Pixels of `image[row0:row1, col0:col1]` (no steps)."""
        row0, row1, _ = index[0].indices(self.shape[0])
        col0, col1, _ = index[1].indices(self.shape[1])
        out = np.empty((row1 - row0, col1 - col0, 3), np.uint8)
        for bi in range(row0 // _BLOCK_PX, -(-row1 // _BLOCK_PX)):
            for bj in range(col0 // _BLOCK_PX, -(-col1 // _BLOCK_PX)):
                top, left = bi * _BLOCK_PX, bj * _BLOCK_PX
                r0, r1 = max(row0, top), min(row1, top + _BLOCK_PX)
                c0, c1 = max(col0, left), min(col1, left + _BLOCK_PX)
                out[r0 - row0 : r1 - row0, c0 - col0 : c1 - col0] = self._block(bi, bj)[
                    r0 - top : r1 - top, c0 - left : c1 - left
                ]
        return out

    def _render(self, bi: int, bj: int) -> np.ndarray:
        height, width = (min(_BLOCK_PX, side - b * _BLOCK_PX) for side, b in zip(self.shape, (bi, bj), strict=False))
        rows = bi * _BLOCK_PX - _HALO_PX + np.arange(height + 2 * _HALO_PX)
        cols = bj * _BLOCK_PX - _HALO_PX + np.arange(width + 2 * _HALO_PX)
        rng = np.random.default_rng([self.anatomy.seed, 3, bi, bj])
        matrix = self._matrix(rows, cols)
        if matrix is None:
            light = np.broadcast_to(self._glass, (height, width, 3))
        else:
            haem, eosin = matrix
            self._draw_nuclei(haem, eosin, rows, cols)
            stains = self._vectors * self._gain[:, None]
            density = haem[..., None] * stains[0] + eosin[..., None] * stains[1]
            sigma = _BLUR_UM / self.mpp
            light = gaussian_filter(self._glass * np.exp(-density), (sigma, sigma, 0), truncate=4)
            light = light[_HALO_PX:-_HALO_PX, _HALO_PX:-_HALO_PX]
        noise = 1.6 * rng.standard_normal((height, width, 1), np.float32)
        noise = noise + 0.8 * rng.standard_normal((height, width, 3), np.float32)
        return np.clip(np.rint(light + noise), 0, 255).astype(np.uint8)

    def _matrix(self, rows: np.ndarray, cols: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """Everything but nuclei: concentrations of haematoxylin and eosin, (rows, cols); None on bare glass."""
        anatomy = self.anatomy
        x, y = (cols + 0.5) * self.mpp, (rows + 0.5) * self.mpp
        gx, wx = _interpolation(x)
        gy, wy = _interpolation(y)
        cx, cy = gx[None, :] + 0 * gy[:, None], gy[:, None] + 0 * gx[None, :]

        def fine(coarse: np.ndarray) -> np.ndarray:
            return ((wy @ coarse) @ wx.T).astype(np.float32)

        margin_coarse = anatomy.margin_um(cx, cy)
        if margin_coarse.max() < -20:
            return None
        depth_coarse = anatomy.depth_um(cx, cy)
        ragged = fine(self._ragged(cx, cy))
        grain = self._grain[0][np.ix_(rows % _TABLE_PX[0], cols % _TABLE_PX[0])]
        grain = (grain + self._grain[1][np.ix_(rows % _TABLE_PX[1], cols % _TABLE_PX[1])]) * np.float32(0.7)
        cloud = self._cloud[np.ix_(rows % _TABLE_PX[0], cols % _TABLE_PX[0])]

        across = fine(anatomy.fibre_um(cx, cy)) + np.float32(0.8) * cloud
        place = across / np.float32(_FIBRE_STEP_UM)
        fibre = self._fibres[np.floor(place).astype(np.int64) % len(self._fibres)]
        fibre = fibre * (1 + np.float32(0.35) * cloud)
        cleft = sigmoid((fibre + 1.75) / 0.12)
        eosin = np.maximum(0.5 + 0.17 * fibre + 0.03 * grain, 0.03) * cleft
        haem = 0.06 * cleft + 0.012 * grain

        tumour = sigmoid((fine(depth_coarse) + 3 * ragged) / 1.2)
        # The same mean and spread of eosin as collagen has, so that its share does not give the tumour away.
        eosin += tumour * (0.42 + 0.10 * cloud + 0.06 * grain - eosin)
        haem += tumour * (0.17 + 0.03 * cloud + 0.03 * grain - haem)

        fat = fine(anatomy.fat_um(cx, cy, depth_coarse)) + 3 * ragged
        if fat.max() > 0:
            wall = np.ones_like(fat)
            where = fat > -4
            px, py = np.broadcast_to(x[None, :], fat.shape)[where], np.broadcast_to(y[:, None], fat.shape)[where]
            bend = 2.0 * ragged[where]
            wall[where] = np.exp(-((anatomy.fat_membrane_um(px + bend, py - bend) / 1.9) ** 2))
            share = sigmoid(fat / 1.0)
            eosin += share * (0.02 + 0.5 * wall - eosin)
            haem += share * (0.08 * wall - haem)

        for gland in anatomy.glands(x[0], y[0], x[-1], y[-1]):
            reach = gland.radius_um * 1.5
            r0, r1 = np.searchsorted(y, (gland.y_um - reach, gland.y_um + reach))
            c0, c1 = np.searchsorted(x, (gland.x_um - reach, gland.x_um + reach))
            if r0 == r1 or c0 == c1:
                continue
            part = np.s_[r0:r1, c0:c1]
            radial = gland.radial(x[None, c0:c1], y[r0:r1, None])
            radial = radial + 0.8 * ragged[part] / gland.radius_um
            sharp = gland.radius_um / 0.9
            body, lumen = sigmoid((1 - radial) * sharp), sigmoid((gland.lumen - radial) * sharp)
            brush = np.exp(-(((radial - gland.lumen) * gland.radius_um / 1.6) ** 2))
            base = np.exp(-(((radial - 1.03) * gland.radius_um / 1.2) ** 2))
            eosin[part] += body * (0.46 + 0.05 * cloud[part] + 0.05 * grain[part] + 0.25 * brush - eosin[part])
            haem[part] += body * (0.16 + 0.02 * grain[part] - haem[part])
            eosin[part] += lumen * (0.05 + 0.02 * cloud[part] - eosin[part]) + 0.3 * base
            haem[part] += lumen * (0.01 - haem[part])

        tissue = sigmoid((fine(margin_coarse) + 2 * ragged) / 0.8)
        drift_h, drift_e = (1 + _DRIFT * np.clip(fine(f(cx, cy)), -2, 2) for f in self._drift)
        return np.maximum(haem, 0) * tissue * drift_h, np.maximum(eosin, 0) * tissue * drift_e

    def _draw_nuclei(self, haem: np.ndarray, eosin: np.ndarray, rows: np.ndarray, cols: np.ndarray) -> None:
        """Stamp nuclei into the concentrations; where two overlap the denser pixel wins, so order is no matter."""
        mpp, reach = self.mpp, 12.0
        x0, y0 = cols[0] * mpp, rows[0] * mpp
        cells = self.anatomy.cells(x0 - reach, y0 - reach, (cols[-1] + 1) * mpp + reach, (rows[-1] + 1) * mpp + reach)
        layer, cover = np.zeros_like(haem), np.zeros_like(haem)
        cx, cy = (cells.x_um - x0) / mpp - 0.5, (cells.y_um - y0) / mpp - 0.5
        drift = 1 + _DRIFT * np.clip(self._drift[0](cells.x_um, cells.y_um), -2, 2)
        for n in range(len(cells)):
            half = int(np.ceil((cells.radius_um[n] * np.sqrt(cells.aspect[n]) * 1.25 + 0.8) / mpp)) + 1
            r, c = round(cy[n]), round(cx[n])
            r0, r1 = max(r - half, 0), min(r + half + 1, haem.shape[0])
            c0, c1 = max(c - half, 0), min(c + half + 1, haem.shape[1])
            if r0 >= r1 or c0 >= c1:
                continue
            dy = (np.arange(r0, r1)[:, None] - cy[n]) * mpp
            dx = (np.arange(c0, c1)[None, :] - cx[n]) * mpp
            alpha, dark = self._nucleus(cells, n, dx, dy)
            part = np.s_[r0:r1, c0:c1]
            np.maximum(layer[part], alpha * dark * drift[n], out=layer[part])
            np.maximum(cover[part], alpha, out=cover[part])
        haem += layer - cover * haem
        eosin *= 1 - 0.55 * cover

    def _nucleus(self, cells: Cells, n: int, dx: np.ndarray, dy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        kind, radius, aspect, own = int(cells.kind[n]), cells.radius_um[n], cells.aspect[n], cells.identity[n]
        c, s = np.cos(cells.angle[n]), np.sin(cells.angle[n])
        stretch = np.sqrt(aspect)
        u, v = (c * dx + s * dy) / stretch, (c * dy - s * dx) * stretch
        r = np.hypot(u, v) + 1e-6
        wobble = (0.16 if kind == TUMOUR else 0.05) * (own - 0.3)
        edge = radius * (1 + wobble * (u * u - v * v) / (r * r) + 0.6 * wobble * (3 * u * u * v - v**3) / r**3)
        alpha = sigmoid((edge - r) / 0.22)
        inner = r / edge
        size = _TABLE_PX[0]
        at = int(own * 1e6)
        row, col = at % size, (at // size) % size
        chromatin = self._grain[0][
            np.ix_((row + np.arange(alpha.shape[0])) % size, (col + np.arange(alpha.shape[1])) % size)
        ]
        dark = _BODY[kind] * (0.92 + 0.16 * ((own * 7) % 1)) * (1 + 0.16 * chromatin) + _RIM[kind] * inner**6
        if kind == TUMOUR:
            turn = 2 * np.pi * own
            du, dv = u - 0.35 * radius * np.cos(turn), v - 0.35 * radius * np.sin(turn)
            dark = dark + 0.8 * np.exp(-(du * du + dv * dv) / (0.16 * radius) ** 2)
        return alpha, np.maximum(dark, 0)


def _smooth_noise(rng: np.random.Generator, shape: tuple[int, ...], sigma: float) -> np.ndarray:
    noise = gaussian_filter(rng.normal(size=shape), sigma, mode="wrap")
    return (noise / noise.std()).astype(np.float32)


def _interpolation(at_um: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nodes of the coarse grid that enclose `at_um`, and the linear weights, (points, nodes)."""
    first = np.floor(at_um[0] / _COARSE_UM)
    place = at_um / _COARSE_UM - first
    low = np.floor(place).astype(np.int64)
    nodes = (first + np.arange(low[-1] + 2)) * _COARSE_UM
    weights = np.zeros((len(at_um), len(nodes)))
    weights[np.arange(len(at_um)), low] = 1 - (place - low)
    weights[np.arange(len(at_um)), low + 1] = place - low
    return nodes, weights
