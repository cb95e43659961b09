"""What the loaders give: random crops of training slides, and whole slides for evaluation and prediction."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch.utils.data import Dataset

from ..errors import InputError
from .manifest import slide_name
from .normalisation import LARGE_UNIT_UM, eligible, log1p_cp10k
from .panel import GenePanel, load_units
from .polygons import take_ragged
from .section_identity import Library, other_slide
from .units import Units, off_slide

__all__ = [
    "CropDataset",
    "OpenSlide",
    "SlideDataset",
    "SlideOpener",
    "collate_units",
    "layer_of",
    "slide_units",
    "take_layer",
    "take_one",
]


class OpenSlide(Protocol):
    """What this package asks of an open slide (`transforms.Slide` is one)."""

    backend: str
    mpp: float
    level_dimensions: Sequence[tuple[int, int]]

    def read_region(self, x_px: int, y_px: int, width_px: int, height_px: int, mpp: float) -> np.ndarray:
        """Pixels of a region of the slide-global grid at `mpp`, uint8 (height, width, 3)."""

    def thumbnail(self, max_px: int) -> tuple[np.ndarray, float]:
        """A small picture of the whole slide and its mpp."""


class SlideOpener(Protocol):
    """Opens slides (`transforms.SlideReader` is one)."""

    def open(self, path: str, mpp: float | None = None) -> OpenSlide:
        """Open a slide, at the mpp given or the file's own."""


#: Units registered at a scale this far from the slide's are refused.
_MPP_TOLERANCE = 0.05
_LOOK_PX = 512  # of a slide's picture, to tell it from another slide's


def layer_of(units: Units, mpp: float) -> dict[str, Any]:
    """The geometry of units as a layer to rasterise.

    All layers hold `centers_um` (U, 2) from the slide's origin, `shape` and `size_um`. Cells add `areas_um2` (U,);
    `polygon` adds `vertices_px` (V, 2), `vertex_mpp`, `ring_offsets` (R + 1,) and `unit_offsets` (U + 1,), `label`
    adds `reach_um` (U,), `ids` (U,), `image` and `pixel_um` (x, y).
    """
    layer = {"centers_um": units.centers_px * mpp, "shape": units.shape, "size_um": units.size_um}
    return layer if units.geometry is None else {**layer, **units.geometry.layer(mpp)}


def take_layer(layer: Mapping[str, Any], index: np.ndarray) -> dict[str, Any]:
    """A layer of `layer_of` with some of its units alone, in the order of `index` (integers or a boolean mask)."""
    taken = dict(layer)
    for key in ("centers_um", "areas_um2", "reach_um", "ids"):
        if key in layer:
            taken[key] = np.asarray(layer[key])[index]
    if "vertices_px" in layer:
        rings, taken["unit_offsets"] = take_ragged(layer["unit_offsets"], index)
        vertices, taken["ring_offsets"] = take_ragged(layer["ring_offsets"], rings)
        taken["vertices_px"] = layer["vertices_px"][vertices]
    return taken


def slide_units(record: Mapping[str, Any], slide: OpenSlide, sizes_um: Sequence[float] | None = None) -> list[Units]:
    """Read a record's units and check that they lie on the slide.

    Raises:
        InputError: if units lie outside the slide, or were registered at another scale.
    """
    found = load_units(record, sizes_um)
    sizes = [units.size_um for units in found]
    for size in set(sizes):
        if sizes.count(size) > 1:
            raise InputError(
                f"{record['image']}: several files of the slide hold units of one size, {size:g} µm; list one a size."
            )
    for units in found:
        if units.mpp is not None and abs(units.mpp / slide.mpp - 1) > _MPP_TOLERANCE:
            raise InputError(
                f"{units.name} was registered at {units.mpp:.4g} µm per pixel, {record['image']} has {slide.mpp:.4g}. "
                "One of them is wrong, or the units belong to another picture of the slide."
            )
    longest_um = max(slide.level_dimensions[0]) * slide.mpp
    for units in found:
        if units.size_um > longest_um:
            raise InputError(
                f"{units.name} holds units of {units.size_um:g} µm, and {record['image']} is {longest_um:g} µm long. "
                'Correct the size in uns["unit"], or the mpp.'
            )
        _check_distance(units, slide.mpp)
        _check_slide(units, record, slide)
        outside = off_slide("units", units.centers_px, units.barcodes, slide.level_dimensions[0], record["image"])
        if outside is not None:
            raise InputError(
                f"{units.name}: {outside}. Positions must be (x, y) in level-0 pixels of this very picture; was a "
                "smaller one registered?"
            )
    return found


