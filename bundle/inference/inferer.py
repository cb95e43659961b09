"""A slide's map, from tiles that give the same answer as the whole slide at once."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.inferers import SimpleInferer

from ..data.opening import OpenSlide, SlideOpener
from ..errors import InputError
from ..files.atomic import read_state, write_json
from ..files.ownership import WORK, claim, clear, remove_ours
from ..version import bundle_version
from .accumulate import UnitAccumulator
from .dense_map import DenseMap, create_map, in_blocks, open_map
from .projection import Projection
from .required_blocks import tiles_with
from .runtime import build_runtime
from .threads import keep_to_cores, use_free_cores
from .tiled import NotFiniteError, TiledInferer
from .tiles import Tile, block_px

__all__ = ["MapInferer", "SlideInferer", "UnitInferer", "prepare_crops", "prepare_slide"]

logger = logging.getLogger(__name__)

#: By which a work folder of an earlier version is known.
_EARLIER = {"plan.json": "tiles"}


def prepare_crops(
    batch: dict[str, Any], device: torch.device | str | None = None, non_blocking: bool = False, **_: Any
) -> tuple:
    """Trainer's `prepare_batch`: the batch on the device, as the network's input and as the loss's target."""
    moved = {k: v.to(device, non_blocking=non_blocking) if torch.is_tensor(v) else v for k, v in batch.items()}
    return moved, moved


def prepare_slide(
    batch: dict[str, Any], device: torch.device | str | None = None, non_blocking: bool = False, **_: Any
) -> tuple:
    """Evaluator's `prepare_batch`: a slide is read by the inferer, so nothing moves."""
    return batch, batch


