"""Slides that are open: read at any level, or at any micrometres per pixel (mpp)."""

from __future__ import annotations

import logging
import math
import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .errors import SlideError
from .layout import Size, downsample
from .mpp import checked_mpp
from .opening import BACKENDS, open_source, reopen_source
from .resampling import resampled, triangle_weights

__all__ = ["Slide", "SlideReader"]

logger = logging.getLogger(__name__)

MAX_OPEN = 16
MAX_SOURCE_PX = 2**22  # read at once when resampling: 12 MB as uint8, 50 MB as float32
_logged: set[tuple[Path, str]] = set()  # a slide that is opened again says nothing new


class SlideReader:
    """Opens slides with the first backend that can really read them, and keeps the last few open.

    It pickles as its arguments, so it can be sent to workers; every process opens its own files.

    Args:
        backends: tried in this order, and tifffile after them; those that are not installed, or do not read a slide's
            layout exactly, are passed over, and the log says why.
    """

    def __init__(self, backends: Sequence[str] = BACKENDS) -> None:
        unknown = sorted(set(backends) - set(BACKENDS))
        if unknown or not backends:
            raise ValueError(f"backends={list(backends)}: choose one or more of {', '.join(BACKENDS)}.")
        self.backends = tuple(backends)
        self._open: OrderedDict[tuple, Slide] = OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple:
        return type(self), (self.backends,)

    def open(self, path: str | os.PathLike, mpp: float | None = None) -> Slide:
        """Open a slide, or return it if it is open already and its file has not changed.

        Args:
            path: the slide's file.
            mpp: micrometres per level-0 pixel; read from the file's tags by default.

        Raises:
            SlideError: if the file is missing, damaged or no slide, or its mpp is unknown.
        """
        path = Path(path)
        if not path.is_file():
            raise SlideError(f"No such slide: {path}. Check the path.")
        stat = path.stat()
        key = (str(path), mpp, stat.st_mtime_ns, stat.st_size)
        with self._lock:
            slide = self._open.get(key)
            if slide is None:
                slide = self._open[key] = Slide(path, mpp, self.backends)
            self._open.move_to_end(key)
            while len(self._open) > MAX_OPEN:
                self._open.popitem(last=False)
        return slide


