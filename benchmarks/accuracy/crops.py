"""One crop per unit, ST-Net's form, in the configurations of the dense model (see `benchmarks.stnet`).

Encoder, genes, loss, augmentation and time are the same; only the pixels that a prediction sees differ.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from monai.inferers import Inferer

from benchmarks.unit_crops import unit_crops
from bundle.data.crop_dataset import CropDataset
from bundle.data.layers import layer_of
from bundle.data.normalisation import log1p_cp10k
from bundle.data.opening import SlideOpener

__all__ = ["CropInferer", "UnitCrops"]


class UnitCrops(CropDataset):
    """A crop around every training unit, each once an epoch in an order of its own; see `CropDataset`."""

    def __len__(self) -> int:
        return sum(int(keep.sum()) for slide in self._slides for keep in slide.taught)

    def __getitem__(self, item: int) -> dict[str, Any]:
        number, layer, unit = self._order()[item]
        slide = self._slides[number]
        units = slide.layers[layer].take(np.array([unit]))
        corner_px = np.rint(units.centers_px[0] * slide.mpp / self.mpp - self.crop_px / 2).astype(int)
        sample = {
            "image": slide.record["image"],
            "mpp": slide.mpp,
            "region": (int(corner_px[0]), int(corner_px[1]), self.crop_px, self.crop_px),
            "label": [layer_of(units, slide.mpp)],
            "target": torch.from_numpy(log1p_cp10k(units.counts_of(self.panel.genes), units.total)),
            "total": torch.from_numpy(units.total).float(),
            "size_factor": torch.tensor([slide.size_factor[layer]]),
            "normalised": torch.tensor([True]),
            "slide_index": number,
        }
        if hasattr(self.transform, "set_random_state"):
            rng = np.random.default_rng([self.seed, self.epoch, item])
            self.transform.set_random_state(seed=int(rng.integers(2**31)))
        return self.transform(sample)

    def _order(self) -> list[tuple[int, int, int]]:
        if getattr(self, "_ordered", None) != self.epoch:
            everything = [
                (number, layer, unit)
                for number, slide in enumerate(self._slides)
                for layer, keep in enumerate(slide.taught)
                for unit in np.flatnonzero(keep)
            ]
            shuffled = np.random.default_rng([self.seed, self.epoch]).permutation(len(everything))
            self._ordered, self._items = self.epoch, [everything[i] for i in shuffled]
        return self._items


class CropInferer(Inferer):
    """Features of a crop around each unit of a slide, for evaluation.

    Args:
        reader: opens slides.
        transform: from a crop's pixels, float32 (3, H, W) in 0..255, to the network's input.
        mpp: working resolution in µm per pixel.
        batch_size: crops at once.
    """

    def __init__(self, reader: SlideOpener, transform: Callable[[Any], Any], mpp: float, batch_size: int = 32) -> None:
        super().__init__()
        self.reader, self.transform, self.mpp, self.batch_size = reader, transform, float(mpp), batch_size

    def __call__(  # type: ignore[override]
        self, inputs: Mapping[str, Any], network: Any, *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """(U, C), in the order of the slide's units."""
        slide = self.reader.open(inputs["image"], inputs.get("mpp"))
        centers_um = inputs["units"].centers_px * slide.mpp
        device = next(network.parameters()).device
        rows = []
        for crops in unit_crops(slide, centers_um, network.grid_px, self.mpp, self.batch_size):
            image = [torch.as_tensor(self.transform(crop)).as_subclass(torch.Tensor) for crop in crops]
            with torch.inference_mode():
                rows.append(network.features(torch.stack(image).to(device))[:, :, 0, 0])
        return torch.cat(rows)
