"""The section with the slide and its measured and predicted maps."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from ..data.manifest import read_split
from ..errors import InputError, plural
from .genes import landmarks
from .raster import Canvas, colours, jpeg_uri, make_canvas
from .run import Evaluation, Run
from .slides import SlideMaps, read_picture, read_slide_maps
from .text import number

__all__ = ["maps_section"]

_MAX_SLIDES = 2
_MAX_OTHERS = 2
_LEGEND = (
    "A gene’s measured and predicted map share one colour scale, from the 1st to the 99th percentile of both. A "
    "prediction that varies less than the measurement looks flat on it, so the last map shows the prediction again on "
    "a scale of its own: compare patterns there, not values.</p>"
)


def maps_section(run: Run, genes: Sequence[str] = ()) -> str:
    """Maps of genes on the headline's slides, and on one slide of what is no split.

    Args:
        run: what to show.
        genes: the genes; by default the best, the median and the worst predicted.

    Raises:
        InputError: if the headline's evaluation did not score one of `genes`.
    """
    first, *others = run.evaluations
    unknown = set(genes) - set(first.column("pcc").index)
    if unknown:
        raise InputError(
            f"{first.name}_genes.csv, the genes that were scored, does not hold {', '.join(sorted(unknown))}."
        )
    which = "The given genes" if genes else "The best, the median and the worst gene of the panel by PCC"
    parts = [f'<h2>The slide, measured and predicted</h2><p class="soft">{which}. {_LEGEND}']
    pictures: dict[str, list[str]] = {}
    parts.append(_evaluation_maps(run, first, _MAX_SLIDES, pictures, genes))
    for other in [e for e in others if not e.is_split and e.predictions.is_dir()][:_MAX_OTHERS]:
        parts.append(_evaluation_maps(run, other, 1, pictures, genes))
    return "".join(parts)


def _shown(evaluation: Evaluation, asked: Sequence[str]) -> dict[str, str]:
    """The genes to draw, each with its place among all."""
    if not asked:
        of = plural(int(evaluation.about["genes"]), "gene")
        return {gene: f"{name} of {of}" for name, gene in landmarks(evaluation).items()}
    pcc = evaluation.column("pcc")
    of = plural(len(pcc), "gene")
    place = pcc.rank(ascending=False, method="min", na_option="bottom").astype(int)
    return {gene: f"place {place[gene]} of {of}" for gene in asked if gene in pcc.index}


def _evaluation_maps(
    run: Run, evaluation: Evaluation, most: int, pictures: dict[str, list[str]], asked: Sequence[str]
) -> str:
    genes = _shown(evaluation, asked)
    if not genes:
        missing = ", which says what genes to show, is missing"
        why = " holds none of the given genes" if len(evaluation.genes) else missing
        return f'<p class="note">{escape(evaluation.name)}_genes.csv{why}.</p>'
    dataset = evaluation.about.get("dataset") or run.config.get("dataset_dir", "")
    try:
        records = {r["section"]: r for r in read_split(dataset, str(evaluation.about.get("split", evaluation.name)))}
    except InputError as error:
        return f'<p class="note">The maps of {escape(evaluation.name)} are left out: {escape(str(error))}</p>'
    scored = evaluation.about.get("per_slide", {})
    sections = [section for section in scored if section in records]
    said = ""
    if not sections:
        said = f'<p class="note">The data set {escape(str(dataset))} no longer lists the slides that were scored.</p>'
    if len(sections) > most:
        by_pcc = sorted(sections, key=lambda s: -np.nan_to_num(_main(scored[s])["PCC@M"], nan=-1))
        sections = [by_pcc[0], by_pcc[-1]][:most]
        which = "the best and the worst predicted are" if most > 1 else "the best predicted is"
        said = f'<p class="soft">Of {plural(len(by_pcc), "slide")} in {escape(evaluation.name)}, {which} shown.</p>'
    parts = [said]
    for section in sections:
        record = records[section]
        pictures.setdefault(section, []).extend(record["label"])
        try:
            size_um = float(_main(scored[section])["size_um"])
            maps = read_slide_maps(record, evaluation.predictions / f"{section}.h5ad", size_um, list(genes))
            parts.append(_slide(evaluation, record, maps, genes, read_picture(pictures[section])))
        except InputError as error:
            parts.append(f'<p class="note">The maps of {escape(section)} are left out: {escape(str(error))}</p>')
    return "".join(parts)


def _slide(
    evaluation: Evaluation,
    record: dict[str, Any],
    maps: SlideMaps,
    genes: dict[str, str],
    picture: tuple[np.ndarray, float] | None,
) -> str:
    units, figures = maps.units, _main(evaluation.about["per_slide"][record["section"]])
    canvas = make_canvas(units.centers_px, units.size_um / maps.mpp, units.shape, *(picture or ()))
    thing = "spots" if units.shape == "circle" else "bins"
    known = "measured" if units.kind == "counts" else "noise-free truth"
    patient = f"patient {record['patient']}, " if "patient" in record else ""
    columns = [
        f"<div><h4>{escape(record['section'])} ({escape(evaluation.name)})</h4>"
        f'<p class="under">PCC@M {number(figures["PCC@M"])}; {escape(patient)}{len(units):,} {thing} of '
        f"{units.size_um:g} µm</p>"
        f'<p class="name">{"H&amp;E slide" if picture else "No picture of the slide is stored"}</p>'
        f'<div class="slide"><img alt="H&amp;E slide {escape(record["section"])}" src="{jpeg_uri(canvas.picture)}">'
        f"{_scale_bar(canvas, maps.mpp)}</div></div>"
    ]
    pcc, ceiling = evaluation.column("pcc"), evaluation.column("ceiling")
    several = len(evaluation.about["per_slide"]) > 1
    for gene, place in genes.items():
        measured, predicted = maps.measured[gene], maps.predicted[gene]
        low, high = np.quantile(np.concatenate([measured, predicted]), [0.01, 0.99])
        own_low, own_high = np.quantile(predicted, [0.01, 0.99])
        here = f", {number(maps.pcc(gene))} on this slide" if several else ""
        of = f", ceiling {number(ceiling[gene])}" if np.isfinite(ceiling[gene]) else ""
        columns.append(
            f"<div><h4>{escape(gene)}: PCC {number(pcc[gene])}</h4>"
            f'<p class="under">{place}{of}{here}</p>'
            f"{_map(canvas, known, gene, measured, low, high)}"
            f"{_map(canvas, 'predicted', gene, predicted, low, high)}"
            f"{_colour_bar(low, high, maps.quantity)}"
            f"{_map(canvas, 'predicted, own scale', gene, predicted, own_low, own_high)}"
            f"{_colour_bar(own_low, own_high, maps.quantity)}</div>"
        )
    return f'<figure class="maps">{"".join(columns)}</figure>'


def _map(canvas: Canvas, name: str, gene: str, values: np.ndarray, low: float, high: float) -> str:
    source = jpeg_uri(canvas.paint(values, low, high))
    return f'<p class="name">{name}</p><img alt="{escape(gene)}, {name}" src="{source}">'


def _colour_bar(low: float, high: float, quantity: str) -> str:
    stops = ", ".join("rgb({} {} {})".format(*c) for c in colours()[::15])
    digits = 2 if high <= low else max(2, 1 - int(np.floor(np.log10(high - low))))
    ends = f"<span>{number(low, digits)}</span><span>{quantity}</span><span>{number(high, digits)}</span>"
    return (
        f'<div class="bar" style="background: linear-gradient(to right, {stops})"></div><div class="ends">{ends}</div>'
    )


def _scale_bar(canvas: Canvas, mpp: float) -> str:
    width_um = canvas.width_px * mpp
    rough = width_um / 4
    power = 10 ** np.floor(np.log10(rough))
    length_um = max(f * power for f in (1, 2, 5) if f * power <= rough)
    label = f"{length_um / 1000:g} mm" if length_um >= 1000 else f"{length_um:g} µm"
    return f'<span class="scalebar" style="width: {100 * length_um / width_um:.2f}%">{label}</span>'


def _main(scales: dict[str, Any]) -> dict[str, Any]:
    return next(iter(scales.values()))
