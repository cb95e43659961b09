"""A reader that gives every slide the same colours: a transductive ablation, since a slide's own image decides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bundle.data.opening import SlideOpener
from bundle.data.tissue import TissueMap
from transforms import SlideReader, TissueMask

__all__ = ["EqualisedReader"]


class EqualisedReader:
    """Shifts and scales pixels so that all slides' thumbnails have one mean and standard deviation over tissue.

    After Reinhard et al. 2001 (https://doi.org/10.1109/38.946629), in RGB. A slide without tissue stays as it is.

    Args:
        mean: of red, green and blue over tissue, 0 to 255.
        std: likewise.
        reader: opens the slides; `transforms.SlideReader` by default.
    """

    def __init__(
        self,
        mean: Sequence[float] = (185.0, 145.0, 180.0),
        std: Sequence[float] = (45.0, 50.0, 40.0),
        reader: SlideOpener | None = None,
    ) -> None:
        self.reader = reader or SlideReader()
        self.mean, self.std = np.array(mean), np.array(std)
        self._found: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def __reduce__(self) -> tuple:
        return type(self), (self.mean.tolist(), self.std.tolist(), self.reader)

    def open(self, path: Any, mpp: float | None = None) -> Any:
        """A slide whose regions are equalised; its thumbnail stays as it is."""
        slide: Any = self.reader.open(path, mpp)
        if str(path) not in self._found:
            tissue = TissueMap(slide, TissueMask())
            factor, offset = np.ones(3), np.zeros(3)
            if tissue.mask.any():
                seen = tissue.picture[tissue.mask].astype(float)
                factor = self.std / np.maximum(seen.std(0), 1.0)
                offset = self.mean - seen.mean(0) * factor
            self._found[str(path)] = factor, offset
        return _Equalised(slide, *self._found[str(path)])


class _Equalised:
    def __init__(self, slide: Any, factor: np.ndarray, offset: np.ndarray) -> None:
        self._slide, self._factor, self._offset = slide, factor, offset
        self.mpp, self.level_dimensions, self.backend = slide.mpp, slide.level_dimensions, slide.backend
        self.thumbnail = slide.thumbnail

    def read_region(self, x_px: int, y_px: int, width_px: int, height_px: int, mpp: float) -> np.ndarray:
        pixels = self._slide.read_region(x_px, y_px, width_px, height_px, mpp) * self._factor + self._offset
        return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
