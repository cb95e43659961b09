"""Whole slides with their units, for evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch.utils.data import Dataset

from ..errors import InputError
from .manifest import slide_name
from .normalisation import eligible
from .opening import SlideOpener
from .panel import GenePanel
from .slide_units import slide_units

__all__ = ["SlideDataset"]


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
