"""Run the network over tiles of a slide: the next tiles are read while it computes one."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..data.opening import OpenSlide
from ..errors import InputError
from ..speed.threads import keep_to_cores, use_free_cores
from .tiles import Tile, block_px, default_tile_px, tile_grid

__all__ = ["NotFiniteError", "TileSettings", "run_tiles"]

logger = logging.getLogger(__name__)

_ROWS = 256  # of a region prepared at once


class NotFiniteError(InputError):
    """The network gave NaN or infinity."""


@dataclass(frozen=True)
class TileSettings:
    """How a slide is cut, read and prepared for the network.

    Attributes:
        transform: from pixels, float32 (3, H, W) in 0..255, to the network's input. It sees some rows at a time, so
            what it makes of a pixel must depend on that pixel alone.
        mpp: working resolution in µm per pixel.
        tile_px: side of a tile's core in working pixels, rounded to blocks of the map; by default the smallest whose
            margin costs at most 60 % more pixels.
        num_readers: tiles read ahead, a thread each; on a GPU several keep up with the network.
        progress: log how many tiles are done, the rate and the time left.
    """

    transform: Callable[[Any], Any]
    mpp: float
    tile_px: int | None = None
    num_readers: int = 1
    progress: bool = False

    def tiles(self, network: Any, low_px: Sequence[float], high_px: Sequence[float]) -> Iterator[Tile]:
        """Tiles over a rectangle of the slide, sized for the network; see `tile_grid`."""
        spec = {"grid_px": network.grid_px, "halo_px": network.halo_px, "stride": network.stride}
        return tile_grid(
            (low_px[0], low_px[1]),
            (high_px[0], high_px[1]),
            tile_px=self.tile_px or default_tile_px(**spec),
            align_px=block_px(network.grid_px, network.stride),
            **spec,
        )


def run_tiles(
    slide: OpenSlide, network: Any, tiles: Sequence[Tile], settings: TileSettings, done_before: int = 0
) -> Iterator[tuple[Tile, torch.Tensor]]:
    """Compute the network's map of each tile's region, margin included.

    Args:
        slide: an open slide.
        network: with `features` and `stride`.
        tiles: in the order in which they are wanted.
        settings: how they are read and prepared.
        done_before: tiles of this slide that were computed before, for the log.

    Yields:
        A tile and its map, float32 (1, C, h, w).

    Raises:
        NotFiniteError: if the network gives NaN or infinity.
    """
    device = next(network.parameters()).device
    progress = _Progress(tiles, settings.mpp, done_before) if settings.progress else None

    # Every region has a place of its own and is prepared a few rows at a time. So each tile finds the memory as the
    # first one did.
    readers = max(int(settings.num_readers), 1)
    largest_px = max((t.region[2] * t.region[3] for t in tiles), default=0)
    with torch.inference_mode(False):  # the mode belongs to a thread, and other threads write here
        places = [torch.empty(3 * largest_px, dtype=torch.float32, device="cpu") for _ in range(readers + 1)]

    def place(number: int) -> torch.Tensor:
        _, _, width_px, height_px = tiles[number].region
        return places[number % len(places)][: 3 * height_px * width_px].view(1, 3, height_px, width_px)

    def read(number: int, part: int, parts: int) -> None:
        image, (x_px, y_px, *_) = place(number), tiles[number].region
        first, last = (at * image.shape[2] // parts for at in (part, part + 1))
        pixels = slide.read_region(x_px, y_px + first, image.shape[3], last - first, settings.mpp)
        for top in range(first, last, _ROWS):
            bottom = min(top + _ROWS, last)
            rows = pixels[top - first : bottom - first].transpose(2, 0, 1)
            prepared = settings.transform(np.ascontiguousarray(rows, dtype=np.float32))
            image[0, :, top:bottom] = torch.as_tensor(prepared)

    with ThreadPoolExecutor(max(readers, 2), initializer=keep_to_cores) as pool:

        def begin(number: int) -> list[Future]:
            parts = 1 if number else 2  # the network waits for the first tile, and leaves two cores free
            return [pool.submit(read, number, part, parts) for part in range(parts)]

        ahead = deque(begin(number) for number in range(min(readers, len(tiles))))
        for number, tile in enumerate(tiles):
            use_free_cores()  # its first look takes a moment, in which the first tile is read
            for part in ahead.popleft():
                part.result()
            if number + readers < len(tiles):
                ahead.append(begin(number + readers))
            image = place(number)
            with torch.inference_mode():
                features = network.features(image.to(device))
            _check_finite(features, tile)
            yield tile, features
            del features
            if progress is not None:
                progress.step()


def _check_finite(features: torch.Tensor, tile: Tile) -> None:
    """Refuse NaN and infinity before anything is written."""
    if not bool(torch.isfinite(features.sum(dtype=torch.float64))):  # one pass, and no array of its own
        raise NotFiniteError(
            f"The network gives values that are not finite at working pixel ({tile.x_px}, {tile.y_px}). If it is being "
            "trained, it diverged: lower learning_rate. Else its weights are damaged: copy them again."
        )


class _Progress:
    """Logs how many tiles are done, the rate and the time left."""

    def __init__(self, tiles: Sequence[Tile], mpp: float, done_before: int) -> None:
        self.mm2 = [tile.width_px * tile.height_px * mpp**2 / 1e6 for tile in tiles]
        self.before = done_before
        self.started = time.monotonic()
        self.done = 0

    def step(self) -> None:
        self.done += 1
        elapsed = time.monotonic() - self.started
        rate = sum(self.mm2[: self.done]) / max(elapsed, 1e-9)
        logger.info(
            "tile %d of %d, %.2f mm²/s, %.0f s left",
            self.before + self.done,
            self.before + len(self.mm2),
            rate,
            sum(self.mm2[self.done :]) / rate,
        )
