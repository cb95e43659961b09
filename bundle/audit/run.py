"""The audit from files to files."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..data.normalisation import LARGE_UNIT_UM, log1p_cp10k, passes_quality_control
from ..data.read_units import read_units
from ..data.units import Units
from ..errors import InputError, did_you_mean, plural, require_extra
from ..files.atomic import replacing, write_json
from ..files.ownership import claim
from ..metrics import coverage_95, gene_table
from ..version import bundle_version
from .against import compare_tools
from .match import match_units, slide_doubts
from .pairs import Pair, read_pairs
from .picture import draw
from .predicted import Predicted, read_predicted
from .scoring import MIN_UNITS, MatchedSlide, score
from .table import as_text

__all__ = ["audit"]


def audit(
    pred: str | Path,
    truth: str | Path | None = None,
    out: str | Path = "audit",
    scales_um: Sequence[float] = (),
    genes: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
    unit_of_x: str | None = None,
    min_total: float = 200.0,
    mpp: float | None = None,
    against: str | Path | None = None,
    unit_of_x_against: str | None = None,
) -> str:
    """Score predictions against measured units and write `audit.json`, `audit_genes.csv` and `audit.png`.

    Args:
        pred: the prediction's .h5ad, several separated by commas, or alone a CSV of pairs (see `read_pairs`).
        truth: the measured units' .h5ad, as many.
        out: folder to write to.
        scales_um: sides of the grid squares that units are binned to, beside their own scale.
        genes: the genes that figures are summarised over, or named panels of them, the first the headline's; by default
            the panels that the predictions name, and where they name none all shared genes.
        unit_of_x: what X of the predictions is (see `bundle.audit.predicted.UNITS_OF_X`).
        min_total: measured units (55 µm and above) with fewer counts are left out.
        mpp: µm per level-0 pixel, where the measured units do not say.
        against: another tool's predictions, as many, to compare with on what both answer for.
        unit_of_x_against: what X of those is.

    Returns:
        The figures as text, as they are printed.

    Raises:
        InputError: if a file cannot be read or is not what it should be, or too few units or no genes are shared.
    """
    if unit_of_x_against and against is None:
        raise InputError("--unit-of-x-against says what X of --against's predictions is, and there are none.")
    require_extra("matplotlib", "The audit's picture", "report")
    pairs = read_pairs(str(pred), *(None if v is None else str(v) for v in (truth, against)))
    read = [(pair, read_predicted(pair.pred, unit_of_x), _measured(pair.truth)) for pair in pairs]
    shared = _shared_genes(read)
    asked = _asked(genes, [predicted for _, predicted, _ in read], shared)
    panels = _panels(shared, asked)
    others = [
        read_predicted(pair.against, unit_of_x_against, "--unit-of-x-against")
        for pair in pairs
        if pair.against is not None
    ]
    slides = [_matched(pair, predicted, units, shared, min_total, mpp, scales_um) for pair, predicted, units in read]
    place = {gene: i for i, gene in enumerate(shared)}
    found = score(slides, shared, {n: np.array([place[g] for g in p]) for n, p in panels.items()}, scales_um, min_total)
    per_gene = found.pop("per_gene")
    unknown = [g for g in dict.fromkeys(gene for named in asked.values() for gene in named) if g not in place]
    about: dict[str, Any] = {
        "version": bundle_version(),
        "same_patient": _same_patient(slides),
        "patients": len({p.patient for p in pairs}) if all(p.patient for p in pairs) else None,
        "min_total": min_total,
        "matched": {slide.name: slide.about for slide in slides},
        "shared_genes": len(shared),
        "genes_not_shared": unknown,
        "warnings": [w for slide in slides for w in slide.about.pop("warnings")]
        + _warnings(pairs, asked, unknown)
        + _not_whole([predicted for _, predicted, _ in read], asked, shared),
    }
    covered = _covered(slides)
    if covered is not None:
        about["coverage_95"] = float(np.nanmean(covered[[place[g] for g in panels[found["panel"]]]]))
        about["coverage_95_units"] = sum(len(slide.units) for slide in slides if slide.covered is not None)
    compared = compare_tools(read, others, panels[found["panel"]], min_total, mpp) if others else None
    about["warnings"] += compared.pop("warnings") if compared else []
    result = {**about, **found, "against": compared}
    table = gene_table(shared, panels, per_gene)
    if "ceiling_native" in table:
        table["share_of_ceiling_native"] = table["pcc_native"] / table["ceiling_native"].where(lambda c: c > 0)
    if covered is not None:
        table["coverage_95"] = covered
    folder = claim(out, "audit", ("audit.json", "audit_genes.csv", "audit.png"), {"audit.json": "matched"}, mark=False)
    write_json(folder / "audit.json", result)
    with replacing(folder / "audit_genes.csv") as temporary:
        table.to_csv(temporary, index=False)
    with replacing(folder / "audit.png") as temporary:
        draw(table[table[found["panel"]]], result, temporary)
    return as_text(result)


def _measured(path: Path) -> Units:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # names that occur twice are refused in a sentence
        units = read_units(path)
    passes_quality_control(units, 0.0, training=False)  # refuses predictions
    units.check_counts()
    return units


def _shared_genes(read: Sequence[tuple[Pair, Predicted, Units]]) -> list[str]:
    """Genes of the first prediction, in its order, that every prediction has and some slide measured.

    A slide is scored on those that it measured.
    """
    _, first, measured = read[0]
    predicted_by_all = set(first.genes).intersection(*(predicted.genes for _, predicted, _ in read))
    somewhere = {gene for _, _, units in read for gene in units.genes}
    shared = [str(gene) for gene in first.genes if gene in predicted_by_all & somewhere]
    for _, predicted, units in read:
        if shared and not units.measures(shared).any():
            shared, first, measured = [], predicted, units
    if not shared:
        raise InputError(
            f"No gene is shared by {first.name} ({', '.join(first.genes[:3])}, ...) and {measured.name} "
            f"({', '.join(measured.genes[:3])}, ...){' and the others' if len(read) > 1 else ''}. Do both use symbols, "
            "or both ids?"
        )
    return shared


def _asked(
    genes: Sequence[str] | Mapping[str, Sequence[str]] | None, predictions: Sequence[Predicted], shared: Sequence[str]
) -> dict[str, list[str]]:
    """The panels to score: those asked for, else those that all predictions name, if the first of them is whole."""
    if isinstance(genes, Mapping):
        return {name: list(dict.fromkeys(panel)) for name, panel in genes.items()}
    if genes is not None:
        return {"asked": list(dict.fromkeys(genes))}
    named = predictions[0].panels
    agree = named and all(predicted.panels == named for predicted in predictions)
    return named if agree and set(next(iter(named.values()))) <= set(shared) else {}


def _not_whole(
    predictions: Sequence[Predicted], asked: Mapping[str, Sequence[str]], shared: Sequence[str]
) -> list[str]:
    """Why no panel is scored where predictions name one."""
    named = {} if asked else predictions[0].panels
    if not named:
        return []
    name, panel = next(iter(named.items()))
    missing = len(set(panel) - set(shared))
    reason = f"{missing} of its {len(panel)} genes are not in every file" if missing else "they name different ones"
    return [
        f"The panel that the predictions name ({name}) is not scored, since {reason}: figures over all {len(shared)} "
        "shared genes do not compare with those over the panel. pixnet predict --set all_genes=true writes all of it."
    ]


def _panels(shared: list[str], asked: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Each panel's genes among the shared ones, and those all."""
    present = set(shared)
    chosen = {name: [gene for gene in panel if gene in present] for name, panel in asked.items()}
    if asked and not next(iter(chosen.values())):
        wanted = next(iter(asked.values()))
        if not wanted:
            raise InputError("No gene is asked for: name one, or leave genes out to score all shared ones.")
        raise InputError(
            f"None of the {plural(len(wanted), 'gene')} asked for is among the {len(shared)} that predictions and "
            f"measurements share ({', '.join(shared[:3])}, ...).{did_you_mean(wanted[0], shared)}"
        )
    return {**{name: panel for name, panel in chosen.items() if panel}, "shared": shared}


