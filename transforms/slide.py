"""Whole slides of any format as one thing: uint8 RGB pixels at any micrometres per pixel (mpp)."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol
from xml.etree import ElementTree

import numpy as np
import scipy.sparse as sp
import tifffile
import torch

__all__ = ["Slide", "SlideError", "SlideReader"]

logger = logging.getLogger(__name__)

BACKENDS = ("cucim", "tifffile", "openslide")
MPP_RANGE = (0.05, 20.0)  # outside, a tag is a default of some drawing program (72 dpi is 353 µm/px), not a scanner's
MPP_TOLERANCE = 0.05  # a given mpp this far from the tags' is told
MAX_OPEN = 16
MAX_SOURCE_PX = 2**22  # read at once when resampling: 12 MB as uint8, 50 MB as float32
_BAND = 64  # rows or columns resampled by one product

Size = tuple[int, int]


class SlideError(ValueError):
    """A slide that cannot be used, told in a sentence: what is wrong, where, and what to do."""

    for_user = True  # the command line prints the sentence alone


class SlideReader:
    """Opens slides with the first backend that can really read them, and keeps the last few open.

    It pickles as its arguments, so it can be sent to workers; every process opens its own files.

    Args:
        backends: tried in this order; those that are not installed are passed over.
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
        self._source, tagged = _open_source(self.path, backends)
        self._pid = os.getpid()
        self.backend: str = self._source.name
        self.level_dimensions: list[Size] = list(self._source.dimensions)
        self.level_downsamples = [_downsample(self.level_dimensions[0], size) for size in self.level_dimensions]
        self.mpp, self.warnings = _checked_mpp(self.path, mpp, tagged)
        for told in self.warnings:
            logger.warning("%s: %s", self.path, told)

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
            raise SlideError(f"A region of {width_px} x {height_px} px was asked of {self.path}; give at least 1 x 1.")
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
            raise SlideError(f"mpp={mpp} was asked of {self.path}; give the micrometres per pixel, above 0.")
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
        columns, x0, width = _triangle_weights(x_px, width_px, scale)
        rows, y0, height = _triangle_weights(y_px, height_px, scale)
        return _resampled(self.read_level(level, x0, y0, width, height), rows, columns)

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
                self._source, self._pid = _open_source(self.path, (self.backend,))[0], os.getpid()
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


# Resampling -----------------------------------------------------------------------------------------------------------


def _triangle_weights(first: int, count: int, scale: float) -> tuple[sp.csr_matrix, int, int]:
    """Weights of the source pixels for output pixels first..first+count: CSR (count, n), first source pixel, n."""
    center = (first + np.arange(count) + 0.5) * scale
    support = max(scale, 1.0)
    start = np.floor(center - support).astype(np.int64)
    index = start[:, None] + np.arange(math.ceil(2 * support) + 1)
    weight = np.clip(1 - np.abs(index + 0.5 - center[:, None]) / support, 0, None)
    weight = np.rint(weight / weight.sum(axis=1, keepdims=True) * 2**14)
    weight[np.arange(count), weight.argmax(axis=1)] += 2**14 - weight.sum(axis=1)
    first_px, n_px = int(index[0, 0]), int(index[-1, -1] - index[0, 0] + 1)
    indptr = np.arange(0, weight.size + 1, weight.shape[1])
    data = (weight / 2**14).astype(np.float32).ravel()
    return sp.csr_matrix((data, (index - first_px).ravel(), indptr), shape=(count, n_px)), first_px, n_px


def _resampled(source: np.ndarray, rows: sp.csr_matrix, columns: sp.csr_matrix) -> np.ndarray:
    """Apply weights along both axes: uint8 (h, w, 3) -> uint8 (rows, columns, 3).

    Few source pixels weigh in a band of outputs, so a small dense product, which stays in the cache, is quicker than a
    sparse one unless pixels shrink much. Values in between are whole again, or sums would not be exact.
    """
    pixels = torch.from_numpy(np.ascontiguousarray(source)).flatten(1)
    out = torch.empty((rows.shape[0], columns.shape[0], 3), dtype=torch.uint8, device="cpu")
    exact = _exact_dtype()
    across = list(_bands(columns, exact))
    with torch.autocast("cpu", enabled=False):
        for to, of, weights in _bands(rows, exact):
            tall = torch.mm(pixels[of].to(exact).T, weights.T).round_()  # (w * 3, band): a column's values lie together
            tall = tall.unflatten(0, (-1, 3)).flatten(1)
            wide = torch.empty((columns.shape[0], tall.shape[1]), dtype=exact, device="cpu")
            for right, left, shares in across:
                torch.mm(shares, tall[left], out=wide[right])
            out[to] = wide.round_().to(torch.uint8).unflatten(1, (3, -1)).permute(2, 0, 1)
    return out.numpy()


