"""Random crops around the measured units of training slides."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from ..errors import InputError
from .layers import layer_of
from .normalisation import LARGE_UNIT_UM, log1p_cp10k, passes_quality_control
from .opening import SlideOpener
from .panel import GenePanel
from .slide_units import check_on_slide
from .units import Units

__all__ = ["CropDataset"]


@dataclass
class _TrainingSlide:
    """A slide and its units.

    Attributes:
        record: of the data set.
        mpp: µm per level-0 pixel.
        layers: the units as they were read, one item for each size of the data set; of sizes that it lacks, none.
        taught: which units of each layer the network learns from, bool (U,).
        size_factor: depth of each layer.
    """

    record: Mapping[str, Any]
    mpp: float
    layers: list[Units]
    taught: list[np.ndarray]
    size_factor: list[float]


class CropDataset(Dataset):
    """Random crops around the measured units of training slides.

    Everything random derives from (seed, epoch, item), so a run can stop after any epoch and go on the same.

    Units of several sizes may lie in one crop. Depth is one size factor per slide and unit size. A unit below 55 µm is
    not `normalised`, if the head gives `rates`: its counts are learnt, zeros included, and not log1p CP10k, which is a
    logarithm of noise there.

    Args:
        data: training records (see `bundle.data.manifest`).
        panel: the genes to predict, and the units that it was fitted on.
        reader: opens slides.
        transform: a MONAI `Compose` from `{"image": path, "region", "label": layers, ...}` to a sample.
        mpp: working resolution in µm per pixel.
        crop_px: side of a crop in working pixels.
        crops_per_slide: crops of each slide in one epoch.
        unit_sizes_um: unit sizes to train on; each slide's coarsest by default.
        seed: of everything random.
        max_units: of one size in a crop, drawn anew each time, so that the finest do not drown the rest; None is all.
        rates: whether the head gives rates (`programs`), so that counts can be learnt.

    Raises:
        InputError: if a slide has no unit to train on, or units on both sides of 55 µm meet a head without rates.
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        panel: GenePanel,
        reader: SlideOpener,
        transform: Callable[[dict[str, Any]], dict[str, Any]],
        mpp: float,
        crop_px: int = 384,
        crops_per_slide: int = 32,
        unit_sizes_um: Sequence[float] | None = None,
        seed: int = 0,
        max_units: int | None = None,
        rates: bool = False,
    ) -> None:
        self.data = list(data)
        self.panel = panel
        self.transform = transform
        self.mpp = float(mpp)
        self.crop_px = int(crop_px)
        self.crops_per_slide = int(crops_per_slide)
        self.seed = int(seed)
        self.epoch = 0
        self.max_units = None if max_units is None else int(max_units)
        self.rates = bool(rates)
        found = []
        for record in self.data:
            slide = reader.open(record["image"], record.get("mpp"))
            layers = check_on_slide(panel.units_of(record, unit_sizes_um), record, slide)
            if not any(self._teaches(units).any() for units in layers):
                raise InputError(f"{record['image']} has no unit with {panel.min_total:g} counts on tissue; remove it.")
            found.append((record, slide.mpp, layers))
        self.sizes_um = sorted({u.size_um for _, _, layers in found for u in layers}, reverse=True)
        if not self.rates and self.sizes_um[-1] < LARGE_UNIT_UM <= self.sizes_um[0]:
            raise InputError(
                f"Units of {self.sizes_um[0]:g} and {self.sizes_um[-1]:g} µm cannot be trained on together by the head "
                f"linear, for which a unit below {LARGE_UNIT_UM:g} µm is noise. Choose head=programs, or one size."
            )
        self._slides = [_TrainingSlide(record, mpp, *self._layers(layers)) for record, mpp, layers in found]

    def _teaches(self, units: Units) -> np.ndarray:
        """Which units the network learns from, bool (U,)."""
        keep = passes_quality_control(units, self.panel.min_total)
        if self.rates and units.size_um < LARGE_UNIT_UM:  # that nothing was counted is a measurement too
            keep = passes_quality_control(units, self.panel.min_total, training=False)
        return keep

    def _layers(self, found: Sequence[Units]) -> tuple[list[Units], list[np.ndarray], list[float]]:
        """One layer per size of the data set, coarsest first, which of its units teach, and its size factor."""
        by_size = {units.size_um: units for units in found}
        none = found[0].take(np.zeros(0, int))
        layers = [by_size.get(size, replace(none, size_um=size)) for size in self.sizes_um]
        taught = [self._teaches(units) for units in layers]
        depth = self.panel.depth_per_um2
        factors = [
            float(u.total[keep].mean() / u.area_um2 / depth) if keep.any() else 1.0
            for u, keep in zip(layers, taught, strict=True)
        ]
        return layers, taught, factors

    def __len__(self) -> int:
        return len(self._slides) * self.crops_per_slide

    def set_epoch(self, epoch: int) -> None:
        """Draw another epoch's crops."""
        self.epoch = int(epoch)

    def whole_slides(self) -> Iterator[dict[str, Any]]:
        """The slides, each with the units of its coarsest size that crops teach, as `SlideDataset` gives them."""
        for slide in self._slides:
            units, keep = next((u, keep) for u, keep in zip(slide.layers, slide.taught, strict=True) if keep.any())
            yield {**slide.record, "mpp": slide.mpp, "units": units.take(keep)}

    def _slide_of(self, item: int) -> int:
        """Neighbouring items are of different slides, and every rank of a distributed sampler sees all of them."""
        n = len(self._slides)
        return (item + item // n) % n

    def __getitem__(self, item: int) -> dict[str, Any]:
        rng = np.random.default_rng([self.seed, self.epoch, item])
        number = self._slide_of(item)
        slide = self._slides[number]
        measured = [(u, np.flatnonzero(keep)) for u, keep in zip(slide.layers, slide.taught, strict=True) if keep.any()]
        focus, index = measured[rng.integers(len(measured))]
        center_px = focus.centers_px[index[rng.integers(len(index))]] * slide.mpp / self.mpp
        origin_px = np.floor(center_px - rng.uniform(0.15, 0.85, 2) * self.crop_px).astype(int)
        low_um, high_um = origin_px * self.mpp, (origin_px + self.crop_px) * self.mpp
        layers, targets, totals, factors, normalised = [], [], [], [], []
        for units, keep, factor in zip(slide.layers, slide.taught, slide.size_factor, strict=True):
            at_um = units.centers_px * slide.mpp
            index = np.flatnonzero(((at_um > low_um) & (at_um < high_um)).all(1) & keep)
            if self.max_units is not None and len(index) > self.max_units:
                index = np.sort(rng.choice(index, self.max_units, replace=False))
            near = units.take(index)
            total = near.total
            layers.append(layer_of(near, slide.mpp))
            targets.append(log1p_cp10k(near.counts_of(self.panel.genes, partly=True), total))
            totals.append(total)
            factors.append(np.full(len(near), factor))
            normalised.append(np.full(len(near), not self.rates or units.size_um >= LARGE_UNIT_UM))
        sample = {
            "image": slide.record["image"],
            "mpp": slide.mpp,
            "region": (int(origin_px[0]), int(origin_px[1]), self.crop_px, self.crop_px),
            "label": layers,
            "target": torch.from_numpy(np.concatenate(targets)),
            "total": torch.from_numpy(np.concatenate(totals)).float(),
            "size_factor": torch.from_numpy(np.concatenate(factors)).float(),
            "normalised": torch.from_numpy(np.concatenate(normalised)),
            "slide_index": number,
        }
        if hasattr(self.transform, "set_random_state"):
            self.transform.set_random_state(seed=int(rng.integers(2**31)))
        return self.transform(sample)
