"""Draw measured units (spots, bins, cells) into index masks on a region's pixels."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils.enums import TransformBackends

from .canvas import EPSILON_PX, Canvas, UnitError
from .labels import LabelLayer
from .polygons import PolygonLayer

__all__ = ["RasterizeUnits", "RasterizeUnitsD", "RasterizeUnitsDict", "RasterizeUnitsd", "UnitLayer"]

STAMP_PX = 2**22  # candidates tested at once
# Centres closer than this many sizes mean overlapping units. Squares may come as near as a lattice of bins turned by
# 45 degrees against the image, whose upright squares share slivers; the nearer centre owns those pixels.
CLOSEST = {"circle": 0.98, "square": 0.7}


@dataclass(frozen=True)
class UnitLayer:
    """Units of one size that do not overlap each other.

    Attributes:
        centers_um: (U, 2), (x, y) in micrometres from the slide's corner.
        shape: `circle` (size is the diameter) or `square` (size is the side, edges along the image's).
        size_um: diameter or side.
    """

    centers_um: np.ndarray
    shape: Literal["circle", "square"]
    size_um: float

    @property
    def area_um2(self) -> float:
        """Area of one unit."""
        return math.pi / 4 * self.size_um**2 if self.shape == "circle" else self.size_um**2

    @property
    def areas_um2(self) -> np.ndarray:
        """Area of each unit, (U,)."""
        return np.full(len(self.centers_um), self.area_um2)

    def check(self, number: int) -> None:
        """Refuse a malformed layer (see `_checked` for what all layers share).

        Raises:
            UnitError: if its size is not above 0.
        """
        if not self.size_um > 0:
            raise UnitError(f"Layer {number}: size_um is {self.size_um}; give the diameter or side in micrometres.")

    def contained(self, canvas: Canvas) -> np.ndarray:
        """Which units lie wholly inside the region, bool (U,)."""
        return canvas.contains(self.centers_um - self.size_um / 2, self.centers_um + self.size_um / 2)

    def draw(self, canvas: Canvas, number: int) -> np.ndarray:
        """Mask by the units' own numbers (from 1), int64 (height, width).

        Raises:
            UnitError: if units overlap.
        """
        center = canvas.to_px(self.centers_um)
        radius = self.size_um / canvas.mpp / 2
        start = np.ceil(center - radius - 0.5 - EPSILON_PX).astype(np.int64)
        home = np.floor(center).astype(np.int64)
        reach = math.ceil(2 * radius) + 1
        near = np.flatnonzero(((start + reach > canvas.corner_px) & (start < canvas.far_px)).all(axis=1))

        claims = []  # (pixel, unit)
        step = np.arange(reach)
        for chunk in np.array_split(near, max(1, math.ceil(len(near) * reach**2 / STAMP_PX))):
            index = start[chunk, :, None] + step  # (n, 2, reach), x and y
            offset = index + 0.5 - center[chunk, :, None]
            inside = (index >= canvas.corner_px[:, None]) & (index < canvas.far_px[:, None])
            if self.shape == "square":
                inside &= index < np.ceil(center[chunk] + radius - 0.5 - EPSILON_PX)[..., None]
            covered = inside[:, 1, :, None] & inside[:, 0, None, :]
            if self.shape == "circle":
                covered &= offset[:, 1, :, None] ** 2 + offset[:, 0, None, :] ** 2 < radius**2
            unit, row, column = np.nonzero(covered)
            claims.append((canvas.pixel(index[unit, 0, column], index[unit, 1, row]), chunk[unit]))
        pixel, unit = (np.concatenate(parts) for parts in zip(*claims, strict=True))

        drawn, rivals = canvas.settle(pixel, unit, center)
        if len(rivals):
            self._refuse_overlap(number, *rivals.T)
        seen = np.zeros(len(center) + 1, dtype=bool)
        seen[drawn] = True
        lost = near[canvas.holds(home[near]) & ~seen[near + 1]]
        canvas.place(drawn, lost, home[lost])
        return canvas.region(drawn)

    def _refuse_overlap(self, number: int, first: np.ndarray, second: np.ndarray) -> None:
        apart = np.abs(self.centers_um[first] - self.centers_um[second])
        distance = apart.max(axis=1) if self.shape == "square" else np.hypot(*apart.T)
        worst = int(distance.argmin())
        if distance[worst] < CLOSEST[self.shape] * self.size_um:
            raise UnitError(
                f"Layer {number}: units {first[worst]} and {second[worst]} overlap: they measure {self.size_um:g} um "
                f"and their centres are {distance[worst]:.3g} um apart. Check the units' size and the slide's mpp, or "
                "put them in layers of their own."
            )


Layer = UnitLayer | PolygonLayer | LabelLayer
LAYERS: dict[str, Any] = {"circle": UnitLayer, "square": UnitLayer, "polygon": PolygonLayer, "label": LabelLayer}


class RasterizeUnits(Transform):
    """Index masks of units: 0 where there is none, 1..n for the units of a layer in their order.

    A unit covers a pixel whose centre lies inside it (a disk: nearer than half its size; a square: half-open, so that
    neighbours never share one; a polygon: by the even-odd rule; a label: as its image says). Where polygons overlap,
    the nearer centre owns the pixel; disks and squares may not overlap. A unit that covers no pixel centre takes the
    pixel that its own centre falls in, if that is free. What a pixel holds does not depend on how the slide is cut into
    regions.

    Args:
        drop_cut: leave out units that are not wholly inside the region; else they are drawn as far as they reach in.
    """

    backend = [TransformBackends.NUMPY]  # noqa: RUF012

    def __init__(self, drop_cut: bool = True) -> None:
        self.drop_cut = drop_cut

    def __call__(  # type: ignore[override]
        self,
        layers: Sequence[Layer | Mapping[str, Any]],
        size_px: Sequence[int],
        origin_um: Sequence[float],
        mpp: float,
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        """Draw the layers.

        Args:
            layers: `UnitLayer`s, `PolygonLayer`s, `LabelLayer`s, or mappings with their fields (`shape` says which).
            size_px: (height, width) of the region.
            origin_um: (x, y) of the region's corner.
            mpp: micrometres per pixel.

        Returns:
            The mask, int32 (L, height, width), and per layer which of its units are in it, bool (U,).

        Raises:
            UnitError: if a layer is malformed or its units overlap.
        """
        height, width = (int(v) for v in size_px)
        canvas = Canvas((height, width), origin_um, mpp)
        mask = np.zeros((len(layers), height, width), dtype=np.int32)
        keep = []
        for i, given in enumerate(layers):
            layer = _checked(given, i)
            drawn = layer.draw(canvas, i)
            kept = np.bincount(drawn.ravel(), minlength=len(layer.centers_um) + 1)[1:] > 0
            if self.drop_cut:
                kept &= layer.contained(canvas)
            index = np.concatenate([[0], np.where(kept, np.cumsum(kept), 0)]).astype(np.int32)
            mask[i] = index[drawn]
            keep.append(kept)
        return mask, keep


class RasterizeUnitsd(MapTransform):
    """Dictionary form of `RasterizeUnits`: the list of layers becomes the label of the sample's image.

    Size, place and mpp are the image's; put it before flips, rotations and crops, which then move both alike.
    Vectors are filtered to the units drawn. It adds `unit_layer` and `unit_index` (the value in the mask), int64 (U,),
    and `area_um2`, float32 (U,).

    Args:
        keys: keys that hold a list of layers.
        image_key: the image of `ReadRegiond`.
        vector_keys: arrays or tensors whose first axis is the units, ordered by layer; absent ones are passed over.
        drop_cut: leave out units that are not wholly inside the image.
        allow_missing_keys: pass over samples without a key.
    """

    backend = RasterizeUnits.backend

    def __init__(
        self,
        keys: KeysCollection = "label",
        image_key: str = "image",
        vector_keys: Sequence[str] = ("target", "total"),
        drop_cut: bool = True,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if len(self.keys) != 1:
            raise UnitError(f"keys={self.keys}: one sample has one set of units, so give one key.")
        self.rasterize = RasterizeUnits(drop_cut)
        self.image_key = image_key
        self.vector_keys = (vector_keys,) if isinstance(vector_keys, str) else tuple(vector_keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the sample with its label drawn and its vectors filtered."""
        sample = dict(data)
        for key in self.key_iterator(sample):
            image: MetaTensor = sample[self.image_key]
            mpp, origin_um = _place(image, self.image_key)
            layers = [_checked(layer, i) for i, layer in enumerate(sample[key])]
            mask, keep = self.rasterize(layers, image.shape[-2:], origin_um, mpp)
            kept = np.concatenate([np.zeros(0, bool), *keep])
            for name in self.vector_keys:
                if name not in sample:
                    continue
                if len(sample[name]) != len(kept):
                    raise UnitError(
                        f'"{name}" has {len(sample[name])} entries for {len(kept)} units in "{key}"; give one per '
                        "unit, ordered by layer."
                    )
                choose = torch.from_numpy(kept) if isinstance(sample[name], torch.Tensor) else kept
                sample[name] = sample[name][choose]
            counts = [int(k.sum()) for k in keep]
            sample[key] = MetaTensor(torch.from_numpy(mask), meta=dict(image.meta))
            sample["unit_layer"] = torch.repeat_interleave(torch.arange(len(layers)), torch.tensor(counts).long())
            sample["unit_index"] = torch.cat([torch.arange(0), *(torch.arange(1, n + 1) for n in counts)])
            areas = [layer.areas_um2[k] for layer, k in zip(layers, keep, strict=True)]
            sample["area_um2"] = torch.from_numpy(np.concatenate([np.zeros(0), *areas])).float()
        return sample


RasterizeUnitsD = RasterizeUnitsDict = RasterizeUnitsd


def _checked(given: Layer | Mapping[str, Any], number: int) -> Layer:
    shape = given.get("shape") if isinstance(given, Mapping) else given.shape
    if shape is not None and shape not in LAYERS:
        raise UnitError(f'Layer {number}: shape is "{shape}"; it must be one of {", ".join(LAYERS)}.')
    try:
        layer = LAYERS[shape or "circle"](**given) if isinstance(given, Mapping) else given
    except TypeError as error:
        raise UnitError(f"Layer {number}: give centers_um, shape and size_um ({error}).") from error
    centers = np.asarray(layer.centers_um, dtype=np.float64)
    if centers.ndim != 2 or centers.shape[1] != 2 or not np.isfinite(centers).all():
        raise UnitError(f"Layer {number}: centers_um must be finite (x, y) pairs of shape (U, 2), not {centers.shape}.")
    layer = replace(layer, centers_um=centers, size_um=float(layer.size_um))
    layer.check(number)
    return layer


def _place(image: Any, key: str) -> tuple[float, tuple[float, float]]:
    """The image's mpp and (x, y) of its corner; refuses one that was moved since it was read."""
    if not isinstance(image, MetaTensor) or not {"mpp", "origin_um"} <= set(image.meta):
        raise UnitError(f'"{key}" does not say where on the slide it lies: read it with ReadRegiond first.')
    mpp, (x, y) = float(image.meta["mpp"]), (float(v) for v in image.meta["origin_um"])
    affine = image.affine.numpy()
    read = [[mpp, 0, y + mpp / 2], [0, mpp, x + mpp / 2]]
    if not np.allclose(affine[:2][:, [0, 1, -1]], read, rtol=1e-6, atol=1e-4 * mpp):
        raise UnitError(f'"{key}" was flipped, turned or cropped after it was read: put RasterizeUnitsd before that.')
    return mpp, (x, y)
