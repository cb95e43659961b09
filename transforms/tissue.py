"""Find tissue on a small picture of an H&E slide."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from monai.config.type_definitions import NdarrayOrTensor
from monai.data import MetaTensor
from monai.transforms import Transform
from monai.utils import convert_to_dst_type, convert_to_numpy
from monai.utils.enums import TransformBackends
from scipy import ndimage

__all__ = ["TissueMask"]


class TissueMask(Transform):
    """Tissue where colour is saturated: Otsu's threshold (1979) on HSV saturation, where there is glass to split off.

    Glass alone stays below `floor` and gives an empty mask. Where even the paler of Otsu's two classes is no glass,
    the picture is full of tissue and all above `floor` is taken. Black borders and grey dust have no colour and are
    not tissue.

    Args:
        min_area_um2: smaller specks and holes are removed.
        floor: lowest threshold of the saturation, 0..1; glass tinted by eosin reaches 0.08.
        glass: highest mean saturation of a class that is glass.

    Example::

        pixels, mpp = slide.thumbnail(2048)
        tissue = TissueMask()(pixels.transpose(2, 0, 1), mpp)
    """

    backend = [TransformBackends.NUMPY]  # noqa: RUF012

    def __init__(self, min_area_um2: float = 10_000, floor: float = 0.10, glass: float = 0.12) -> None:
        if not (0 < floor < 1 and 0 < glass < 1):
            raise ValueError(f"floor={floor}, glass={glass}: saturations lie between 0 and 1.")
        self.min_area_um2 = min_area_um2
        self.floor = floor
        self.glass = glass

    def __call__(self, image: NdarrayOrTensor, mpp: float | None = None) -> NdarrayOrTensor:
        """Find tissue.

        Args:
            image: (3, H, W), 0..255; 2 to 30 um a pixel are enough.
            mpp: micrometres per pixel; a MetaTensor of `ReadRegion` says it itself.

        Returns:
            bool (1, H, W) of the same kind as `image`.
        """
        if image.ndim != 3 or image.shape[0] != 3:
            raise ValueError(f"Tissue is found on an RGB image (3, H, W), not {tuple(image.shape)}.")
        if mpp is None and isinstance(image, MetaTensor):
            mpp = image.meta.get("mpp")
        if mpp is None:
            raise ValueError("How large is a pixel? Give its mpp (micrometres per pixel).")
        pixels: np.ndarray = convert_to_numpy(image, dtype=np.float32)
        pixels = ndimage.gaussian_filter(pixels, (0, 1, 1))  # JPEG noise on glass is coloured
        brightest = pixels.max(axis=0)
        saturation = (brightest - pixels.min(axis=0)) / np.maximum(brightest, 32)  # near black, colour is noise
        threshold, paler = _otsu(saturation)
        tissue = saturation > (max(threshold, self.floor) if paler < self.glass else self.floor)
        min_px = min(self.min_area_um2 / float(mpp) ** 2, 0.1 * tissue.size)
        tissue = _without_small(tissue, min_px)
        tissue = ~_without_small(~tissue, min_px)
        if isinstance(image, torch.Tensor):
            return convert_to_dst_type(tissue[None], image, dtype=torch.bool)[0]
        return tissue[None]


def _otsu(values: np.ndarray) -> tuple[float, float]:
    """The threshold that splits values of 0..1 into two classes of least variance, and the lower class's mean.

    scikit-image's `threshold_otsu` gives the threshold alone, and would be a dependency for ten lines.
    """
    counts, edges = np.histogram(values, bins=256, range=(0, 1))
    middle = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    above = counts.sum() - below
    sum_below = np.cumsum(counts * middle)
    mean_below = sum_below / np.maximum(below, 1)
    mean_above = (sum_below[-1] - sum_below) / np.maximum(above, 1)
    best = int(np.argmax(below * above * (mean_below - mean_above) ** 2))
    return float(edges[best + 1]), float(mean_below[best])


def _without_small(mask: np.ndarray, min_px: float) -> np.ndarray:
    labels: Any
    labels, _ = ndimage.label(mask)
    size = np.bincount(labels.ravel())
    size[0] = 0
    return (size >= min_px)[labels] & mask
