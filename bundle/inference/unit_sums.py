"""Sums of a map over units, tile by tile: they add up to the same whatever the tiles."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from ..data.layers import layer_of, take_layer
from ..data.units import Units
from .tiles import Tile

__all__ = ["UnitSums"]


class UnitSums:
    """Sum of a map over each unit of one slide.

    As in training, a unit's features are the mean over the working pixels whose centre it covers, whatever other units
    cover them too. A unit smaller than a map pixel is sampled bilinearly at its centre. (Training sees such a unit's
    pixels alone and samples at their centroid, which is up to half a working pixel off.)

    Args:
        units: the units.
        slide_mpp: micrometres per level-0 pixel of their slide.
        mpp: working resolution.
        stride: working pixels per map pixel.
        rasterize: its `pixels` says which pixels of a region each unit covers (`transforms.RasterizeUnits` is one).
    """

    def __init__(self, units: Units, slide_mpp: float, mpp: float, stride: int, rasterize: Any) -> None:
        self.layer = layer_of(units, slide_mpp)
        self.mpp = mpp
        self.stride = stride
        self.rasterize = rasterize
        self.centers_px = np.asarray(self.layer["centers_um"], dtype=np.float64) / mpp
        self.sampled = units.areas_um2 < (stride * mpp) ** 2
        self.reach_px = np.where(self.sampled, 0.0, units.reach_um / mpp + 1)
        self.sums: torch.Tensor | None = None
        self.weights = torch.zeros(len(self.centers_px), dtype=torch.float64)

    @property
    def bounds_px(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """The rectangle that holds every unit, (low, high) as (x, y)."""
        reach = self.reach_px[:, None]
        low, high = (self.centers_px - reach).min(0), (self.centers_px + reach).max(0)
        # The upper side is exclusive: a centre on it still needs the pixel beyond.
        return (float(low[0]), float(low[1])), (float(high[0]) + 1e-6, float(high[1]) + 1e-6)

    def touching(self, tile: Tile) -> np.ndarray:
        """Indices of the units that reach into a tile's core."""
        x, y = self.centers_px.T
        r = self.reach_px
        inside = (x >= tile.x_px - r) & (x < tile.x_px + tile.width_px + r)
        inside &= (y >= tile.y_px - r) & (y < tile.y_px + tile.height_px + r)
        return np.flatnonzero(inside)

    def add(self, tile: Tile, features: torch.Tensor) -> None:
        """Add a tile's map.

        Args:
            tile: where the map lies; its margin is one map pixel at least.
            features: the map of the tile's whole region, margin included, (1, C, h, w).
        """
        if self.sums is None:
            self.sums = torch.zeros((len(self.weights), features.shape[1]), dtype=torch.float64)
        units = self.touching(tile)
        sampled = self.sampled[units]
        if sampled.any():
            self.sums[units[sampled]] += self._sample(units[sampled], tile, features)
            self.weights[units[sampled]] += 1
        if not sampled.all():
            self._average(units[~sampled], tile, features)

    def _sample(self, units: np.ndarray, tile: Tile, features: torch.Tensor) -> torch.Tensor:
        """Bilinear values at units' centres, which lie in the tile's core."""
        x_px, y_px, *_ = tile.region
        # Places in double precision: `grid_sample` rounds them to the map's, which shows on large tiles.
        at = torch.from_numpy((self.centers_px[units] - (x_px, y_px)) / self.stride - 0.5)
        low = at.floor()
        share, (column, row) = at - low, low.long().T
        values = torch.zeros((len(units), features.shape[1]), dtype=torch.float64)
        for dy in (0, 1):
            for dx in (0, 1):
                weight = (share[:, 0] if dx else 1 - share[:, 0]) * (share[:, 1] if dy else 1 - share[:, 1])
                corner = features[0][:, (row + dy).to(features.device), (column + dx).to(features.device)]
                values += weight[:, None] * corner.T.double().cpu()
        return values

    def _average(self, units: np.ndarray, tile: Tile, features: torch.Tensor) -> None:
        assert self.sums is not None
        margin = tile.margin_px // self.stride
        origin_um = (tile.x_px * self.mpp, tile.y_px * self.mpp)
        near = take_layer(self.layer, units)
        unit, rows, columns = self.rasterize.pixels(near, (tile.height_px, tile.width_px), origin_um, self.mpp)
        core = features[0, :, margin : features.shape[2] - margin, margin : features.shape[3] - margin]
        place = (rows // self.stride) * core.shape[2] + columns // self.stride
        # How many working pixels of each unit lie in each map pixel; one that several units share counts for each.
        shape = (len(units), core.shape[1] * core.shape[2])
        pixels = sp.csr_matrix((np.ones(len(rows)), (unit, place)), shape=shape)
        values = core.permute(1, 2, 0).double().cpu().contiguous().flatten(0, 1).numpy()
        self.sums[units] += torch.from_numpy(pixels @ values)
        self.weights[units] += torch.from_numpy(np.asarray(pixels.sum(1)).ravel())

    def means(self) -> np.ndarray:
        """Mean features, float32 (U, C)."""
        if self.sums is None:
            raise RuntimeError("No tile was added.")
        return (self.sums / self.weights.clamp(min=1)[:, None]).float().numpy()