def _same_patient(slides: Sequence[MatchedSlide]) -> bool | None:
    """Whether some slide's patient was trained on; None where that is not known of every slide."""
    known = [slide.about["same_patient"] for slide in slides]
    return True if True in known else None if None in known else False


def _covered(slides: Sequence[MatchedSlide]) -> np.ndarray | None:
    """Per gene, over the units of all slides that have standard errors; None where none has."""
    own = [(slide.covered, len(slide.units)) for slide in slides if slide.covered is not None]
    if not own:
        return None
    covered, units = np.array([c for c, _ in own]), np.array([n for _, n in own], dtype=float)
    weight = np.isfinite(covered) * units[:, None]
    return np.divide(
        (np.nan_to_num(covered) * weight).sum(0),
        weight.sum(0),
        out=np.full(covered.shape[1], np.nan),
        where=weight.any(0),
    )


def _matched(
    pair: Pair,
    predicted: Predicted,
    units: Units,
    genes: Sequence[str],
    min_total: float,
    mpp: float | None,
    scales_um: Sequence[float],
) -> MatchedSlide:
    mpp = mpp or units.mpp
    if mpp is None and len(scales_um):
        raise InputError(f"{units.name} does not say how many µm a pixel has, so it has no scales; give --mpp.")
    match = match_units(predicted, units, mpp)
    keep = passes_quality_control(units, min_total, training=False)
    scored = keep[match.truth]
    if scored.sum() < MIN_UNITS:
        raise InputError(
            f"{predicted.name} answers for {int(scored.sum())} units of {units.name} on tissue with {min_total:g} "
            f"counts or more; at least {MIN_UNITS} are needed. Lower --min-total, or check the counts."
        )
    kept = units.take(match.truth[scored])
    rows, columns = match.pred[scored], predicted.columns(genes)
    predict = predicted.for_groups(rows, columns)
    filtered = int((~keep).sum())
    unanswered = int(keep.sum() - scored.sum())
    doubts = slide_doubts(predicted, units, match, mpp) + _doubts(predicted, units, match.by)
    covered, why_not = _coverage(predicted, kept, np.ix_(rows, columns), genes)
    doubts += why_not
    unmeasured = int((~kept.measures(genes)).sum())
    if unmeasured:
        doubts.append(
            f"{units.name} did not measure {unmeasured} of the {len(genes)} genes: it is scored on the others."
        )
    if unanswered > 0.05 * keep.sum():
        doubts.append(
            f"{unanswered:,} of the {int(keep.sum()):,} measured units have no prediction and are not scored; figures "
            "of tools that leave out other units do not compare."
        )
    about = {
        "pred": str(pair.pred),
        "truth": str(pair.truth),
        "patient": pair.patient,
        "same_patient": predicted.same_patient(pair.patient),
        "by": match.by,
        "scored_units": len(kept),
        "predicted_units": len(predicted),
        "predicted_units_unmatched": len(predicted) - len(match.pred),
        "measured_units": len(units),
        "measured_units_unmatched": unanswered,
        "filtered_units": filtered,
        "predicted_genes": len(predicted.genes),
        "measured_genes": len(units.genes),
        "unmeasured_genes": unmeasured,
        "unit_of_X": predicted.unit_of_x,
        "squares": predicted.coarser,
        "warnings": [f"{pair.name}: {text}" for text in doubts],
    }
    patient = pair.patient or pair.name  # an unnamed one is taken for another than all others
    return MatchedSlide(pair.name, patient, kept, predict, mpp, filtered, about, covered)


