"""Write a slide as the tiled pyramidal TIFF that cuCIM, OpenSlide and tifffile all read, level by level."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import tifffile

from ..errors import InputError
from ..files.atomic import open_array, replacing

__all__ = ["SliceableImage", "write_pyramid"]

_BLOCK_PX = 1024  # side of one read from the source; a band of this height is held in memory
_TOP_PX = 1024  # the coarsest level's longer side is at most this


class SliceableImage(Protocol):
    """What `write_pyramid` reads: an array, a memory map, a zarr array, or an object that renders on demand."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(height, width, 3)."""
        ...

    def __getitem__(self, index: tuple[slice, slice], /) -> Any:
        """The uint8 pixels of `image[row0:row1, col0:col1]`, (rows, cols, 3)."""
        ...


def write_pyramid(
    path: str | Path,
    image: SliceableImage,
    mpp: float,
    *,
    tile_px: int = 256,
    compression: Literal["jpeg", "deflate", "lzw"] | None = "jpeg",
    quality: int = 90,
    description: str | None = None,
) -> Path:
    """Write `image` as a tiled pyramid: the first IFD in full, each next one half as large, down to 1024 px.

    Reduced levels are 2 x 2 means (an odd last row or column is repeated). JPEG is YCbCr 4:4:4. The resolution is
    in pixels per centimetre, so `mpp` reads back. Memory is bounded: the source is read in blocks of at most
    1024 x 1024 px, left to right and top to bottom, one band of rows is held, and reduced levels wait in temporary
    files beside `path` (a quarter of the uncompressed slide for the largest). Larger than 4 GB uncompressed is
    BigTIFF.

    Args:
        path: the `.tif` to write, in one move.
        image: uint8 (height, width, 3), or anything with `shape` that slices like it.
        mpp: micrometres per pixel of `image`.
        tile_px: side of the TIFF's tiles, a multiple of 16.
        compression: `jpeg` (lossy), `deflate`, `lzw`, or None.
        quality: of the JPEG, 1 to 100.
        description: text for the first IFD's ImageDescription.

    Returns:
        `path`.

    Raises:
        InputError: if the image is not uint8 RGB, or mpp, tile_px, or quality is out of range.
    """
    path = Path(path)
    _check(path, image, mpp, tile_px, quality)
    jpeg = compression == "jpeg"
    options: dict[str, Any] = {
        "dtype": np.uint8,
        "tile": (tile_px, tile_px),
        "photometric": "rgb",  # with `subsampling`, tifffile converts to YCbCr and tags it so
        "compression": compression,
        "compressionargs": {"level": quality} if jpeg else None,
        "subsampling": (1, 1) if jpeg else None,
        "resolutionunit": "CENTIMETER",
        "metadata": None,
    }
    height_px, width_px = image.shape[:2]
    big = height_px * width_px * 4 > 2**32 - 2**26
    with (
        replacing(path) as temporary,
        tempfile.TemporaryDirectory(prefix=f".{path.stem}.", dir=path.parent) as scratch,
        tifffile.TiffWriter(temporary, bigtiff=big) as tiff,
    ):
        level, source = 0, image
        while True:
            shape = (*source.shape[:2], 3)
            half = None
            if max(shape[:2]) > _TOP_PX:
                half_shape = ((shape[0] + 1) // 2, (shape[1] + 1) // 2, 3)
                half = open_array(Path(scratch) / f"{level}.npy", half_shape, np.uint8)
            tiff.write(
                _tiles(source, tile_px, half, path),
                shape=shape,
                resolution=(1e4 / (mpp * 2**level),) * 2,
                subfiletype=1 if level else 0,
                description=None if level else description,
                **options,
            )
            if level:
                (Path(scratch) / f"{level - 1}.npy").unlink()
            if half is None:
                return path
            level, source = level + 1, half


def _check(path: Path, image: SliceableImage, mpp: float, tile_px: int, quality: int) -> None:
    shape = tuple(image.shape)
    if len(shape) != 3 or shape[2] != 3 or min(shape) < 1:
        raise InputError(f"{path}: a slide is (height, width, 3), this one is {shape}; give RGB without alpha.")
    if not (math.isfinite(mpp) and mpp > 0):
        raise InputError(f"{path}: mpp is {mpp}; give the slide's micrometres per pixel, a positive number.")
    if tile_px < 16 or tile_px % 16 or tile_px > _BLOCK_PX or _BLOCK_PX % tile_px:
        raise InputError(f"{path}: tile_px is {tile_px}; choose 256 or 512 (any power of two from 16 to {_BLOCK_PX}).")
    if not 1 <= quality <= 100:
        raise InputError(f"{path}: JPEG quality is {quality}; choose 1 to 100 (90 is usual).")


def _tiles(source: SliceableImage, tile_px: int, half: np.ndarray | None, path: Path) -> Iterator[np.ndarray]:
    """Yield the source's tiles in row-major order, padded at the edges, filling `half` with 2 x 2 means on the way."""
    height_px, width_px = source.shape[:2]
    for top in range(0, height_px, _BLOCK_PX):
        bottom = min(top + _BLOCK_PX, height_px)
        band = np.empty((-(-(bottom - top) // tile_px) * tile_px, -(-width_px // tile_px) * tile_px, 3), np.uint8)
        for left in range(0, width_px, _BLOCK_PX):
            right = min(left + _BLOCK_PX, width_px)
            block = np.asarray(source[top:bottom, left:right])
            if block.dtype != np.uint8 or block.shape != (bottom - top, right - left, 3):
                raise InputError(
                    f"{path}: rows {top}:{bottom}, columns {left}:{right} came as {block.dtype} {block.shape}; "
                    "give uint8 RGB (scale 16-bit images to 0-255 first)."
                )
            band[: bottom - top, left:right] = block
            if half is not None:
                half[top // 2 : (bottom + 1) // 2, left // 2 : (right + 1) // 2] = _halve(block)
        # Repeating the edge keeps JPEG from ringing into the picture.
        band[bottom - top :] = band[bottom - top - 1]
        band[:, width_px:] = band[:, width_px - 1 : width_px]
        for row in range(0, band.shape[0], tile_px):
            for col in range(0, band.shape[1], tile_px):
                yield np.ascontiguousarray(band[row : row + tile_px, col : col + tile_px])


def _halve(block: np.ndarray) -> np.ndarray:
    wide = np.pad(block, ((0, block.shape[0] % 2), (0, block.shape[1] % 2), (0, 0)), mode="edge").astype(np.uint16)
    total = wide[::2, ::2] + wide[1::2, ::2] + wide[::2, 1::2] + wide[1::2, 1::2]
    return ((total + 2) // 4).astype(np.uint8)
