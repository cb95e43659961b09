"""The audit from files to files."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..data.normalisation import passes_quality_control
from ..data.read_units import read_units
from ..data.units import Units
from ..errors import InputError, require_extra
from ..files.atomic import replacing, write_json
from ..files.ownership import claim
from ..metrics import gene_table
from ..version import bundle_version
from .against import compare_tools
from .genes import asked_panels, panels_to_score, shared_genes, why_no_panel
from .matched import match_slide
from .pairs import Pair, read_pairs
from .picture import draw
from .predicted import read_predicted
from .scoring import MatchedSlide, score
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
        scales_um: sides of the grid squares that units are binned to, besides their own scale.
        genes: the genes that figures are summarised over, or named panels of them, the first the headline's; by default
            the panels that the predictions name, and where they name none all shared genes.
        unit_of_x: what X of the predictions is (see `bundle.audit.predicted.UNITS_OF_X`).
        min_total: measured units (55 µm and above) with fewer counts are left out.
        mpp: µm per level-0 pixel, where the measured units do not say.
        against: another tool's predictions, as many, to compare with on what both predict.
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
    shared = shared_genes(read)
    asked = asked_panels(genes, [predicted for _, predicted, _ in read], shared)
    panels = panels_to_score(shared, asked)
    others = [
        read_predicted(pair.against, unit_of_x_against, "--unit-of-x-against")
        for pair in pairs
        if pair.against is not None
    ]
    slides = [match_slide(pair, predicted, units, shared, min_total, mpp, scales_um) for pair, predicted, units in read]
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
        + why_no_panel([predicted for _, predicted, _ in read], asked, shared),
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


def _warnings(pairs: Sequence[Pair], asked: Mapping[str, Sequence[str]], unknown: Sequence[str]) -> list[str]:
    found = []
    if unknown:
        wanted = {gene for panel in asked.values() for gene in panel}
        found.append(
            f"{len(unknown)} of the {len(wanted)} genes are not in every file, and PixNet does not "
            f"score them (first: {', '.join(unknown[:3])})."
        )
    if len(pairs) > 1 and not all(pair.patient for pair in pairs):
        found.append("Patients are not named, so each slide counts as one of its own; a CSV can name them.")
    return found
