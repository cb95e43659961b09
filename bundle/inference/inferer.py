"""Pooled features of a slide's units, from tiles that give the same answer as the whole slide at once."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from monai.inferers import Inferer, SimpleInferer

from ..crops import OpenSlide, SlideOpener, layer_of
from .accumulate import UnitAccumulator
from .tiles import Tile, tile_grid

__all__ = ["SlideInferer", "UnitInferer", "prepare_crops", "prepare_slide"]

logger = logging.getLogger(__name__)


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
        return network(inputs["image"], inputs["label"])


class SlideInferer(Inferer):
    """Runs a dense network over a slide and pools its map into the slide's units.

    Args:
        reader: opens slides.
        transform: from a region's pixels, float32 (3, H, W) in 0..255, to the network's input.
        rasterize: from layers and a region to an index mask.
        mpp: working resolution in µm per pixel.
        tile_px: side of a tile's core in working pixels, rounded to the network's grid.
        progress: log how many tiles are done, the rate and the time left.
    """

    def __init__(
        self,
        reader: SlideOpener,
        transform: Callable[[Any], Any],
        rasterize: Callable[..., Any],
        mpp: float,
        tile_px: int = 2048,
        progress: bool = False,
    ) -> None:
        super().__init__()
        self.reader = reader
        self.transform = transform
        self.rasterize = rasterize
        self.mpp = float(mpp)
        self.tile_px = int(tile_px)
        self.progress = progress

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
        pool = UnitAccumulator(layer_of(units, slide.mpp), self.mpp, network.stride, self.rasterize)
        low, high = pool.bounds_px
        tiles = [tile for tile in self.tiles(network, low, high) if len(pool.touching(tile))]
        for tile, features in self.maps(slide, network, tiles):
            pool.add(tile, features)
        return pool.pooled().to(device)

    def tiles(self, network: Any, low_px: tuple[float, float], high_px: tuple[float, float]) -> Iterator[Tile]:
        """Tiles over a rectangle of the slide, sized for the network."""
        return tile_grid(
            low_px,
            high_px,
            tile_px=self.tile_px,
            grid_px=network.grid_px,
            halo_px=network.halo_px,
            stride=network.stride,
        )

    @torch.no_grad()
    def maps(self, slide: OpenSlide, network: Any, tiles: list[Tile]) -> Iterator[tuple[Tile, torch.Tensor]]:
        """The network's map of each tile's region, margin included, (1, C, h, w)."""
        device = next(network.parameters()).device
        started = time.monotonic()

        def read(tile: Tile) -> torch.Tensor:
            pixels = slide.read_region(*tile.region, self.mpp)
            image = self.transform(np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=np.float32))
            return torch.as_tensor(image).as_subclass(torch.Tensor)[None]

        with ThreadPoolExecutor(max_workers=1) as reader:  # the next tile is read while the network runs
            ahead = [reader.submit(read, tile) for tile in tiles[:1]]
            for done, tile in enumerate(tiles, start=1):
                image = ahead.pop().result()
                ahead = [reader.submit(read, following) for following in tiles[done : done + 1]]
                yield tile, network.features(image.to(device))
                if self.progress:
                    elapsed = time.monotonic() - started
                    left = elapsed / done * (len(tiles) - done)
                    logger.info("tile %d of %d, %.2f tiles/s, %.0f s left", done, len(tiles), done / elapsed, left)
