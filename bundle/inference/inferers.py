"""MONAI's inferers: how an engine calls the verbs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.inferers import Inferer, SimpleInferer

from ..data.opening import SlideOpener
from ..speed.threads import use_free_cores
from .compute_map import MapFolder, TileStream, compute_map, tiles_of
from .dense_map import DenseMap
from .pool import pool
from .required_blocks import Blocks, required_blocks
from .run_tiles import TileSettings
from .tiles import Tile, block_px

__all__ = ["MapInferer", "SlideInferer", "UnitInferer", "prepare_crops", "prepare_slide"]


def prepare_crops(
    batch: dict[str, Any], device: torch.device | str | None = None, non_blocking: bool = False, **_: Any
) -> tuple:
    """Trainer's `prepare_batch`: the batch on the device, as the network's input and as the loss's target."""
    moved = {k: v.to(device, non_blocking=non_blocking) if torch.is_tensor(v) else v for k, v in batch.items()}
    return moved, moved


def prepare_slide(
    batch: dict[str, Any], device: torch.device | str | None = None, non_blocking: bool = False, **_: Any
) -> tuple:
    """Evaluator's `prepare_batch`: the inferer reads the slide, so nothing moves."""
    return batch, batch


class UnitInferer(SimpleInferer):
    """Calls the network on a batch of crops with their unit masks."""

    def __call__(  # type: ignore[override]
        self, inputs: Mapping[str, Any], network: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        """Predicted expression of the batch's units."""
        use_free_cores()
        return network(inputs["image"], inputs["label"])


class SlideInferer(Inferer):
    """Computes a slide's map and pools it over the slide's units, tile by tile in memory: for evaluation.

    Args:
        reader: opens slides.
        transform: see `TileSettings`.
        rasterize: see `bundle.inference.pool.pool`.
        mpp: working resolution in µm per pixel.
        tile_px: see `TileSettings`.
        progress: log how many tiles are done, the rate and the time left.
    """

    def __init__(
        self,
        reader: SlideOpener,
        transform: Callable[[Any], Any],
        rasterize: Any,
        mpp: float,
        tile_px: int | None = None,
        progress: bool = False,
    ) -> None:
        super().__init__()
        self.reader = reader
        self.rasterize = rasterize
        self.settings = _settings(transform, mpp, tile_px, progress=progress)

    def __call__(  # type: ignore[override]
        self, inputs: Mapping[str, Any], network: Any, *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """Mean features of each unit.

        Args:
            inputs: a slide as `SlideDataset` gives it: `image` path, `mpp`, `units`.
            network: with `features`, `stride`, `grid_px`, `halo_px`, `channels`.
            *args: not used; part of MONAI's interface.
            **kwargs: likewise.

        Returns:
            Pooled features, float32 (U, C), on the network's device.
        """
        network = _unwrapped(network)
        slide = self.reader.open(inputs["image"], inputs.get("mpp"))
        stream = TileStream(slide, network, self.settings)
        features = pool(stream, inputs["units"], self.rasterize)
        return torch.from_numpy(features).to(next(network.parameters()).device)


class MapInferer(Inferer):
    """Computes a slide's map and keeps it on disk; see `compute_map`.

    Args:
        reader: opens slides.
        transform: see `TileSettings`.
        mpp: working resolution in µm per pixel.
        genes: the panel's genes, in the order of the head's.
        work_dir: where maps in the making are kept, a folder for each slide.
        tile_px: see `TileSettings`.
        model: what identifies the weights (`model_sha256`).
        progress: log how many tiles are done, the rate and the time left.
        num_readers: see `TileSettings`.
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
        progress: bool = False,
        num_readers: int = 1,
    ) -> None:
        super().__init__()
        self.reader = reader
        self.genes = list(genes)
        self.work_dir = Path(work_dir)
        self.model = model
        self.settings = _settings(transform, mpp, tile_px, num_readers, progress)

    def __call__(  # type: ignore[override]
        self, inputs: Mapping[str, Any], network: Any, *args: Any, **kwargs: Any
    ) -> DenseMap:
        """The map of every tile that is required.

        Args:
            inputs: a slide as `PredictionDataset` gives it.
            network: see `compute_map`.
            *args: not used; part of MONAI's interface.
            **kwargs: likewise.
        """
        network = _unwrapped(network)
        slide = self.reader.open(inputs["image"], inputs.get("mpp"))
        folder = MapFolder(self.work_dir / inputs["section"], Path(inputs["image"]), self.genes, self.model)
        return compute_map(slide, network, self.blocks(inputs, network), self.settings, folder)

    def blocks(self, inputs: Mapping[str, Any], network: Any) -> Blocks:
        """The blocks of the map that a slide's units and its map require."""
        mpp = self.settings.mpp
        return required_blocks(inputs, block_px(network.grid_px, network.stride) * mpp, network.stride * mpp)

    def tiles(self, inputs: Mapping[str, Any], network: Any) -> list[Tile]:
        """The tiles that a slide takes."""
        network = _unwrapped(network)
        return tiles_of(network, self.blocks(inputs, network), self.settings)


def _settings(
    transform: Callable[[Any], Any], mpp: float, tile_px: int | None, num_readers: int = 1, progress: bool = False
) -> TileSettings:
    return TileSettings(transform, float(mpp), None if tile_px is None else int(tile_px), int(num_readers), progress)


def _unwrapped(network: Any) -> Any:
    """The network without the distributed wrapper, which has no `features`."""
    return getattr(network, "module", network)
