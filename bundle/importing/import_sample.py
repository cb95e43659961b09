"""Import one sample: its slide, its units and the check of both, unless that was done before."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..data.manifest import check_mpp
from ..data.opening import OpenSlide, SlideOpener
from ..data.spacing import nearest_um
from ..data.tissue import TissueMap
from ..errors import InputError
from ..files.atomic import file_state, read_state, write_json
from ..readers.pictures import as_slide, pixels_as_slide
from ..readers.registry import reader_of
from ..readers.sample import Options, Place, Sample, UnitTable
from ..writers.measured_units import write_units
from .check import Evidence, check_units, doubts_of, draw_overlay

__all__ = ["Imported", "Tools", "import_sample"]

FORMAT = 1  # raise when the same files would be written differently
HIRES_PX = 2000
_TOLERANCE = 0.05
#: This share of units may lie outside the picture; they are left out.
_STRAY = 0.01
#: Fewer genes than this are a targeted panel and no transcriptome.
_WHOLE_GENES = 5000


@dataclass(frozen=True)
class Tools:
    """What a configuration wires in.

    Attributes:
        reader: opens slides (`transforms.SlideReader`).
        tissue: finds tissue on a picture (`transforms.TissueMask`).
    """

    reader: SlideOpener
    tissue: Callable[[np.ndarray, float], Any]


@dataclass(frozen=True)
class Imported:
    """A sample as it was written.

    Attributes:
        name: of the sample.
        record: its record in `dataset.json`, without a split.
        layout: which reader read it.
        found: facts, in words.
        doubts: what may be wrong, in words.
        about: what it says about the data set.
        gap_um: distance of neighbouring units.
        size_px: width and height of the slide.
        kept: nothing had to be done.
    """

    name: str
    record: dict[str, Any]
    layout: str
    found: list[str]
    doubts: list[str]
    about: dict[str, Any]
    gap_um: float
    size_px: tuple[int, int]
    kept: bool = False


def import_sample(
    layout: str, place: Place, options: Options, out: str | Path, tools: Tools, strict: bool = False
) -> Imported:
    """Write one sample below `out`: slide, units, `checks/<name>.json` and the picture of the check.

    What was made of the same files with the same options before is kept.

    Args:
        layout: which reader reads it.
        place: where it lies.
        options: what the user says about it.
        out: the data set's folder.
        tools: what opens slides and finds tissue.
        strict: refuse a sample about which anything is doubtful.

    Raises:
        InputError: if the sample cannot be read, or its parts do not belong together.
    """
    out = Path(out)
    state_file = out / "checks" / f"{place.name}.json"
    made_from = _made_from(layout, place, options)
    before = read_state(state_file)
    if before.get("made_from") == made_from and _is_whole(before, out):
        done = Imported(**{key: before[key] for key in _KEPT}, kept=True)
        _refuse_doubts(done.name, done.doubts, strict)
        width, height = done.size_px  # a list in JSON
        record = {key: value for key, value in done.record.items() if key != "patient"}
        patient = options.patient or place.patient
        record |= {} if patient is None else {"patient": patient}
        return dataclasses.replace(done, record=record, size_px=(width, height))
    sample = reader_of(layout).read(place, options)
    done = _write(sample, layout, place, options, out, tools, made_from)
    image = sample.image
    assert image is not None
    write_json(
        state_file,
        {**{key: getattr(done, key) for key in _KEPT}, "made_from": made_from, "image": file_state(image)},
    )
    _refuse_doubts(done.name, done.doubts, strict)
    return done


_KEPT = ("name", "record", "layout", "found", "doubts", "about", "gap_um", "size_px")


def _refuse_doubts(name: str, doubts: list[str], strict: bool) -> None:
    if strict and doubts:
        raise InputError(f"{name}: {' '.join(doubts)} Leave --strict out to import it all the same.")


def _write(
    sample: Sample, layout: str, place: Place, options: Options, out: Path, tools: Tools, made_from: str
) -> Imported:
    if sample.image is None:
        raise InputError(f"{sample.name} has no picture. Name its H&E with --image.")
    found, doubts = list(sample.found), list(sample.doubts)
    check_mpp(options.mpp, sample.name)
    mpp = _agreed_mpp(sample, options)
    target = out / "slides" / f"{sample.name}.tif"
    if sample.pixels is None:
        picture = as_slide(sample.image, target, tools.reader, mpp)
    else:
        picture = pixels_as_slide(sample.pixels, target, mpp, made_from)
    found += picture.found
    slide = tools.reader.open(str(picture.path), picture.mpp)
    if not picture.rewritten:
        doubts += [str(warning) for warning in getattr(slide, "warnings", ())]
    mpp_from = "as given" if options.mpp else sample.mpp_from if mpp else "the picture's tags"
    found.append(f"{slide.mpp:.4g} µm per pixel ({mpp_from}).")
    tissue = TissueMap(slide, tools.tissue)
    hires, hires_mpp = slide.thumbnail(HIRES_PX)
    labels, coarsest = [], sample.coarsest
    gap_um = math.nan
    for table in sample.tables:
        is_coarsest = table is coarsest
        table = _on_slide(table, slide, sample, found)
        label = _label(sample, table)
        totals = write_units(
            out / label,
            table.blocks(),
            table.genes,
            table.barcodes,
            table.centers_px,
            shape=table.shape,
            size_um=table.size_um,
            mpp=slide.mpp,
            section=sample.name,
            gene_ids=table.gene_ids,
            in_tissue=table.in_tissue,
            array_xy=table.array_xy,
            polygons=table.polygons,
            hires=hires,
            hires_scale=slide.mpp / hires_mpp,
            extra={"made_from": made_from},
        )
        labels.append(label)
        found.append(_counts_in_words(table, totals))
        if is_coarsest:
            gap_um, evidence = _checked(table, totals, slide, sample, tissue, doubts)
            lines = [f"{sample.name}: {evidence.in_words}; {slide.mpp:.4g} µm per pixel", *doubts]
            found.append(f"{evidence.in_words[0].upper()}{evidence.in_words[1:]}.")
            draw_overlay(
                out / "checks" / f"{sample.name}.png",
                tissue.picture,
                tissue.mpp,
                table.centers_px * slide.mpp,
                totals,
                table.size_um,
                lines,
            )
    n_genes = len(set(coarsest.genes))
    about = {"transcriptome": "whole" if n_genes >= _WHOLE_GENES else "panel", **sample.about}
    record: dict[str, Any] = {
        "image": f"slides/{sample.name}.tif" if picture.rewritten else str(picture.path.resolve()),
        "label": labels[0] if len(labels) == 1 else labels,
        "section": sample.name,
    }
    patient = options.patient or place.patient
    if patient is not None:
        record["patient"] = patient
    record["mpp"] = slide.mpp
    return Imported(sample.name, record, layout, found, doubts, about, gap_um, slide.level_dimensions[0])


def _agreed_mpp(sample: Sample, options: Options) -> float | None:
    """The user's mpp or the sample's, if they agree; None to take that of the file's tags."""
    given = options.mpp
    if given is None or sample.mpp is None:
        return given or sample.mpp
    if abs(math.log(given / sample.mpp)) > _TOLERANCE:
        raise InputError(
            f"{sample.name}: --mpp says {given:g} µm per pixel, but {sample.mpp_from}, which makes {sample.mpp:.4g}. "
            "Leave --mpp out, or check that this is the picture that the positions were made for."
        )
    return given