def _coverage(
    predicted: Predicted, units: Units, at: tuple[np.ndarray, ...], genes: Sequence[str]
) -> tuple[np.ndarray | None, list[str]]:
    """Per gene the share of units within ±1.96 standard errors, or why it is not told."""
    if predicted.standard_error is None:
        return None, []
    spread = predicted.standard_error[at]
    if predicted.unit_of_x != "log1p_cp10k":
        why = f"they are of X, {predicted.unit_of_x}, and not of log1p CP10k"
    elif units.size_um < LARGE_UNIT_UM:
        why = "below 55 µm a unit's log1p CP10k is no measurement"
    elif spread.dtype.kind != "f" or not np.isfinite(spread).all() or (spread < 0).any():
        why = "some are missing or negative"
    else:
        return coverage_95(predicted.y[at] - log1p_cp10k(units.counts_of(genes, partly=True), units.total), spread), []
    return None, [f'layers["standard_error"] is not scored: {why}.']


def _doubts(predicted: Predicted, units: Units, by: str) -> list[str]:
    """What else lets a figure be read wrongly."""
    found = []
    if by == "row number":
        found.append("units have no names, so the order of rows alone says which is which.")
    trained_on = {str(name) for name in predicted.about.get("training_sections", ())}
    if units.section is not None and units.section.name in trained_on:
        found.append("the model was trained on this very slide.")
    if predicted.size_um is not None and not np.isclose(predicted.size_um, units.size_um):
        found.append(f"predicted for units of {predicted.size_um:g} µm, measured in units of {units.size_um:g} µm.")
    if predicted.unit_of_x == "counts" and len(predicted.genes) < 0.5 * len(units.genes):
        found.append(
            f"totals of the predicted counts are over {len(predicted.genes):,} genes, those of the measured ones over "
            f"{len(units.genes):,}: MSE and MAE compare different things."
        )
    if (predicted.y < 0).any():
        found.append(
            f"X goes down to {predicted.y.min():.3g}, and log1p CP10k ends at 0: clip it; it is scored as it is."
        )
    if units.size_um < LARGE_UNIT_UM:
        found.append("below 55 µm log1p counts are compared, with one depth for the whole slide.")
    return found


def _warnings(pairs: Sequence[Pair], asked: Mapping[str, Sequence[str]], unknown: Sequence[str]) -> list[str]:
    found = []
    if unknown:
        wanted = {gene for panel in asked.values() for gene in panel}
        found.append(
            f"{len(unknown)} of the {len(wanted)} genes asked for are not in every file and are not "
            f"scored (first: {', '.join(unknown[:3])})."
        )
    if len(pairs) > 1 and not all(pair.patient for pair in pairs):
        found.append("Patients are not named, so each slide counts as one of its own; a CSV can name them.")
    return found
