"""Which tissue is for training, inner validation and test: one fold per patient, or per section of the only patient."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.workload import her2st_folder
from bundle.data.manifest import SPLITS, read_manifest, slide_name
from bundle.errors import InputError
from bundle.files.atomic import write_json
from bundle.importing import prepare

__all__ = ["STAGES", "Fold", "make_folds", "open_data", "write_dataset"]

#: Screening is scored on the inner validation sections, final on the test sections.
STAGES = ("screening", "final")
#: Other keys of a data set that hold for all its slides.
_COMMON = ("name", "transcriptome")


@dataclass(frozen=True)
class Fold:
    """One way to hold out tissue.

    Attributes:
        name: the patient or section that is tested.
        training: records.
        validation: records of the inner validation, which recipes are chosen by.
        test: records that are scored once the recipe is fixed.
        split_by: `patient`, or `section` where all are one patient's.
    """

    name: str
    training: list[dict[str, Any]]
    validation: list[dict[str, Any]]
    test: list[dict[str, Any]]
    split_by: str

    def split(self, stage: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Records to train on and to score; the final stage trains on the inner validation too."""
        if stage == "screening":
            return self.training, self.validation
        return [*self.training, *self.validation], self.test


def make_folds(manifest: dict[str, Any]) -> list[Fold]:
    """Leave one patient out where there are several, else one section (and say so: `split_by` is `section`).

    The inner validation of a fold is the group after the tested one in natural order, cyclically. Where that leaves
    nothing to train on (two patients), it is the first section of the other patient.

    Raises:
        InputError: if there are fewer than three sections.
    """
    records = [
        {**r, "section": slide_name(r), "patient": str(r.get("patient", "unknown"))}
        for split in SPLITS
        for r in manifest[split]
    ]
    records.sort(key=lambda r: _natural(r["section"]))
    if len(records) < 3:
        raise InputError(
            f"A fold needs a section to train on, one to validate on and one to test; there are {len(records)}."
        )
    patients = sorted({r["patient"] for r in records}, key=_natural)
    split_by = "patient" if len(patients) > 1 else "section"
    names = patients if len(patients) > 1 else [r["section"] for r in records]
    groups = [[r for r in records if r[split_by] == name] for name in names]
    folds = []
    for number, name in enumerate(names):
        others = [groups[(number + step) % len(groups)] for step in range(1, len(groups))]
        if len(others) == 1:
            others = [others[0][:1], others[0][1:]]
        training = [r for group in others[1:] for r in group]
        if not training:
            raise InputError(f"Patient {name} cannot be tested: the only other patient has one section.")
        folds.append(Fold(name, training, others[0], groups[number], split_by))
    return folds


def _natural(name: str) -> list[Any]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def open_data(data: str | Path | None, work: Path) -> dict[str, Any]:
    """A data set's manifest; published files of Her2ST are prepared first.

    Args:
        data: a folder with `dataset.json` or with Her2ST's files; by default those of PIXNET_DATA.
        work: where prepared slides are kept.
    """
    root = her2st_folder() if data is None else Path(data)
    if root is None:
        raise InputError("Her2ST was not found: give --data, or set PIXNET_DATA to the folder that holds her2st.")
    if not (root / "dataset.json").is_file():
        prepared = work / "data"
        if not (prepared / "dataset.json").is_file():
            prepare(root, prepared, source="her2st", split_by="section")
        root = prepared
    return read_manifest(root)


def write_dataset(
    folder: Path, manifest: dict[str, Any], fold: Fold, training: Sequence[dict], scored: Sequence[dict]
) -> None:
    """Write a `dataset.json` with only the training and the scored slides, so that a run cannot reach others."""
    common = {key: manifest[key] for key in _COMMON if key in manifest}
    patients = [{r["patient"] for r in records} for records in (training, scored)]
    split_by = "patient" if fold.split_by == "patient" and not patients[0] & patients[1] else "section"
    # absolute paths, so that the folder may lie anywhere
    test, train = (
        [
            {**r, "image": str(Path(r["image"]).resolve()), "label": [str(Path(p).resolve()) for p in r["label"]]}
            for r in records
        ]
        for records in (scored, training)
    )
    write_json(
        folder / "dataset.json", {**common, "split_by": split_by, "training": train, "validation": [], "test": test}
    )
