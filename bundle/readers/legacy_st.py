"""Sections in the legacy Spatial Transcriptomics array form: a picture, a table of counts and a table of spots.

The counts are spot (`XxY`, its place on the array) × gene; the spots give that place (`x`, `y`, and fitted `new_x`,
`new_y`), the centre in picture pixels (`pixel_x`, `pixel_y`) and, in most sources, whether it is `selected`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from scipy.optimize import least_squares

from ..errors import InputError
from ..files.reading import check_file, reading

__all__ = [
    "SOURCES",
    "Array",
    "Measurements",
    "Section",
    "Source",
    "find_sections",
    "genes_of",
    "read_measurements",
]

TOLERANCE = 0.05
_ENSEMBL = re.compile(r"^(ENS[A-Z]*G\d{11})\.\d+$")


@dataclass(frozen=True)
class Array:
    """A printed array of spots.

    Attributes:
        step_um: distance of one step of the array's x and of its y.
        pitch_um: distance between the centres of neighbouring spots.
        spot_diameter_um: diameter of a spot.
    """

    step_um: tuple[float, float]
    pitch_um: float
    spot_diameter_um: float


# Ståhl et al. 2016: 33 × 35 spots of 100 µm, 200 µm apart (6.4 × 6.8 mm).
ARRAY_1K = Array((200.0, 200.0), 200.0, 100.0)
# The denser print: every other site of 66 × 63 on the same 6.4 × 6.8 mm, so x and y steps differ by 11 %.
ARRAY_2K = Array((6400 / 65, 6800 / 62), math.hypot(6400 / 65, 6800 / 62), 100.0)


@dataclass(frozen=True)
class Source:
    """A published data set in this form: what its files are called and what the manifest says of it.

    Attributes:
        counts: regular expression of the counts' file names; the group `section`, if any, is the section's name.
        example: such a file name, for messages.
        spots: name of the table of spots, `{section}` standing for the section's name.
        image: stem of the picture; a folder of the section's name may hold a picture of any name instead.
        section: the section's name where `counts` has no such group.
        patient: regular expression that matches the patient at the beginning of a section's name.
        transcriptome: `whole`, or `panel` where only some genes were published.
    """

    name: str
    description: str
    reference: str
    licence: str
    array: Array
    counts: str
    example: str
    spots: str
    image: str
    patient: str
    transcriptome: str
    section: str = ""


SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        Source(
            name="her2st",
            description="HER2-positive breast tumours, Spatial Transcriptomics",
            reference="Andersson et al., Nature Communications 12, 6012 (2021); github.com/almaan/her2st",
            licence="none stated by the repository; do not redistribute",
            array=ARRAY_1K,
            counts=r"(?P<section>[A-Z]\d+)\.tsv(\.gz)?",
            example="A1.tsv.gz",
            spots="{section}_selection.tsv",
            image="{section}",
            patient=r"[A-Z]",
            transcriptome="whole",
        ),
        Source(
            name="mob",
            description="Mouse olfactory bulb, Spatial Transcriptomics 2K arrays, 1,000 genes",
            reference="Bergenstråhle et al., BMC Genomics 21, 482 (2020); github.com/jbergenstrahle/STUtility",
            licence="MIT (the package that carries it)",
            array=ARRAY_2K,
            counts=r"(?P<section>MOB\d+)\.tsv(\.gz)?",
            example="MOB1.tsv",
            spots="alignment_table_{section}.tsv",
            image="{section}",
            patient=r"MOB",
            transcriptome="panel",
        ),
        Source(
            name="xfuse",
            description="Mouse olfactory bulb, Spatial Transcriptomics, one section and 10 genes",
            reference="Bergenstråhle et al., Nature Biotechnology 40, 476 (2022); github.com/ludvb/xfuse",
            licence="MIT (the package that carries it)",
            array=ARRAY_1K,
            counts=r"counts\.tsv(\.gz)?",
            example="counts.tsv",
            spots="spots.tsv",
            image="image",
            patient=r"MOB",
            transcriptome="panel",
            section="MOB",
        ),
    )
}


@dataclass(frozen=True)
class Section:
    """The three files of one section."""

    name: str
    patient: str
    counts: Path
    spots: Path
    image: Path


@dataclass(frozen=True)
class Measurements:
    """What the two tables of a section say.

    Attributes:
        counts: raw counts, CSR (U, G).
        genes: symbols, or Ensembl ids without version; may repeat, (G,).
        spots: the table of spots, named XxY, (U, columns).
        mpp: micrometres per pixel of the picture.
    """

    counts: sp.csr_matrix
    genes: list[str]
    spots: pd.DataFrame
    mpp: float


def find_sections(source: Source, src: str | Path) -> list[Section]:
    """Find the sections of `source` anywhere below `src`, in natural order of their names.

    Raises:
        InputError: if there is none, or one lacks its spots or its picture, or has several.
    """
    root = Path(src)
    if not root.is_dir():
        raise InputError(f"There is no folder {root}; give the folder that holds the files of {source.name}.")
    files = sorted(p for p in root.rglob("*") if p.is_file())
    counts: dict[str, list[Path]] = {}
    for path in files:
        if match := re.fullmatch(source.counts, path.name):
            counts.setdefault(match.groupdict().get("section") or source.section, []).append(path)
    if not counts:
        raise InputError(
            f"No counts of {source.name} below {root}: no file there is named like {source.example}. "
            "Check the source, or give the folder that holds the counts, the spots and the pictures."
        )
    sections = []
    for name in sorted(counts, key=lambda s: [int(t) if t.isdigit() else t for t in re.split(r"(\d+)", s)]):
        table = source.spots.format(section=name)
        stem = source.image.format(section=name)
        spots = [p for p in files if p.name in (table, table + ".gz")]
        pictures = [p for p in files if p.suffix.lower() in (".jpg", ".jpeg")]
        images = [p for p in pictures if p.stem == stem] or [p for p in pictures if p.parent.name == name]
        patient = re.match(source.patient, name)
        assert patient is not None, f"{name} does not begin with {source.patient}"
        sections.append(
            Section(
                name,
                patient.group(),
                _only(counts[name], f"table of counts of section {name}", counts[name][0].name, root),
                _only(spots, f"table of spots of section {name}", table, root),
                _only(images, f"picture of section {name}", f"{stem}.jpg (or any .jpg in a folder {name})", root),
            )
        )
    return sections


def _only(paths: list[Path], what: str, expected: str, root: Path) -> Path:
    if not paths:
        raise InputError(f"The {what} is missing: put {expected} below {root}, or remove the section's counts.")
    if len(paths) > 1:
        names = ", ".join(str(p.relative_to(root)) for p in paths[:3])
        raise InputError(f"{root} holds {len(paths)} files that could be the {what} ({names}); keep one of them there.")
    return paths[0]


def genes_of(sections: Sequence[Section]) -> list[str]:
    """Every gene that a table of one of the sections names, in their order.

    Tables of counts leave out the genes that their section never saw.

    Raises:
        InputError: if a table cannot be read.
    """
    return list(dict.fromkeys(gene for section in sections for gene in _read_genes(section.counts)))


def read_measurements(section: Section, array: Array, mpp: float | None = None) -> Measurements:
    """Read the counts of a section's spots and derive the picture's scale.

    Spots without counts and spots that are not selected are left out, as are counts without a spot.

    Raises:
        InputError: if a table cannot be read, the two do not belong together, or they contradict the array or `mpp`.
    """
    counts, genes, barcodes = _read_counts(section.counts)
    spots = _read_spots(section.spots)
    known = spots.index.isin(barcodes)
    if known.sum() < 0.5 * min(len(spots), len(barcodes)):
        raise InputError(
            f"Section {section.name}: only {known.sum()} of the {len(spots)} spots in {section.spots.name} are among "
            f"the {len(barcodes)} rows of {section.counts.name} ({spots.index[0]} there, {barcodes[0]} here). Rows are "
            "named XxY, the spot's x and y; are both tables of this section, and are the genes columns?"
        )
    spots = spots[known]
    if "selected" in spots:
        spots = spots[spots["selected"] == 1]
    if spots.empty:
        raise InputError(f"{section.spots}: no spot with counts has selected = 1; mark the spots that lie on tissue.")
    from_array = _mpp_from_array(section, spots, array)
    if mpp is None and from_array is None:
        raise InputError(
            f"Section {section.name}: its {len(spots)} spots lie on one line of the array and cannot give the "
            "picture's scale; give its micrometres per pixel with --mpp."
        )
    if mpp is not None and from_array is not None and abs(math.log(mpp / from_array)) > TOLERANCE:
        raise InputError(
            f"Section {section.name}: --mpp says {mpp:g} µm per pixel, but spots {array.pitch_um:g} µm apart say "
            f"{from_array:.3g}. Leave --mpp out, or give the array's own pitch with --pitch-um."
        )
    scale = mpp or from_array
    assert scale is not None
    return Measurements(counts[pd.Index(barcodes).get_indexer(spots.index)], genes, spots, scale)


def _read_table(path: Path, **options: Any) -> pd.DataFrame:
    check_file(path)
    with reading(path, "cannot be read as a tab-separated table", "Copy it again."):
        return pd.read_csv(path, sep="\t", **options)


def _read_genes(path: Path) -> list[str]:
    # The header apart: pandas renames a gene that occurs twice to "<gene>.1", which looks like a version.
    header = [str(v) for v in _read_table(path, header=None, nrows=1, dtype=str, keep_default_na=False).iloc[0]]
    columns = _read_table(path, header=None, skiprows=1, nrows=1).shape[1]
    genes = header[1:] if len(header) == columns else header  # R leaves the corner out
    return [_ENSEMBL.sub(r"\1", gene) for gene in genes]


def _read_counts(path: Path) -> tuple[sp.csr_matrix, list[str], list[str]]:
    genes = _read_genes(path)
    table = _read_table(path, header=None, skiprows=1, index_col=0, low_memory=False)
    values = table.to_numpy()
    if len(genes) != table.shape[1] or values.dtype.kind not in "iuf" or not table.size:
        raise InputError(
            f"{path} is not a table of counts: one row per spot (named XxY), one column of numbers per gene, and the "
            "genes' names in the first line. Copy it again."
        )
    if not np.isfinite(values).all() or (values < 0).any() or (values != np.rint(values)).any():
        raise InputError(f"{path} holds negative, fractional or missing values; give the raw counts.")
    barcodes = [str(name) for name in table.index]
    if len(set(barcodes)) < len(barcodes):
        raise InputError(f"{path}: {len(barcodes) - len(set(barcodes))} spots occur twice; keep one row for each spot.")
    return sp.csr_matrix(values.astype(np.float32)), genes, barcodes


def _read_spots(path: Path) -> pd.DataFrame:
    spots = _read_table(path)
    missing = [c for c in ("x", "y", "pixel_x", "pixel_y") if c not in spots]
    if missing:
        raise InputError(
            f"{path} has no column {', '.join(missing)} (it has {', '.join(map(str, spots.columns[:8]))}); the table "
            "of spots needs x and y on the array and pixel_x and pixel_y in the picture."
        )
    numbers = [c for c in ("x", "y", "new_x", "new_y", "pixel_x", "pixel_y") if c in spots]
    spots[numbers] = spots[numbers].apply(pd.to_numeric, errors="coerce")
    bad = ~np.isfinite(spots[numbers].to_numpy(float)).all(1)
    if bad.any() or spots.empty:
        raise InputError(f"{path}: {bad.sum()} of {len(spots)} rows lack one of {', '.join(numbers)}; complete them.")
    spots[["x", "y"]] = spots[["x", "y"]].round().astype(int)
    spots.index = pd.Index([f"{x}x{y}" for x, y in zip(spots["x"], spots["y"], strict=True)])
    if spots.index.has_duplicates:
        twice = spots.index[spots.index.duplicated()]
        raise InputError(f"{path}: {len(twice)} spots occur twice (first: {twice[0]}); keep one row for each spot.")
    return spots


def _mpp_from_array(section: Section, spots: pd.DataFrame, array: Array) -> float | None:
    """Micrometres per pixel from a robust affine fit of pixels on array places; None where they span no area."""
    columns = ["new_x", "new_y"] if {"new_x", "new_y"} <= set(spots) else ["x", "y"]
    place = spots[columns].to_numpy(np.float64)
    place -= place.mean(0)
    if len(place) < 3 or np.linalg.matrix_rank(place, tol=0.5) < 2:
        return None
    design = np.column_stack([place, np.ones(len(place))])
    pixels = spots[["pixel_x", "pixel_y"]].to_numpy(np.float64)
    start = np.linalg.lstsq(design, pixels, rcond=None)[0]
    spread = max(float(np.median(np.abs(pixels - design @ start))), 1e-3)
    fit = least_squares(
        lambda a: (design @ a.reshape(3, 2) - pixels).ravel(), start.ravel(), loss="soft_l1", f_scale=spread
    )
    step_px = np.linalg.norm(fit.x.reshape(3, 2)[:2], axis=1)
    if step_px.min() <= 0:
        return None
    along_x, along_y = np.array(array.step_um) / step_px
    if abs(math.log(along_x / along_y)) > TOLERANCE:
        raise InputError(
            f"Section {section.name}: along the array's x the spots' distance says {along_x:.3g} µm per pixel, along "
            f"its y {along_y:.3g}. Was {section.image.name} stretched after the spots were placed, or was another "
            "kind of array used?"
        )
    return float(math.sqrt(along_x * along_y))
