"""cuCIM: quick for tiled TIFF pyramids, with no GPU too. It is trusted with what was proved exact, and nothing else."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np

from .errors import UnsupportedLayout
from .layout import ODDITIES, Layout, Level

__all__ = ["CuCIMSource"]

_JPEG = 7
# Exact with one and four threads, in any size of tile and level. LZW is too, but damaged LZW gives pixels and no error.
_PROVED = {1: "none", _JPEG: "JPEG", 8: "deflate", 32946: "deflate", 33005: "Aperio's JPEG 2000 (RGB)"}
_MAKERS = ("", "svs", "ome")


class CuCIMSource:
    """Reads contiguous 8-bit RGB tiles that were all written, compressed in a way that was proved."""

    name = "cucim"

    def __init__(self, path: Path, layout: Layout | None) -> None:
        if layout is None:
            raise UnsupportedLayout("it reads TIFF only")
        why_not = _why_not(layout)
        if why_not:
            raise UnsupportedLayout(why_not)
        from cucim import CuImage  # type: ignore[attr-defined]

        self._image = CuImage(str(path))
        levels = self._image.resolutions
        self.dimensions = [(int(w), int(h)) for w, h in levels["level_dimensions"]]
        self._downsamples = [float(d) for d in levels["level_downsamples"]]
        if tuple(self.dimensions) != layout.seen_levels or len(layout.levels) != len(self.dimensions):
            raise UnsupportedLayout(
                f"it sees {len(self.dimensions)} levels of other sizes than the file's {len(layout.levels)}"
            )
        self._heads = [_Heads(level) if int(level.key.compression) == _JPEG else None for level in layout.levels]
        self._file = path.open("rb", buffering=0)

    def read(self, level: int, x_px: int, y_px: int, width_px: int, height_px: int) -> np.ndarray:
        """Read a rectangle inside a level: uint8 (height_px, width_px, 3)."""
        heads = self._heads[level]
        if heads is not None:
            heads.check(self._file.fileno(), x_px, y_px, width_px, height_px)
        # cuCIM divides the level-0 location by a float and truncates: aim at the pixel's middle, not at its edge.
        factor = self._downsamples[level]
        location = tuple(math.ceil((v + 0.5) * factor - 0.5) for v in (x_px, y_px))
        return np.asarray(self._image.read_region(location, (width_px, height_px), level))[..., :3]


def _why_not(layout: Layout) -> str | None:
    if layout.for_openslide_alone:
        return layout.for_openslide_alone
    if layout.oddities:
        return ODDITIES[layout.oddities[0]]
    unproved = layout.compressions - set(_PROVED)
    if unproved:
        return f"TIFF compression {min(unproved)} was not shown to be read right"
    if layout.maker not in _MAKERS:
        return f"the layout of {layout.maker.upper()} was not shown to be read right"
    return None


class _Heads:
    """The heads of a level's JPEG tiles: cuCIM crashes on damaged ones, so each that it meets was decoded before.

    The tiles of a level nearly always share one head, so comparing it costs a read of its few bytes. Tiles with tables
    of their own are decoded once.
    """

    _MAX_BYTES = 4096

    def __init__(self, level: Level) -> None:
        self._key = level.key
        self._tables = level.pages[0].jpegtables
        self._tile_w, self._tile_h = level.segment_size
        self._columns = -(-level.width_px // self._tile_w)
        self._offsets, self._counts = level.places[0]
        self._sound: tuple[bytes, ...] = ()
        self._checked = np.zeros(len(self._offsets), bool)

    def check(self, file: int, x_px: int, y_px: int, width_px: int, height_px: int) -> None:
        """Raise ValueError if a tile of the rectangle has a head that does not decode."""
        rows = range(y_px // self._tile_h, (y_px + height_px - 1) // self._tile_h + 1)
        columns = range(x_px // self._tile_w, (x_px + width_px - 1) // self._tile_w + 1)
        for row in rows:
            for column in columns:
                index = row * self._columns + column
                if self._checked[index]:
                    continue
                offset, count = int(self._offsets[index]), int(self._counts[index])
                for head in self._sound:
                    if os.pread(file, len(head), offset) == head:
                        break
                else:
                    self._learn(os.pread(file, count, offset), index)
                self._checked[index] = True

    def _learn(self, tile: bytes, index: int) -> None:
        self._key.decode(tile, index, jpegtables=self._tables, jpegheader=self._key.jpegheader)
        scan = tile.find(b"\xff\xda", 0, self._MAX_BYTES)
        if scan > 0 and len(self._sound) < 16:
            self._sound = (*self._sound, tile[: scan + 2])
