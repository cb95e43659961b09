"""A standard error for every gene and unit: how much the prediction changes when the slide is flipped and turned.

The spread over the eight flips and turns is far smaller than the error: it misses what no picture shows, and the noise
of counts. So PixNet scales it, gene by gene, to the error on the validation slides. It holds for tissue, stain and
units like theirs.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd

from ..config.literals import unescape
from ..data.manifest import read_split
from ..data.normalisation import LARGE_UNIT_UM, bounded, log1p_cp10k, passes_quality_control
from ..data.panel import load_panel
from ..data.slide_units import load_units
from ..data.units import Units
from ..errors import InputError
from ..files.atomic import file_state, replacing, write_json
from ..files.lock import output_lock
from ..files.ownership import check_output, claim, remove_ours
from ..files.reading import read_json
from ..files.schemas import STANDARD_ERROR, TRAINED
from ..metrics import coverage_95
from .clipping import CLIPPED, NOT_CLIPPED, clipped_genes, clipping_summary
from .prediction_dataset import UnitSet
from .provenance import model_sha256

__all__ = ["calibration", "check_request", "combine", "with_standard_error"]

logger = logging.getLogger(__name__)

_MEMBERS = 8
#: What is in a folder of members.
_FILES = ("[0-7].h5ad", "[0-7].h5ad.work", "units.h5ad", ".*.lock", ".*.part*", ".*.old.*")
#: Keys of a prediction that say how it is computed, not what.
_HOW = ("device", "tile_px", "num_readers")

#: Predict (slide, output, settings).
Predict = Callable[[str, Path, Mapping[str, Any]], Any]


def with_standard_error(
    predict: Predict, slide: str | Path, out: str | Path | None, run: Path, settings: Mapping[str, Any]
) -> None:
    """Predict under each of the eight flips and turns; write their mean and, as a layer, the standard error.

    That takes eight predictions, and for a model's first slide eight more of each validation slide. A call that was
    stopped goes on where it was.

    Args:
        predict: one prediction, as `workflows.predict` makes it.
        slide: the slide.
        out: the `.h5ad` to write.
        run: the run folder.
        settings: keys of the prediction.

    Raises:
        InputError: if the settings name anything but one file of units.
    """
    out = Path(out or "")
    check_request(out.suffix, settings)
    files = [Path(file) for file in (slide, settings.get("units")) if file is not None]
    for file in files:
        if not file.is_file():
            raise InputError(f"No such file: {file}.")
    check_output(out, files)
    with output_lock(out.resolve()):
        asked = [*map(file_state, files), model_sha256(run / "models" / "model.pt"), dict(settings)]
        folder = out.with_name(f".{out.stem}.members_{_digest(json.dumps(asked, sort_keys=True, default=str))}")
        claim(folder, "members", ())
        (first,) = _members(predict, str(slide), folder, settings, 1)
        try:
            _values(first)
        except InputError:  # before the work of all
            remove_ours(folder, "members", _FILES)
            raise
        found = calibration(predict, run, {key: settings[key] for key in _HOW if key in settings})
        combined = combine(_members(predict, str(slide), folder, settings))
        _scale(combined, found)
        with replacing(out) as temporary:
            combined.write_h5ad(temporary)
        remove_ours(folder, "members", _FILES)


def check_request(ending: str, settings: Mapping[str, Any]) -> None:
    """Refuse settings that do not go with a standard error; `ending` is the output's.

    Raises:
        InputError: if the settings name anything but one file of units.
    """
    several = isinstance(settings.get("bin_um"), (list, tuple)) and len(settings["bin_um"]) > 1
    if ending != ".h5ad" or several or settings.get("map") or settings.get("nifti"):
        raise InputError(
            "A standard error is for one size of units in one OUT.h5ad: leave further sizes, --map and --nifti out."
        )


def combine(members: Sequence[Path]) -> ad.AnnData:
    """The mean of several predictions of the same units, with `layers["standard_error"]`, their spread (n - 1).

    The members' X are not clipped to the range of log1p CP10k (`PredictionWriter.clip`), or their mean and their
    spread would depend on where the range ends; their mean is.

    They are read one after the other (Welford 1962), so memory does not grow with their number.

    Args:
        members: `.h5ad` files of one model under several flips and turns, or of several models.

    Raises:
        InputError: if they are fewer than two, or of other units or genes.
    """
    if len(members) < 2:
        raise InputError("A spread needs two predictions or more.")
    first = _values(members[0])
    mean = np.asarray(first.X, np.float64)
    spread = np.zeros_like(mean)
    rate = first.layers.get("rate_per_um2")
    for n, path in enumerate(members[1:], 2):
        other = ad.read_h5ad(path)
        if list(other.obs_names) != list(first.obs_names) or list(other.var_names) != list(first.var_names):
            raise InputError(f"{path} holds other units or genes than {members[0]}; predict the same ones.")
        delta = np.asarray(other.X, np.float64) - mean
        mean += delta / n
        spread += delta * (np.asarray(other.X, np.float64) - mean)
        if rate is not None:
            rate = rate + (other.layers["rate_per_um2"] - rate) / n
    _clip(first, mean.astype(np.float32))
    first.layers["standard_error"] = np.sqrt(spread / (len(members) - 1)).astype(np.float32)
    if rate is not None:
        first.layers["rate_per_um2"] = rate
    return first


def _clip(adata: ad.AnnData, y: np.ndarray) -> None:
    """Let X be y, clipped to its range; say so as a prediction does."""
    adata.X = bounded(y)
    about = adata.uns.get("pixnet", {})
    if not str(about.get("unit_of_X", "")).endswith(NOT_CLIPPED):
        return
    about["unit_of_X"] = about["unit_of_X"].removesuffix(NOT_CLIPPED)
    if "rate_per_um2" in adata.layers:
        return
    adata.obs[CLIPPED] = clipped_genes(y)
    about["clipped"], message = clipping_summary(int(adata.obs[CLIPPED].sum()), y.size)
    if message is not None:
        logger.warning("%s", message)
        about["warnings"] = np.array([*about["warnings"], message], dtype=str)


def _values(path: Path) -> ad.AnnData:
    adata = ad.read_h5ad(path)
    if adata.X is None:
        raise InputError(
            f"{adata.n_obs:,} units of all genes are too many values for a standard error: name --genes, or predict "
            "fewer units."
        )
    return adata


def calibration(predict: Predict, run: Path, how: Mapping[str, Any]) -> dict[str, Any]:
    """Measure how the spread relates to the error on the validation slides, once for each model.

    Args:
        predict: one prediction.
        run: the run folder.
        how: keys of the predictions that say how they are computed, such as `device`.

    Returns:
        `factor`: of each gene, what its spread is multiplied with, so that the mean squared error in multiples of the
        standard error is 1; empty where there is no validation slide. `coverage_95`: of ±1.96 standard errors.
        `ranking`: the mean over genes of the correlation of standard error and absolute error over units, near 0 where
        the spread does not distinguish good units from bad ones.
    """
    sha = model_sha256(run / "models" / "model.pt")
    path = run / "evaluation" / "standard_error.json"
    if kept := _kept(path, sha):
        return kept
    with output_lock(path, wait=True):  # what another command measures meanwhile is used
        return _kept(path, sha) or _measured(predict, run, how, sha, path)


def _kept(path: Path, sha: str) -> dict[str, Any] | None:
    try:
        kept = read_json(path, schema=STANDARD_ERROR)
    except InputError:  # nothing was measured, or it is damaged
        return None
    holds = kept["unit_size_um"] >= LARGE_UNIT_UM  # else it was measured by an earlier version
    return kept if kept["checkpoint_sha256"] == sha and holds else None


def _measured(predict: Predict, run: Path, how: Mapping[str, Any], sha: str, path: Path) -> dict[str, Any]:
    panel = load_panel(run / "models" / "panel.json")
    errors, spreads, slides, size_um = [], [], [], 0.0
    for record in _validation(run):
        units = _scored_units(record, panel.unit_sizes_um)
        if units.size_um < LARGE_UNIT_UM:
            logger.warning(
                "%s: its units of %g µm hold too few counts to measure a standard error on.",
                record["section"],
                units.size_um,
            )
            continue
        places = _digest(UnitSet(units).digest)
        folder = run / "evaluation" / f".members_{sha[:8]}_{record['section']}_{places}"
        claim(folder, "members", ())
        _write(units, folder / "units.h5ad")
        asked = {**how, "units": str(folder / "units.h5ad"), "slide_mpp": record.get("mpp"), "all_genes": True}
        logger.info("%s: measuring the standard error on this validation slide", record["section"])
        combined = combine(_members(predict, record["image"], folder, asked))
        remove_ours(folder, "members", _FILES)
        keep = np.flatnonzero(passes_quality_control(units, panel.min_total, training=False))
        y = log1p_cp10k(units.take(keep).counts_of(list(combined.var_names), partly=True), units.total[keep])
        errors.append(np.abs(y - combined.X[keep]))
        spreads.append(combined.layers["standard_error"][keep])
        slides.append(record["section"])
        size_um = units.size_um
    about: dict[str, Any] = {"checkpoint_sha256": sha, "members": _MEMBERS, "slides": slides, "factor": {}}
    if errors:
        error, spread = np.concatenate(errors).astype(float), np.concatenate(spreads).astype(float)
        measured = np.isfinite(error)  # a slide need not have measured all genes
        n = np.maximum(measured.sum(0), 1)
        square, spread2 = (np.where(measured, values, 0).sum(0) / n for values in (error**2, spread**2))
        factor = np.sqrt(square / np.maximum(spread2, 1e-12))
        seen = measured.any(0)
        factor[~seen] = np.median(factor[seen])
        about |= {
            "unit_size_um": size_um,
            "factor": dict(zip(panel.genes, factor.tolist(), strict=True)),
            "coverage_95": float(np.nanmean(coverage_95(error, factor * spread))),
            "ranking": _ranking(spread[:, seen], error[:, seen]),
        }
        write_json(path, about)
    return about


def _members(
    predict: Predict, slide: str, folder: Path, settings: Mapping[str, Any], first: int | None = None
) -> list[Path]:
    """One prediction per flip or turn, or of the first so many; those that are whole already are kept."""
    paths = [folder / f"{number}.h5ad" for number in range(first or _MEMBERS)]
    for number, path in enumerate(paths):
        if not path.is_file():
            predict(slide, path, {**settings, "test_time_augmentation": [number], "clip": False})
    return paths


def _validation(run: Path) -> list[dict[str, Any]]:
    """The validation slides of the run's data set; says why there are none."""
    trained_with = run / "configs" / "train.json"
    trained = read_json(trained_with, schema=TRAINED) if trained_with.is_file() else None
    dataset = None if trained is None else Path(str(unescape(trained["dataset_dir"])))
    if dataset is None:
        lacks = f"{run} does not say what it was trained on"
    elif not (dataset / "dataset.json").is_file():
        lacks = f"{dataset}, which the model was trained on, is not there"
    elif found := read_split(dataset, "validation"):
        return found
    else:
        lacks = f"{dataset} has no validation slide"
    logger.warning("The standard error is not calibrated, but the bare spread: %s.", lacks)
    return []


