"""Features of an ImageNet encoder in a crop around each unit, without any training on tissue."""

from __future__ import annotations

import numpy as np
import torch

from networks import EfficientNetLiteEncoder
from transforms.slide import SlideReader

from ..unit_crops import unit_crops
from .slides import Slide, remembered

__all__ = ["CROP_PX", "FIELDS_MPP", "encoder_features"]

CROP_PX = 224
#: Two fields of view of the same size in pixels: the unit with its rim, and its neighbourhood.
FIELDS_MPP = (1.0, 2.0)
STRIDES = (16, 32)
_BATCH = 32


@remembered
def encoder_features(slide: Slide) -> np.ndarray:
    """Means over each unit's crops of EfficientNet-lite0's features of strides 16 and 32, (U, F)."""
    encoder = EfficientNetLiteEncoder(STRIDES).eval()
    reader = SlideReader().open(slide.image, slide.mpp)
    fields = []
    for mpp in FIELDS_MPP:
        rows = []
        for crops in unit_crops(reader, slide.centers_um, CROP_PX, mpp, _BATCH):
            with torch.inference_mode():
                levels = encoder((torch.from_numpy(crops) - 127) / 128)
            rows.append(torch.cat([level.mean((2, 3)) for level in levels], dim=1).numpy())
        fields.append(np.concatenate(rows))
    return np.concatenate(fields, axis=1).astype(np.float64)
