"""Read a slide's map tile by tile: the next tiles are read while the network computes one."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from monai.inferers import Inferer

from ..data.opening import OpenSlide, SlideOpener
from ..errors import InputError
from .threads import keep_to_cores, use_free_cores
from .tiles import Tile, block_px, default_tile_px, tile_grid

__all__ = ["NotFiniteError", "TiledInferer"]

logger = logging.getLogger(__name__)

_ROWS = 256  # of a region prepared at once


class NotFiniteError(InputError):
    """A network's map that is no answer."""


class TiledInferer(Inferer):
    """What reading a slide's map tile by tile needs.

    Args:
        reader: opens slides.
        transform: from pixels, float32 (3, H, W) in 0..255, to the network's input; it sees some rows at a time, so
            what it makes of a pixel must depend on that pixel alone.
        mpp: working resolution in µm per pixel.
        tile_px: side of a tile's core in working pixels, rounded to blocks of the map; by default the smallest whose
            margin costs at most 60 % more pixels.
        progress: log how many tiles are done, the rate and the time left.
        num_readers: tiles read ahead, a thread each; on a GPU several keep up with the network.
    """

    def __init__(
        self,
        reader: SlideOpener,
        transform: Callable[[Any], Any],
        mpp: float,
        tile_px: int | None = None,
        progress: bool = False,
        num_readers: int = 1,
    ) -> None:
        super().__init__()
        self.num_readers = max(int(num_readers), 1)
        self.reader = reader
        self.transform = transform
        self.mpp = float(mpp)
        self.tile_px = None if tile_px is None else int(tile_px)
        self.progress = progress

    def tiles(
        self, network: Any, low_px: Sequence[float], high_px: Sequence[float], even: bool = False
    ) -> Iterator[Tile]:
        """Tiles over a rectangle of the slide, sized for the network; see `tile_grid`."""
        spec = {"grid_px": network.grid_px, "halo_px": network.halo_px, "stride": network.stride}
        return tile_grid(
            (low_px[0], low_px[1]),
            (high_px[0], high_px[1]),
            tile_px=self.tile_px or default_tile_px(**spec),
            align_px=block_px(network.grid_px, network.stride),
            even=even,
            **spec,
        )

    def maps(
        self,
        slide: OpenSlide,
        network: Any,
        tiles: Sequence[Tile],
        features: Callable[[torch.Tensor], torch.Tensor] | None = None,
        size_px: tuple[int, int] | None = None,
        done_before: int = 0,
    ) -> Iterator[tuple[Tile, torch.Tensor]]:
        """The network's map of each tile's region, margin included, (1, C, h, w).

        Args:
            slide: an open slide.
            network: see `ExpressionModel`.
            tiles: in the order in which they are wanted.
            features: what computes a map in the network's place (an exported network).
            size_px: the (height, width) that `features` takes alone: smaller regions are read larger and cut.
            done_before: tiles of this slide that are done already, for the log.
        """
        device = next(network.parameters()).device
        compute = network.features if features is None else features
        progress = _Progress(slide, tiles, self.mpp, done_before) if self.progress else None

        # Regions have places of their own and are prepared a few rows at a time, so that each tile finds the memory as
        # the first one did. What is done to a pixel depends on that pixel alone, or tiles would differ.
        largest_px = max((t.region[2] * t.region[3] for t in tiles), default=0)
        largest_px = largest_px if size_px is None else size_px[0] * size_px[1]
        with torch.inference_mode(False):  # the mode is a thread's own, and others write here
            places = [
                torch.empty(3 * largest_px, dtype=torch.float32, device="cpu") for _ in range(self.num_readers + 1)
            ]

        def place(number: int) -> torch.Tensor:
            _, _, width_px, height_px = tiles[number].region
            height_px, width_px = (height_px, width_px) if size_px is None else size_px
            return places[number % len(places)][: 3 * height_px * width_px].view(1, 3, height_px, width_px)

        def read(number: int, part: int, parts: int) -> None:
            image, (x_px, y_px, *_) = place(number), tiles[number].region
            first, last = (at * image.shape[2] // parts for at in (part, part + 1))
            pixels = slide.read_region(x_px, y_px + first, image.shape[3], last - first, self.mpp)
            for top in range(first, last, _ROWS):
                bottom = min(top + _ROWS, last)
                rows = pixels[top - first : bottom - first].transpose(2, 0, 1)
                prepared = self.transform(np.ascontiguousarray(rows, dtype=np.float32))
                image[0, :, top:bottom] = torch.as_tensor(prepared)

        with ThreadPoolExecutor(max(self.num_readers, 2), initializer=keep_to_cores) as readers:

            def begin(number: int) -> list[Future]:
                parts = 1 if number else 2  # the network waits for the first tile, and leaves two cores free
                return [readers.submit(read, number, part, parts) for part in range(parts)]

            ahead = deque(begin(number) for number in range(min(self.num_readers, len(tiles))))
            for number, tile in enumerate(tiles):  # the next tiles are read while the network runs
                use_free_cores()  # its first look takes a moment, in which the first tile is read
                for part in ahead.popleft():
                    part.result()
                if number + self.num_readers < len(tiles):
                    ahead.append(begin(number + self.num_readers))
                image = place(number)
                _, _, width_px, height_px = tile.region
                with torch.inference_mode():
                    computed = compute(image.to(device))
                _check_finite(computed, tile)
                yield tile, computed[..., : height_px // network.stride, : width_px // network.stride]
                del computed
                if progress is not None:
                    progress.step(tile)


def _check_finite(features: torch.Tensor, tile: Tile) -> None:
    """Refuse a map that is no answer, before anything is written of it."""
    if not bool(torch.isfinite(features.sum(dtype=torch.float64))):  # one pass, and no array of its own
        raise NotFiniteError(
            f"The network gives values that are not finite at working pixel ({tile.x_px}, {tile.y_px}). If it is being "
            "trained, it diverged: lower learning_rate. Else its weights are damaged: copy them again."
        )


class _Progress:
    """Logs tiles done, rate and time left."""

    def __init__(self, slide: OpenSlide, tiles: Sequence[Tile], mpp: float, done_before: int) -> None:
        self.mm2 = [tile.width_px * tile.height_px * mpp**2 / 1e6 for tile in tiles]
        self.before = done_before
        self.started = time.monotonic()
        self.done = 0

    def step(self, tile: Tile) -> None:
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
