"""The map of a slide on disk: OME-Zarr of features, chunk by chunk, and any gene computed from it on demand.

Format: OME-Zarr 0.5 (https://ngff.openmicroscopy.org/0.5), axes c, y, x; what PixNet adds stands under `pixnet` in the
group's attributes, the head's arrays under `projection/`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr
from zarr.codecs import BloscCodec

from ..data.normalisation import bounded
from ..errors import InputError, did_you_mean, missing_extra
from ..files.atomic import replacing_folder
from ..files.reading import reading
from .clipping import clipped_genes
from .projection import Projection
from .threads import keep_to_cores

__all__ = ["DenseMap", "create_map", "in_blocks", "open_map", "write_map"]

_GENES_AT_ONCE = 64
_TOP_CELLS = 512  # the coarsest level's longer side is at most this
_NGFF = "0.5"
#: Reads a map's next rows while the last ones are pooled.
_AHEAD = ThreadPoolExecutor(1, initializer=keep_to_cores)


class DenseMap:
    """Features of a slide at every cell of the map, (C, H, W); NaN where no tile was computed.

    Attributes:
        path: the Zarr group.
        about: what else is known: `working_mpp`, `slide`, `checkpoint_sha256`, ...
        stride: working pixels per cell.
        mpp: micrometres per working pixel (`about["slide_mpp"]` is the slide's).
        origin_px: (x, y) of the map's corner from the slide's in working pixels: cell (row, column) begins at
            x = `origin_px[0] * mpp + column * resolution_um` and y = `origin_px[1] * mpp + row * resolution_um`
            micrometres; divide by the slide's mpp for level-0 pixels.
        array: the Zarr array.
    """

    def __init__(self, path: str | Path, mode: str = "r") -> None:
        self.path = Path(path)
        self.group = zarr.open_group(str(path), mode=mode)  # type: ignore[arg-type]
        self.about: dict[str, Any] = dict(self.group.attrs["pixnet"])  # type: ignore[arg-type]
        self.stride = int(self.about["stride"])
        self.mpp = float(self.about["working_mpp"])
        self.origin_px = tuple(int(v) for v in self.about["origin_px"])
        self.array: Any = self.group["0"]
        self._strips: dict[int, np.ndarray] = {}
        self._coming: dict[int, Future[np.ndarray]] = {}

    def __repr__(self) -> str:
        channels, height, width = self.array.shape
        holds = "features" if "projection" in self.group else "genes"
        x, y = self.origin_px
        return (
            f"DenseMap({self.path.name}: {channels} {holds}, {height} x {width} cells of {self.resolution_um:g} µm, "
            f"corner at ({x * self.mpp:g}, {y * self.mpp:g}) µm of the slide)"
        )

    @property
    def resolution_um(self) -> float:
        """Side of a cell in micrometres."""
        return self.stride * self.mpp

    @property
    def projection(self) -> Projection | None:
        """From features to genes; None in a map of genes."""
        if "projection" not in self.group:
            return None
        stored: Any = self.group["projection"]
        arrays = dict(stored.arrays())
        gone = [name for name, array in arrays.items() if array.nchunks_initialized < array.nchunks]
        if gone and stored.attrs.get("zeros_written"):  # Zarr takes a chunk that is not there for zeros
            raise InputError(f"{self.path} has lost a part of its {gone[0]}. Copy it again, or make it anew.")
        content = {name: array[:] for name, array in arrays.items()}
        return Projection.from_dict({**content, "genes": stored.attrs["genes"], **stored.attrs.get("scalars", {})})

    @property
    def genes(self) -> list[str]:
        """Genes that the map answers for."""
        projection = self.projection
        return list(projection.genes) if projection is not None else list(self.about["channels"])

    def read(self, x: int, y: int, width: int, height: int) -> np.ndarray:
        """Features of a rectangle of cells, float32 (height, width, C); beyond the map the nearest cell's.

        Args:
            x: first column, counted from the slide's corner.
            y: first row.
            width: columns.
            height: rows.
        """
        x0, y0 = (v // self.stride for v in self.origin_px)
        rows = np.clip(np.arange(y, y + height) - y0, 0, self.array.shape[1] - 1)
        columns = np.clip(np.arange(x, x + width) - x0, 0, self.array.shape[2] - 1)
        part = self.array[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        part = np.ascontiguousarray(part.transpose(1, 2, 0))
        if part.shape[:2] != (height, width):
            part = part[rows - rows[0]][:, columns - columns[0]]
        return part

    def column(self, x: np.ndarray) -> np.ndarray:
        """Where columns counted from the slide's corner stand in the array; beyond it, the nearest one."""
        return np.clip(x - self.origin_px[0] // self.stride, 0, self.array.shape[2] - 1)

    def read_rows(self, y: int, height: int) -> np.ndarray:
        """All columns of some rows, (height, W, C), 0 where nothing was computed; quick from top to bottom.

        For one thread, of the process that opened the map.

        Args:
            y: first row, counted from the slide's corner; beyond the map the nearest row's.
            height: rows.
        """
        rows = np.clip(np.arange(y, y + height) - self.origin_px[1] // self.stride, 0, self.array.shape[1] - 1)
        side = self.array.chunks[1]
        parts = []
        for strip in range(rows[0] // side, rows[-1] // side + 1):
            if strip not in self._strips:  # the last two are kept: bands are thinner than chunks
                found = self._coming.pop(strip, None)
                here = self._read_strip(strip) if found is None else found.result()
                self._strips = {k: v for k, v in self._strips.items() if k == strip - 1} | {strip: here}
                self._coming = {strip + 1: _AHEAD.submit(self._read_strip, strip + 1)}
            parts.append(self._strips[strip][rows[rows // side == strip] - strip * side])
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _read_strip(self, number: int) -> np.ndarray:
        """All columns of a row of blocks, (rows, W, C); none beyond the last."""
        channels, side, _ = self.array.chunks
        if number * side >= self.array.shape[1]:
            return np.empty((0, self.array.shape[2], channels), np.float32)
        if self.array.compressors:  # `write_map` wrote it
            part = self.array[:, number * side : (number + 1) * side]
            return np.nan_to_num(np.ascontiguousarray(part.transpose(1, 2, 0)))
        strip = torch.empty((side, self.array.shape[2], channels), dtype=torch.float32, device="cpu")
        block = np.empty((channels, side, side), "<f4")
        for left in range(0, self.array.shape[2], side):
            path = self._block(number, left // side)
            try:
                with path.open("rb", buffering=0) as file:
                    whole = file.readinto(block.data) == block.nbytes
            except FileNotFoundError:
                # Bins are products of whole rows and columns, and 0 x NaN of a tile that nothing needs would be NaN.
                strip[:, left : left + side] = 0
            else:
                if not whole:
                    raise InputError(f"{path} is cut short: remove {self.path.parent} and start the command again.")
                strip[:, left : left + side] = torch.from_numpy(block).permute(1, 2, 0)
        return strip.numpy()

    def _block(self, row: int, column: int) -> Path:
        """A chunk's file in a map that is not compressed: its values' bytes, as Zarr keeps them.

        Read and written without Zarr, whose own threads would take cores from the network.
        """
        return self.path / "0" / "c" / "0" / str(row) / str(column)

    def holds(self, x: int, y: int, width: int, height: int) -> bool:
        """Whether every block of a rectangle of cells is there and whole, in a map that is not compressed."""
        side, size = self.array.chunks[1], int(np.prod(self.array.chunks)) * self.array.dtype.itemsize
        left, top = (at - origin // self.stride for at, origin in zip((x, y), self.origin_px, strict=True))
        places = product(range(top // side, (top + height) // side), range(left // side, (left + width) // side))
        return all(path.is_file() and path.stat().st_size == size for path in (self._block(*at) for at in places))

    def write(self, x: int, y: int, blocks: np.ndarray) -> None:
        """Write a rectangle of whole blocks of a map that `create_map` made.

        Args:
            x: first column of cells, counted from the slide's corner.
            y: first row.
            blocks: float32; see `in_blocks`.

        Raises:
            ValueError: if they are no blocks of this map, or it is not to be written.
        """
        if self.array.compressors or self.group.read_only:
            raise ValueError(f"{self.path} is not a map in the making.")
        side = self.array.chunks[1]
        left, top = (at - origin // self.stride for at, origin in zip((x, y), self.origin_px, strict=True))
        inside = 0 <= top <= self.array.shape[1] - side * len(blocks)
        inside &= 0 <= left <= self.array.shape[2] - side * blocks.shape[1]
        if not inside or left % side or top % side:
            raise ValueError(f"No block of {side} cells begins at row {top}, column {left} of the map.")
        if blocks.dtype != np.float32 or blocks.shape[2:] != self.array.chunks:
            raise ValueError(f"Blocks of {blocks.dtype} {blocks.shape[2:]}: the map's are float32 {self.array.chunks}.")
        for row, strip in enumerate(blocks, top // side):
            for column, block in enumerate(strip, left // side):
                path = self._block(row, column)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(block.data)

    def gene(self, name: str) -> Any:
        """One gene's map as a lazy array, float32 (H, W): dask reads and projects only what is computed.

        Raises:
            InputError: if the map does not hold the gene, or dask is missing.
        """
        if name not in self.genes:
            hint = did_you_mean(name, self.genes)
            raise InputError(f"{self.path} does not hold {name}.{hint} It holds {', '.join(self.genes[:5])}, ...")
        try:
            import dask.array as da
        except ImportError as error:
            raise missing_extra("A lazy array needs dask", "cohort") from error
        nothing = np.empty((0, 0, 0), np.float32)
        lazy = da.from_array(_Chunks(self), chunks=self.array.chunks, name=False, meta=nothing)
        projection = self.projection
        if projection is None:
            return lazy[self.genes.index(name)]
        one = projection.columns([name])
        return da.map_blocks(
            lambda block: one.expression(block.transpose(1, 2, 0))[..., 0], lazy, drop_axis=0, dtype=np.float32
        )


class _Chunks:
    """The array of a map for dask; a damaged chunk is a sentence."""

    def __init__(self, dense: DenseMap) -> None:
        self.path, self.array = dense.path, dense.array
        self.shape, self.dtype, self.ndim = self.array.shape, self.array.dtype, 3

    def __getitem__(self, index: Any) -> np.ndarray:
        with reading(self.path, "is damaged", "Copy it again, or make it anew with pixnet predict --map."):
            return np.asarray(self.array[index])


def open_map(path: str | Path) -> DenseMap:
    """Open what `pixnet predict --map` wrote. Glass has values too, which say nothing: tissue is not masked.

    Example::

        dense = open_map("C5_map.zarr")
        erbb2 = dense.gene("ERBB2")  # lazy, (H, W); a cell is dense.resolution_um wide
        picture = erbb2[::4, ::4].compute()
        x_um, y_um = (v * dense.mpp for v in dense.origin_px)  # where the map begins on the slide

    Raises:
        InputError: if there is no map.
    """
    with reading(path, "is not a map that PixNet wrote", "Make one with pixnet predict --map."):
        dense = DenseMap(path)
        if dense.projection is None and dense.about.get("unit") == "features":
            raise InputError(f"{path} has lost what turns its features into genes. Copy it again, or make it anew.")
    return dense


def in_blocks(cells: torch.Tensor, side: int) -> torch.Tensor:
    """A view of cells (C, H, W) as whole blocks, (rows, columns, C, side, side)."""
    return cells.unflatten(2, (-1, side)).unflatten(1, (-1, side)).permute(1, 3, 0, 2, 4)


def create_map(
    path: str | Path,
    *,
    channels: int,
    low_px: tuple[int, int],
    high_px: tuple[int, int],
    stride: int,
    block_px: int,
    about: dict[str, Any],
    projection: Projection | None,
) -> DenseMap:
    """An empty map over [low, high) working pixels, to be filled tile by tile."""
    group = zarr.open_group(str(path), mode="w", zarr_format=3)
    width, height = ((h - low) // stride for low, h in zip(low_px, high_px, strict=True))
    side = block_px // stride
    group.create_array(
        "0",
        shape=(channels, height, width),
        chunks=(channels, side, side),
        dtype="float32",
        fill_value=np.nan,
        compressors=None,  # features hardly shrink, and this is read once or twice
        dimension_names=("c", "y", "x"),
    )
    group.attrs["pixnet"] = {**about, "stride": stride, "origin_px": [int(v) for v in low_px]}
    _write_projection(group, projection)
    return DenseMap(path, "r+")


def _write_projection(group: Any, projection: Projection | None) -> None:
    if projection is None:
        return
    content = projection.to_dict()
    stored = group.create_group("projection")
    stored.attrs["genes"] = list(projection.genes)
    stored.attrs["zeros_written"] = True
    stored.attrs["scalars"] = {k: v for k, v in content.items() if isinstance(v, float)}
    for name in ("loadings", "bias", "total"):
        if name in content:
            stored.create_array(name, data=content[name], config={"write_empty_chunks": True})


def write_map(source: DenseMap, path: str | Path, name: str, genes: Sequence[str] | None = None) -> None:
    """Copy a map to where the user wants it: compressed, multiscale, in one move.

    Args:
        source: a map of features.
        path: the OME-Zarr to write.
        name: of the image.
        genes: write y = log1p CP10k of these, one channel each, and how many values were clipped to its range; the
            features by default, which give any gene.
    """
    projection = source.projection
    if projection is None:
        raise InputError(f"{source.path} holds genes, not features.")
    part = None if genes is None else projection.columns(list(genes))
    n_channels = source.array.shape[0] if part is None else len(part.genes)
    labels = [f"feature {i}" for i in range(n_channels)] if part is None else list(part.genes)
    height, width = source.array.shape[1:]
    depth = max(0, math.ceil(math.log2(max(height, width) / _TOP_CELLS)))
    side = source.array.chunks[1]
    with replacing_folder(path) as temporary:
        group = zarr.open_group(str(temporary), mode="w", zarr_format=3)
        arrays = []
        for level in range(depth + 1):
            shape = tuple(-(-v // 2**level) for v in (height, width))
            arrays.append(
                group.create_array(
                    str(level),
                    shape=(n_channels, *shape),
                    # genes are looked at one by one, features are projected together
                    chunks=(
                        1 if part is not None else n_channels,
                        *(min(side * 4 if part is not None else side, v) for v in shape),
                    ),
                    dtype="float32",
                    fill_value=np.nan,
                    compressors=BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle"),
                    dimension_names=("c", "y", "x"),
                )
            )
        low, high = np.full(n_channels, np.inf), np.full(n_channels, -np.inf)
        n_clipped = 0
        for top, left in _blocks(arrays[0].shape, 4 * side):
            features = source.array[:, top : top + 4 * side, left : left + 4 * side]
            for first in range(0, n_channels, _GENES_AT_ONCE if part is not None else n_channels):
                block, last = features, n_channels
                if part is not None:
                    last = min(first + _GENES_AT_ONCE, n_channels)
                    y = projection.columns(labels[first:last]).unbounded(features.transpose(1, 2, 0))
                    n_clipped += int(clipped_genes(y).sum())
                    block = bounded(y).transpose(2, 0, 1)
                known = np.isfinite(block)
                low[first:last] = np.fmin(low[first:last], np.where(known, block, np.inf).min((1, 2)))
                high[first:last] = np.fmax(high[first:last], np.where(known, block, -np.inf).max((1, 2)))
                arrays[0][first:last, top : top + block.shape[1], left : left + block.shape[2]] = block
        for finer, array in pairwise(arrays):  # so that memory does not grow with the slide
            reach = array.chunks[1]
            for first in range(0, n_channels, array.chunks[0]):
                last = first + array.chunks[0]
                for top, left in _blocks(array.shape, reach):
                    fine = finer[first:last, 2 * top : 2 * (top + reach), 2 * left : 2 * (left + reach)]
                    block = _halve(np.asarray(fine))
                    array[first:last, top : top + block.shape[1], left : left + block.shape[2]] = block
        group.attrs["ome"] = _ome(name, source, depth, labels, low, high)
        group.attrs["pixnet"] = {
            **source.about,
            "channels": labels,
            "unit": "features" if part is None else "log1p of counts per 10,000, predicted",
            "genes": None if part is not None else list(projection.genes),
            **({} if part is None or part.has_rate else {"clipped_values": n_clipped}),
        }
        if part is None:
            _write_projection(group, projection)


def _blocks(shape: Sequence[int], side: int) -> Iterator[tuple[int, int]]:
    """Upper left corners of the blocks that cover an array's last two axes."""
    return ((top, left) for top in range(0, shape[-2], side) for left in range(0, shape[-1], side))


def _halve(block: np.ndarray) -> np.ndarray:
    """Means of 2 x 2 cells; an odd last row or column stands for itself, cells without a value are left out."""
    padded = np.pad(block, ((0, 0), (0, block.shape[1] % 2), (0, block.shape[2] % 2)), constant_values=np.nan)
    four = np.stack([padded[:, i::2, j::2] for i in (0, 1) for j in (0, 1)])
    known = np.isfinite(four)
    count = known.sum(0)
    total = np.where(known, four, 0).sum(0, dtype=np.float32)
    return np.divide(total, count, out=np.full(total.shape, np.nan, np.float32), where=count > 0).astype(np.float32)


def _ome(
    name: str, source: DenseMap, depth: int, labels: list[str], low: np.ndarray, high: np.ndarray
) -> dict[str, Any]:
    um = source.resolution_um
    x0, y0 = (v * source.mpp for v in source.origin_px)
    datasets = [
        {
            "path": str(level),
            "coordinateTransformations": [
                {"type": "scale", "scale": [1.0, um * 2**level, um * 2**level]},
                # the place of the first cell's centre, in micrometres from the slide's corner
                {"type": "translation", "translation": [0.0, y0 + um * 2**level / 2, x0 + um * 2**level / 2]},
            ],
        }
        for level in range(depth + 1)
    ]
    axes = [
        {"name": "c", "type": "channel"},
        {"name": "y", "type": "space", "unit": "micrometer"},
        {"name": "x", "type": "space", "unit": "micrometer"},
    ]
    channels = []
    for number, label in enumerate(labels):
        ends = (float(low[number]), float(high[number])) if np.isfinite(low[number]) else (0.0, 1.0)
        window = {"min": ends[0], "max": ends[1], "start": ends[0], "end": ends[1]}
        channels.append({"label": label, "color": "FFFFFF", "active": number == 0, "window": window})
    return {
        "version": _NGFF,
        "multiscales": [{"name": name, "axes": axes, "datasets": datasets, "type": "mean of 2 x 2"}],
        "omero": {"channels": channels},
    }