def _exact_dtype() -> torch.dtype:
    """float32, whose products are exact here, unless torch was told to multiply it in fewer bits."""
    try:
        told = torch.get_float32_matmul_precision()
    except RuntimeError:  # it was told so of one backend alone
        told = "unknown"
    return torch.float32 if told == "highest" else torch.float64


def _bands(weights: sp.csr_matrix, dtype: torch.dtype) -> Iterator[tuple[slice, slice, torch.Tensor]]:
    """Bands of outputs: which they are, which sources weigh in them, and the dense weights between the two."""
    for first in range(0, weights.shape[0], _BAND):
        band = weights[first : first + _BAND]
        of = slice(int(band.indices.min()), int(band.indices.max()) + 1)
        yield slice(first, first + band.shape[0]), of, torch.from_numpy(band[:, of].toarray()).to(dtype)


def _downsample(base: Size, size: Size) -> float:
    """Level-0 pixels per pixel; whole if the sizes allow it, as 1531 -> 766 px is a halving and not 1.9987."""
    ratio = (base[0] / size[0] + base[1] / size[1]) / 2
    whole = round(ratio)
    if all(abs(b / whole - s) < 1 for b, s in zip(base, size, strict=True)):
        return float(whole)
    return ratio


# mpp ------------------------------------------------------------------------------------------------------------------


def _checked_mpp(path: Path, given: float | None, tagged: Sequence[tuple[float, float]]) -> tuple[float, list[str]]:
    """The given mpp, else the first plausible one of the file's tags; and what speaks against it."""
    plausible = [xy for xy in tagged if _plausible(xy)]
    if given is not None:
        if not _plausible((float(given),)):
            raise SlideError(
                f"mpp={given} was given for {path}; a pixel measures {MPP_RANGE[0]} to {MPP_RANGE[1]} micrometres."
            )
        if plausible and abs(given / plausible[0][0] - 1) > MPP_TOLERANCE:
            told = f"The file says {plausible[0][0]:.4g} µm per pixel; the {given:.4g} given is used instead."
            return float(given), [told]
        return float(given), []
    if not plausible:
        said = f" (its tags say {tagged[0][0]:.4g}, which is no scanner's)" if tagged else ""
        raise SlideError(
            f"{path} does not say how many micrometres a pixel measures{said}. Give the slide's mpp: --mpp 0.5 on the "
            'command line, or "mpp" beside "image" in dataset.json.'
        )
    x, y = plausible[0]
    if abs(x - y) > 0.01 * max(x, y):
        raise SlideError(
            f"{path} has pixels that are not square ({x:g} x {y:g} um). Resample it to square pixels, or give --mpp if "
            "the tags are wrong."
        )
    return (x + y) / 2, []


def _plausible(mpp: Sequence[float]) -> bool:
    return all(MPP_RANGE[0] <= v <= MPP_RANGE[1] for v in mpp)


def _tiff_mpp(tiff: tifffile.TiffFile) -> list[tuple[float, float]]:
    """What a TIFF says of its mpp (x, y), most trustworthy first: Aperio's description, OME-XML, resolution tags."""
    page: Any = tiff.pages.first
    said = []
    aperio = re.search(r"\bMPP\s*=\s*([0-9]*\.?[0-9]+)", page.description or "")
    if aperio:
        said.append((float(aperio[1]), float(aperio[1])))
    if tiff.ome_metadata:
        pixels = ElementTree.fromstring(tiff.ome_metadata).find(".//{*}Pixels")
        um = {"nm": 1e-3, "µm": 1.0, "μm": 1.0, "um": 1.0, "mm": 1e3, "cm": 1e4, "m": 1e6}  # micro sign and Greek mu
        if pixels is not None and "PhysicalSizeX" in pixels.attrib:
            x = pixels.attrib["PhysicalSizeX"], pixels.get("PhysicalSizeXUnit", "µm")
            y = pixels.get("PhysicalSizeY", x[0]), pixels.get("PhysicalSizeYUnit", x[1])
            if x[1] in um and y[1] in um:
                said.append((float(x[0]) * um[x[1]], float(y[0]) * um[y[1]]))
    unit_um = {2: 25400.0, 3: 10000.0, 4: 1000.0, 5: 1.0}.get(int(page.tags.valueof("ResolutionUnit", 1)))
    x, y = (page.tags.valueof(name) for name in ("XResolution", "YResolution"))
    if unit_um and x and y and x[0] and y[0]:
        said.append((unit_um * x[1] / x[0], unit_um * y[1] / y[0]))
    return said


