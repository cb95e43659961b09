"""The first verb: compute the network's map of a slide, from tiles that give what the whole slide at once would give.

`compute_map` keeps the map on disk, so that memory does not grow with the slide and a killed run can go on.
`TileStream` computes the same values and keeps nothing: for evaluation, which reads every tile once.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data.opening import OpenSlide
from ..errors import InputError
from ..files.atomic import read_state, write_json
from ..files.ownership import WORK, claim, clear, remove_ours
from ..speed.threads import keep_to_cores
from ..version import bundle_version
from .dense_map import DenseMap, create_map, open_map
from .express import Projection
from .required_blocks import Blocks, tiles_with
from .run_tiles import NotFiniteError, TileSettings, run_tiles
from .tiles import Tile, block_px

__all__ = ["MapFolder", "TileStream", "compute_map", "tiles_of"]

logger = logging.getLogger(__name__)

#: How the work folder of an earlier version is recognised.
_EARLIER = {"plan.json": "tiles"}


@dataclass(frozen=True)
class MapFolder:
    """Where a map is computed, and what of.

    Attributes:
        path: a folder for this slide alone; a killed run leaves it, and the next one goes on in it.
        image: the slide's file.
        genes: the panel's, in the head's order.
        model: what identifies the weights (`model_sha256`).
    """

    path: Path
    image: Path
    genes: Sequence[str]
    model: str = ""


def compute_map(slide: OpenSlide, network: Any, blocks: Blocks, settings: TileSettings, folder: MapFolder) -> DenseMap:
    """Compute the map of every tile that holds a required block, and keep it on disk.

    Each tile is written as it is done. A run that was killed goes on after its last whole tile, if slide, weights and
    settings are the same.

    Args:
        slide: an open slide.
        network: with `features`, `affine`, `stride`, `grid_px`, `halo_px`, `channels`.
        blocks: required blocks, (n, 2); see `bundle.inference.required_blocks`.
        settings: how the slide is cut and read.
        folder: where the map is kept.

    Raises:
        InputError: if no block is required.
        NotFiniteError: if the network gives NaN or infinity; the folder is removed then.
    """
    if len(blocks) == 0:
        raise InputError(f"{folder.image}: there is nothing to predict. No units were given, or no tissue was found.")
    tiles = tiles_of(network, blocks, settings)
    dense, done = _open(slide, network, blocks, tiles, settings, folder)
    try:
        _fill(dense, slide, network, tiles, done, settings, folder.path)
    except NotFiniteError:  # nothing of it is of use
        remove_ours(folder.path, "work", WORK)
        if not any(folder.path.parent.iterdir()):
            folder.path.parent.rmdir()
        raise
    return dense


def tiles_of(network: Any, blocks: Blocks, settings: TileSettings) -> list[Tile]:
    """The tiles that hold any of the blocks, largest first.

    Each then fits into the memory that the one before left (see `bundle.speed.memory`).
    """
    side_px = block_px(network.grid_px, network.stride)
    tiles = tiles_with(settings.tiles(network, *_bounds_px(blocks, side_px)), blocks, side_px)
    return sorted(tiles, key=lambda tile: (-tile.height_px, -tile.width_px, tile.y_px, tile.x_px))


class TileStream:
    """A slide's map that is computed while it is pooled; nothing of it is kept.

    Args:
        slide: an open slide.
        network: with `features`, `stride`, `grid_px`, `halo_px`, `channels`.
        settings: how the slide is cut and read.

    Attributes:
        slide_mpp: micrometres per level-0 pixel.
        mpp: micrometres per working pixel.
        stride: working pixels per map pixel.
        channels: features at each map pixel.
        group_pixels: None: all units are pooled together, so that every tile is computed once.
    """

    group_pixels: int | None = None

    def __init__(self, slide: OpenSlide, network: Any, settings: TileSettings) -> None:
        self.slide, self.network, self.settings = slide, network, settings
        self.slide_mpp, self.mpp = float(slide.mpp), settings.mpp
        self.stride, self.channels = int(network.stride), int(network.channels)

    def windows(
        self, low_px: Sequence[float], high_px: Sequence[float], wanted: Callable[[Tile], bool]
    ) -> Iterator[tuple[Tile, torch.Tensor]]:
        """See `bundle.inference.pool.FeatureMap`."""
        tiles = [tile for tile in self.settings.tiles(self.network, low_px, high_px) if wanted(tile)]
        return run_tiles(self.slide, self.network, tiles, self.settings)


def _bounds_px(blocks: Blocks, side_px: int) -> tuple[list[int], list[int]]:
    """The rectangle that holds all blocks, (low, high) as (x, y) in working pixels."""
    return (blocks.min(0)[::-1] * side_px).tolist(), ((blocks.max(0)[::-1] + 1) * side_px).tolist()


def _open(
    slide: OpenSlide, network: Any, blocks: Blocks, tiles: Sequence[Tile], settings: TileSettings, folder: MapFolder
) -> tuple[DenseMap, int]:
    """The map in the making and how many tiles it holds; a new one where the folder holds another map."""
    work = folder.path
    claim(work, "work", None, _EARLIER)
    stat = folder.image.stat()
    plan = {
        "version": bundle_version(),
        "slide": [str(folder.image), stat.st_size, stat.st_mtime_ns, slide.mpp],
        "model": folder.model,
        "mpp": settings.mpp,
        "reader": slide.backend,
        "device": next(network.parameters()).device.type,
        "test_time_augmentation": list(getattr(network, "test_time_augmentation", (0,))),
        "preprocessing": _digest(settings.transform),
        "tiles": [[t.x_px, t.y_px, t.width_px, t.height_px, t.margin_px] for t in tiles],
    }
    done = read_state(work / "done.json").get("tiles")
    same = read_state(work / "plan.json") == plan
    if same and isinstance(done, int) and _holds_tiles(work / "map.zarr", tiles[:done]):
        if done:
            logger.info("%s: %d of %d tiles were done already.", work.name, done, len(tiles))
        return DenseMap(work / "map.zarr", "r+"), done
    clear(work, "work", WORK, _EARLIER)
    side_px = block_px(network.grid_px, network.stride)
    low, high = _bounds_px(blocks, side_px)
    dense = create_map(
        work / "map.zarr",
        channels=network.channels,
        low_px=(low[0], low[1]),
        high_px=(high[0], high[1]),
        stride=network.stride,
        block_px=side_px,
        about={
            "working_mpp": settings.mpp,
            "slide": folder.image.name,
            "slide_mpp": slide.mpp,
            "checkpoint_sha256": folder.model,
        },
        projection=Projection.of(folder.genes, network),
    )
    write_json(work / "done.json", {"tiles": 0})
    write_json(work / "plan.json", plan)
    return dense, 0


def _fill(
    dense: DenseMap,
    slide: OpenSlide,
    network: Any,
    tiles: Sequence[Tile],
    done: int,
    settings: TileSettings,
    work: Path,
) -> None:
    """Compute and write the tiles after the first `done`; one is written while the next is computed."""
    # One buffer for what waits to be written, made before the network's own: between them it would break up the memory
    # that they leave behind for the next tile (see `bundle.speed.memory`).
    largest = max((t.height_px * t.width_px for t in tiles), default=0) // dense.stride**2
    waiting = torch.empty(network.channels * largest, dtype=torch.float32, device="cpu")
    with ThreadPoolExecutor(1, initializer=keep_to_cores) as writer:
        pending: Future | None = None
        for tile, features in run_tiles(slide, network, tiles[done:], settings, done):
            if pending is not None:
                pending.result()
            margin = tile.margin_px // dense.stride
            inner = features[0, :, margin : features.shape[2] - margin, margin : features.shape[3] - margin]
            core = waiting[: inner.numel()].view(inner.shape).copy_(inner)
            del features, inner
            pending = writer.submit(_keep, dense, tile, core.numpy(), work, done := done + 1)
        if pending is not None:
            pending.result()


def _keep(dense: DenseMap, tile: Tile, core: np.ndarray, work: Path, done: int) -> None:
    """Write a tile's core, and only then that it is done."""
    dense.write(tile.x_px // dense.stride, tile.y_px // dense.stride, core)
    write_json(work / "done.json", {"tiles": done})


def _holds_tiles(path: Path, tiles: Sequence[Tile]) -> bool:
    """Whether a map in the making can be read and holds these tiles."""
    try:
        dense = open_map(path)
    except InputError:
        return False
    if dense.projection is None:
        return False
    rectangles = ([v // dense.stride for v in (t.x_px, t.y_px, t.width_px, t.height_px)] for t in tiles)
    return all(dense.holds(*rectangle) for rectangle in rectangles)


def _digest(transform: Callable[[Any], Any]) -> str:
    """Identify a preparation of pixels by what it makes of some."""
    pixels = np.linspace(0, 255, 3 * 8 * 8, dtype=np.float32).reshape(3, 8, 8)
    return hashlib.sha256(np.asarray(transform(pixels), dtype=np.float32).tobytes()).hexdigest()