def _on_slide(table: UnitTable, slide: OpenSlide, sample: Sample, found: list[str]) -> UnitTable:
    """The units that lie on the slide; a few at its edge, and those off the tissue, may lie outside."""
    size_px = slide.level_dimensions[0]
    if not len(table):
        raise InputError(f"{sample.name} holds no units ({table.name}).")
    bad = ~np.isfinite(table.centers_px).all(1)
    if bad.any():
        raise InputError(f"{sample.name}: {bad.sum():,} of {len(table):,} units ({table.name}) have no position.")
    outside = np.asarray(((table.centers_px < 0) | (table.centers_px > size_px)).any(1))
    if not outside.any():
        return table
    matters = outside if table.in_tissue is None else outside & table.in_tissue
    if matters.sum() > _STRAY * len(table) or outside.all():
        first = int(outside.argmax())
        x, y = table.centers_px[first]
        picture = Path(str(sample.image)).name
        raise InputError(
            f"{sample.name}: {outside.sum():,} of {len(table):,} {table.name} lie outside {picture} "
            f"({size_px[0]} x {size_px[1]} px); the first is {_text(table.barcodes[first])} at x = {x:.0f}, "
            f'y = {y:.0f}. Is it a reduced ("hires") picture, or another one? Take the full-resolution one that the '
            f"{table.name} were placed on."
        )
    found.append(f"{outside.sum():,} {table.name} outside the picture were left out.")
    return table.take(~outside)


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def _checked(
    table: UnitTable, totals: np.ndarray, slide: OpenSlide, sample: Sample, tissue: TissueMap, doubts: list[str]
) -> tuple[float, Evidence]:
    """The distance of neighbours and the evidence for the units' places; adds what is doubtful."""
    centers_um = table.centers_px * slide.mpp
    gap_um = nearest_um(centers_um)
    promised = sample.pitch_um or (table.size_um if table.shape == "square" else None)
    if promised and gap_um == gap_um and len(table) > 20 and gap_um < (1 - _TOLERANCE) * promised:
        doubts.append(
            f"Neighbouring units lie {gap_um:.3g} µm apart at {slide.mpp:.4g} µm per pixel, and should lie "
            f"{promised:g} µm apart: the scale may be {slide.mpp * promised / gap_um:.4g}."
        )
    elif promised and gap_um == gap_um and len(table) > 500 and gap_um > (1 + _TOLERANCE) * promised:
        doubts.append(
            f"Neighbouring units lie {gap_um:.3g} µm apart at {slide.mpp:.4g} µm per pixel, and most should lie "
            f"{promised:g} µm apart: the scale may be {slide.mpp * promised / gap_um:.4g}."
        )
    kept = np.ones(len(table), bool) if table.in_tissue is None else table.in_tissue
    size_um = (slide.level_dimensions[0][0] * slide.mpp, slide.level_dimensions[0][1] * slide.mpp)
    evidence = check_units(tissue, size_um, centers_um[kept], totals[kept], table.size_um)
    doubts += doubts_of(evidence)
    return promised or gap_um, evidence