# Backends -------------------------------------------------------------------------------------------------------------


class _Source(Protocol):
    """What a backend gives: the levels' sizes and the pixels inside a level."""

    name: str
    dimensions: list[Size]

    def read(self, level: int, x_px: int, y_px: int, width_px: int, height_px: int) -> np.ndarray: ...


class _CuCIM:
    """cuCIM: the quickest for tiled TIFF pyramids; needs no GPU."""

    name = "cucim"

    def __init__(self, path: Path, tiff: tifffile.TiffFile | None) -> None:
        from cucim import CuImage  # type: ignore[attr-defined]

        if tiff is None:
            raise ValueError("it reads TIFF only")
        self._image = CuImage(str(path))
        levels = self._image.resolutions
        self.dimensions = [(int(w), int(h)) for w, h in levels["level_dimensions"]]
        self._downsamples = [float(d) for d in levels["level_downsamples"]]
        if self.dimensions != [_xy(level) for level in tiff.series[0].levels]:
            # It does not see levels in SubIFDs, as OME-TIFF keeps them; coarse reads would decode all of level 0.
            raise ValueError(f"it sees {len(self.dimensions)} of {len(tiff.series[0].levels)} levels")

    def read(self, level: int, x_px: int, y_px: int, width_px: int, height_px: int) -> np.ndarray:
        # cuCIM divides the level-0 location by a float and truncates: aim at the pixel's middle, not at its edge.
        factor = self._downsamples[level]
        location = tuple(math.ceil((v + 0.5) * factor - 0.5) for v in (x_px, y_px))
        return np.asarray(self._image.read_region(location, (width_px, height_px), level))[..., :3]


class _Tifffile:
    """Any TIFF, tiled or in strips, decoding only the segments that a read touches."""

    name = "tifffile"

    def __init__(self, path: Path, tiff: tifffile.TiffFile | None) -> None:
        if tiff is None:
            raise ValueError("it reads TIFF only")
        self._path, self._series = path, tiff.series[0]
        tiff.filehandle.set_lock(True)
        self.dimensions = [_xy(level) for level in self._series.levels]
        self._arrays: dict[int, Any] = {}

    def read(self, level: int, x_px: int, y_px: int, width_px: int, height_px: int) -> np.ndarray:
        if level not in self._arrays:
            self._arrays[level] = self._lazy(level)
        place = {"Y": slice(y_px, y_px + height_px), "X": slice(x_px, x_px + width_px), "S": slice(3), "C": slice(3)}
        axes = self._series.levels[level].axes
        pixels = np.asarray(self._arrays[level][tuple(place.get(axis, 0) for axis in axes)])
        kept = "".join(axis for axis in axes if axis in place).replace("C", "S")
        return np.ascontiguousarray(pixels.transpose([kept.index(axis) for axis in "YXS"]))

    def _lazy(self, level: int) -> Any:
        pages = self._series.levels[level].pages
        if (
            len(pages) == 1 and pages[0] is not None and pages[0].is_memmappable
        ):  # else one strip may be the whole level
            return tifffile.memmap(self._path, series=0, level=level, mode="r")
        import zarr

        return zarr.open(self._series.aszarr(level=level, fillvalue=255), mode="r")  # a tile never written is glass


class _OpenSlide:
    """OpenSlide: the scanners' formats that are no plain TIFF (MIRAX, Leica, Ventana ...)."""

    name = "openslide"

    def __init__(self, path: Path, tiff: tifffile.TiffFile | None) -> None:
        import openslide

        self._slide = openslide.OpenSlide(path)
        # It interpolates wherever level-0 location / downsample is not whole, so only whole downsamples read exactly.
        self._levels = [i for i, d in enumerate(self._slide.level_downsamples) if abs(d - round(d)) < 1e-9]
        self.dimensions = [self._slide.level_dimensions[i] for i in self._levels]

    def read(self, level: int, x_px: int, y_px: int, width_px: int, height_px: int) -> np.ndarray:
        level = self._levels[level]
        factor = round(self._slide.level_downsamples[level])
        rgba = np.asarray(self._slide.read_region((x_px * factor, y_px * factor), level, (width_px, height_px)))
        pixels = rgba[..., :3].copy()
        pixels[rgba[..., 3] == 0] = 255
        return pixels


