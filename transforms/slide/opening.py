"""Choose what reads a slide: the first backend that reads it exactly, tried on tiles of every level."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from .cucim_source import CuCIMSource
from .errors import SlideError, UnsupportedLayout
from .layout import Layout, Level, Size, read_layout
from .modality import judge_pixels
from .mpp import Said, openslide_mpp
from .openslide_source import OpenSlideSource
from .tiff_source import TiffSource

__all__ = ["BACKENDS", "Opened", "Source", "open_source", "reopen_source"]

BACKENDS = ("cucim", "tifffile", "openslide")
_LOSSLESS = {1, 5, 8, 32773, 32946, 34925, 50000}
_TOLERANCE = 3  # decoders of JPEG, and shares of alpha, may be rounded differently
_PROBE_PX = 64  # side of a region that is compared
_PROBED_PX = 2**21  # decoded at most to try a slide, beside one segment of each level
_HUGE_PX = 2**25  # a segment of more is not tried: it takes seconds
_SAMPLED_PX = 2**20  # a level of at most this is sampled as a whole
_LOOKS = 16  # else this many regions of it


class Source(Protocol):
    """What a backend gives: the levels' sizes and the pixels inside a level."""

    name: str
    dimensions: list[Size]

    def read(self, level: int, x_px: int, y_px: int, width_px: int, height_px: int) -> np.ndarray:
        """A rectangle inside a level: uint8 (height_px, width_px, 3)."""
        ...


#: What was found of a file, while it does not change: training opens a slide again and again.
_tried: dict[tuple[Path, tuple[str, ...], int, int], tuple[str, list[str], list[str]]] = {}
_SOURCES: dict[str, Callable[[Path, Layout | None], Source]] = {
    "cucim": CuCIMSource,
    "tifffile": TiffSource,
    "openslide": OpenSlideSource,
}


@dataclass(frozen=True)
class Opened:
    """A slide that can be read.

    Attributes:
        source: what reads it.
        said_mpp: what the file says of micrometres per pixel, most trustworthy first.
        rejected: why backends before it do not read it, in words.
        doubts: what is doubtful about it, in sentences.
    """

    source: Source
    said_mpp: list[Said]
    rejected: list[str]
    doubts: list[str]


def open_source(path: Path, backends: Sequence[str] = BACKENDS) -> Opened:
    """Open with the first backend that reads tiles of every level as tifffile decodes them, or with tifffile.

    Raises:
        SlideError: if the file is damaged, no slide or no H&E, or no backend reads it.
    """
    layout = read_layout(path)
    stat = path.stat()
    key = (path, tuple(backends), stat.st_mtime_ns, stat.st_size)
    if key in _tried:
        name, rejected, doubts = _tried[key]
        source = _SOURCES[name](path, layout)
    else:
        source, rejected, doubts = _first_fit(path, layout, backends)
        _tried[key] = source.name, rejected, doubts
    return Opened(source, _said_mpp(path, layout), rejected, [*(layout.doubts if layout else ()), *doubts])


def _first_fit(path: Path, layout: Layout | None, backends: Sequence[str]) -> tuple[Source, list[str], list[str]]:
    """The first backend that reads the slide, why those before it do not, and what is doubtful about its pixels."""
    rejected: list[str] = []
    is_damaged = False
    order = dict.fromkeys((*backends, "tifffile")) if layout else backends  # tifffile is always there
    for name in order:
        try:
            source = _SOURCES[name](path, layout)
            _probe(source, layout, path)
            return source, rejected, [*_doubts_of_levels(source), *_doubts_of_pixels(path, source, layout)]
        except SlideError:
            raise
        except ImportError:
            rejected.append(f"{name} is not installed")
        except UnsupportedLayout as reason:
            rejected.append(f"{name}: {reason}")
        except Exception as error:
            # An error of another reader says little where tifffile does not read this layout at all.
            is_damaged |= name == "tifffile" or bool(layout and layout.for_openslide_alone)
            rejected.append(f"{name}: {(str(error) or type(error).__name__).splitlines()[0]}")
    raise SlideError(_unreadable(path, layout, rejected, is_damaged))


def reopen_source(path: Path, backend: str) -> Source:
    """Open a slide again that was opened with `backend`, as after a fork; what was tried then is not tried again."""
    return _SOURCES[backend](path, read_layout(path))


def _probe(source: Source, layout: Layout | None, path: Path) -> None:
    """Read tiles of every level and compare them with tifffile's where the two should agree.

    Raises:
        UnsupportedLayout: if they differ.
        ValueError: if they cannot be read.
    """
    reference: Source | None = None
    if layout is not None and source.name != "tifffile" and not layout.for_openslide_alone:
        reference = TiffSource(path, layout)
    exact = layout is not None and layout.compressions <= _LOSSLESS and "alpha" not in layout.oddities
    left_px = _PROBED_PX
    for level, (width, height) in enumerate(source.dimensions):
        tried = False
        for x, y, cost_px in _probed(layout, (width, height)):
            if cost_px > _HUGE_PX or (left_px < 0 and tried):
                break
            left_px, tried = left_px - cost_px, True
            box = (x, y, min(_PROBE_PX, width - x), min(_PROBE_PX, height - y))
            want = reference.read(reference.dimensions.index((width, height)), *box) if reference else None
            got = source.read(level, *box)
            if got.shape != (box[3], box[2], 3) or got.dtype != np.uint8:
                raise ValueError(f"level {level} gave {got.shape} {got.dtype} and no RGB pixels")
            if want is not None and np.abs(got.astype(np.int16) - want).max() > (0 if exact else _TOLERANCE):
                raise UnsupportedLayout(f"it reads other pixels than tifffile at level {level}, x={x}, y={y}")


