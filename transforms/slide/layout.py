"""How a TIFF keeps its pixels: levels, planes, tiles or strips, and what sets it apart from a plain RGB pyramid."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from .errors import SlideError
from .modality import doubts_by_tags, refuse_by_tags
from .mpp import Said, tiff_mpp

__all__ = ["ODDITIES", "Layout", "Level", "Size", "downsample", "read_layout"]

Size = tuple[int, int]

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_UNCOMPRESSED, _JPEG = 1, 7
_APERIO_YCBCR = 33003
_RGB, _PALETTE, _YCBCR = 2, 3, 6
_MAKERS = ("bif", "scn", "ndpi", "philips", "svs", "ome")

ODDITIES = {
    "strips": "its pixels lie in strips",
    "planes": "its colours lie in separate planes",
    "palette": "it has a palette",
    "alpha": "it has an alpha channel",
    "other samples": "it has other samples beside RGB",
    "predictor": "it stores differences between pixels (a predictor)",
    "reversed": "its bits are stored in reverse",
    "unwritten": "some of its tiles were never written",
}


@dataclass(frozen=True)
class Level:
    """One level of a pyramid: its size, and the pages that hold it (one, or one for each colour)."""

    width_px: int
    height_px: int
    pages: tuple[Any, ...]

    @property
    def size(self) -> Size:
        """(width, height)."""
        return self.width_px, self.height_px

    @property
    def key(self) -> Any:
        """The page whose tags hold for all."""
        return self.pages[0].keyframe

    @property
    def segment_size(self) -> Size:
        """(width, height) of a tile, or of a strip."""
        if self.key.is_tiled:
            return self.key.tilewidth, self.key.tilelength
        return self.width_px, min(self.key.rowsperstrip, self.height_px)

    @cached_property
    def places(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Where the segments of each page lie in the file, and their lengths in bytes; length 0 was never written."""
        return [_places(page) for page in self.pages]

    @property
    def written(self) -> np.ndarray:
        """Which segments have any data, bool (rows, columns)."""
        (width, height), (tile_w, tile_h) = self.size, self.segment_size
        grid = (-1, math.ceil(height / tile_h), math.ceil(width / tile_w))
        return np.asarray(np.concatenate([(counts > 0).reshape(grid) for _, counts in self.places]).any(axis=0))

    @property
    def decoded_px(self) -> int:
        """Pixels that are decoded to read one of a segment; 0 if they are stored as they are."""
        width, height = self.segment_size
        is_stored = self.key.compression == _UNCOMPRESSED and self.key.predictor == 1
        return 0 if is_stored else width * height

    @property
    def is_whole(self) -> bool:
        """Whether every segment was written."""
        return all((counts > 0).all() for _, counts in self.places)


@dataclass(frozen=True)
class Layout:
    """A TIFF's levels, finest first, and what its tags say.

    Attributes:
        levels: those that show the same picture as the first.
        said_mpp: what the tags say of micrometres per pixel.
        maker: the scanner's or program's own form of TIFF ("svs", "ndpi", "ome" ...), or "".
        seen_levels: the sizes of all levels in the file, also those left out.
        doubts: what is doubtful, in sentences.
    """

    levels: tuple[Level, ...]
    said_mpp: tuple[Said, ...]
    maker: str
    seen_levels: tuple[Size, ...]
    doubts: tuple[str, ...]

    @property
    def compressions(self) -> set[int]:
        """TIFF's numbers of what its levels are compressed with."""
        return {int(level.key.compression) for level in self.levels}

    @cached_property
    def oddities(self) -> list[str]:
        """What sets it apart from contiguous tiles of RGB, all written, where readers differ: keys of `ODDITIES`."""
        keys = [level.key for level in self.levels]
        found = {
            "strips": not all(key.is_tiled for key in keys),
            "planes": any(len(level.pages) > 1 or level.key.planarconfig != 1 for level in self.levels),
            "palette": any(key.photometric == _PALETTE for key in keys),
            "alpha": any(key.samplesperpixel > 3 and any(key.extrasamples) for key in keys),
            "other samples": any(key.samplesperpixel > 3 and not any(key.extrasamples) for key in keys),
            "predictor": any(key.predictor != 1 for key in keys),
            "reversed": any(key.fillorder != 1 for key in keys),
            "unwritten": not all(level.is_whole for level in self.levels),
        }
        return [oddity for oddity, holds in found.items() if holds]

    @property
    def for_openslide_alone(self) -> str | None:
        """Why only OpenSlide reads it right, if so."""
        if _APERIO_YCBCR in self.compressions:
            return "only OpenSlide converts the colours of Aperio's JPEG 2000 (YCbCr)"
        if self.maker in ("bif", "scn"):
            return f"only OpenSlide puts the parts of a {self.maker.upper()} slide together"
        return None