_SOURCES: dict[str, Callable[[Path, tifffile.TiffFile | None], _Source]] = {
    "cucim": _CuCIM,
    "tifffile": _Tifffile,
    "openslide": _OpenSlide,
}


def _open_source(path: Path, backends: Sequence[str]) -> tuple[_Source, list[tuple[float, float]]]:
    """Open with the first backend that reads a pixel of every level; also what the file says of its mpp (x, y)."""
    with path.open("rb") as file:
        head = file.read(4)
    failures, tiff = [], None
    if head in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        try:
            tiff = tifffile.TiffFile(path)
            missing = _missing(tiff)
        except Exception as error:
            raise SlideError(
                f"{path} cannot be read as a TIFF ({error}); it is cut short or damaged: copy it again."
            ) from error
        if missing:
            raise SlideError(f"{path} is cut short: {missing} at its end. Copy it again.")
        if tiff.series[0].dtype != np.uint8 or _channels(tiff.series[0]) not in (3, 4):
            raise SlideError(
                f"{path} has {_channels(tiff.series[0])} channel(s) of {tiff.series[0].dtype}; a slide of H&E is 8-bit "
                "RGB. Convert it first."
            )
    for name in backends:
        try:
            source: _Source = _SOURCES[name](path, tiff)
            for level, (width, height) in enumerate(source.dimensions):
                if source.read(level, width // 2, height // 2, 1, 1).shape != (1, 1, 3):
                    raise ValueError(f"level {level} gave no RGB pixel")
            tagged = _said_mpp(path, tiff)
            if tiff is not None and name != "tifffile":
                tiff.close()
            return source, tagged
        except ImportError:
            failures.append(f"{name} is not installed")
        except Exception as error:
            failures.append(f"{name}: {(str(error) or type(error).__name__).splitlines()[0]}")
    if head[:3] == b"\xff\xd8\xff" or head == b"\x89PNG":
        raise SlideError(
            f"{path} is a plain picture, which cannot be read piece by piece. Make a tiled TIFF of it: `vips tiffsave "
            "PICTURE SLIDE.tif --tile --pyramid --compression jpeg`, and give its --mpp."
        )
    advice = "It is probably damaged: copy it again." if tiff is not None else "Give a slide (TIFF, SVS, MRXS ...)."
    raise SlideError(f"{path} cannot be read as a slide ({'; '.join(failures)}). {advice}")


def _said_mpp(path: Path, tiff: tifffile.TiffFile | None) -> list[tuple[float, float]]:
    """What is said of mpp (x, y): by the file's tags, else from OpenSlide, which knows more formats."""
    said = _tiff_mpp(tiff) if tiff is not None else []
    if any(_plausible(xy) for xy in said):
        return said
    with contextlib.suppress(Exception):  # not installed, not its format, no such property: nothing said
        import openslide

        with openslide.OpenSlide(path) as slide:
            x, y = (float(slide.properties[f"openslide.mpp-{axis}"]) for axis in "xy")
            said.append((x, y))
    return said


def _missing(tiff: tifffile.TiffFile) -> str | None:
    """What a file lacks at its end, as far as it can be told: where tiles or strips lie, their bytes, or a page."""
    pages: list[Any] = [page for level in tiff.series[0].levels for page in level.pages if page is not None]
    if any(len(page.dataoffsets) < math.prod(page.keyframe.chunked) for page in pages):
        return "where its tiles lie is missing"
    ends = (o + n for page in pages for o, n in zip(page.dataoffsets, page.databytecounts, strict=False))
    beyond = max(ends, default=0) - tiff.filehandle.size
    if beyond > 0:
        return f"{beyond:,} bytes or more are missing"
    len(tiff.pages)  # follows the pages to the last one whose place is in the file
    following = b""
    if tiff.pages.next_page_offset is not None:
        tiff.filehandle.seek(tiff.pages.next_page_offset)
        following = tiff.filehandle.read(tiff.tiff.offsetsize)
    own = pages[0].subifds if isinstance(pages[0], tifffile.TiffPage) else None
    if any(following) or any(offset >= tiff.filehandle.size for offset in own or ()):
        return "a page is missing"
    return None


def _xy(level: Any) -> Size:
    return level.shape[level.axes.index("X")], level.shape[level.axes.index("Y")]


def _channels(level: Any) -> int:
    return math.prod(n for axis, n in zip(level.axes, level.shape, strict=True) if axis in "SC")
