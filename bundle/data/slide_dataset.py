"""Whole slides with their units, for evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from ..errors import InputError
from .manifest import slide_name
from .normalisation import passes_quality_control
from .opening import SlideOpener
from .panel import GenePanel
from .slide_units import slide_units
from .units import Units

__all__ = ["SlideDataset"]


class SlideDataset(Dataset):
    """Whole slides with the units to score; the inferer reads pixels, tile by tile.

    The units are read once, when the data set is made: whatever is wrong with them shows then, and not after hours of
    training. What is scored of them stays in memory: the panel's genes, of the units that pass quality control.

    Args:
        data: records (see `bundle.data.manifest`).
        reader: opens slides.
        panel: the genes that are scored, and the filter of units.
        size_um: size of the units to score; each slide's coarsest by default.
        picture_px: the longer side of the small picture that a prediction keeps of its slide; 0 is none.
        scales_um: sides of the grid squares that units will be binned to.

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
        self.size_um = size_um
        self.scales_um = list(scales_um)
        self._scored = [self._read(record) for record in self.data]

    def _read(self, record: Mapping[str, Any]) -> tuple[Units, int]:
        """A slide's units that are scored, and how many are not."""
        slide = self.reader.open(record["image"], record.get("mpp"))
        units = slide_units(record, slide, None if self.size_um is None else [self.size_um])[0]
        units.check_counts()
        units.check_panel(self.panel.genes, "scores")
        units.check_scales(self.scales_um)
        keep = passes_quality_control(units, self.panel.min_total, training=False)
        if not keep.any():
            raise InputError(
                f"{units.name}: none of its {len(units)} units can be scored; they need {self.panel.min_total:g} "
                "counts on tissue. Take the slide out of this split, or train with a lower min_total."
            )
        return units.with_genes(self.panel.genes).take(keep), int(np.sum(~keep))

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, item: int) -> dict[str, Any]:
        record = self.data[item]
        slide = self.reader.open(record["image"], record.get("mpp"))
        units, filtered = self._scored[item]
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
            "units": units,
            "filtered_units": filtered,
        }