class Slide:
    """One open slide; made by `SlideReader.open`. It pickles as its arguments and survives a fork.

    Attributes:
        path: the slide's file.
        backend: what reads it.
        mpp: micrometres per level-0 pixel.
        level_dimensions: (width, height) of each level in its own pixels, finest first.
        level_downsamples: level-0 pixels per pixel of each level.
        warnings: what is doubtful about it, in sentences.
    """

    def __init__(self, path: str | os.PathLike, mpp: float | None = None, backends: Sequence[str] = BACKENDS) -> None:
        self.path = Path(path)
        self._arguments = (self.path, mpp, tuple(backends))
        opened = open_source(self.path, backends)
        self._source = opened.source
        self._pid = os.getpid()
        self.backend: str = self._source.name
        self.level_dimensions: list[Size] = list(self._source.dimensions)
        self.level_downsamples = [downsample(self.level_dimensions[0], size) for size in self.level_dimensions]
        self.mpp, doubts = checked_mpp(self.path, mpp, opened.said_mpp)
        self.warnings = [*doubts, *opened.doubts]
        for message in self.warnings:
            _log_once(logging.WARNING, self.path, message)
        others = f" ({'; '.join(opened.rejected)})" if opened.rejected else ""
        _log_once(logging.INFO, self.path, f"{self.backend} reads it{others}.")

    def __reduce__(self) -> tuple:
        return type(self), self._arguments

    def __repr__(self) -> str:
        width, height = self.level_dimensions[0]
        levels = len(self.level_dimensions)
        return f"Slide({self.path.name}, {width} x {height} px, {self.mpp:g} um/px, {levels} levels, {self.backend})"

    @property
    def size_um(self) -> tuple[float, float]:
        """Width and height in micrometres."""
        width, height = self.level_dimensions[0]
        return width * self.mpp, height * self.mpp

    def read_level(self, level: int, x_px: int, y_px: int, width_px: int, height_px: int) -> np.ndarray:
        """Read a rectangle in the pixels of one level, white beyond the slide's edge.

        Returns:
            uint8 (height_px, width_px, 3).

        Raises:
            SlideError: if the file breaks off or is damaged there.
        """
        if width_px < 1 or height_px < 1:
            raise SlideError(f"A region of {self.path} cannot have {width_px} x {height_px} px; give at least 1 x 1.")
        width, height = self.level_dimensions[level]
        x0, x1 = (min(max(v, 0), width) for v in (x_px, x_px + width_px))
        y0, y1 = (min(max(v, 0), height) for v in (y_px, y_px + height_px))
        inside = (x1 - x0, y1 - y0)
        if inside == (width_px, height_px):
            return self._read(level, x0, y0, *inside)
        out = np.full((height_px, width_px, 3), 255, dtype=np.uint8)
        if min(inside) > 0:
            out[y0 - y_px : y1 - y_px, x0 - x_px : x1 - x_px] = self._read(level, x0, y0, *inside)
        return out

    def read_region(self, x_px: int, y_px: int, width_px: int, height_px: int, mpp: float) -> np.ndarray:
        """Read a rectangle of the slide-global grid of `mpp`, whose pixel (0, 0) starts at the slide's corner.

        The coarsest level that is at least as fine as `mpp` is resampled with a triangle filter (Pillow's BILINEAR,
        antialiased). Weights depend on a pixel's place on the global grid alone and are multiples of 2^-14, so sums
        are exact and the result is the same, bit for bit, however a region is cut. A level at `mpp` is copied.

        Args:
            x_px: left edge in pixels of `mpp`; may lie outside the slide, where glass is white.
            y_px: upper edge.
            width_px: columns.
            height_px: rows.
            mpp: micrometres per pixel of the result.

        Returns:
            uint8 (height_px, width_px, 3).

        Raises:
            SlideError: if the file breaks off or is damaged there.
        """
        if not mpp > 0:
            raise SlideError(f"{self.path} cannot be read at mpp={mpp}; give the micrometres per pixel, above 0.")
        level = max(i for i, d in enumerate(self.level_downsamples) if i == 0 or self.mpp * d <= 1.01 * mpp)
        scale = mpp / (self.mpp * self.level_downsamples[level])
        if abs(scale - 1) < 1e-6:
            return self.read_level(level, x_px, y_px, width_px, height_px)
        if width_px * height_px * scale**2 > MAX_SOURCE_PX and max(width_px, height_px) > 1:
            if height_px >= width_px:
                upper = height_px // 2
                return np.concatenate(
                    [
                        self.read_region(x_px, y_px, width_px, upper, mpp),
                        self.read_region(x_px, y_px + upper, width_px, height_px - upper, mpp),
                    ]
                )
            left = width_px // 2
            return np.concatenate(
                [
                    self.read_region(x_px, y_px, left, height_px, mpp),
                    self.read_region(x_px + left, y_px, width_px - left, height_px, mpp),
                ],
                axis=1,
            )
        columns, x0, width = triangle_weights(x_px, width_px, scale)
        rows, y0, height = triangle_weights(y_px, height_px, scale)
        return resampled(self.read_level(level, x0, y0, width, height), rows, columns)

    def thumbnail(self, max_px: int) -> tuple[np.ndarray, float]:
        """The whole slide, its longer side at most `max_px`: a level of half of that or more, or resampled in pieces.

        Returns:
            uint8 (h, w, 3) and its mpp.
        """
        for level, size in enumerate(self.level_dimensions):
            if max_px / 2 <= max(size) <= max_px:
                return self.read_level(level, 0, 0, *size), self.mpp * self.level_downsamples[level]
        width, height = self.level_dimensions[0]
        factor = max(1.0, max(width, height) / max_px)
        columns, rows = (max(1, math.ceil(v / factor - 1e-9)) for v in (width, height))
        return self.read_region(0, 0, columns, rows, self.mpp * factor), self.mpp * factor

    def _read(self, level: int, x_px: int, y_px: int, width_px: int, height_px: int) -> np.ndarray:
        try:
            if self._pid != os.getpid():  # a forked worker must not share the parent's file position
                self._source, self._pid = reopen_source(self.path, self.backend), os.getpid()
            pixels = self._source.read(level, x_px, y_px, width_px, height_px)
            if pixels.shape != (height_px, width_px, 3):
                raise ValueError(f"{pixels.shape[1]} x {pixels.shape[0]} px came back")
        except Exception as error:
            self._pid = -1  # OpenSlide refuses everything after one error: open anew next time
            raise SlideError(
                f"{self.path} cannot be read at level {level}, x={x_px}, y={y_px}, {width_px} x {height_px} px with "
                f"{self.backend} ({error}). The file is probably cut short or damaged: copy it again."
            ) from error
        return pixels


def _log_once(severity: int, path: Path, message: str) -> None:
    if (path, message) not in _logged:
        _logged.add((path, message))
        logger.log(severity, "%s: %s", path, message)
