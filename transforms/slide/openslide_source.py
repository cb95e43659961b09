"""OpenSlide: the scanners' formats that are no plain TIFF (MIRAX, Leica, Ventana, Aperio's JPEG 2000 ...)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .errors import Unfit
from .glass import on_glass
from .layout import Layout

__all__ = ["OpenSlideSource"]


class OpenSlideSource:
    """Reads the levels that OpenSlide reads exactly; what is transparent is glass."""

    name = "openslide"

    def __init__(self, path: Path, layout: Layout | None) -> None:
        shared = layout if layout is not None and not layout.for_openslide_alone else None  # tifffile reads it too
        if shared and shared.unlike_plain:
            raise Unfit(shared.unlike_plain[0])
        import openslide

        self._slide = openslide.OpenSlide(path)
        # It interpolates wherever level-0 location / downsample is not whole, so only whole downsamples read exactly.
        self._levels = [i for i, d in enumerate(self._slide.level_downsamples) if abs(d - round(d)) < 1e-9]
        self.dimensions = [self._slide.level_dimensions[i] for i in self._levels]
        if shared and not set(self.dimensions) <= set(shared.seen_levels):
            raise Unfit("it sees levels of other sizes than the file's")

    def read(self, level: int, x_px: int, y_px: int, width_px: int, height_px: int) -> np.ndarray:
        """Read a rectangle inside a level: uint8 (height_px, width_px, 3)."""
        level = self._levels[level]
        factor = round(self._slide.level_downsamples[level])
        rgba = np.asarray(self._slide.read_region((x_px * factor, y_px * factor), level, (width_px, height_px)))
        return on_glass(rgba[..., :3], rgba[..., 3])
