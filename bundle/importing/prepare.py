"""Prepare a data set of what people have: folders of known layouts, tables, AnnData; one sample or many."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import h5py

from ..config.root import importable_root
from ..data.manifest import SPLITS, check_splits, write_manifest
from ..data.opening import SlideOpener
from ..data.splits import assign, bands, check_split_by
from ..errors import InputError, did_you_mean, user_message
from ..files.naming import check_name
from ..files.ownership import check_folder, claim
from ..files.reading import read_json
from ..readers.registry import find_samples
from ..readers.sample import Options, Place
from ..readers.tables import read_columns
from .import_sample import Imported, Tools, import_sample

__all__ = ["preparation_tools", "prepare"]

logger = logging.getLogger(__name__)

_OWNED = ("slides", "spots", "units", "checks", "dataset.json")
_PATHS = ("image", "counts", "positions", "transcripts", "transform", "gene_names")
_NUMBERS = ("mpp", "size_um", "pitch_um", "unit_um", "min_qv")


def prepare(
    src: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    as_: str | None = None,
    source: str | None = None,
    image: str | Path | None = None,
    mpp: float | None = None,
    patient: str | None = None,
    patients: str | Path | Mapping[str, str] | None = None,
    name: str | None = None,
    picture: str = "full",
    units: str | None = None,
    sizes_um: Sequence[float] = (),
    only: Sequence[str] = (),
    counts: str | Path | None = None,
    positions: str | Path | None = None,
    transcripts: str | Path | None = None,
    columns: Mapping[str, str] | None = None,
    preset: str | None = None,
    transform: str | Path | None = None,
    transform_inverted: bool = False,
    unit_um: float | None = None,
    origin: tuple[float, float] | None = None,
    min_qv: float = 20.0,
    shape: str | None = None,
    size_um: float | None = None,
    pitch_um: float | None = None,
    spot_diameter_um: float | None = None,
    layer: str | None = None,
    gene_names: str | Path | None = None,
    by_ids: bool = False,
    validation: Sequence[str] = (),
    test: Sequence[str] = (),
    split_by: str | None = None,
    splits: str | Path | None = None,
    add: bool = False,
    strict: bool = False,
    reader: SlideOpener | None = None,
    tissue: Callable[..., Any] | None = None,
    progress: Callable[[str], Any] | None = None,
) -> Path:
    """Import what people have as a data set: slides, units, `dataset.json`, and a check of each sample.

    It can be interrupted and started again: samples that are done are kept. A sample that fails is reported, and the
    others are done.

    Args:
        src: a folder or file of a known layout; several; or a CSV with a column `path` (relative to the CSV) and, for
            each sample, any of `as`, `name`, `patient`, `split`, `image`, `mpp` and the other arguments.
        out: folder to write.
        as_: the layout, where its files do not show it (see `bundle.readers.registry.READERS`).
        source: a published data set whose files have known names: `her2st`, `mob`, `xfuse`.
        image: the H&E picture, where the folder does not hold it.
        mpp: micrometres per pixel of the picture, where neither units nor tags say it.
        patient: whose tissue it is.
        patients: CSV with columns `sample` and `patient`, or a mapping; it wins over the source's own.
        name: what to call the sample, if it is one.
        picture: `full`, or `hires` or `lowres` for Space Ranger's reduced picture.
        units: `spots`, `bins`, `cells` or `transcripts`; the layout's own choice by default.
        sizes_um: sides of the square bins that are wanted.
        only: names of the samples to import.
        counts: table of counts, unit × gene (with `positions`).
        positions: table of the units' positions.
        transcripts: table of transcripts.
        columns: the file's own names of columns, such as `{"x": "global_x", "y": "global_y", "gene": "target"}`.
        preset: `merscope`, `cosmx`, `stereo-seq` or `xenium`: how a vendor names the columns.
        transform: file of a 3 × 3 matrix that takes (x, y, 1) of the table to pixels of the picture.
        transform_inverted: the file holds the way back, from pixels to the table's x and y.
        unit_um: micrometres that one step of the table's x and y means; 0 for pixels of the picture.
        origin: the table's (x, y) at the picture's upper left corner.
        min_qv: transcripts of a lower quality are dropped.
        shape: `circle` or `square`, where the files do not say it.
        size_um: diameter or side of a unit, where the files do not say it.
        pitch_um: distance of neighbouring spots, if unlike the technology's.
        spot_diameter_um: the same as `size_um`, for spots.
        layer: where an AnnData keeps raw counts: `X`, `raw` or a layer's name.
        gene_names: table that maps ids to symbols.
        by_ids: name genes by their ids although symbols are known.
        validation: patients or samples (see `split_by`) for validation.
        test: those for the test; the rest is for training.
        split_by: `patient` (default), `section`, or `block` (bands of every slide). With `add`, that of the data set.
        splits: CSV with columns `sample` and `split`.
        add: keep the samples that the data set holds already.
        strict: refuse a sample about which anything is doubtful.
        reader: opens slides; that of `configs/inference.json` by default.
        tissue: finds tissue; that of `configs/inference.json` by default.
        progress: is called with a sentence for each sample.

    Returns:
        Path of `dataset.json`.

    Raises:
        InputError: if nothing can be imported, or the splits leak. Also if some samples failed, once the others are
            written.
    """
    tell = progress or logger.info
    if split_by is None and add:
        split_by = _manifest(out).get("split_by")
    split_by = split_by or "patient"
    check_split_by(split_by, bool(validation or test or splits))
    common = Options(
        image=_path(image),
        mpp=mpp,
        patient=None if patient is None else str(patient),
        name=name,
        picture=picture,
        units=units,
        sizes_um=tuple(float(v) for v in sizes_um),
        only=tuple(only),
        counts=_path(counts),
        positions=_path(positions),
        transcripts=_path(transcripts),
        columns=dict(columns or {}),
        preset=preset,
        transform=_path(transform),
        transform_inverted=transform_inverted,
        unit_um=unit_um,
        origin=origin,
        min_qv=min_qv,
        shape=shape,
        size_um=size_um or spot_diameter_um,
        pitch_um=pitch_um,
        layer=layer,
        gene_names=_path(gene_names),
        by_ids=by_ids,
        source=source,
    )
    failed: dict[str, str] = {}
    jobs = _jobs(_entries(src, "st" if source and as_ is None else as_, common), out, patients, splits, failed)
    records = [_foreseen(place, options) for _, place, options in jobs]
    earlier = _earlier(out, [place.name for _, place, _ in jobs]) if add else []
    if split_by != "block":
        placed = _placed(jobs, records, split_by, validation, test, earlier)
        check_splits({"split_by": split_by, **_by_split(records, placed, earlier)}, str(src))  # before hours of writing
    tools = preparation_tools(reader, tissue)
    claim(out, "data set", _OWNED, {"dataset.json": _is_prepared})
    done: list[Imported] = []
    for layout, place, options in jobs:
        try:
            imported = import_sample(layout, place, options, out, tools, strict)
        except Exception as error:
            sentence = user_message(error)
            if sentence is None:
                raise
            failed[place.name] = sentence
            if len(jobs) > 1:  # the one failure of one sample ends the command
                logger.error("%s was not imported: %s", place.name, sentence)
            continue
        done.append(imported)
        for doubt in imported.doubts:
            logger.warning("%s: %s", imported.name, doubt)
        tell(f"{imported.name} ({imported.layout}): {'done before' if imported.kept else ' '.join(imported.found)}")
    unnamed = [item.name for item in done if "patient" not in item.record]
    if unnamed:
        logger.warning(
            "Nothing names the patient of %s, so each slide counts as a patient of its own. If some are of one, "
            "say so (--patient or --patients): a test must not see a patient that was trained on.",
            ", ".join(unnamed[:5]) + (f" and {len(unnamed) - 5} more" if len(unnamed) > 5 else ""),
        )
    if not done:
        raise InputError(next(iter(failed.values())) if len(failed) == 1 else _failures(failed))
    whole = _by_block(done, Path(out)) if split_by == "block" else _by_split([d.record for d in done], placed, earlier)
    path = write_manifest(out, {**_about(done), "split_by": split_by, **_numbers(whole), **whole})
    if failed:
        raise InputError(f"{_failures(failed)} The data set holds the other {len(done)}: {path}.")
    return path


def preparation_tools(reader: SlideOpener | None = None, tissue: Callable[..., Any] | None = None) -> Tools:
    """What opens slides and finds tissue: the given, else what `configs/inference.json` names."""
    if reader is None or tissue is None:
        from monai.bundle import ConfigParser

        parser = ConfigParser(read_json(importable_root() / "configs" / "inference.json"))
        reader = reader or parser.get_parsed_content("reader")
        tissue = tissue or parser.get_parsed_content("dataset#tissue")
    return Tools(reader, tissue)


def _path(path: str | Path | None) -> Path | None:
    return None if path is None else Path(path)


def _entries(
    src: str | Path | Sequence[str | Path], as_: str | None, common: Options
) -> list[tuple[Path, str | None, Options, str | None]]:
    """Each place to look at, with its layout, options and split if they are given."""
    if not isinstance(src, (str, Path)):
        return [(Path(item), as_, common, None) for item in src]
    src = Path(src)
    if src.suffix.lower() != ".csv" or not src.is_file() or as_ == "transcripts":
        return [(src, as_, common, None)]
    table = read_columns(src, dtype=str, keep_default_na=False)
    if "path" not in table:
        return [(src, as_, common, None)]
    known = {"path", "as", "split", *(field.name for field in fields(Options))} - {"columns", "origin"}
    unknown = [column for column in table if column not in known]
    if unknown:
        raise InputError(
            f"{src} has a column {unknown[0]} that PixNet does not know.{did_you_mean(unknown[0], known)} It knows "
            f"{', '.join(sorted(known))}."
        )
    entries = []
    for number, row in enumerate(table.to_dict("records"), 2):
        given = {key: value.strip() for key, value in row.items() if value.strip()}
        if "path" not in given:
            raise InputError(f"{src}, line {number}: the path is missing.")
        place, split = src.parent / given.pop("path"), given.pop("split", None)
        if split is not None and split not in SPLITS:
            raise InputError(f'{src}, line {number}: the split is "{split}"; it must be one of {", ".join(SPLITS)}.')
        layout = given.pop("as", as_)
        entries.append((place, layout, replace(common, **_typed(given, src, number)), split))
    return entries


def _typed(given: dict[str, str], src: Path, number: int) -> dict[str, Any]:
    """Values of a CSV as the options want them."""
    typed: dict[str, Any] = {}
    for key, text in given.items():
        try:
            if key in _PATHS:
                typed[key] = src.parent / text
            elif key in _NUMBERS:
                typed[key] = float(text)
            elif key == "sizes_um":
                typed[key] = tuple(float(v) for v in text.replace(",", " ").replace(";", " ").split())
            elif key == "only":
                typed[key] = tuple(text.replace(";", " ").split())
            elif key in ("transform_inverted", "by_ids"):
                typed[key] = text.lower() in ("1", "true", "yes")
            else:
                typed[key] = text
        except ValueError as error:
            raise InputError(f'{src}, line {number}: {key} is "{text}", which is no number.') from error
    return typed


Job = tuple[str, Place, Options]


def _jobs(
    entries: Sequence[tuple[Path, str | None, Options, str | None]],
    out: str | Path,
    patients: str | Path | Mapping[str, str] | None,
    splits: str | Path | None,
    failed: dict[str, str],
) -> list[Job]:
    """All samples with their layouts and options; what cannot be found goes to `failed`, if there are others."""
    jobs: list[Job] = []
    for path, wanted, options, split in entries:
        try:
            check_folder(out, path)
            layout, places = find_samples(path, wanted, options)
        except InputError as error:
            if len(entries) == 1:
                raise
            failed[str(path)] = str(error)
            logger.error("%s was not imported: %s", path, error)
            continue
        if options.name is not None:
            if len(places) > 1:
                names = ", ".join(place.name for place in places[:8])
                raise InputError(f"{path} holds {len(places)} samples ({names}), so one name is too few for them.")
            places = [replace(places[0], name=options.name)]
        if len(places) > 1 and options.image is not None:
            names = ", ".join(place.name for place in places[:8])
            raise InputError(
                f"{path} holds {len(places)} samples ({names}) and one picture is given. Give a CSV with a column "
                "`path` and a column `image`, or choose one with --only."
            )
        jobs += [(layout, replace(place, split=split or place.split), options) for place in places]
    if not jobs:
        raise InputError(_failures(failed))
    own_patients, own_splits = _mapping(patients, "patient"), _mapping(splits, "split")
    named: list[Job] = []
    taken: set[str] = set()
    for layout, place, options in jobs:
        name = place.name
        if name in taken:
            name = f"{place.path.resolve().parent.name}_{name}"
        if name in taken:
            raise InputError(
                f"Two samples are called {place.name}. Give a CSV with a column `path` and a column `name`."
            )
        taken.add(name)
        check_name(name, str(place.path))
        split = own_splits.get(name, place.split)
        if split is not None and split not in SPLITS:
            raise InputError(f'{splits}: {name} is to be in "{split}"; a split is one of {", ".join(SPLITS)}.')
        patient = own_patients.get(name, options.patient or place.patient)
        named.append(
            (layout, replace(place, name=name, split=split, patient=patient), replace(options, patient=patient))
        )
    for what, mapping in (("patients", own_patients), ("splits", own_splits)):
        unknown = [sample for sample in mapping if sample not in taken]
        if unknown and len(unknown) == len(mapping):
            raise InputError(f"The file of {what} names none of the samples; it begins with {unknown[0]}.")
    return named


def _mapping(given: str | Path | Mapping[str, str] | None, what: str) -> dict[str, str]:
    """Sample → patient or split, of a CSV with those two columns (or whose first two columns they are)."""
    if given is None:
        return {}
    if isinstance(given, Mapping):
        return {str(key): str(value) for key, value in given.items()}
    table = read_columns(Path(given), dtype=str, keep_default_na=False)
    key = next((c for c in ("sample", "sample_id", "id", "section", "name") if c in table), None)
    value = what if what in table else None
    if key is None or value is None:
        raise InputError(f"{given} needs the columns sample and {what}; it has {', '.join(map(str, table.columns))}.")
    return {k.strip(): v.strip() for k, v in zip(table[key], table[value], strict=True) if v.strip()}


def _foreseen(place: Place, options: Options) -> dict[str, Any]:
    record = {"image": f"slides/{place.name}.tif", "section": place.name}
    return record if place.patient is None else {**record, "patient": place.patient}


def _placed(
    jobs: Sequence[Job],
    records: Sequence[dict[str, Any]],
    split_by: str,
    validation: Sequence[str],
    test: Sequence[str],
    earlier: Sequence[tuple[str, dict[str, Any]]],
) -> dict[str, str]:
    """The split of each sample: as the user names it, else as the source does, else training."""
    everyone = [*records, *(record for _, record in earlier)]
    named = assign([{"patient": r["section"], **r} for r in everyone], split_by, validation, test)
    placed = {r["section"]: split for split, members in named.items() for r in members}
    for _, place, _ in jobs:
        if place.split is not None and placed[place.name] == "training":
            placed[place.name] = place.split
    return placed


def _by_split(
    records: Sequence[dict[str, Any]], placed: Mapping[str, str], earlier: Sequence[tuple[str, dict[str, Any]]]
) -> dict[str, list[dict[str, Any]]]:
    splits: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    for split, record in earlier:
        named = placed.get(record["section"], "training")
        splits[split if named == "training" else named].append(record)
    for record in records:
        splits[placed[record["section"]]].append(record)
    return splits


def _by_block(done: Sequence[Imported], out: Path) -> dict[str, list[dict[str, Any]]]:
    """Bands of every slide."""
    splits: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    for item in done:
        label = item.record["label"]
        with h5py.File(out / (label if isinstance(label, str) else label[-1])) as file:
            centers_px = file["obsm/spatial"][:]
        gap_px = item.gap_um / item.record["mpp"]
        for split, block in bands(centers_px, item.size_px, gap_px).items():
            splits[split].append({**item.record, "block": block})
    return splits


def _earlier(out: str | Path, names: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
    """Records that a data set holds already, of other samples, with their splits."""
    manifest = _manifest(out)
    return [
        (split, record) for split in SPLITS for record in manifest.get(split, []) if record.get("section") not in names
    ]


def _manifest(out: str | Path) -> dict[str, Any]:
    """What `dataset.json` of an output says; nothing if there is none."""
    path = Path(out) / "dataset.json"
    return read_json(path) if path.is_file() else {}


def _about(done: Sequence[Imported]) -> dict[str, Any]:
    """What the manifest says of the data set: what all samples share; several names are joined."""
    about: dict[str, Any] = {}
    for key in ("name", "description", "reference", "licence"):
        said = list(dict.fromkeys(str(d.about.get(key, "")) for d in done if d.about.get(key)))
        about[key] = "; ".join(said)
    about["name"] = about["name"] or "prepared"
    about["modality"] = {"0": "H&E"}
    is_panel = any(d.about.get("transcriptome") == "panel" for d in done)
    about["transcriptome"] = "panel" if is_panel else "whole"
    about["layouts"] = sorted({d.layout for d in done})
    return about


def _numbers(splits: Mapping[str, Sequence[Any]]) -> dict[str, int]:
    return {f"num{split.capitalize()}": len(splits[split]) for split in SPLITS}


def _failures(failed: Mapping[str, str]) -> str:
    listed = " ".join(f"{name}: {sentence}" for name, sentence in failed.items())
    return f"{len(failed)} sample{'s' * (len(failed) > 1)} could not be imported. {listed}"


def _is_prepared(manifest: dict[str, Any]) -> bool:
    """Whether a manifest is one of these, and not one that a user wrote."""
    written = {"split_by", "reference", "licence", *(f"num{split.capitalize()}" for split in SPLITS)}
    return (
        bool(manifest.get("layouts") or manifest.get("name") in ("her2st", "mob", "xfuse"))
        and written <= manifest.keys()
    )
