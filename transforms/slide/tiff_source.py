"""Any TIFF, tile by tile or strip by strip: tifffile decodes only the segments that a read touches."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from .alpha import on_glass
from .errors import UnsupportedLayout
from .layout import Layout, Level

__all__ = ["TiffSource"]

MAX_SEGMENT_BYTES = 2**30  # one tile or strip, decoded
LARGE_SEGMENT_BYTES = 2**24  # it is kept: the next read probably touches it too
_JPEGS = (6, 7, 34892, 33007)
_UNPROVED = {6: "old-style JPEG", 33003: "Aperio's JPEG 2000 (YCbCr)"}
_PALETTE = 3
_ASSOCIATED, _UNASSOCIATED = 1, 2


class TiffSource:
    """Reads through `os.pread`, which has no file position that threads or forked processes could race for."""

    name = "tifffile"

    def __init__(self, path: Path, layout: Layout | None) -> None:
        if layout is None:
            raise UnsupportedLayout("it reads TIFF only")
        if layout.for_openslide_alone:
            raise UnsupportedLayout(layout.for_openslide_alone)
        self._levels = [_LevelReader(level) for level in layout.levels]
        self.dimensions = [level.size for level in layout.levels]
        self._file = path.open("rb", buffering=0)

    def read(self, level: int, x_px: int, y_px: int, width_px: int, height_px: int) -> np.ndarray:
        """Read a rectangle inside a level: uint8 (height_px, width_px, 3); segments never written are white."""
        reader = self._levels[level]
        tile_w, tile_h = reader.tile_w, reader.tile_h
        out = np.full((height_px, width_px, 3), 255, np.uint8)
        for row in range(y_px // tile_h, (y_px + height_px - 1) // tile_h + 1):
            y0, y1 = max(y_px, row * tile_h), min(y_px + height_px, (row + 1) * tile_h)
            for column in range(x_px // tile_w, (x_px + width_px - 1) // tile_w + 1):
                x0, x1 = max(x_px, column * tile_w), min(x_px + width_px, (column + 1) * tile_w)
                box = (slice(y0 - row * tile_h, y1 - row * tile_h), slice(x0 - column * tile_w, x1 - column * tile_w))
                rgb = reader.rgb(self._file.fileno(), row, column, box)
                if rgb is not None:
                    out[y0 - y_px : y1 - y_px, x0 - x_px : x1 - x_px] = rgb
        return out


class _LevelReader:
    """Decodes the segments of one level."""

    def __init__(self, level: Level) -> None:
        key: Any = level.key
        compression = int(key.compression)
        if compression in _UNPROVED:
            raise UnsupportedLayout(f"its {_UNPROVED[compression]} was not shown to be read right")
        if compression in _JPEGS and key.samplesperpixel > 3 and key.planarconfig == 1:
            raise UnsupportedLayout("its JPEG with alpha was not shown to be read right")
        self.tile_w, self.tile_h = level.segment_size
        self._columns, self._rows = -(-level.width_px // self.tile_w), -(-level.height_px // self.tile_h)
        self._separate = key.planarconfig != 1 and key.samplesperpixel > 1
        self._samples = 1 if self._separate else int(key.samplesperpixel)
        size = self.tile_w * self.tile_h * self._samples
        self._as_stored = compression == 1 and key.predictor == 1 and key.fillorder == 1 and key.bitspersample == 8
        if size > MAX_SEGMENT_BYTES and not self._as_stored:
            raise UnsupportedLayout(f"one compressed strip or tile of it takes {size / 2**30:.1f} GiB of memory")
        self._decode = key.decode
        self._is_large = size >= LARGE_SEGMENT_BYTES
        self._kept: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()  # the last large segment of each plane
        self._lock = threading.Lock()
        self._places = level.places
        self._jpeg = [
            {"jpegtables": page.jpegtables, "jpegheader": key.jpegheader} if compression in _JPEGS else {}
            for page in level.pages
        ]
        self._planes = [(page, plane) for page in range(len(level.pages)) for plane in range(self._n_planes(key))]
        self._palette = _palette(key.colormap) if key.photometric == _PALETTE else None
        extra = key.extrasamples[0] if key.samplesperpixel == 4 and key.extrasamples else 0
        self._alpha = extra if extra in (_ASSOCIATED, _UNASSOCIATED) else None

    def _n_planes(self, key: Any) -> int:
        return int(key.samplesperpixel) if self._separate else 1

    def rgb(self, file: int, row: int, column: int, box: tuple[slice, slice]) -> np.ndarray | None:
        """The part `box` of a segment as RGB on white; None if it was never written."""
        index = row * self._columns + column
        per_plane = self._rows * self._columns
        planes = [self._plane(file, page, plane * per_plane + index, box) for page, plane in self._planes]
        written = [plane for plane in planes if plane is not None]
        if not written:
            return None
        white = np.full((*written[0].shape[:2], self._samples), 255, np.uint8)
        pixels = np.concatenate([white if p is None else p for p in planes], axis=2) if len(planes) > 1 else written[0]
        if self._palette is not None:
            return self._palette[pixels[..., 0]]
        if self._alpha is not None:
            return on_glass(pixels[..., :3], pixels[..., 3], premultiplied=self._alpha == _ASSOCIATED)
        return pixels[..., :3]

    def _plane(self, file: int, page: int, index: int, box: tuple[slice, slice]) -> np.ndarray | None:
        """The part `box` of one page's segment, uint8 (h, w, samples); None if it was never written."""
        offsets, counts = self._places[page]
        offset, count = int(offsets[index]), int(counts[index])
        if count == 0:
            return None
        if self._as_stored:
            return self._stored(file, offset, box)
        decoded = self._large(file, page, index) if self._is_large else self._segment(file, page, index)
        part = decoded[box]
        if part.shape[:2] != (box[0].stop - box[0].start, box[1].stop - box[1].start) or part.dtype != np.uint8:
            raise ValueError(f"a tile decodes to {decoded.shape} {decoded.dtype}")
        return part

    def _large(self, file: int, page: int, index: int) -> np.ndarray:
        """A large segment, kept until another of its plane is read; threads wait for one of them to decode it."""
        key = page, index
        with self._lock:
            if key not in self._kept:
                while len(self._kept) >= len(self._planes):
                    self._kept.popitem(last=False)
                self._kept[key] = self._segment(file, page, index)
            self._kept.move_to_end(key)
            return self._kept[key]

    def _segment(self, file: int, page: int, index: int) -> np.ndarray:
        """One page's segment, decoded, (h, w, samples)."""
        offsets, counts = self._places[page]
        data = _pread(file, int(offsets[index]), int(counts[index]))
        return self._decode(data, index, **self._jpeg[page])[0][0]

    def _stored(self, file: int, offset: int, box: tuple[slice, slice]) -> np.ndarray:
        """Rows of an uncompressed segment, whole or only their part, whichever is less work."""
        rows, columns = box
        height, width = rows.stop - rows.start, columns.stop - columns.start
        stride, samples = self.tile_w * self._samples, self._samples
        start = offset + rows.start * stride
        if height == 1 or 4 * width >= self.tile_w or self.tile_w <= 1024:
            block = np.frombuffer(_pread(file, start, height * stride), np.uint8)
            return block.reshape(height, self.tile_w, samples)[:, columns]
        start += columns.start * samples
        parts = [_pread(file, start + i * stride, width * samples) for i in range(height)]
        return np.frombuffer(b"".join(parts), np.uint8).reshape(height, width, samples)


def _palette(colormap: np.ndarray) -> np.ndarray:
    """Colours as uint8 (N, 3); a colormap has 16 bits, but some programs write 8."""
    return (colormap >> (8 if colormap.max() > 255 else 0)).astype(np.uint8).T


def _pread(file: int, offset: int, count: int) -> bytes:
    data = os.pread(file, count, offset)
    while len(data) < count:  # one call gives 2 GiB at most
        more = os.pread(file, count - len(data), offset + len(data))
        if not more:
            raise ValueError("the file ends before its pixels do")
        data += more
    return data
