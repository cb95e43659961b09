"""A reader that gives every slide the same colours: an ablation, transductive, since a slide's own picture decides."""

from __future__ import annotations

from typing import Any

import numpy as np

from transforms import SlideReader, TissueMask

__all__ = ["EqualisedReader"]

_THUMBNAIL_PX = 2048


class EqualisedReader(SlideReader):
    """Pixels whose mean and standard deviation over a slide's tissue are the same for all slides, in each colour.

    After Reinhard et al. 2001 (https://doi.org/10.1109/38.946629), in RGB.

    Args:
        mean: of red, green and blue over tissue, 0 to 255.
        std: likewise.
    """

    def __init__(self, mean: tuple[float, ...] = (185.0, 145.0, 180.0), std: tuple[float, ...] = (45.0, 50.0, 40.0)):
        super().__init__()
        self.wanted = np.array(mean), np.array(std)
        self._found: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def open(self, path: Any, mpp: float | None = None) -> Any:
        """A slide whose regions are equalised; its thumbnail is as it was."""
        slide = super().open(path, mpp)
        if str(path) not in self._found:
            pixels, thumbnail_mpp = slide.thumbnail(_THUMBNAIL_PX)
            tissue = TissueMask()(pixels.transpose(2, 0, 1), thumbnail_mpp)[0]
            seen = pixels[tissue].astype(float)
            self._found[str(path)] = seen.mean(0), seen.std(0)
        (mean, std), (wanted, spread) = self._found[str(path)], self.wanted
        return _Equalised(slide, spread / std, wanted - mean * spread / std)


class _Equalised:
    def __init__(self, slide: Any, factor: np.ndarray, offset: np.ndarray) -> None:
        self._slide, self._factor, self._offset = slide, factor, offset

    def __getattr__(self, name: str) -> Any:
        return getattr(self._slide, name)

    def read_region(self, *where: Any) -> np.ndarray:
        pixels = self._slide.read_region(*where) * self._factor + self._offset
        return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
