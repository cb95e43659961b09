"""What this package needs of a slide, whatever opens it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

__all__ = ["OpenSlide", "SlideOpener"]


class OpenSlide(Protocol):
    """What this package asks of an open slide (`transforms.Slide` is one)."""

    backend: str
    mpp: float
    level_dimensions: Sequence[tuple[int, int]]

    def read_region(self, x_px: int, y_px: int, width_px: int, height_px: int, mpp: float) -> np.ndarray:
        """Pixels of a region of the slide-global grid at `mpp`, uint8 (height, width, 3)."""

    def thumbnail(self, max_px: int) -> tuple[np.ndarray, float]:
        """A small picture of the whole slide and its mpp."""


class SlideOpener(Protocol):
    """Opens slides (`transforms.SlideReader` is one)."""

    def open(self, path: str, mpp: float | None = None) -> OpenSlide:
        """Open a slide, at the mpp given or the file's own."""
