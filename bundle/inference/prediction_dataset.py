"""What to predict of each slide: units of a file, lattices of units, the map."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from ..data.cells import is_cells, read_cells
from ..data.manifest import slide_name
from ..data.opening import OpenSlide, SlideOpener
from ..data.polygons import LabelSource
from ..data.section_identity import SectionIdentity, other_slide
from ..data.slide_units import slide_units
from ..data.tissue import TissueMap, tissue_fraction
from ..data.units import Units
from ..errors import InputError
from .lattices import GridUnits, UnitGrid, file_suffixes

__all__ = ["PredictionDataset", "UnitSet"]


@dataclass(frozen=True, eq=False)
class UnitSet:
    """The units of one output file: of one size, in the order in which they are written.

    Attributes:
        units: given units, or those of a lattice.
        suffix: what distinguishes its file from the slide's other files.
        tissue_fraction: share of each given unit that is tissue, (U,); a lattice knows its own.
        doubts: why they may not be units of this slide, in sentences.
    """

    units: Units | GridUnits
    suffix: str = ""
    tissue_fraction: np.ndarray | None = None
    doubts: tuple[str, ...] = ()

    @cached_property
    def digest(self) -> str:
        """Identifies these units among others of the same number and size."""
        if isinstance(self.units, GridUnits):
            return self.units.digest
        names = "\n".join(str(name) for name in self.units.barcodes).encode()
        places = np.ascontiguousarray(self.units.centers_px).tobytes() + self.units.areas_um2.tobytes()
        return hashlib.sha256(names + places).hexdigest()


class PredictionDataset(Dataset):
    """Slides with what to predict: units of a file, lattices over the tissue, the map.

    Args:
        data: records `{"image": path, "mpp": .., "label": units' .h5ad, or cells}`; `mpp` and `label` may be absent.
        reader: opens slides.
        tissue: from a picture, uint8 (3, h, w), and its mpp to a tissue mask, bool (1, h, w).
        grids: the arrangements of units where a record brings none.
        region_px: the map and the lattices of this rectangle alone, (x, y, width, height) in level-0 pixels; it does
            not select among given units.
        whole_map: the map itself is wanted, so it is required wherever there is tissue.
        labels: opens a label image of cells (`transforms.LabelImage` is one).
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        reader: SlideOpener,
        tissue: Callable[[np.ndarray, float], Any],
        grids: Sequence[UnitGrid] = (),
        region_px: Sequence[float] | None = None,
        whole_map: bool = False,
        labels: Callable[[Path], LabelSource] | None = None,
    ) -> None:
        self.data = list(data)
        self.reader = reader
        self.tissue = tissue
        self.grids = list(grids)
        self.region_px = None if region_px is None else [float(v) for v in region_px]
        if self.region_px is not None and (
            len(self.region_px) != 4 or not np.isfinite(self.region_px).all() or min(self.region_px[2:]) <= 0
        ):
            raise InputError(
                "A region is x,y,width,height in pixels of the slide's full resolution, the last two above 0."
            )
        self.whole_map = whole_map
        self.labels = labels

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, item: int) -> dict[str, Any]:
        """A slide, its tissue and its units.

        Returns:
            The record's keys, and `section` (the slide's name), `mpp`, `unit_sets` (a list of `UnitSet`), `tissue`
            (a `TissueMap`), `region_um` ((x, y, width, height) or None), `whole_map`, `doubts` (sentences), `stain`,
            `hires` and `hires_scale` (a small picture, and its pixels per level-0 pixel).

        Raises:
            InputError: if there is nothing to predict, or units or region do not suit the slide.
        """
        record = self.data[item]
        slide = self.reader.open(record["image"], record.get("mpp"))
        tissue = TissueMap(slide, self.tissue)
        name = slide_name(record)
        region_um = self._region_um(record, slide)
        if self.grids:
            lattices = [grid.over(tissue, name, region_um) for grid in self.grids]
            suffixes = file_suffixes(self.grids)
            unit_sets = [UnitSet(units, suffix) for units, suffix in zip(lattices, suffixes, strict=True)]
        elif record.get("label"):
            if region_um is not None and not self.whole_map:
                raise InputError(
                    "A region goes with bins, a lattice of spots or a map. PixNet predicts all units of a file: leave "
                    "the region out."
                )
            unit_sets = [self._given_units(record, slide, tissue, name)]
        elif self.whole_map:
            unit_sets = []
        else:
            raise InputError(
                f"{record['image']}: which units? Give --spots FILE.h5ad, --cells FILE.geojson, --spot-um D "
                "--pitch-um P, --bin-um B, or --map OUT.zarr."
            )
        return {
            **record,
            "section": name,
            "mpp": slide.mpp,
            "unit_sets": unit_sets,
            "tissue": tissue,
            "region_um": region_um,
            "whole_map": self.whole_map,
            "doubts": list(getattr(slide, "warnings", ())),
            "stain": tissue.stain,
            "hires": tissue.picture,
            "hires_scale": slide.mpp / tissue.mpp,
        }

    def _region_um(self, record: Mapping[str, Any], slide: OpenSlide) -> tuple[float, float, float, float] | None:
        """The region as far as it lies on the slide, in micrometres."""
        if self.region_px is None:
            return None
        size = slide.level_dimensions[0]
        x, y, width, height = self.region_px
        if x >= size[0] or y >= size[1] or min(x + width, y + height) <= 0:
            raise InputError(f"{record['image']} has {size} px; the region lies outside of it.")
        right, bottom = np.minimum((x + width, y + height), size)
        x, y = max(x, 0.0), max(y, 0.0)
        return (x * slide.mpp, y * slide.mpp, (right - x) * slide.mpp, (bottom - y) * slide.mpp)

    def _given_units(self, record: Mapping[str, Any], slide: OpenSlide, tissue: TissueMap, name: str) -> UnitSet:
        """The record's units, after a look at whether they are of this slide."""
        if is_cells(record["label"]):
            units = read_cells(record["label"], slide.mpp, slide.level_dimensions[0], self.labels)
        else:
            (units,) = slide_units(record, slide)
        fraction = tissue_fraction(tissue, units.centers_px * slide.mpp, units.shape, units.size_um)
        own = SectionIdentity.of_picture(Path(record["image"]).name, name, tissue.picture)
        differs, certain = other_slide(units.section, own)
        if certain:
            raise InputError(
                f"{differs}; barcodes repeat between sections. Give --spots of this very slide; if they are, name it "
                f'{name} in uns["spatial"].'
            )
        doubts = (f"{differs}; are the units of this very slide?",) if differs else ()
        return UnitSet(units, "", fraction, doubts)
