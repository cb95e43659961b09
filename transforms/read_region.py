"""Read a region of a slide at the working resolution, with its place on the slide kept in the MetaTensor."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils.enums import TransformBackends

from .slide import SlideReader

__all__ = ["ReadRegion", "ReadRegionD", "ReadRegionDict", "ReadRegiond"]


class ReadRegion(Transform):
    """Read a region of the slide-global grid of `mpp`.

    The metadata that travels with the image: `mpp`, `origin_um` (x, y of the region's corner), `location` (row, column
    in level-0 pixels), `slide_mpp`, `filename_or_obj`, and the affine from a pixel's (row, column) to the (y, x) of its
    centre in micrometres.

    Args:
        mpp: micrometres per pixel of the result.
        reader: opens slides; a `SlideReader()` by default.

    Example::

        image = ReadRegion(mpp=1.0)("slides/C2.tif", (0, 0, 384, 384))  # x, y, width, height in pixels of 1 um
    """

    backend = [TransformBackends.NUMPY]  # noqa: RUF012

    def __init__(self, mpp: float, reader: SlideReader | None = None) -> None:
        if not mpp > 0:
            raise ValueError(f"mpp={mpp}: give the micrometres per pixel to work at, above 0.")
        self.mpp = float(mpp)
        self.reader = reader or SlideReader()

    def __call__(  # type: ignore[override]
        self, path: str | os.PathLike, region: Sequence[int], slide_mpp: float | None = None
    ) -> MetaTensor:
        """Read `region`.

        Args:
            path: the slide's file.
            region: (x, y, width, height) in whole pixels of the working grid; glass beyond the slide is white.
            slide_mpp: micrometres per level-0 pixel; read from the file's tags by default.

        Returns:
            float32 (3, height, width), 0..255.

        Raises:
            SlideError: if the slide cannot be read there or its mpp is unknown.
        """
        x, y, width, height = (int(v) for v in region)
        slide = self.reader.open(path, slide_mpp)
        pixels = slide.read_region(x, y, width, height, self.mpp)
        affine = np.eye(4)
        affine[0, 0] = affine[1, 1] = self.mpp
        affine[:2, 3] = (y + 0.5) * self.mpp, (x + 0.5) * self.mpp
        meta = {
            "mpp": self.mpp,
            "origin_um": (x * self.mpp, y * self.mpp),
            "location": (round(y * self.mpp / slide.mpp), round(x * self.mpp / slide.mpp)),
            "slide_mpp": slide.mpp,
            "filename_or_obj": str(path),
        }
        image = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))).float()
        return MetaTensor(image, affine=torch.from_numpy(affine), meta=meta)


class ReadRegiond(MapTransform):
    """Dictionary form of `ReadRegion`: the path under each key becomes the image of the sample's region.

    Args:
        keys: keys that hold a slide's path.
        mpp: micrometres per pixel of the result.
        reader: opens slides; a `SlideReader()` by default.
        region_key: holds (x, y, width, height) in pixels of the working grid.
        slide_mpp_key: holds the slide's own mpp; where it is absent or None, the file's tags give it.
        allow_missing_keys: pass over samples without a key.
    """

    backend = ReadRegion.backend

    def __init__(
        self,
        keys: KeysCollection,
        mpp: float,
        reader: SlideReader | None = None,
        region_key: str = "region",
        slide_mpp_key: str = "mpp",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.read = ReadRegion(mpp, reader)
        self.region_key = region_key
        self.slide_mpp_key = slide_mpp_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the sample with its images read; everything else is untouched."""
        sample = dict(data)
        for key in self.key_iterator(sample):
            if self.region_key not in sample:
                raise ValueError(
                    f'The sample of {sample[key]} has no "{self.region_key}": give (x, y, width, height) in pixels of '
                    f"{self.read.mpp:g} um."
                )
            sample[key] = self.read(sample[key], sample[self.region_key], sample.get(self.slide_mpp_key))
        return sample


ReadRegionD = ReadRegionDict = ReadRegiond
