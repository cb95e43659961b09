"""From the files a study published to a data set: `prepare(source, src, out)`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..data.manifest import SPLITS, check_splits, write_manifest
from ..data.splits import assign, bands, check_split_by
from ..errors import InputError
from ..files.ownership import check_folder, claim
from .legacy_st import SOURCES, convert_section, find_sections, genes_of

__all__ = ["SOURCES", "prepare"]


def prepare(
    source: str,
    src: str | Path,
    out: str | Path,
    *,
    validation: Sequence[str] = (),
    test: Sequence[str] = (),
    split_by: str | None = None,
    mpp: float | None = None,
    pitch_um: float | None = None,
    spot_diameter_um: float | None = None,
) -> Path:
    """Turn a published data set into slides, units and `dataset.json`.

    It can be interrupted and started again: sections that are done are kept.

    Args:
        source: which data set, a key of `SOURCES`.
        src: folder with its files.
        out: folder to write.
        validation: patients or sections (see `split_by`) for validation.
        test: those for the test; the rest is for training.
        split_by: `patient` (default), `section`, or `block` (bands of every slide).
        mpp: micrometres per pixel of the pictures; by default the array's pitch gives it.
        pitch_um: distance between neighbouring spots, if unlike the source's.
        spot_diameter_um: diameter of a spot, if unlike the source's.

    Returns:
        Path of `dataset.json`.

    Raises:
        InputError: if the files are incomplete or do not belong together, or the splits leak.
    """
    if source not in SOURCES:
        raise InputError(f'There is no source "{source}"; choose one of {", ".join(SOURCES)}.')
    known = SOURCES[source]
    split_by = split_by or "patient"
    check_split_by(split_by, bool(validation or test))
    check_folder(out, src)
    sections = find_sections(known, src)
    records: list[dict[str, Any]] = [
        {
            "image": f"slides/{section.name}.tif",
            "label": f"spots/{section.name}.h5ad",
            "section": section.name,
            "patient": section.patient,
        }
        for section in sections
    ]
    splits: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    if split_by != "block":
        splits = assign(records, split_by, validation, test)
        check_splits({"split_by": split_by, **splits}, str(src))  # before an hour of writing slides
    claim(out, "data set", ("slides", "spots", "dataset.json"), {"dataset.json": _is_prepared})
    genes = genes_of(sections)
    for record, section in zip(records, sections, strict=True):
        converted = convert_section(
            section, out, known.array, mpp=mpp, pitch_um=pitch_um, spot_diameter_um=spot_diameter_um, genes=genes
        )
        record["mpp"] = converted.mpp
        if split_by == "block":
            gap_px = (pitch_um or known.array.pitch_um) / converted.mpp
            for split, block in bands(converted.centers_px, converted.size_px, gap_px).items():
                splits[split].append({**record, "block": block})
    return write_manifest(
        out,
        {
            "name": known.name,
            "description": known.description,
            "reference": known.reference,
            "licence": known.licence,
            "modality": {"0": "H&E"},
            "transcriptome": known.transcriptome,
            "split_by": split_by,
            **{f"num{split.capitalize()}": len(splits[split]) for split in SPLITS},
            **splits,
        },
    )


def _is_prepared(manifest: dict[str, Any]) -> bool:
    """Whether a manifest is one of these, and not one that a user wrote."""
    written = {"split_by", "reference", "licence", *(f"num{split.capitalize()}" for split in SPLITS)}
    return manifest.get("name") in {known.name for known in SOURCES.values()} and written <= manifest.keys()