def _counts_in_words(table: UnitTable, totals: np.ndarray) -> str:
    what = {"circle": "disks", "square": "squares", "polygon": "cells, median"}.get(table.shape, table.shape)
    genes = len(set(table.genes))
    summed = f" ({len(table.genes) - genes:,} of the same name were summed)" if genes < len(table.genes) else ""
    return (
        f"{len(table):,} {table.name} ({what} of {table.size_um:.4g} µm), {genes:,} genes{summed}, median "
        f"{np.median(totals):,.0f} counts."
    )


def _label(sample: Sample, table: UnitTable) -> str:
    is_spots = len(sample.tables) == 1 and table.name == "spots"
    return f"spots/{sample.name}.h5ad" if is_spots else f"units/{sample.name}_{table.name}.h5ad"


def _made_from(layout: str, place: Place, options: Options) -> str:
    """What tells a sample and its options from others: names, bytes and times of its files."""
    files: list[Path] = []
    for path in (*(place.files or (place.path,)), *options.paths):
        files += sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    states = [file_state(path) for path in files if path.exists()]
    asked = {key: str(value) for key, value in vars(options).items() if key not in ("patient", "only")}
    return hashlib.sha256(json.dumps([FORMAT, layout, place.name, str(place.hint), states, asked]).encode()).hexdigest()


def _is_whole(before: dict[str, Any], out: Path) -> bool:
    """Whether all that a state names is still there."""
    try:
        record = before["record"]
        labels = [record["label"]] if isinstance(record["label"], str) else record["label"]
        return (
            all(key in before for key in _KEPT)
            and file_state(before["image"][0]) == before["image"]
            and (out / record["image"]).is_file()
            and all(_label_of(out / label) == before["made_from"] for label in labels)
        )
    except (OSError, KeyError, TypeError, IndexError):
        return False


def _label_of(label: Path) -> str | None:
    try:
        with h5py.File(label) as file:
            return str(file["uns/made_from"].asstr()[()])
    except (OSError, KeyError):
        return None