def read_layout(path: Path) -> Layout | None:
    """Read the tags of a TIFF; None for any other file.

    Raises:
        SlideError: if the file is damaged, cut short, or no H&E.
    """
    with path.open("rb") as file:
        if file.read(4) not in _MAGIC:
            return None
    try:
        with tifffile.TiffFile(path) as tiff, tifffile.TiffFile(path, is_ome=False) as alone:
            layout = _layout(path, tiff, alone)
    except SlideError:
        raise
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise SlideError(
            f"{path} cannot be read as a TIFF ({reason}); it is cut short or damaged: copy it again."
        ) from error
    return layout


def _layout(path: Path, tiff: tifffile.TiffFile, alone: tifffile.TiffFile) -> Layout:
    if not tiff.pages or not tiff.series:
        raise ValueError("it has no pages")
    metadata, series = tiff.ome_metadata, tiff.series[0]
    if metadata and _lies_elsewhere(tiff, series):
        series = alone.series[0]
    if series.keyframe.imagedepth != 1 or (series.keyframe.is_tiled and series.keyframe.tiledepth != 1):
        raise SlideError(f"{path} is a volume; a slide is flat. Save one plane of it as RGB.")
    refuse_by_tags(path, series, metadata)
    seen = [_level(level) for level in series.levels]
    for number, level in enumerate(seen):
        if min(level.size) < 1:
            raise SlideError(f"{path} is damaged: level {number} has {level.width_px} x {level.height_px} px.")
    lacks = _missing(tiff, seen)
    if lacks:
        raise SlideError(f"{path} is cut short: {lacks}. Copy it again.")
    if not seen[0].written.any():
        raise SlideError(f"{path} is empty: none of its tiles was written. Make it anew.")
    levels = _of_one_picture(seen)
    for level in levels:
        _prepare(level)
    doubts = list(doubts_by_tags(series, metadata))
    if len(levels) < len(seen):
        left_out = len(seen) - len(levels)
        doubts.append(
            f"{left_out} of its {len(seen)} levels are no smaller copies of the first: PixNet leaves them out."
        )
    return Layout(
        levels=tuple(levels),
        said_mpp=tuple(tiff_mpp(tiff)),
        maker=next((kind for kind in _MAKERS if getattr(tiff, f"is_{kind}")), ""),
        seen_levels=tuple(level.size for level in seen),
        doubts=tuple(doubts),
    )


def _level(level: Any) -> Level:
    axes, shape = level.axes, level.shape
    return Level(shape[axes.index("X")], shape[axes.index("Y")], _pages(level))


def _lies_elsewhere(tiff: tifffile.TiffFile, series: Any) -> bool:
    """Whether pages of a picture lie in other files, as those of OME-TIFF may, or are missing."""
    pages = [page for level in series.levels for page in _picked(level)]
    return any(page is None or page.parent.filehandle.path != tiff.filehandle.path for page in pages)


def _pages(level: Any) -> tuple[Any, ...]:
    picked = _picked(level)
    if any(page is None for page in picked):
        raise ValueError("pages of it are missing")
    return tuple(picked)


def _picked(level: Any) -> list[Any]:
    """The pages of one picture: one that holds all colours, or one for each; of a stack, those of its first picture."""
    pages, key = level.pages, level.keyframe
    axis = next((a for a in "CS" if a in level.axes and key.samplesperpixel == 1), None)
    if axis is None:
        return [pages[0]]
    place = level.axes.index(axis)
    after = zip(level.axes[place + 1 :], level.shape[place + 1 :], strict=True)
    step = math.prod(n for a, n in after if a not in "YX")
    return [pages[i * step] for i in range(level.shape[place])]