def _check_slide(units: Units, record: Mapping[str, Any], slide: OpenSlide) -> None:
    """Refuse units whose file names another slide and shows another picture of it."""
    name = slide_name(record)
    if units.library is None or units.library.name == name:
        return
    told, certain = other_slide(
        units.library, Library.of_picture(Path(record["image"]).name, name, slide.thumbnail(_LOOK_PX)[0])
    )
    if certain:
        raise InputError(
            f"{told}; barcodes repeat between sections. Name the units of this very slide; if these are, call "
            f'it {name} in uns["spatial"].'
        )


def _check_distance(units: Units, mpp: float) -> None:
    """Refuse units whose neighbours lie much closer than their size: they were registered on a smaller picture."""
    if len(units) < 2:
        return
    sample = units.centers_px[:: max(len(units) // 20_000, 1)]  # a tenth of a second, however many
    nearest = cKDTree(units.centers_px).query(sample, k=2)[0][:, 1] * mpp
    if np.median(nearest) < 0.65 * units.size_um:
        raise InputError(
            f"{units.name}: units of {units.size_um:g} µm lie {np.median(nearest):.3g} µm apart. "
            f"Positions must be (x, y) in level-0 pixels of a slide of {mpp:.4g} µm per pixel; was a smaller picture "
            "registered, or is the size or mpp wrong?"
        )


@dataclass
class _TrainingSlide:
    """A slide and its units, a layer for each size of the data set; sizes that it lacks are layers without units."""

    record: Mapping[str, Any]
    mpp: float
    layers: list[Units]
    size_factor: list[float]


class CropDataset(Dataset):
    """Random crops around the measured units of training slides.

    Everything random derives from (seed, epoch, item), so a run can stop after any epoch and go on the same.

    Units of several sizes may lie in one crop. Depth is one size factor per slide and unit size. A unit below 55 µm is
    not `normalised`, if the head gives `rates`: its counts are learnt, zeros included, and not y, which is a logarithm
    of noise there.

    Args:
        data: training records (see `bundle.data.manifest`).
        panel: the genes to predict.
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
            layers = [u.take(self._eligible(u)) for u in slide_units(record, slide, unit_sizes_um)]
            if not any(len(u) for u in layers):
                raise InputError(f"{record['image']} has no unit with {panel.min_total:g} counts on tissue; remove it.")
            found.append((record, slide.mpp, layers))
        self.sizes_um = sorted({u.size_um for _, _, layers in found for u in layers}, reverse=True)
        if not self.rates and self.sizes_um[-1] < LARGE_UNIT_UM <= self.sizes_um[0]:
            raise InputError(
                f"Units of {self.sizes_um[0]:g} and {self.sizes_um[-1]:g} µm cannot be trained on together by the head "
                f"linear, for which a unit below {LARGE_UNIT_UM:g} µm is noise. Choose head=programs, or one size."
            )
        self._slides = [_TrainingSlide(record, mpp, *self._layers(layers)) for record, mpp, layers in found]

    def _eligible(self, units: Units) -> np.ndarray:
        keep = eligible(units, self.panel.min_total)
        if self.rates and units.size_um < LARGE_UNIT_UM:  # that nothing was counted is a measurement too
            keep = eligible(units, self.panel.min_total, training=False)
        return keep

    def _layers(self, found: Sequence[Units]) -> tuple[list[Units], list[float]]:
        """One layer per size of the data set, coarsest first, and their size factors."""
        by_size = {units.size_um: units for units in found}
        none = found[0].take(np.zeros(0, int))
        layers = [by_size.get(size, replace(none, size_um=size)) for size in self.sizes_um]
        depth = self.panel.depth_per_um2
        return layers, [float(u.total.mean() / u.area_um2 / depth) if len(u) else 1.0 for u in layers]

    def __len__(self) -> int:
        return len(self._slides) * self.crops_per_slide

    def set_epoch(self, epoch: int) -> None:
        """Draw another epoch's crops."""
        self.epoch = int(epoch)

    def whole_slides(self) -> Iterator[dict[str, Any]]:
        """The slides, each with the units of its coarsest size that crops teach, as `SlideDataset` gives them."""
        for slide in self._slides:
            yield {**slide.record, "mpp": slide.mpp, "units": next(units for units in slide.layers if len(units))}

    def _slide_of(self, item: int) -> int:
        """Neighbouring items are of different slides, and every rank of a distributed sampler sees all of them."""
        n = len(self._slides)
        return (item + item // n) % n

    def __getitem__(self, item: int) -> dict[str, Any]:
        rng = np.random.default_rng([self.seed, self.epoch, item])
        number = self._slide_of(item)
        slide = self._slides[number]
        measured = [units for units in slide.layers if len(units)]
        focus = measured[rng.integers(len(measured))]
        center_px = focus.centers_px[rng.integers(len(focus))] * slide.mpp / self.mpp
        origin_px = np.floor(center_px - rng.uniform(0.15, 0.85, 2) * self.crop_px).astype(int)
        low_um, high_um = origin_px * self.mpp, (origin_px + self.crop_px) * self.mpp
        layers, targets, totals, factors, normalised = [], [], [], [], []
        for units, factor in zip(slide.layers, slide.size_factor, strict=True):
            at_um = units.centers_px * slide.mpp
            index = np.flatnonzero(((at_um > low_um) & (at_um < high_um)).all(1))
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


class SlideDataset(Dataset):
    """Whole slides with the units to answer for; pixels are read by the inferer, tile by tile.

    Args:
        data: records (see `bundle.data.manifest`).
        reader: opens slides.
        panel: gives the filter of units; needed where the units are to be scored.
        size_um: size of the units to answer for; each slide's coarsest by default.
        picture_px: the longer side of the small picture that a prediction keeps of its slide; 0 is none.
        scales_um: sides of the cells that units will be summed to.

    Raises:
        InputError: if a slide's counts are no measurements, lack most genes of the panel or are coarser than a scale.
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        reader: SlideOpener,
        panel: GenePanel,
        size_um: float | None = None,
        picture_px: int = 0,
        scales_um: Sequence[float] = (),
    ) -> None:
        self.data = list(data)
        self.picture_px = picture_px
        self.reader = reader
        self.panel = panel
        self.sizes_um = None if size_um is None else [size_um]
        for record in self.data:  # told now, and not after hours of training
            slide = reader.open(record["image"], record.get("mpp"))
            for units in slide_units(record, slide, self.sizes_um):
                units.check_counts()
                units.check_panel(panel.genes, "scores")
                units.check_scales(scales_um)
                if not eligible(units, panel.min_total, training=False).any():
                    raise InputError(
                        f"{units.name}: none of its {len(units)} units can be scored; they need {panel.min_total:g} "
                        "counts on tissue. Take the slide out of this split, or train with a lower min_total."
                    )

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, item: int) -> dict[str, Any]:
        record = self.data[item]
        slide = self.reader.open(record["image"], record.get("mpp"))
        units = slide_units(record, slide, self.sizes_um)
        keep = eligible(units[0], self.panel.min_total, training=False)
        picture = {}
        if self.picture_px:
            pixels, mpp = slide.thumbnail(self.picture_px)
            picture = {"hires": pixels, "hires_scale": slide.mpp / mpp}
        return {
            **record,
            **picture,
            "index": item,
            "section": slide_name(record),
            "patient": str(record.get("patient", "unknown")),
            "mpp": slide.mpp,
            "units": units[0].take(keep),
            "filtered_units": int((~keep).sum()),
        }


def collate_units(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Batch samples: images and masks are stacked, units concatenated with `unit_batch` saying whose they are.

    `unit_group` numbers slide and unit size, so that two crops of one slide share their Pearson term.
    """
    n_layers = max(s["label"].shape[0] for s in samples)
    labels = []
    for sample in samples:
        label = torch.as_tensor(sample["label"]).as_subclass(torch.Tensor)
        missing = torch.zeros((n_layers - label.shape[0], *label.shape[1:]), dtype=label.dtype)
        labels.append(torch.cat([label, missing]))
    batch: dict[str, Any] = {
        "image": torch.stack([torch.as_tensor(s["image"]).as_subclass(torch.Tensor) for s in samples]),
        "label": torch.stack(labels),
    }
    for key in ("target", "total", "size_factor", "normalised", "area_um2", "unit_layer", "unit_size", "unit_index"):
        if key in samples[0]:
            batch[key] = torch.cat([torch.as_tensor(s[key]) for s in samples])
    batch["unit_batch"] = torch.cat([torch.full((len(s["total"]),), i) for i, s in enumerate(samples)])
    slide = torch.cat([torch.full((len(s["total"]),), int(s["slide_index"])) for s in samples])
    size = batch.get("unit_size", batch["unit_layer"])
    batch["unit_group"] = slide * (int(size.amax()) + 1 if len(size) else 1) + size
    return batch


def take_one(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Collate for loaders of whole slides: one slide is one iteration."""
    (sample,) = samples
    return sample