def _probed(layout: Layout | None, size: Size) -> list[tuple[int, int, int]]:
    """Where to try a level, x, y: in its middle, first and last segment that was written; and the pixels to decode."""
    width, height = size
    level = _level_of(layout, size)
    if level is None:
        return [(width // 2, height // 2, _PROBE_PX**2)]
    tile_w, tile_h = level.segment_size
    written = np.argwhere(level.written)
    if len(written) == 0:
        return []
    chosen = dict.fromkeys(tuple(written[i]) for i in (len(written) // 2, 0, -1))
    return [(int(column) * tile_w, int(row) * tile_h, level.decoded_px) for row, column in chosen]


def _level_of(layout: Layout | None, size: Size) -> Level | None:
    return next((level for level in layout.levels if level.size == size), None) if layout else None


def _doubts_of_levels(source: Source) -> list[str]:
    left_out = getattr(source, "left_out", 0)  # OpenSlide alone leaves out levels that are in the file
    if not left_out:
        return []
    return [
        f"{source.name} reads {left_out} of its {left_out + len(source.dimensions)} levels at rounded places: PixNet "
        "leaves them out and reads finer ones, which takes longer."
    ]


def _doubts_of_pixels(path: Path, source: Source, layout: Layout | None) -> list[str]:
    """Look at the coarsest level, or at regions all over it if it is large: is it H&E?

    Raises:
        SlideError: if it surely is not.
    """
    pixels = _sampled(source, layout)
    surely_not, why = judge_pixels(pixels)
    if surely_not:
        raise SlideError(f"{path} is no H&E: {why}. Give the H&E of the same tissue.")
    doubts = [f"It may be no H&E: {why}."] if why else []
    if layout is not None and "alpha" in layout.oddities and len(pixels) and pixels.min() == 255:
        doubts.append(
            "All of it that PixNet looked at is transparent, which it reads as white glass. If its alpha channel is "
            "wrong, save it as RGB without alpha."
        )
    return doubts


def _sampled(source: Source, layout: Layout | None) -> np.ndarray:
    """Pixels from all over the slide, uint8 (N, 3)."""
    level = len(source.dimensions) - 1
    size = source.dimensions[level]
    tagged = _level_of(layout, size)
    if size[0] * size[1] <= _SAMPLED_PX and (tagged is None or tagged.is_whole):
        return source.read(level, 0, 0, *size).reshape(-1, 3)
    side, cost_px = ((_PROBE_PX, _PROBE_PX), 0) if tagged is None else (tagged.segment_size, tagged.decoded_px)
    grid = np.ones([-(-n // s) for n, s in zip(size[::-1], side[::-1], strict=True)], bool)
    places = np.argwhere(grid if tagged is None else tagged.written)
    looks = min(_LOOKS, len(places), max(_PROBED_PX // max(cost_px, 1), 1))
    if cost_px > _HUGE_PX or looks == 0:
        return np.empty((0, 3), np.uint8)
    seen = []
    for row, column in np.random.default_rng(0).choice(places, looks, replace=False, axis=0).tolist():
        x, y = column * side[0], row * side[1]
        inside = [min(s, n - at, most) for s, n, at, most in zip(side, size, (x, y), (2**16, 256), strict=True)]
        seen.append(source.read(level, x, y, *inside).reshape(-1, 3)[::5])
    return np.concatenate(seen)


def _said_mpp(path: Path, layout: Layout | None) -> list[Said]:
    """What is said of mpp: by the file's tags, else by OpenSlide, which knows more formats."""
    said = list(layout.said_mpp) if layout else []
    if layout is None or layout.for_openslide_alone:
        return [*openslide_mpp(path), *said]
    return said if any(tag.plausible for tag in said) else [*said, *openslide_mpp(path)]


def _unreadable(path: Path, layout: Layout | None, rejected: Sequence[str], is_damaged: bool) -> str:
    with path.open("rb") as file:
        head = file.read(4)
    if head[:3] == b"\xff\xd8\xff" or head == b"\x89PNG":
        return (
            f"{path} is a plain picture, which cannot be read piece by piece. Make a tiled TIFF of it: `vips tiffsave "
            "PICTURE SLIDE.tif --tile --pyramid --compression jpeg`, and give its --mpp."
        )
    if layout is None:
        advice = "Give a slide (TIFF, SVS, MRXS ...)."
    elif is_damaged:
        advice = "It is probably damaged: copy it again."
    else:
        advice = (
            "Install what is missing (`pip install openslide-python openslide-bin`), or rewrite it: `vips tiffsave "
            "SLIDE OTHER.tif --tile --pyramid --compression jpeg`."
        )
    return f"{path} cannot be read as a slide ({'; '.join(rejected)}). {advice}"
