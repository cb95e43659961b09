"""One crop around each unit, as models of single spots read a slide."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

__all__ = ["unit_crops"]


def unit_crops(slide: Any, centers_um: np.ndarray, side_px: int, mpp: float, batch: int) -> Iterator[np.ndarray]:
    """Crops of an open slide about points (x, y), float32 (n, 3, side_px, side_px) in 0..255, `batch` at a time."""
    corners_px = np.rint(centers_um / mpp - side_px / 2).astype(int)
    for start in range(0, len(corners_px), batch):
        some = corners_px[start : start + batch]
        crops = np.stack([slide.read_region(int(x), int(y), side_px, side_px, mpp) for x, y in some])
        yield np.ascontiguousarray(crops.transpose(0, 3, 1, 2), dtype=np.float32)