def _scored_units(record: Mapping[str, Any], sizes_um: Sequence[float]) -> Units:
    """The record's coarsest units of a size that was trained on, measured or summed; the coarsest if it has none."""
    try:
        return max(load_units(record, sizes_um), key=lambda u: u.size_um)
    except InputError:
        return load_units(record)[0]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _write(units: Units, path: Path) -> None:
    """The units' places, to predict at; they may be sums that no file holds."""
    places = ad.AnnData(obs=pd.DataFrame(index=units.barcodes), obsm={"spatial": units.centers_px})
    places.uns["unit"] = {"shape": units.shape, "size_um": units.size_um}
    with replacing(path) as temporary:
        places.write_h5ad(temporary)


def _ranking(spread: np.ndarray, error: np.ndarray) -> float:
    spread = np.where(np.isfinite(error), spread, np.nan)
    a, b = (np.nan_to_num(values - np.nanmean(values, 0)) for values in (spread, error))
    scale = np.sqrt((a**2).sum(0) * (b**2).sum(0))
    return float(((a * b).sum(0)[scale > 0] / scale[scale > 0]).mean()) if (scale > 0).any() else float("nan")


def _scale(adata: ad.AnnData, found: Mapping[str, Any]) -> None:
    """Scale the spread in place and say what it is."""
    factor = np.array([found["factor"].get(gene, 1.0) for gene in adata.var_names], np.float32)
    adata.layers["standard_error"] = adata.layers["standard_error"] * factor
    about = {key: value for key, value in found.items() if key not in ("factor", "checkpoint_sha256")}
    about["slides"] = np.array(found["slides"], dtype=str)
    if found["slides"]:
        about["holds"] = (
            f"on the validation slides ({', '.join(found['slides'])}), in {found['unit_size_um']:g} µm units, noise of "
            "their counts included"
        )
    else:
        about["holds"] = (
            "nowhere: it is the bare spread over flips and turns, without a validation slide of units of 55 µm or more"
        )
    adata.uns["pixnet"]["standard_error"] = about
