"""Draw measured units (spots, bins, cells) into index masks on a region's pixels."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils.enums import TransformBackends

from .canvas import EPSILON_PX, Canvas, UnitError
from .labels import LabelLayer
from .overlap import split_overlapping
from .polygons import PolygonLayer

__all__ = ["RasterizeUnits", "RasterizeUnitsD", "RasterizeUnitsDict", "RasterizeUnitsd", "UnitLayer"]

STAMP_PX = 2**22  # candidates tested at once


@dataclass(frozen=True)
class UnitLayer:
    """Units of one size.

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

    def cover(self, canvas: Canvas) -> tuple[np.ndarray, np.ndarray]:
        """The pixels of each unit by itself: places in the flat drawing, and whose they are.

        Those whose centre lies in it. A unit that covers no pixel centre has the pixel of its own centre.
        """
        center = canvas.to_px(self.centers_um)
        radius = self.size_um / canvas.mpp / 2
        start = np.ceil(center - radius - 0.5 - EPSILON_PX).astype(np.int64)
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

        covers = np.zeros(len(center), dtype=bool)
        covers[unit] = True
        home, lost = canvas.at_home(near[~covers[near]], center)
        return np.concatenate([pixel, home]), np.concatenate([unit, lost])


Layer = UnitLayer | PolygonLayer | LabelLayer
LAYERS: dict[str, Any] = {"circle": UnitLayer, "square": UnitLayer, "polygon": PolygonLayer, "label": LabelLayer}


class Drawing(NamedTuple):
    """Some units of a layer that do not overlap.

    Attributes:
        layer: number of their layer among those given.
        units: which of its units they are, ascending, (n,).
        mask: int32 (height, width), 1..n in their order.
    """

    layer: int
    units: np.ndarray
    mask: np.ndarray


class RasterizeUnits(Transform):
    """Index masks of units: 0 where there is none, 1..n for the units of a layer in their order.

    A unit covers a pixel whose centre lies inside it (a disk: nearer than half its size; a square: half-open, so that
    neighbours never share one; a polygon: by the even-odd rule; a label: as its image says). A unit that covers no
    pixel centre has the pixel that its own centre falls in. Units that overlap are drawn on several masks, each unit
    whole. Which pixels a unit has does not depend on how the slide is cut.

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
            The masks, int32 (L, height, width): one for each layer, or several one after the other where its units
            overlap. And for each mask which of its layer's units are in it, bool (U,).

        Raises:
            UnitError: if a layer is malformed, or more than 64 units cover one pixel.
        """
        checked = [_checked(given, i) for i, given in enumerate(layers)]
        drawings = self.draw(checked, size_px, origin_um, mpp)
        keep = [np.isin(np.arange(len(checked[d.layer].centers_um)), d.units) for d in drawings]
        height, width = (int(v) for v in size_px)
        return np.stack([np.zeros((height, width), np.int32), *(d.mask for d in drawings)])[1:], keep

    def draw(
        self, layers: Sequence[Layer], size_px: Sequence[int], origin_um: Sequence[float], mpp: float
    ) -> list[Drawing]:
        """The same as a list, one for each mask; see `__call__`."""
        height, width = (int(v) for v in size_px)
        canvas = Canvas((height, width), origin_um, mpp)
        drawings = []
        for number, layer in enumerate(layers):
            n_units = len(layer.centers_um)
            pixel, unit = layer.cover(canvas)
            inside, _, _ = canvas.place(pixel)
            kept = np.zeros(n_units, dtype=bool)
            kept[unit[inside]] = True
            if self.drop_cut:
                kept &= layer.contained(canvas)
            drawn = inside & kept[unit]
            pixel, unit = pixel[drawn], unit[drawn]
            mask = split_overlapping(pixel, unit, n_units)
            for m in range(int(mask.max(initial=0)) + 1):
                units = np.flatnonzero(kept & (mask == m))
                here = mask[unit] == m
                index = np.searchsorted(units, unit[here]) + 1
                drawings.append(Drawing(number, units, canvas.draw(pixel[here], index)))
        return drawings

    def pixels(
        self, layer: Layer | Mapping[str, Any], size_px: Sequence[int], origin_um: Sequence[float], mpp: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The pixels in a region of each unit by itself, as far as it reaches in, whatever other units cover them.

        Args:
            layer: as one of `__call__`'s.
            size_px: (height, width) of the region.
            origin_um: (x, y) of the region's corner.
            mpp: micrometres per pixel.

        Returns:
            Unit, row and column of each, (N,); a pixel that several units cover comes once for each.

        Raises:
            UnitError: if the layer is malformed.
        """
        height, width = (int(v) for v in size_px)
        canvas = Canvas((height, width), origin_um, mpp)
        pixel, unit = _checked(layer, 0).cover(canvas)
        inside, row, column = canvas.place(pixel)
        return unit[inside], row, column


class RasterizeUnitsd(MapTransform):
    """Dictionary form of `RasterizeUnits`: the list of layers becomes the label of the sample's image.

    Size, place and mpp are the image's; put it before flips, rotations and crops, which then move both alike.
    Vectors are filtered to the units drawn, in the order of the masks. It adds `unit_layer` (the mask), `unit_index`
    (the value in it) and `unit_size` (the layer given, of which there is one for each size), int64 (U,), and
    `area_um2`, float32 (U,). Where the units of a layer overlap, it takes several masks.

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
            drawings = self.rasterize.draw(layers, image.shape[-2:], origin_um, mpp)
            start = np.cumsum([0, *(len(layer.centers_um) for layer in layers)])
            order = np.concatenate([np.zeros(0, np.int64), *(start[d.layer] + d.units for d in drawings)])
            for name in self.vector_keys:
                if name not in sample:
                    continue
                if len(sample[name]) != start[-1]:
                    raise UnitError(
                        f'"{name}" has {len(sample[name])} entries for {start[-1]} units in "{key}"; give one per '
                        "unit, ordered by layer."
                    )
                sample[name] = sample[name][torch.from_numpy(order) if torch.is_tensor(sample[name]) else order]
            masks = np.stack([np.zeros(image.shape[-2:], np.int32), *(d.mask for d in drawings)])[1:]
            sample[key] = MetaTensor(torch.from_numpy(masks), meta=dict(image.meta))
            counts = torch.tensor([len(d.units) for d in drawings]).long()
            sample["unit_layer"] = torch.repeat_interleave(torch.arange(len(drawings)), counts)
            sample["unit_size"] = torch.repeat_interleave(torch.tensor([d.layer for d in drawings]).long(), counts)
            sample["unit_index"] = torch.cat([torch.arange(0), *(torch.arange(1, int(n) + 1) for n in counts)])
            areas = [layers[d.layer].areas_um2[d.units] for d in drawings]
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