def _of_one_picture(levels: list[Level]) -> list[Level]:
    """Leave out levels that are no smaller copies of the first: other proportions, other samples, tiles missing."""
    kept = levels[:1]
    first = levels[0]
    for level in levels[1:]:
        ratio = downsample(first.size, level.size)
        alike = all(
            abs(b / ratio - n) <= 1 for b, n in zip(first.size, level.size, strict=True)
        )  # one pixel's rounding
        is_whole = level.is_whole or not first.is_whole
        if alike and is_whole and _kind(level) == _kind(first) and level.width_px < kept[-1].width_px:
            kept.append(level)
    return kept


def downsample(base: Size, size: Size) -> float:
    """Level-0 pixels per pixel; whole if the sizes allow it, as 1531 -> 766 px is a halving and not 1.9987."""
    longer = int(base[1] > base[0])  # rounding changes it least
    ratio = base[longer] / size[longer]
    whole = max(round(ratio), 1)
    return float(whole) if all(abs(b / whole - n) < 1 for b, n in zip(base, size, strict=True)) else ratio


def _kind(level: Level) -> tuple[Any, ...]:
    key = level.key
    photometric = _RGB if key.photometric == _YCBCR else int(key.photometric)  # both are read as RGB
    return key.dtype, key.bitspersample, key.samplesperpixel, len(level.pages), photometric


def _places(page: Any) -> tuple[np.ndarray, np.ndarray]:
    n = math.prod(page.keyframe.chunked)
    offsets, counts = (np.array(values[:n], dtype=np.int64) for values in (page.dataoffsets, page.databytecounts))
    return offsets, counts


def _prepare(level: Level) -> None:
    """Look up what tifffile reads from the file when it is first used, while the file is open."""
    level.key.decode  # noqa: B018
    level.key.jpegheader  # noqa: B018
    for page in level.pages:
        page.jpegtables  # noqa: B018
    level.places  # noqa: B018


def _missing(tiff: tifffile.TiffFile, levels: list[Level]) -> str | None:
    """What a file lacks, as far as its tags tell: where segments lie, their bytes, or a page."""
    pages = [page for level in levels for page in level.pages]
    if any(min(len(p.dataoffsets), len(p.databytecounts)) < math.prod(p.keyframe.chunked) for p in pages):
        return "where its tiles lie is missing"
    for level in levels:
        for offsets, counts in level.places:
            beyond = int((offsets + counts).max(initial=0)) - tiff.filehandle.size
            if beyond > 0:
                return f"{beyond:,} bytes or more are missing at its end"
            if ((offsets == 0) & (counts > 0)).any():
                return "the place of a tile is missing"
            if level.key.compression == _UNCOMPRESSED and _short(level, counts).any():
                return "tiles hold fewer bytes than their pixels take"
    len(tiff.pages)  # follows the pages to the last one whose place is in the file
    following = b""
    if tiff.pages.next_page_offset is not None:
        tiff.filehandle.seek(tiff.pages.next_page_offset)
        following = tiff.filehandle.read(tiff.tiff.offsetsize)
    own = pages[0].subifds if isinstance(pages[0], tifffile.TiffPage) else None
    if any(following) or any(offset >= tiff.filehandle.size for offset in own or ()):
        return "a page is missing at its end"
    return None


def _short(level: Level, counts: np.ndarray) -> np.ndarray:
    """Which uncompressed segments are written, but not as long as their pixels."""
    key = level.key
    width, height = level.segment_size
    samples = key.samplesperpixel if key.planarconfig == 1 else 1
    rows = np.full(len(counts), height)
    if not key.is_tiled:
        n = math.ceil(level.height_px / height)
        rows[n - 1 :: n] = level.height_px - (n - 1) * height
    return (counts > 0) & (counts < rows * width * samples * key.bitspersample // 8)
