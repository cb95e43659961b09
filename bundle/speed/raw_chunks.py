"""Chunks of an uncompressed Zarr array as plain files: Zarr's own threads would take cores from the network.

A chunk (C, side, side) of an array without compression is its values' bytes in the file `<array>/c/0/<row>/<column>`
(Zarr 3). Reading a map's rows this way takes about half of the processor time that Zarr takes, and writing about 40 %
(`python -m benchmarks.limit`, `flat`). `plain_rows` and `plain_write` are the same by Zarr.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import InputError

__all__ = ["holds_blocks", "plain_rows", "plain_write", "read_rows", "write_blocks"]


def read_rows(array: Any, folder: Path, number: int) -> np.ndarray:
    """All columns of one row of chunks, float32 (rows, W, C); 0 where a chunk is absent.

    Args:
        array: the Zarr array, (C, H, W), of chunks (C, side, side) without compression.
        folder: the array's folder.
        number: of the row of chunks, counted from the top.

    Raises:
        InputError: if a chunk's file is cut short.
    """
    channels, side, _ = array.chunks
    strip = torch.empty((side, array.shape[2], channels), dtype=torch.float32, device="cpu")
    block = np.empty((channels, side, side), "<f4")
    for left in range(0, array.shape[2], side):
        path = _file(folder, number, left // side)
        try:
            with path.open("rb", buffering=0) as file:
                whole = file.readinto(block.data) == block.nbytes
        except FileNotFoundError:
            strip[:, left : left + side] = 0
        else:
            if not whole:
                raise InputError(f"{path} is cut short: remove {folder.parent.parent} and start the command again.")
            strip[:, left : left + side] = torch.from_numpy(block).permute(1, 2, 0)
    return strip.numpy()


def plain_rows(array: Any, number: int) -> np.ndarray:
    """The same as `read_rows`, of any Zarr array, by Zarr."""
    side = array.chunks[1]
    part = array[:, number * side : (number + 1) * side]
    # Bins are products of whole rows and columns, and 0 x NaN of a place that no unit needs would be NaN.
    return np.nan_to_num(np.ascontiguousarray(part.transpose(1, 2, 0)))


def write_blocks(array: Any, folder: Path, row: int, column: int, blocks: np.ndarray) -> None:
    """Write a rectangle of chunks.

    Args:
        array: see `read_rows`.
        folder: the array's folder.
        row: of the first chunk, counted in chunks.
        column: likewise.
        blocks: float32 (rows, columns, C, side, side).
    """
    for y, x in product(range(blocks.shape[0]), range(blocks.shape[1])):
        path = _file(folder, row + y, column + x)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(blocks[y, x].data)


def plain_write(array: Any, row: int, column: int, blocks: np.ndarray) -> None:
    """The same as `write_blocks`, by Zarr."""
    side = array.chunks[1]
    for y, x in product(range(blocks.shape[0]), range(blocks.shape[1])):
        top, left = (row + y) * side, (column + x) * side
        array[:, top : top + side, left : left + side] = blocks[y, x]


def holds_blocks(array: Any, folder: Path, rows: range, columns: range) -> bool:
    """Whether the files of these chunks are there and whole."""
    size = int(np.prod(array.chunks)) * array.dtype.itemsize
    paths = (_file(folder, row, column) for row, column in product(rows, columns))
    return all(path.is_file() and path.stat().st_size == size for path in paths)


def _file(folder: Path, row: int, column: int) -> Path:
    return folder / "c" / "0" / str(row) / str(column)
