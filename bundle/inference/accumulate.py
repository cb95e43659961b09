"""Pool a map into units, tile by tile: sums over a unit's pixels add up whatever the tiles."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ..units import is_interpolated
from .tiles import Tile

__all__ = ["UnitAccumulator"]


class UnitAccumulator:
    """Mean of a feature map over each unit of one slide.

    As in training, a unit's features are the mean over the working pixels whose centre it covers; a unit smaller than
    a map pixel is sampled bilinearly at its centre. (Training sees such a unit's pixels alone and samples at their
    centroid, which is up to half a working pixel off.)

    Args:
        layer: centres in µm from the slide's origin, shape, size.
        mpp: working resolution.
        stride: working pixels per map pixel.
        rasterize: from layers and a region to an index mask and which units are in it (`transforms.RasterizeUnits`
            with `drop_cut=False` is one).
    """

    def __init__(self, layer: dict[str, Any], mpp: float, stride: int, rasterize: Any) -> None:
        self.layer = layer
        self.mpp = mpp
        self.stride = stride
        self.rasterize = rasterize
        self.centers_px = np.asarray(layer["centers_um"], dtype=np.float64) / mpp
        self.sampled = is_interpolated(layer["shape"], layer["size_um"], stride * mpp)
        self.radius_px = 0.0 if self.sampled else layer["size_um"] / mpp / 2 + 1
        self.sums: torch.Tensor | None = None
        self.weights = torch.zeros(len(self.centers_px), dtype=torch.float64)

    @property
    def bounds_px(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """The rectangle that holds every unit, (low, high) as (x, y)."""
        low, high = self.centers_px.min(0) - self.radius_px, self.centers_px.max(0) + self.radius_px
        # The upper side is exclusive: a centre on it still needs the pixel beyond.
        return (float(low[0]), float(low[1])), (float(high[0]) + 1e-6, float(high[1]) + 1e-6)

    def touching(self, tile: Tile) -> np.ndarray:
        """Indices of the units that reach into a tile's core."""
        x, y = self.centers_px.T
        r = self.radius_px
        inside = (x >= tile.x_px - r) & (x < tile.x_px + tile.width_px + r)
        inside &= (y >= tile.y_px - r) & (y < tile.y_px + tile.height_px + r)
        return np.flatnonzero(inside)

    def add(self, tile: Tile, features: torch.Tensor) -> None:
        """Add a tile's map.

        Args:
            tile: where the map lies.
            features: the map of the tile's whole region, margin included, (1, C, h, w).
        """
        units = self.touching(tile)
        if self.sums is None:
            self.sums = torch.zeros((len(self.weights), features.shape[1]), dtype=torch.float64)
        if len(units) == 0:
            return
        margin = tile.margin_px // self.stride
        if self.sampled:
            x_px, y_px, width_px, height_px = tile.region
            at = (self.centers_px[units] - (x_px, y_px)) / (width_px, height_px) * 2 - 1
            grid = torch.from_numpy(at).to(features)[None, None]
            values = F.grid_sample(features, grid, mode="bilinear", align_corners=False)[0, :, 0].T
            self.sums[units] += values.double().cpu()
            self.weights[units] += 1
            return
        near = {**self.layer, "centers_um": np.asarray(self.layer["centers_um"])[units]}
        origin_um = (tile.x_px * self.mpp, tile.y_px * self.mpp)
        mask, drawn = self.rasterize([near], (tile.height_px, tile.width_px), origin_um, self.mpp)
        index = torch.from_numpy(units[drawn[0]])
        label = torch.from_numpy(mask[0]).long()
        rows, columns = torch.nonzero(label, as_tuple=True)
        core = features[0, :, margin : features.shape[2] - margin, margin : features.shape[3] - margin]
        cell = (rows // self.stride) * core.shape[2] + columns // self.stride
        pairs, count = torch.unique((label[rows, columns] - 1) * core[0].numel() + cell, return_counts=True)
        unit, cell = pairs // core[0].numel(), pairs % core[0].numel()
        weight = count.to(features)
        flat = core.flatten(1).T.index_select(0, cell.to(features.device)) * weight[:, None]
        self.sums.index_add_(0, index[unit], flat.double().cpu())
        self.weights.index_add_(0, index[unit], count.double())

    def pooled(self) -> torch.Tensor:
        """Mean features, float32 (U, C)."""
        if self.sums is None:
            raise RuntimeError("No tile was added.")
        return (self.sums / self.weights.clamp(min=1)[:, None]).float()
