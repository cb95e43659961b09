"""The one thing that every reader hands over: a sample, which is a picture and the units measured on it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from ..data.polygons import Polygons
from ..data.units import Shape
from ..errors import InputError
from ..writers.tiff_pyramid import SliceableImage

__all__ = ["Options", "Place", "Sample", "UnitTable"]

_BLOCK_ROWS = 65_536


@dataclass(frozen=True)
class Place:
    """Where one sample lies, before anything but file names is read.

    Attributes:
        name: what the sample will be called.
        path: its folder, or the file that stands for it.
        files: the files it is made of; of a folder, all files below it. A sample is imported again if they change.
        hint: anything else that the reader wants to know again.
        patient: whose tissue it is, if the files say it.
        split: the split that the source puts it in, if it says.
    """

    name: str
    path: Path
    files: tuple[Path, ...] = ()
    hint: Any = None
    patient: str | None = None
    split: str | None = None


@dataclass(frozen=True)
class Options:
    """What a user may say about samples; each reader uses what concerns it.

    Attributes:
        image: the H&E picture, where the folder does not hold it.
        mpp: micrometres per pixel of the picture, where neither the units nor the file's tags say it.
        patient: whose tissue it is.
        name: what to call the sample.
        picture: `full` (default), or `hires` or `lowres` to use Space Ranger's reduced picture.
        units: which units: `spots`, `bins`, `cells` or `transcripts`; the reader's own choice by default.
        sizes_um: sides of the square bins that are wanted; by default all that are there, or 8 µm for transcripts.
        only: names of the samples to import; all by default.
        counts: table of counts, unit × gene.
        positions: table of units' positions.
        transcripts: table of transcripts.
        columns: the file's own names of columns: `x`, `y`, `gene`, and where needed `cell`, `barcode`, `count`, `qv`.
        preset: how a vendor names the columns of transcripts: `merscope`, `cosmx`, `stereo-seq` or `xenium`.
        transform: file of a 3 × 3 matrix that takes the table's (x, y, 1) to pixels of the picture.
        transform_inverted: the file holds the way back, from the picture's pixels.
        unit_um: micrometres that one step of the table's x and y means; 0 if they are pixels of the picture.
        origin: the table's (x, y) at the picture's upper left corner.
        min_qv: transcripts of a lower quality are dropped.
        shape: `circle` or `square`, where the files do not say it.
        size_um: diameter or side of a unit, where the files do not say it.
        pitch_um: distance of neighbouring spots, where it is unlike the technology's.
        layer: where an AnnData keeps raw counts: `X`, `raw`, or the name of a layer.
        gene_names: table that maps ids to symbols.
        by_ids: name genes by their ids although symbols are known.
        source: a published data set whose file names are known (`her2st`, `mob`, `xfuse`).
    """

    image: Path | None = None
    mpp: float | None = None
    patient: str | None = None
    name: str | None = None
    picture: str = "full"
    units: str | None = None
    sizes_um: tuple[float, ...] = ()
    only: tuple[str, ...] = ()
    counts: Path | None = None
    positions: Path | None = None
    transcripts: Path | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    preset: str | None = None
    transform: Path | None = None
    transform_inverted: bool = False
    unit_um: float | None = None
    origin: tuple[float, float] | None = None
    min_qv: float = 20.0
    shape: str | None = None
    size_um: float | None = None
    pitch_um: float | None = None
    layer: str | None = None
    gene_names: Path | None = None
    by_ids: bool = False
    source: str | None = None

    def __post_init__(self) -> None:
        for what in ("mpp", "size_um", "pitch_um"):
            value = getattr(self, what)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise InputError(f"{what} is {value}; it must be a positive number.")
        for what, allowed in (
            ("picture", ("full", "hires", "lowres")),
            ("units", (None, "spots", "bins", "cells", "transcripts")),
            ("shape", (None, "circle", "square")),
        ):
            if getattr(self, what) not in allowed:
                known = ", ".join(str(item) for item in allowed if item)
                raise InputError(f'{what} is "{getattr(self, what)}"; choose one of {known}.')

    @property
    def paths(self) -> list[Path]:
        """The files that the options name."""
        named = (self.image, self.counts, self.positions, self.transcripts, self.transform, self.gene_names)
        return [path for path in named if path is not None]


@dataclass
class UnitTable:
    """Measured units of one shape and size; their counts are read when they are written, block by block.

    Attributes:
        name: what tells it from the sample's other tables: `spots`, `square_008um`, `cells`.
        shape: `circle`, `square` or `polygon`.
        size_um: diameter or side; of polygons, the median diameter of disks of the same area.
        barcodes: the source's names of the units, (U,) of str or bytes.
        genes: symbols, or ids; may repeat, (G,).
        centers_px: (U, 2), (x, y) in pixels of the picture.
        blocks: gives the raw counts as CSR blocks of rows, in the order of `barcodes`, each time it is called.
        gene_ids: the source's ids, (G,).
        in_tissue: the source's mark, (U,) bool.
        array_xy: (U, 2), column and row on the array.
        polygons: of polygons.
    """

    name: str
    shape: Shape
    size_um: float
    barcodes: np.ndarray
    genes: Sequence[str]
    centers_px: np.ndarray
    blocks: Callable[[], Iterable[sp.csr_matrix]]
    gene_ids: Sequence[str] | None = None
    in_tissue: np.ndarray | None = None
    array_xy: np.ndarray | None = None
    polygons: Polygons | None = None

    def __len__(self) -> int:
        return len(self.barcodes)

    def take(self, kept: np.ndarray) -> UnitTable:
        """The units that a mask (U,) keeps."""

        def blocks() -> Iterator[sp.csr_matrix]:
            start = 0
            for block in self.blocks():
                yield block[np.flatnonzero(kept[start : start + block.shape[0]])]
                start += block.shape[0]

        return replace(
            self,
            barcodes=np.asarray(self.barcodes)[kept],
            centers_px=self.centers_px[kept],
            blocks=blocks,
            in_tissue=None if self.in_tissue is None else self.in_tissue[kept],
            array_xy=None if self.array_xy is None else self.array_xy[kept],
            polygons=None if self.polygons is None else self.polygons.take(kept),
        )

    @classmethod
    def of_matrix(cls, counts: sp.spmatrix, **options: Any) -> UnitTable:
        """A table whose counts, (U, G), are in memory already."""
        matrix = sp.csr_matrix(counts)

        def blocks() -> Iterator[sp.csr_matrix]:
            for start in range(0, matrix.shape[0], _BLOCK_ROWS):
                yield matrix[start : start + _BLOCK_ROWS]

        return cls(blocks=blocks, **options)


@dataclass
class Sample:
    """One picture with the units measured on it.

    Attributes:
        name: of the slide.
        image: the picture whose pixels the units' positions mean; None where there is none.
        mpp: micrometres per pixel of the picture; None to take what the file's tags say.
        mpp_from: where that comes from, in words.
        tables: the measured units, one table for each shape and size.
        pitch_um: the distance of neighbouring units that the technology promises, to check `mpp` against.
        found: facts for the user, in words.
        doubts: what may be wrong, in words.
        about: further keys for `dataset.json`: name, description, reference, licence, transcriptome.
        pixels: the picture itself, (height, width, 3) uint8 that is sliced, where `image` is no file.
    """

    name: str
    image: Path | None
    mpp: float | None
    mpp_from: str
    tables: list[UnitTable]
    pitch_um: float | None = None
    found: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    about: dict[str, Any] = field(default_factory=dict)
    pixels: SliceableImage | None = None

    @cached_property
    def coarsest(self) -> UnitTable:
        """The table with the largest units."""
        return max(self.tables, key=lambda table: table.size_um)
