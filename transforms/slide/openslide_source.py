"""OpenSlide: the scanners' formats that are no plain TIFF (MIRAX, Leica, Ventana, Aperio's JPEG 2000 ...)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .alpha import on_glass
from .errors import UnsupportedLayout
from .layout import ODDITIES, Layout

__all__ = ["OpenSlideSource"]

_PROVED = ("alpha", "palette", "unwritten")  # as tifffile reads them; of partial alpha, to one grey level


class OpenSlideSource:
    """Reads the levels that OpenSlide reads exactly; what is transparent is glass."""

    name = "openslide"

    def __init__(self, path: Path, layout: Layout | None) -> None:
        shared = layout if layout is not None and not layout.for_openslide_alone else None  # tifffile reads it too
        odd = [oddity for oddity in shared.oddities if oddity not in _PROVED] if shared else []
        if odd:
            raise UnsupportedLayout(ODDITIES[odd[0]])
        import openslide

        try:
            self._slide = openslide.OpenSlide(path)
        except openslide.OpenSlideUnsupportedFormatError as error:
            raise UnsupportedLayout("it does not know this format") from error
        sizes, downsamples = self._slide.level_dimensions, self._slide.level_downsamples
        # It interpolates wherever level-0 location / downsample is not whole, so only whole downsamples read exactly.
        self._levels = [i for i, d in enumerate(downsamples) if abs(d - round(d)) < 1e-9]
        if shared:
            known = [level.size for level in shared.levels]
            self._levels = [i for i in self._levels if sizes[i] in known]
            if sizes[0] != known[0]:
                raise UnsupportedLayout("it sees a picture of another size")
        self.dimensions = [sizes[i] for i in self._levels]
        self.left_out = len(sizes if shared is None else [s for s in sizes if s in known]) - len(self._levels)

    def read(self, level: int, x_px: int, y_px: int, width_px: int, height_px: int) -> np.ndarray:
        """Read a rectangle inside a level: uint8 (height_px, width_px, 3)."""
        level = self._levels[level]
        factor = round(self._slide.level_downsamples[level])
        rgba = np.asarray(self._slide.read_region((x_px * factor, y_px * factor), level, (width_px, height_px)))
        return on_glass(rgba[..., :3], rgba[..., 3])
