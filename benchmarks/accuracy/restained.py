"""A reader that restains slides, thumbnails too, as another laboratory might have stained them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from transforms import HEStain, SlideReader

__all__ = ["RestainedReader"]


class RestainedReader(SlideReader):
    """Regions and thumbnails with other amounts of haematoxylin and eosin.

    Args:
        alpha: see `transforms.HEStain`.
    """

    def __init__(self, alpha: Sequence[float]) -> None:
        super().__init__()
        self.alpha = list(alpha)

    def __reduce__(self) -> tuple:
        return type(self), (self.alpha,)

    def open(self, path: Any, mpp: float | None = None) -> Any:
        """The slide, restained."""
        return _Restained(super().open(path, mpp), HEStain(self.alpha))


class _Restained:
    def __init__(self, slide: Any, stain: HEStain) -> None:
        self._slide, self._stain = slide, stain
        self.mpp, self.level_dimensions, self.backend = slide.mpp, slide.level_dimensions, slide.backend

    def read_region(self, x_px: int, y_px: int, width_px: int, height_px: int, mpp: float) -> np.ndarray:
        return self._restained(self._slide.read_region(x_px, y_px, width_px, height_px, mpp))

    def thumbnail(self, max_px: int) -> tuple[np.ndarray, float]:
        picture, mpp = self._slide.thumbnail(max_px)
        return self._restained(picture), mpp

    def _restained(self, pixels: np.ndarray) -> np.ndarray:
        restained = np.asarray(self._stain(pixels.transpose(2, 0, 1).astype(np.float32)))
        return np.rint(restained).astype(np.uint8).transpose(1, 2, 0)
