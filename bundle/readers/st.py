"""Legacy Spatial Transcriptomics: published data sets by their files' names, and any tables of counts and positions."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp

from ..data.spacing import nearest_um
from ..data.units import Shape
from ..errors import InputError, did_you_mean
from ..files.reading import check_file
from .legacy_st import SOURCES, Array, Section, Source, find_sections, genes_of, read_measurements
from .sample import Options, Place, Sample, UnitTable
from .tables import columns_of, pick, read_columns
from .tenx import clean_id, gene_features, read_matrix

__all__ = ["TITLE", "find", "read"]

TITLE = "legacy Spatial Transcriptomics (Her2ST, MOB, xfuse, or tables named by --counts and --positions)"


def find(src: Path, options: Options) -> list[Place]:
    """The sections of a known data set, or the one sample of two given tables."""
    if options.counts is not None and options.positions is not None:
        name = options.counts.name.split(".")[0]
        return [Place(name, src, (options.counts, options.positions))]
    if options.source is not None and options.source not in SOURCES:
        raise InputError(
            f'There is no source "{options.source}"; choose one of {", ".join(SOURCES)}.'
            f"{did_you_mean(options.source, SOURCES)}"
        )
    known = [SOURCES[options.source]] if options.source else [s for s in SOURCES.values() if _looks_like(src, s)]
    if not known:
        return []
    sections = find_sections(known[0], src)
    everyone = tuple(section.counts for section in sections)
    return [
        Place(s.name, s.counts.parent, (s.counts, s.spots, s.image), (known[0].name, s, everyone), s.patient)
        for s in sections
    ]


def _looks_like(src: Path, source: Source) -> bool:
    """Whether a folder holds counts and spots under the names of a known data set."""
    if not src.is_dir():
        return False
    names = {path.name for path in src.rglob("*.tsv*")}
    counts = [match for name in names if (match := re.fullmatch(source.counts, name))]
    tables = {source.spots.format(section=m.groupdict().get("section") or source.section) for m in counts}
    return any(name in names or f"{name}.gz" in names for name in tables)


def read(place: Place, options: Options) -> Sample:
    """Read one section, or the sample of two given tables."""
    if place.hint is None:
        return _read_tables(place, options)
    name, section, everyone = place.hint
    source = SOURCES[name]
    pitch_um = options.pitch_um or source.array.pitch_um
    stretch = pitch_um / source.array.pitch_um
    step = source.array.step_um
    diameter_um = options.size_um or source.array.spot_diameter_um
    array = Array((step[0] * stretch, step[1] * stretch), pitch_um, diameter_um)
    measured = read_measurements(section, array, options.mpp)
    # Tables of counts leave out the genes that their section never saw: they are zeros there.
    here = set(measured.genes)
    unseen = [gene for gene in _genes_of(everyone) if gene not in here]
    found = [f"{len(unseen):,} genes that only other sections saw are zeros here."] if unseen else []
    counts = sp.hstack([measured.counts, sp.csr_matrix((len(measured.spots), len(unseen)), dtype=np.float32)], "csr")
    spots = measured.spots
    centers_px = spots[["pixel_x", "pixel_y"]].to_numpy(np.float64)
    return Sample(
        place.name,
        options.image or section.image,
        measured.mpp,
        f"spots {pitch_um:g} µm apart",
        [
            UnitTable.of_matrix(
                counts,
                name="spots",
                shape="circle",
                size_um=array.spot_diameter_um,
                barcodes=spots.index.to_numpy(str),
                genes=[*measured.genes, *unseen],
                centers_px=centers_px,
                array_xy=spots[["x", "y"]].to_numpy(),
            )
        ],
        found=found,
        about={
            "name": source.name,
            "description": source.description,
            "reference": source.reference,
            "licence": source.licence,
            "transcriptome": source.transcriptome,
        },
    )


@lru_cache(maxsize=4)
def _genes_of(counts: tuple[Path, ...]) -> list[str]:
    return genes_of([Section("", "", path, path, path) for path in counts])


def _read_tables(place: Place, options: Options) -> Sample:
    """A sample of a table of counts (unit × gene) and a table of positions (x and y in pixels of the picture)."""
    assert options.counts is not None
    assert options.positions is not None
    found: list[str] = []
    counts, genes, ids, barcodes = _read_counts(options.counts, options, found)
    columns = columns_of(options.positions)
    x, y = (
        pick(options.positions, columns, options.columns.get(axis), names, f"{axis} in pixels of the picture")
        for axis, names in (
            ("x", ("pixel_x", "pxl_col_in_fullres", "x_px", "x", "X", "imagecol", "pxl_x")),
            ("y", ("pixel_y", "pxl_row_in_fullres", "y_px", "y", "Y", "imagerow", "pxl_y")),
        )
    )
    table = read_columns(options.positions)
    names = _names(table, options, columns)
    wanted, place_of = pd.Index(barcodes), pd.Index(names)
    if place_of.has_duplicates:
        raise InputError(
            f"{options.positions}: {place_of.duplicated().sum()} units occur twice; keep one row for each."
        )
    if wanted.isin(place_of).sum() < pd.Index(genes).isin(place_of).sum():  # gene × unit
        counts, genes, ids, wanted = sp.csr_matrix(counts.T), list(wanted), list(wanted), pd.Index(genes)
        found.append(f"{options.counts.name} is gene × unit; PixNet turned it.")
    row = place_of.get_indexer(wanted)
    known = row >= 0
    if known.sum() < 0.5 * min(len(wanted), len(place_of)):
        raise InputError(
            f"Only {known.sum()} of the {len(place_of)} units in {options.positions.name} are among the {len(wanted)} "
            f"rows of {options.counts.name} ({place_of[0]} there, {wanted[0]} here). Name the column of the units with "
            "--column barcode=NAME."
        )
    if not known.all():
        found.append(f"{(~known).sum()} units without a position were left out.")
    at = table.iloc[row[known]]
    centers_px = at[[x, y]].apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
    if options.size_um is None:
        raise InputError(f"{place.name}: say how large a unit is (--size-um), and --shape square if it is no disk.")
    mpp, mpp_from = options.mpp, "as given"
    if mpp is None and options.pitch_um is not None:
        nearest_px = nearest_um(centers_px)
        mpp, mpp_from = (
            options.pitch_um / nearest_px,
            f"units {options.pitch_um:g} µm apart lie {nearest_px:.4g} px apart",
        )
    shape: Shape = "square" if options.shape == "square" else "circle"
    return Sample(
        place.name,
        options.image,
        mpp,
        mpp_from,
        [
            UnitTable.of_matrix(
                counts[np.flatnonzero(known)],
                name="spots",
                shape=shape,
                size_um=options.size_um,
                barcodes=wanted[known].to_numpy(str),
                genes=genes,
                gene_ids=ids,
                centers_px=centers_px,
            )
        ],
        pitch_um=options.pitch_um,
        found=found,
    )


def _read_counts(
    path: Path, options: Options, found: list[str]
) -> tuple[sp.csr_matrix, list[str], list[str], list[str]]:
    """Counts (unit × gene), names and ids of the genes, and names of the units."""
    if path.suffix == ".h5" or path.is_dir() or path.name.removesuffix(".gz").endswith(".mtx"):
        matrix = read_matrix(path)
        features, genes, ids = gene_features(matrix, found, options.by_ids)
        names = [b.decode() if isinstance(b, bytes) else str(b) for b in matrix.barcodes]
        return sp.vstack(list(matrix.blocks(features)), "csr"), genes, ids, names
    check_file(path)
    header = columns_of(path)
    table = read_columns(path, header=None, skiprows=1)
    genes = header[1:] if len(header) == table.shape[1] else header  # R leaves the corner out
    values = table.iloc[:, 1:].to_numpy()
    if len(genes) != values.shape[1] or values.dtype.kind not in "iuf" or not values.size:
        raise InputError(
            f"{path} is not a table of counts: one row per unit, one column of numbers per gene, and names on both."
        )
    genes = [clean_id(name) for name in genes]
    return sp.csr_matrix(values.astype(np.float32)), genes, genes, [str(name) for name in table.iloc[:, 0]]


def _names(table: pd.DataFrame, options: Options, columns: list[str]) -> list[str]:
    """The units' names in a table of positions: a column of them, `XxY` of the array, or the first column."""
    assert options.positions is not None
    wanted = options.columns.get("barcode")
    known = ("barcode", "barcodes", "spot", "spot_id", "id", "name", "Unnamed: 0", "")
    if wanted or any(name in columns for name in known):
        column = pick(options.positions, list(map(str, table.columns)), wanted, known, "the units' names")
        return [str(v) for v in table[column]]
    first = table.columns[0]
    if {"x", "y"} <= set(columns) and first == "x" and {"pixel_x", "pixel_y"} <= set(columns):
        places = table[["x", "y"]].apply(pd.to_numeric, errors="coerce").round().astype("Int64")
        return [f"{a}x{b}" for a, b in zip(places["x"], places["y"], strict=True)]
    return [str(v) for v in table[first]]
