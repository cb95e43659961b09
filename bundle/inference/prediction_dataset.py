"""What is asked of each slide: its units, given or on lattices, and its map."""

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
from ..data.opening import SlideOpener
from ..data.polygons import LabelSource
from ..data.section_identity import SectionIdentity, other_slide
from ..data.slide_units import slide_units
from ..data.tissue import TissueMap, tissue_fraction
from ..data.units import Units
from ..errors import InputError
from .lattices import GridUnits, UnitGrid, file_suffixes
from .required_blocks import blocks_of_grid, blocks_of_rectangle, blocks_of_tissue, blocks_of_units

__all__ = ["PredictionDataset", "Request"]


@dataclass(frozen=True, eq=False)
class Request:
    """Units of one size to answer for.

    Attributes:
        units: given units, or those of a lattice.
        suffix: what tells its file from the others of the same slide.
        tissue_fraction: share of each given unit that is tissue, (U,); a lattice knows its own.
        doubts: what makes it doubtful that they are of this slide, in sentences.
    """

    units: Units | GridUnits
    suffix: str = ""
    tissue_fraction: np.ndarray | None = None
    doubts: tuple[str, ...] = ()

    @cached_property
    def digest(self) -> str:
        """What tells these units from others of the same number and size."""
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
        region_px: the map and the lattices of this rectangle alone, (x, y, width, height) in level-0 pixels; given
            units are all answered for.
        whole_map: the map is asked for, so that it is needed wherever there is tissue.
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
        record = self.data[item]
        slide = self.reader.open(record["image"], record.get("mpp"))
        tissue = TissueMap(slide, self.tissue)
        name = slide_name(record)
        region_um = None
        if self.region_px is not None:
            x, y, width, height = self.region_px
            if (
                x >= slide.level_dimensions[0][0]
                or y >= slide.level_dimensions[0][1]
                or min(x + width, y + height) <= 0
            ):
                raise InputError(
                    f"{record['image']} has {slide.level_dimensions[0]} px; the region lies outside of it."
                )
            right, bottom = np.minimum((x + width, y + height), slide.level_dimensions[0])
            x, y = max(x, 0.0), max(y, 0.0)
            region_um = (x * slide.mpp, y * slide.mpp, (right - x) * slide.mpp, (bottom - y) * slide.mpp)
        if self.grids:
            lattices = [grid.over(tissue, name, region_um) for grid in self.grids]
            requests = [
                Request(units, suffix) for units, suffix in zip(lattices, file_suffixes(self.grids), strict=True)
            ]
        elif record.get("label"):
            if region_um is not None and not self.whole_map:
                raise InputError(
                    "A region goes with bins, a lattice of spots or a map; given units are all answered for."
                )
            if is_cells(record["label"]):
                units = read_cells(record["label"], slide.mpp, slide.level_dimensions[0], self.labels)
            else:
                (units,) = slide_units(record, slide)
            fraction = tissue_fraction(tissue, units.centers_px * slide.mpp, units.shape, units.size_um)
            told, certain = other_slide(
                units.section, SectionIdentity.of_picture(Path(record["image"]).name, name, tissue.picture)
            )
            if certain:
                raise InputError(
                    f"{told}; barcodes repeat between sections. Give --spots of this very slide; if they are, name it "
                    f'{name} in uns["spatial"].'
                )
            doubts = (f"{told}; are the units of this very slide?",) if told else ()
            requests = [Request(units, "", fraction, doubts)]
        elif self.whole_map:
            requests = []
        else:
            raise InputError(
                f"{record['image']}: which units? Give --spots FILE.h5ad, --cells FILE.geojson, --spot-um D "
                "--pitch-um P, --bin-um B, or --map OUT.zarr."
            )

        def blocks(side_um: float, cell_um: float) -> np.ndarray:
            """Blocks of the map that are needed, given a block's and a cell's side."""
            found = []
            for request in requests:
                if isinstance(request.units, GridUnits):
                    found.append(blocks_of_grid(request.units, side_um, cell_um))
                else:
                    found.append(blocks_of_units(request.units, slide.mpp, side_um, cell_um))
            if self.whole_map:
                found.append(
                    blocks_of_tissue(tissue, side_um, 0.0)
                    if region_um is None
                    else blocks_of_rectangle(region_um, side_um)
                )
            return np.unique(np.concatenate(found), axis=0)

        return {
            **record,
            "section": name,
            "mpp": slide.mpp,
            "requests": requests,
            "blocks": blocks,
            "region_um": region_um,
            "doubts": list(getattr(slide, "warnings", ())),
            "stain": tissue.stain,
            "hires": tissue.picture,
            "hires_scale": slide.mpp / tissue.mpp,
        }
