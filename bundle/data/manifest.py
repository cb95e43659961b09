"""`dataset.json`: which slides a data set holds, whose they are, and which split they belong to.

The form is MONAI's decathlon datalist, with a patient and the slide's mpp for each image:
`{"training": [{"image": "slides/C2.tif", "label": "spots/C2.h5ad", "patient": "C", "mpp": 0.69}], ...}`.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..errors import InputError, short
from ..files.atomic import file_state, write_json
from ..files.checking import check
from ..files.naming import check_name
from ..files.reading import read_json

__all__ = [
    "SPLITS",
    "SPLIT_BY",
    "check_mpp",
    "check_splits",
    "patient_of",
    "read_manifest",
    "read_split",
    "slide_name",
    "slide_records",
    "summary",
    "write_manifest",
]

SPLITS = ("training", "validation", "test")
SPLIT_BY = ("patient", "section", "block")
_EXAMPLE = '{"image": "slides/C2.tif", "label": "spots/C2.h5ad", "patient": "C"}'
_NAME = {"type": "string", "minLength": 1, "maxLength": 4096}
#: The form of `dataset.json`; a description is what a message says that a value must be.
_FORM: dict[str, Any] = {
    "type": "object",
    "properties": {
        split: {
            "description": "a list of slides, [] for none",
            "type": "array",
            "items": {
                "description": f"a slide such as {_EXAMPLE}",
                "type": "object",
                "required": ["image"],
                "properties": {
                    "image": {"description": "the path of a slide", **_NAME},
                    "label": {
                        "description": "the path of a file of units, or a list of such",
                        "anyOf": [_NAME, {"type": "null"}, {"type": "array", "items": _NAME}],
                    },
                    "patient": {"description": "a name or a number", "type": ["string", "number", "null"]},
                    "mpp": {"description": "a number of µm per pixel, or left out", "type": ["number", "null"]},
                    "section": {"description": "a name", "type": ["string", "null"]},
                    "block": {
                        "description": "a rectangle [x0, y0, x1, y1] in level-0 pixels",
                        "type": "array",
                        "items": {"description": "a number", "type": "number", "minimum": -1e9, "maximum": 1e9},
                        "minItems": 4,
                        "maxItems": 4,
                    },
                },
            },
        }
        for split in SPLITS
    }
    | {"transcriptome": {"description": '"whole" or "panel"', "enum": ["whole", "panel"]}},
}
#: Keys of a record that have a meaning; others may be added.
RECORD_KEYS = {"image", "label", "patient", "mpp", "section", "block", "split_by", "transcriptome"}
SLIDE_ENDINGS = (".ome.tiff", ".ome.tif", ".tiff", ".tif", ".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".vms")


def slide_name(record: Mapping[str, Any]) -> str:
    """The slide's name: the record's `section`, else the image's file name without its ending.

    The names of blocks of one slide end with where they begin.
    """
    if record.get("section"):
        return str(record["section"])
    name = Path(record["image"]).name
    for ending in SLIDE_ENDINGS:
        if name.lower().endswith(ending) and len(name) > len(ending):
            name = name[: -len(ending)]
            break
    return name + "".join(f"_{v:g}" for v in record.get("block", [])[:2])


def check_mpp(mpp: float | None, what: str) -> None:
    """Refuse a scale that no picture of a slide has.

    Raises:
        InputError: if it is not from 0.01 to 1,000 µm per pixel.
    """
    if mpp is not None and not 0.01 <= mpp <= 1000:
        raise InputError(f"{what}: mpp={mpp:g} is no scale of a slide (most have 0.2 to 1 µm per pixel). Correct it.")


def patient_of(record: Mapping[str, Any]) -> str:
    """Whose tissue a record is; a slide whose patient is not named counts as a patient of its own."""
    patient = record.get("patient")
    return f"unknown, of {record['image']}" if patient is None else str(patient)


def check_splits(manifest: dict[str, Any], where: str) -> None:
    """Refuse a data set whose splits leak.

    Raises:
        InputError: if a patient is in two splits although the split is by patient, or a slide is listed twice.
    """
    check(manifest, _FORM, where, advice=f"A slide is such as {_EXAMPLE}.")
    split_by = manifest.get("split_by", "patient")
    if split_by not in SPLIT_BY:
        raise InputError(f'{where}: split_by is "{split_by}"; it must be one of {", ".join(SPLIT_BY)}.')
    slides: dict[str, list[tuple[str, Any]]] = {}
    names: dict[tuple[str, str], str] = {}
    patients: dict[str, str] = {}
    for split in SPLITS:
        for record in manifest.get(split, []):
            check_mpp(record.get("mpp"), f"{where}, {record['image']}")
            for key in set(record) - RECORD_KEYS:
                close = difflib.get_close_matches(key, RECORD_KEYS, 1, 0.75)
                if close:
                    raise InputError(f'{where}: {record["image"]} has a key "{key}"; did you mean "{close[0]}"?')
            image, block = os.path.normpath(record["image"]), record.get("block")
            for other_split, other in slides.setdefault(image, []):
                if block is None or other is None or _overlap(block, other):
                    raise InputError(
                        f"{where}: {record['image']} is in {other_split} and again in {split}; list it once, or "
                        "as blocks that do not overlap."
                    )
            slides[image].append((split, block))
            if record.get("section") is not None:
                check_name(str(record["section"]), f"{where}, section of {record['image']}")
            name = slide_name(record)
            if names.setdefault((split, name), image) != image:
                raise InputError(
                    f"{where}: two slides of {split} are called {name} ({names[split, name]} and {image}); give them a "
                    '"section" each.'
                )
            patient = record.get("patient")
            if patient is None or split_by != "patient":
                continue
            if patients.setdefault(str(patient), split) != split:
                raise InputError(
                    f'{where}: patient "{patient}" is in both {patients[str(patient)]} and {split}, so a test would '
                    "see tissue it was trained on. Move all of a patient's slides into one split, or split by section: "
                    '"split_by": "section" in dataset.json, --split-by section of pixnet prepare (every result will '
                    "then say same_patient)."
                )


def _overlap(a: Sequence[float], b: Sequence[float]) -> bool:
    """Whether two rectangles [x0, y0, x1, y1] share more than an edge."""
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def read_manifest(dataset_dir: str | Path) -> dict[str, Any]:
    """Read and check `dataset.json`; image and label paths come back absolute, `label` as a list.

    Args:
        dataset_dir: the folder that holds `dataset.json`, or the file itself.

    Returns:
        The manifest: `split_by`, `transcriptome` and so on, and a list of records for each split.

    Raises:
        InputError: if it is missing, malformed or leaks, or an image or label it names is not there.
    """
    root = Path(dataset_dir)
    path = root if root.suffix == ".json" and not os.path.isdir(root) else root / "dataset.json"
    if not os.path.exists(path):
        raise InputError(
            f"No data set at {short(root)}: {short(path.name)} is missing. Make one with `pixnet prepare` or "
            "`pixnet phantom`."
        )
    manifest = dict(_checked(path, *file_state(path)))
    for split in SPLITS:
        records = []
        for record in manifest.get(split, []):
            labels = record.get("label") or []
            labels = [labels] if isinstance(labels, str) else list(labels)
            full = {key: value for key, value in record.items() if value is not None}
            full["image"] = str(path.parent / record["image"])
            full["label"] = [str(path.parent / item) for item in labels]
            for item in (full["image"], *full["label"]):
                if not os.path.isfile(item):
                    raise InputError(
                        f"{path} names {short(item, 300)}, which does not exist. Put it there or remove the record."
                    )
            records.append(full)
        manifest[split] = records
    return manifest


@lru_cache(maxsize=8)
def _checked(path: Path, *state: Any) -> dict[str, Any]:
    """A data set's content, read and checked once as long as the file does not change."""
    manifest = read_json(path, "Make a data set with `pixnet prepare` or `pixnet phantom`.")
    if not isinstance(manifest, dict):
        raise InputError(f'{path} is not a data set: it must hold {{"training": [...], "validation": [...], ...}}.')
    check_splits(manifest, str(path))
    return manifest