class UnitInferer(SimpleInferer):
    """Calls the network on a batch of crops with their unit masks."""

    def __call__(  # type: ignore[override]
        self, inputs: Mapping[str, Any], network: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        """Predicted expression of the batch's units."""
        use_free_cores()
        return network(inputs["image"], inputs["label"])


class SlideInferer(TiledInferer):
    """Runs a dense network over a slide and pools its map into the slide's units, in memory: for evaluation.

    Args:
        reader: opens slides.
        transform: see `TiledInferer`.
        rasterize: from layers and a region to an index mask.
        mpp: working resolution in µm per pixel.
        tile_px: side of a tile's core in working pixels; see `MapInferer`.
        progress: log how many tiles are done, the rate and the time left.
    """

    def __init__(
        self,
        reader: SlideOpener,
        transform: Callable[[Any], Any],
        rasterize: Callable[..., Any],
        mpp: float,
        tile_px: int | None = None,
        progress: bool = False,
    ) -> None:
        super().__init__(reader, transform, mpp, tile_px, progress)
        self.rasterize = rasterize

    def __call__(  # type: ignore[override]
        self, inputs: Mapping[str, Any], network: Any, *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """Mean features of each unit.

        Args:
            inputs: a slide as `SlideDataset` gives it: `image` path, `mpp`, `units`.
            network: with `features`, `stride`, `grid_px`, `halo_px`.
            *args: none are used; part of MONAI's interface.
            **kwargs: likewise.

        Returns:
            Pooled features, float32 (U, C), on the network's device.
        """
        network = getattr(network, "module", network)  # evaluation does not need the distributed wrapper
        slide = self.reader.open(inputs["image"], inputs.get("mpp"))
        units = inputs["units"]
        device = next(network.parameters()).device
        if len(units) == 0:
            return torch.zeros((0, network.channels), device=device)
        pool = UnitAccumulator(units, slide.mpp, self.mpp, network.stride, self.rasterize)
        low, high = pool.bounds_px
        tiles = [tile for tile in self.tiles(network, low, high) if len(pool.touching(tile))]
        for tile, features in self.maps(slide, network, tiles):
            pool.add(tile, features)
        return pool.pooled().to(device)


class MapInferer(TiledInferer):
    """Runs a dense network over a slide and keeps its map on disk, so that it is never held whole.

    Tiles are written as they are done. A run that was killed goes on after its last whole tile, if slide, weights and
    settings are the same.

    Args:
        reader: opens slides.
        transform: see `TiledInferer`.
        mpp: working resolution in µm per pixel.
        genes: the panel's genes, in the order of the head's.
        work_dir: where maps in the making are kept, a folder a slide.
        tile_px: side of a tile's core in working pixels, rounded to blocks of the map; by default the smallest whose
            margin costs at most 60 % more pixels.
        model: what identifies the weights (`ModelFile.sha256`).
        runtime: what computes the map: `torch`, or one of `bundle.inference.runtime`.
        cache_dir: where a converted network is kept for the next slide.
        num_readers: tiles read ahead, a thread each; on a GPU several keep up with the network.
        progress: log how many tiles are done, the rate and the time left.
    """

    def __init__(
        self,
        reader: SlideOpener,
        transform: Callable[[Any], Any],
        mpp: float,
        genes: Sequence[str],
        work_dir: str,
        tile_px: int | None = None,
        model: str = "",
        runtime: str = "torch",
        cache_dir: str | None = None,
        progress: bool = False,
        num_readers: int = 1,
    ) -> None:
        super().__init__(reader, transform, mpp, tile_px, progress, num_readers)
        self.genes = list(genes)
        self.work_dir = Path(work_dir)
        self.model = model
        self.runtime = runtime
        self.cache_dir = cache_dir
        self._built: dict[tuple[int, int], Callable[[torch.Tensor], torch.Tensor]] = {}  # the last slide's

    def __call__(  # type: ignore[override]
        self, inputs: Mapping[str, Any], network: Any, *args: Any, **kwargs: Any
    ) -> DenseMap:
        """The map of every tile that is needed.

        Args:
            inputs: a slide as `PredictionDataset` gives it.
            network: with `features`, `stride`, `grid_px`, `halo_px`, `project`, `rate`.
            *args: none are used; part of MONAI's interface.
            **kwargs: likewise.
        """
        network = getattr(network, "module", network)
        slide = self.reader.open(inputs["image"], inputs.get("mpp"))
        side_px = block_px(network.grid_px, network.stride)
        side_um, cell_um = side_px * self.mpp, network.stride * self.mpp
        blocks = inputs["blocks"](side_um, cell_um)
        if len(blocks) == 0:
            raise InputError(f"{inputs['image']}: nothing was asked for, or no tissue was found.")
        low, high = blocks.min(0)[::-1] * side_px, (blocks.max(0)[::-1] + 1) * side_px
        tiles = tiles_with(self.tiles(network, low, high, self.runtime != "torch"), blocks, side_px)
        work = self.work_dir / inputs["section"]
        # Largest first: each then fits into the memory that the one before left (see `keep_freed_memory`).
        tiles.sort(key=lambda tile: (-tile.height_px, -tile.width_px, tile.y_px, tile.x_px))
        dense, done = self._open(work, inputs, network, slide, low, high, side_px, tiles)
        compute, size_px = None, None
        if self.runtime != "torch" and done < len(tiles):
            size_px = max(t.region[3] for t in tiles), max(t.region[2] for t in tiles)
            if size_px not in self._built:
                self._built = {size_px: build_runtime(self.runtime, network, *size_px, cache_dir=self.cache_dir)}
            compute = self._built[size_px]
        try:
            self._fill(dense, slide, network, tiles, done, work, compute, size_px)
        except NotFiniteError:  # nothing of it is of use
            remove_ours(work, "work", WORK)
            if not any(self.work_dir.iterdir()):
                self.work_dir.rmdir()
            raise
        return dense

    def _fill(
        self,
        dense: DenseMap,
        slide: OpenSlide,
        network: Any,
        tiles: Sequence[Tile],
        done: int,
        work: Path,
        compute: Callable[[torch.Tensor], torch.Tensor] | None,
        size_px: tuple[int, int] | None,
    ) -> None:
        """Compute and write the tiles that are not done."""
        # One buffer for what waits to be written, made before the network's blocks: between them it would break up
        # the memory that they leave behind for the next tile (see `keep_freed_memory`).
        side = dense.array.chunks[1]
        largest = max((t.height_px * t.width_px for t in tiles), default=0) // (side * dense.stride) ** 2
        waiting = torch.empty((largest, network.channels, side, side), dtype=torch.float32, device="cpu")
        with ThreadPoolExecutor(1, initializer=keep_to_cores) as writer:
            pending: Future | None = None
            for tile, features in self.maps(slide, network, tiles[done:], compute, size_px, done):
                if pending is not None:
                    pending.result()  # one tile waits at the most
                margin = tile.margin_px // dense.stride
                inner = features[0, :, margin : features.shape[2] - margin, margin : features.shape[3] - margin]
                blocks = in_blocks(inner, side)
                core = waiting[: blocks.shape[0] * blocks.shape[1]].unflatten(0, blocks.shape[:2]).copy_(blocks)
                del features, inner, blocks
                pending = writer.submit(_keep, dense, tile, core.numpy(), work, done := done + 1)
            if pending is not None:
                pending.result()

    def _open(
        self,
        work: Path,
        inputs: Mapping[str, Any],
        network: Any,
        slide: OpenSlide,
        low: np.ndarray,
        high: np.ndarray,
        side_px: int,
        tiles: Sequence[Tile],
    ) -> tuple[DenseMap, int]:
        """The map in the making and how many tiles it holds; begun anew where it was of anything else."""
        claim(work, "work", None, _EARLIER)
        stat, like = Path(inputs["image"]).stat(), next(network.parameters())
        plan = {
            "version": bundle_version(),
            "slide": [str(inputs["image"]), stat.st_size, stat.st_mtime_ns, slide.mpp],
            "model": self.model,
            "mpp": self.mpp,
            "reader": slide.backend,
            "runtime": self.runtime,
            "device": like.device.type,
            "test_time_augmentation": list(getattr(network, "test_time_augmentation", (0,))),
            "preprocessing": _digest(self.transform),
            "tiles": [[t.x_px, t.y_px, t.width_px, t.height_px, t.margin_px] for t in tiles],
        }
        state = work / "plan.json"
        done = read_state(work / "done.json").get("tiles")
        if read_state(state) == plan and isinstance(done, int) and _is_whole(work / "map.zarr", tiles[:done]):
            if done:
                logger.info("%s: %d of %d tiles were done already.", inputs["section"], done, len(tiles))
            return DenseMap(work / "map.zarr", "r+"), done
        clear(work, "work", WORK, _EARLIER)
        dense = create_map(
            work / "map.zarr",
            channels=network.channels,
            low_px=(int(low[0]), int(low[1])),
            high_px=(int(high[0]), int(high[1])),
            stride=network.stride,
            block_px=side_px,
            about={
                "working_mpp": self.mpp,
                "slide": Path(inputs["image"]).name,
                "slide_mpp": slide.mpp,
                "checkpoint_sha256": self.model,
            },
            projection=Projection.of(self.genes, network.channels, network.project, network.rate, like),
        )
        write_json(work / "done.json", {"tiles": 0})
        write_json(state, plan)
        return dense, 0


def _is_whole(path: Path, tiles: Sequence[Tile]) -> bool:
    """Whether a map in the making can be read and holds these tiles."""
    try:
        dense = open_map(path)
    except InputError:
        return False
    if dense.projection is None:
        return False
    cells = ([v // dense.stride for v in (t.x_px, t.y_px, t.width_px, t.height_px)] for t in tiles)
    return all(dense.holds(*place) for place in cells)


def _digest(transform: Callable[[Any], Any]) -> str:
    """What tells one preparation of pixels from another: what it makes of some."""
    pixels = np.linspace(0, 255, 3 * 8 * 8, dtype=np.float32).reshape(3, 8, 8)
    return hashlib.sha256(np.asarray(transform(pixels), dtype=np.float32).tobytes()).hexdigest()


def _keep(dense: DenseMap, tile: Tile, blocks: np.ndarray, work: Path, done: int) -> None:
    """Write a tile's core, and only then that it is done."""
    dense.write(tile.x_px // dense.stride, tile.y_px // dense.stride, blocks)
    write_json(work / "done.json", {"tiles": done})
