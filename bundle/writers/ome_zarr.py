"""A map as the OME-Zarr that the user keeps: compressed, multiscale, of features or of genes.

Format: OME-Zarr 0.5 (https://ngff.openmicroscopy.org/0.5), axes c, y, x; what PixNet adds is under `pixnet` in the
group's attributes, the head's arrays are under `projection/`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec

from ..data.normalisation import bounded
from ..errors import InputError
from ..files.atomic import replacing_folder
from ..inference.clipping import clipped_genes
from ..inference.dense_map import DenseMap, write_projection
from ..inference.express import express

__all__ = ["write_map"]

_GENES_AT_ONCE = 64
_TOP_PIXELS = 512  # the coarsest level's longer side is at most this
_NGFF = "0.5"


def write_map(source: DenseMap, path: str | Path, name: str, genes: Sequence[str] | None = None) -> None:
    """Copy a map to where the user wants it: compressed, multiscale, in one move.

    Args:
        source: a map of features.
        path: the OME-Zarr to write.
        name: of the image.
        genes: write log1p CP10k of these, one channel each, and how many values were clipped to its range; the
            features by default, which give any gene.

    Raises:
        InputError: if the source holds genes.
    """
    projection = source.projection
    if projection is None:
        raise InputError(f"{source.path} holds genes, not features.")
    part = None if genes is None else projection.columns(list(genes))
    n_channels = source.array.shape[0] if part is None else len(part.genes)
    labels = [f"feature {i}" for i in range(n_channels)] if part is None else list(part.genes)
    height, width = source.array.shape[1:]
    depth = max(0, math.ceil(math.log2(max(height, width) / _TOP_PIXELS)))
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
                    y, _ = express(features.transpose(1, 2, 0), projection.columns(labels[first:last]))
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
            write_projection(group, projection)


def _blocks(shape: Sequence[int], side: int) -> Iterator[tuple[int, int]]:
    """Upper left corners of the blocks that cover an array's last two axes."""
    return ((top, left) for top in range(0, shape[-2], side) for left in range(0, shape[-1], side))


def _halve(block: np.ndarray) -> np.ndarray:
    """Means of 2 x 2 pixels; an odd last row or column is kept as it is, pixels without a value are left out."""
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
                # where the first pixel's centre lies, in micrometres from the slide's corner
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