def read_split(dataset_dir: str | Path, split: str) -> list[dict[str, Any]]:
    """Records of one split, ready for a MONAI `Dataset`; each says `split_by` and whether patients are shared."""
    manifest = read_manifest(dataset_dir)
    if split not in SPLITS:
        raise InputError(f'There is no split "{split}"; choose one of {", ".join(SPLITS)}.')
    shared = {"split_by": manifest.get("split_by", "patient"), "transcriptome": manifest.get("transcriptome", "whole")}
    return [{**r, "section": slide_name(r), **shared} for r in manifest[split]]


def summary(path: str | Path) -> str:
    """What a data set holds, for people: its slides by split, their patients and mpp."""
    manifest = read_manifest(path)
    lines = [f"The data set is ready: {path}", f"split by {manifest.get('split_by', 'patient')}"]
    for split in SPLITS:
        slides = [
            f"{slide_name(r)} (patient {r.get('patient', 'unknown')}, {r['mpp']:.4g} µm per pixel)"
            if "mpp" in r
            else slide_name(r)
            for r in manifest[split]
        ]
        lines.append(f"  {split}: {', '.join(slides) or 'none'}")
    if not manifest["test"]:
        lines.append("Without a test split nothing can be scored in the end: name some slides with --test.")
    return "\n".join(lines)


def write_manifest(dataset_dir: str | Path, manifest: dict[str, Any]) -> Path:
    """Check and write `dataset.json`."""
    path = Path(dataset_dir) / "dataset.json"
    check_splits(manifest, str(path))
    write_json(path, manifest)
    return path


def slide_records(
    slides: str | list[str], units: str | None = None, mpp: float | None = None, dataset_dir: str = "."
) -> list[dict[str, Any]]:
    """Records of slides to predict.

    Args:
        slides: a slide, several, or a folder, whose TIFF-like files are then all taken.
        units: the .h5ad of the units to predict, with a single slide.
        mpp: µm per level-0 pixel, for slides whose file does not say.
        dataset_dir: where relative paths start.

    Raises:
        InputError: if there is no slide, or units are given for several.
    """
    paths: list[Path] = []
    for item in [slides] if isinstance(slides, str) else slides:
        path = Path(dataset_dir) / item
        paths += (
            sorted(p for p in path.iterdir() if p.name.lower().endswith(SLIDE_ENDINGS)) if path.is_dir() else [path]
        )
    if not paths:
        raise InputError(f"No slide in {slides}; these endings are looked for: {', '.join(SLIDE_ENDINGS)}.")
    if units is not None and len(paths) > 1:
        raise InputError(
            f"{units} holds the units of one slide, and {len(paths)} slides are given. Predict one at a time."
        )
    check_mpp(mpp, "The slide's mpp")
    extra = {key: value for key, value in (("label", units), ("mpp", mpp)) if value is not None}
    names = [slide_name({"image": str(path)}) for path in paths]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(
            f"Several slides are called {', '.join(twice)}, so that their results would overwrite each other."
        )
    return [{"image": str(path), **extra} for path in paths]
