"""A label image (one whole number per cell, 0 between them) read piece by piece, however large it is."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from .canvas import UnitError

__all__ = ["LabelImage"]

MAX_READ_PX = 2**23  # 32 MB as uint32
MAX_WHOLE_BYTES = 2**33  # of a piece that can be decoded as a whole alone


class LabelImage:
    """An open label image: TIFF (tiled or in strips; the finest level of a pyramid) or `.npy`.

    Only the tiles that a read touches are decoded; a compressed TIFF without tiles or strips is decoded whole, once.
    It pickles as its path and survives a fork.

    Args:
        path: the file.

    Attributes:
        path: the file.
        size_px: (width, height).

    Raises:
        UnitError: if the file is missing or damaged, has more than one channel, or holds no whole numbers.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise UnitError(f"No such label image: {path}. Check the path.")
        self._pid = -1
        array = self._array()
        self.size_px = (int(array.shape[1]), int(array.shape[0]))
        kind = np.dtype(array.dtype)
        if kind.kind == "b":
            raise UnitError(
                f"{path} holds true and false, which does not tell one cell from the next. Give each cell a number of "
                "its own (scipy.ndimage.label does)."
            )
        if kind.kind not in "iu":
            raise UnitError(f"{path} holds {kind} values; labels are whole numbers. Save it as uint32, 0 for no cell.")

    def __reduce__(self) -> tuple:
        return type(self), (self.path,)

    def read(self, x_px: int, y_px: int, width_px: int, height_px: int) -> np.ndarray:
        """Labels of a rectangle inside the image, (height_px, width_px).

        Raises:
            UnitError: if the file is damaged there.
        """
        try:
            return np.asarray(self._array()[y_px : y_px + height_px, x_px : x_px + width_px])
        except Exception as error:
            self._pid = -1
            raise UnitError(
                f"{self.path} cannot be read at x={x_px}, y={y_px}, {width_px} x {height_px} px ({error}). The file is "
                "probably cut short or damaged: copy it again."
            ) from error

    def sample(self, columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Labels where `rows` and `columns` meet, 0 beyond the image's edge.

        Args:
            columns: ascending, int64 (W,).
            rows: ascending, int64 (H,).

        Returns:
            uint64 (H, W): a label of any size stays itself.
        """
        width, height = self.size_px
        out = np.zeros((len(rows), len(columns)), dtype=np.uint64)
        across = slice(*np.searchsorted(columns, [0, width]))
        down = slice(*np.searchsorted(rows, [0, height]))
        inner = columns[across]
        if len(inner) == 0:
            return out
        x = int(inner[0])
        span = int(inner[-1]) + 1 - x
        place = down.start
        while place < down.stop:
            y = int(rows[place])
            stop = int(np.searchsorted(rows[: down.stop], self._band_end(y, span)))
            wanted = rows[place:stop]
            block = self.read(x, y, span, int(wanted[-1]) + 1 - y)
            out[place:stop, across] = block[np.ix_(wanted - y, inner - x)]
            place = stop
        return out

    def measure(self) -> dict[str, np.ndarray]:
        """Every label's size and place, in one pass over the image that holds little of it at a time.

        Returns:
            `ids` uint64 (U,), ascending; `pixels` int64 (U,); and in pixels of this image, a pixel's corner being 0,
            `center` (the centroid), `low` and `high` (the rectangle around it), all float64 (U, 2) as (x, y).

        Raises:
            UnitError: if there are negative labels, or the file is damaged.
        """
        found = [(np.zeros(0, np.uint64), np.zeros((7, 0)))]
        for x, y, block in self._blocks():
            if block.dtype.kind == "i" and block.min() < 0:
                raise UnitError(f"{self.path} holds negative labels (first: {block.min()}); use 0 for no cell.")
            found.append(_runs(block, x, y))
        ids, table = _merged(*(np.concatenate(parts, axis=-1) for parts in zip(*found, strict=True)))
        return {
            "ids": ids,
            "pixels": table[0].astype(np.int64),
            "center": (table[1:3] / table[0]).T,
            "low": table[3:5].T,
            "high": table[5:7].T,
        }

    def _blocks(self) -> Iterator[tuple[int, int, np.ndarray]]:
        width, height = self.size_px
        chunk_y, chunk_x = self._chunks()
        span = width if width * chunk_y <= MAX_READ_PX else max(MAX_READ_PX // (chunk_y * chunk_x), 1) * chunk_x
        y = 0
        while y < height:
            stop = min(self._band_end(y, span), height)
            for x in range(0, width, span):
                yield x, y, self.read(x, y, min(span, width - x), stop - y)
            y = stop

    def _band_end(self, y_px: int, width_px: int) -> int:
        """Last row + 1 of a read from `y_px` on: of bounded size, on a tile's edge so that none is decoded twice."""
        chunk = self._chunks()[0]
        return max((y_px + MAX_READ_PX // width_px) // chunk, y_px // chunk + 1) * chunk

    def _chunks(self) -> tuple[int, int]:
        rows, columns = getattr(self._array(), "chunks", None) or (1, self.size_px[0])
        return int(rows), int(columns)

    def _array(self) -> Any:
        if self._pid != os.getpid():  # a forked worker must not share the parent's file position
            try:
                self._opened = _open(self.path)
            except UnitError:
                raise
            except Exception as error:
                raise UnitError(
                    f"{self.path} cannot be read as a label image ({error}). Give a TIFF or a .npy of whole numbers."
                ) from error
            self._pid = os.getpid()
        return self._opened


def _open(path: Path) -> Any:
    """The finest level as something that indexes like a 2-D array."""
    array: Any
    if path.suffix == ".npy":
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        shape = array.shape
    else:
        tiff = tifffile.TiffFile(path)
        tiff.filehandle.set_lock(True)
        series = tiff.series[0]
        shape = series.shape
        pages = series.levels[0].pages
        if len(pages) == 1 and pages[0] is not None and pages[0].is_memmappable:
            array = tifffile.memmap(path, series=0, level=0, mode="r")
        else:
            import zarr

            array = zarr.open(series.aszarr(level=0, fillvalue=0), mode="r")
            whole = math.prod(array.chunks) * array.dtype.itemsize
            if whole > MAX_WHOLE_BYTES:
                raise UnitError(
                    f"{path} is compressed in pieces of {tuple(array.chunks)} px, {whole / 2**30:,.0f} GiB each. Save "
                    "it in tiles."
                )
            if math.prod(array.chunks) >= math.prod(shape):
                array = np.asarray(array[...])
    if len(shape) != 2:
        raise UnitError(
            f"{path} has the shape {tuple(shape)}; a label image is one plane of (height, width). Is it a picture of "
            "the labels?"
        )
    return array


def _runs(block: np.ndarray, x_px: int, y_px: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels and table of one block (see `_merged`), from the runs of equal labels along its rows."""
    begins = np.ones(block.shape, dtype=bool)
    np.not_equal(block[:, 1:], block[:, :-1], out=begins[:, 1:])
    start = np.flatnonzero(begins)
    label = block.ravel()[start]
    length = np.diff(np.append(start, block.size))
    held = label != 0
    row, column = np.divmod(start[held], block.shape[1])
    x, y, n = column + x_px, row + y_px, length[held]
    table = np.stack([n, n * (x + n / 2), n * (y + 0.5), x, y, x + n, y + 1]).astype(np.float64)
    return _merged(label[held].astype(np.uint64), table)


def _merged(labels: np.ndarray, table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Add up the columns of equal labels; the rows are pixels, sums of x and y, low x and y, high x and y.

    Labels are apart from them: beyond 2^53 a floating-point number is no longer one label.
    """
    if len(labels) == 0:
        return labels, table
    order = np.argsort(labels, kind="stable")
    labels, table = labels[order], table[:, order]
    first = np.flatnonzero(np.append(True, labels[1:] != labels[:-1]))
    merged = [
        np.add.reduceat(table[:3], first, axis=1),
        np.minimum.reduceat(table[3:5], first, axis=1),
        np.maximum.reduceat(table[5:7], first, axis=1),
    ]
    return labels[first], np.concatenate(merged)
