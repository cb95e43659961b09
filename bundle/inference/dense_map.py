"""The map of a slide on disk: features at every map pixel, and any gene computed from them on demand.

A Zarr group: the array `0` with axes c, y, x, what PixNet adds under `pixnet` in the attributes, and the head's arrays
under `projection/`. `bundle.writers.ome_zarr` writes it as an OME-Zarr for the user.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import zarr

from ..errors import InputError, did_you_mean, missing_extra
from ..files.reading import reading
from .express import Projection, express
from .tiles import Tile

__all__ = ["DenseMap", "create_map", "open_map", "write_projection"]

_WINDOW_PIXELS = 512  # side of what is read at once; a larger unit is summed over several


class DenseMap:
    """Features of a slide at every map pixel, (C, H, W); NaN where no tile was computed.

    Attributes:
        path: the Zarr group.
        about: what else is known: `working_mpp`, `slide`, `slide_mpp`, `checkpoint_sha256`, ...
        array: the Zarr array.
        channels: features at each map pixel, C.
        stride: working pixels per map pixel.
        mpp: micrometres per working pixel.
        slide_mpp: micrometres per level-0 pixel of the slide.
        origin_px: (x, y) of the map's corner from the slide's in working pixels: map pixel (row, column) begins at
            x = `origin_px[0] * mpp + column * resolution_um` and y = `origin_px[1] * mpp + row * resolution_um`
            micrometres; divide by `slide_mpp` for level-0 pixels.
        group_pixels: see `bundle.inference.pool.FeatureMap`.
    """

    group_pixels: int | None = 256

    def __init__(self, path: str | Path, mode: str = "r") -> None:
        self.path = Path(path)
        self.group = zarr.open_group(str(path), mode=mode)  # type: ignore[arg-type]
        self.about: dict[str, Any] = dict(self.group.attrs["pixnet"])  # type: ignore[arg-type]
        self.array = cast(Any, self.group["0"])
        self.channels = int(self.array.shape[0])
        self.stride = int(self.about["stride"])
        self.mpp = float(self.about["working_mpp"])
        self.slide_mpp = float(self.about["slide_mpp"])
        self.origin_px = tuple(int(v) for v in self.about["origin_px"])
        self._strips: dict[int, np.ndarray] = {}

    def __repr__(self) -> str:
        channels, height, width = self.array.shape
        holds = "features" if "projection" in self.group else "genes"
        x, y = self.origin_px
        return (
            f"DenseMap({self.path.name}: {channels} {holds}, {height} x {width} pixels of {self.resolution_um:g} µm, "
            f"corner at ({x * self.mpp:g}, {y * self.mpp:g}) µm of the slide)"
        )

    @property
    def resolution_um(self) -> float:
        """Side of a map pixel in micrometres."""
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
        """Genes that the map gives."""
        projection = self.projection
        return list(projection.genes) if projection is not None else list(self.about["channels"])

    def read(self, x: int, y: int, width: int, height: int) -> np.ndarray:
        """Features of a rectangle of map pixels, float32 (height, width, C); beyond the map the nearest pixel's.

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
        """Columns of the array for columns counted from the slide's corner; beyond the map the nearest one."""
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
                kept = {k: v for k, v in self._strips.items() if k == strip - 1}
                self._strips = kept | {strip: self._read_strip(strip)}
            parts.append(self._strips[strip][rows[rows // side == strip] - strip * side])
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def windows(
        self, low_px: Sequence[float], high_px: Sequence[float], wanted: Callable[[Tile], bool]
    ) -> Iterator[tuple[Tile, torch.Tensor]]:
        """See `bundle.inference.pool.FeatureMap`."""
        x0, y0 = (int(np.floor(v / self.stride)) for v in low_px)
        x1, y1 = (int(np.floor(v / self.stride)) + 1 for v in high_px)
        for y in range(y0, y1, _WINDOW_PIXELS):
            for x in range(x0, x1, _WINDOW_PIXELS):
                width, height = min(_WINDOW_PIXELS, x1 - x), min(_WINDOW_PIXELS, y1 - y)
                tile = Tile(*(v * self.stride for v in (x, y, width, height, 1)))
                if wanted(tile):
                    features = self.read(x - 1, y - 1, width + 2, height + 2)
                    yield tile, torch.from_numpy(features).permute(2, 0, 1)[None]

    def _read_strip(self, number: int) -> np.ndarray:
        """All columns of a row of blocks, (rows, W, C)."""
        side = self.array.chunks[1]
        with reading(self.path, "is damaged", "Remove the folder that it is in and start the command again."):
            part = torch.from_numpy(self.array[:, number * side : (number + 1) * side])
        # Bins are products of whole rows and columns, and 0 x NaN of a place that no unit needs would be NaN.
        return torch.nan_to_num_(part.permute(1, 2, 0).contiguous()).numpy()

    def holds(self, x: int, y: int, width: int, height: int) -> bool:
        """Whether a rectangle of map pixels was computed and can be read."""
        left, top = self._place(x, y)
        try:
            return bool(np.isfinite(self.array[:, top : top + height, left : left + width]).all())
        except Exception:  # whatever Zarr says of a damaged chunk
            return False

    def write(self, x: int, y: int, features: np.ndarray) -> None:
        """Write a rectangle of whole blocks of a map that `create_map` made.

        Args:
            x: first column of map pixels, counted from the slide's corner.
            y: first row.
            features: float32 (C, height, width).

        Raises:
            ValueError: if they are no blocks of this map, or it is not to be written.
        """
        if self.array.compressors or self.group.read_only:
            raise ValueError(f"{self.path} is not a map in the making.")
        side, (left, top), (channels, height, width) = self.array.chunks[1], self._place(x, y), features.shape
        inside = 0 <= top <= self.array.shape[1] - height and 0 <= left <= self.array.shape[2] - width
        if not inside or any(v % side for v in (left, top, width, height)):
            raise ValueError(f"Row {top}, column {left}: {height} x {width} pixels are no whole blocks of {side}.")
        if features.dtype != np.float32 or channels != self.channels:
            raise ValueError(f"{channels} channels of {features.dtype}: the map has {self.channels} of float32.")
        self.array[:, top : top + height, left : left + width] = features

    def _place(self, x: int, y: int) -> tuple[int, int]:
        """Column and row of the array for those counted from the slide's corner."""
        left, top = (at - origin // self.stride for at, origin in zip((x, y), self.origin_px, strict=True))
        return left, top

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
            lambda block: express(block.transpose(1, 2, 0), one).clipped[..., 0], lazy, drop_axis=0, dtype=np.float32
        )


class _Chunks:
    """The array of a map for dask; it says in a sentence which chunk is damaged."""

    def __init__(self, dense: DenseMap) -> None:
        self.path, self.array = dense.path, dense.array
        self.shape, self.dtype, self.ndim = self.array.shape, self.array.dtype, 3

    def __getitem__(self, index: Any) -> np.ndarray:
        with reading(self.path, "is damaged", "Copy it again, or make it anew with pixnet predict --map."):
            return np.asarray(self.array[index])


def open_map(path: str | Path) -> DenseMap:
    """Open what `pixnet predict --map` wrote. Values on glass mean nothing: the map does not mask tissue.

    Example::

        dense = open_map("C5_map.zarr")
        erbb2 = dense.gene("ERBB2")  # lazy, (H, W); a map pixel is dense.resolution_um wide
        picture = erbb2[::4, ::4].compute()
        x_um, y_um = (v * dense.mpp for v in dense.origin_px)  # where the map begins on the slide

    Args:
        path: the OME-Zarr.

    Raises:
        InputError: if there is no map.
    """
    with reading(path, "is not a map that PixNet wrote", "Make one with pixnet predict --map."):
        dense = DenseMap(path)
        if dense.projection is None and dense.about.get("unit") == "features":
            raise InputError(f"{path} has lost what turns its features into genes. Copy it again, or make it anew.")
    return dense


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
        config={"write_empty_chunks": True},  # else Zarr compares each chunk with an empty one
        dimension_names=("c", "y", "x"),
    )
    group.attrs["pixnet"] = {**about, "stride": stride, "origin_px": [int(v) for v in low_px]}
    write_projection(group, projection)
    return DenseMap(path, "r+")


def write_projection(group: Any, projection: Projection | None) -> None:
    """Write a head's arrays beside the map that they turn into genes; nothing where there is none."""
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
