"""The sections with the figures: headline, scales, genes and training."""

from __future__ import annotations

import math
from html import escape

import numpy as np
import pandas as pd

from ..errors import plural
from .charts import Chart
from .run import Evaluation, Run
from .text import number, share, table

__all__ = ["genes_section", "headline_section", "landmarks", "scales_section", "training_section"]

_SERIES = ("s0", "s1", "s2", "s3")


def headline_section(run: Run) -> str:
    """Title, the sentence that sums the run up, and its figures in large."""
    evaluation = run.evaluations[0]
    about, main = evaluation.about, evaluation.main
    split, patients = str(about.get("split", evaluation.name)), int(about.get("patients", 0))
    whose = f", from {plural(patients, 'patient')}" if patients else ""
    sentence = (
        f"On the <b>{escape(split)}</b> split ({plural(main['slides'], 'slide')}{whose}; "
        f"{plural(main['units'], 'unit')} of {main['size_um']:g} µm), measured and predicted expression correlate "
        f"at <b>PCC@M {number(main['PCC@M'])}</b>, the mean over {plural(about['genes'], 'gene')}"
    )
    if math.isfinite(main["ceiling@M"]):
        sentence += f"; counting noise alone lets no predictor hope for more than {number(main['ceiling@M'])}"
    sentence += ". 0 is no relation between the two, 1 a perfect one."
    if evaluation.name == "validation":
        sentence += (
            " These slides chose the weights to keep, so the figure flatters; "
            "<code>pixnet evaluate</code> scores the test."
        )
    seen = len(about.get("seen_patients", ()))
    if about.get("same_patient") and 0 < seen < patients:
        badge = f'<span class="badge warn">{seen} of {patients} patients in training and {escape(split)}</span>'
    elif about.get("same_patient"):
        badge = f'<span class="badge warn">same patient in training and {escape(split)}</span>'
    else:
        badge = f'<span class="badge">no patient in both training and {escape(split)}</span>'
    tiles = [
        (number(main["PCC@M"]), f"PCC@M, {escape(evaluation.panel)} at {main['size_um']:g} µm"),
        (number(main["ceiling@M"]), "ceiling of counting noise"),
        (share(main["PCC@M"], main["ceiling@M"]), "share of the ceiling"),
        (number(main["PCC@M_residual"]), "with each unit’s depth taken out (residual PCC@M)"),
    ]
    tiles += [(number(main[f"PCC@M_{name}"]), f"PCC@M, {escape(name)} genes") for name in _other_panels(main)]
    boxes = "".join(
        f'<div class="tile{" first" if i == 0 else ""}"><b>{value}</b><span>{label}</span></div>'
        for i, (value, label) in enumerate(tiles)
    )
    if about.get("transcriptome") == "panel":
        badge += '<span class="badge warn">panel-normalised, not comparable with a whole transcriptome</span>'
    return (
        '<p class="eyebrow">PixNet: gene expression from H&amp;E slides</p>'
        f"<h1>Report of {escape(run.folder.name)}</h1>"
        f'<p class="lead">{sentence}</p><p>{badge}</p><div class="tiles">{boxes}</div>'
    )


def scales_section(run: Run) -> str:
    """A table of figures per scale for every evaluation, and PCC@M against scale."""
    parts = ["<h2>Figures per scale</h2>"]
    for evaluation in run.evaluations:
        parts += [f"<h3>{escape(evaluation.name)}</h3>", _scale_table(evaluation), _slide_table(evaluation)]
    parts.append(
        '<p class="soft">F, S and PCC@M are the first quartile, the median and the mean over genes of their PCC. '
        "Ceiling: the highest PCC@M that counting noise allows; a truth without noise has none. Pooled: all slides’ "
        "units taken together, which also rewards knowing each slide’s mean. Residual: against Pearson residuals of "
        "the counts, so that knowing how many counts a unit has does not help. Constant genes: not scored, because "
        "their measured values do not vary. Left out: units off tissue or with too few counts. How all this is "
        "computed is at the end of the page.</p>"
    )
    chart = _scale_chart(run.evaluations)
    return "".join([*parts, chart])


def _scale_table(evaluation: Evaluation) -> str:
    panels = _other_panels(evaluation.main)
    counted = any("deviance" in figures for figures in evaluation.scales.values())
    head = ["scale", "units", "F", "S", "PCC@M", "ceiling", "share", "pooled", "residual"]
    head += [*map(escape, panels), "MSE", "MAE", *(["deviance"] if counted else []), "constant<br>genes", "left<br>out"]
    rows = []
    for scale, f in evaluation.scales.items():
        name = f"{f['size_um']:g} µm {'units' if scale == 'native' else 'squares'}"
        if f["target"] == "log1p_counts":
            name += "<br><small>of log1p counts</small>"
        rows.append(
            [
                name,
                f"{f['units']:,}",
                *(number(f[key]) for key in ("PCC@F", "PCC@S", "PCC@M", "ceiling@M")),
                share(f["PCC@M"], f["ceiling@M"]),
                *(number(f[key]) for key in ("PCC@M_pooled", "PCC@M_residual")),
                *(number(f.get(f"PCC@M_{panel}")) for panel in panels),
                number(f["MSE"]),
                number(f["MAE"]),
                *([number(f.get("deviance"))] if counted else []),
                f"{f['constant_genes']} of {evaluation.about['genes']}",
                f"{f['filtered_units']:,}",
            ]
        )
    return table(head, rows, strong=4)


def _slide_table(evaluation: Evaluation) -> str:
    slides = evaluation.about.get("per_slide", {})
    if len(slides) < 2:
        return ""
    rows = []
    for section, scales in slides.items():
        f = next(iter(scales.values()))
        values = (f["PCC@M"], f["ceiling@M"], f["PCC@M_residual"], f["MSE"], f["MAE"])
        rows.append([escape(section), f"{f['units']:,}", *map(number, values)])
    body = table(["slide", "units", "PCC@M", "ceiling", "residual", "MSE", "MAE"], rows, strong=2)
    return f"<details><summary>Each of the {len(slides)} slides</summary>{body}</details>"


def _scale_chart(evaluations: list[Evaluation]) -> str:
    shown = evaluations[: len(_SERIES)]
    sizes = sorted({f["size_um"] for e in shown for f in e.scales.values()})
    if len(sizes) < 2:
        return '<p class="note">Only one scale was scored, so there is no curve against scale.</p>'
    heights = [f[key] for e in shown for f in e.scales.values() for key in ("PCC@M", "ceiling@M")]
    chart = Chart(
        sizes, [0, *heights], "size of unit or square (µm)", "PCC@M", x_ticks=sizes, log_x=True, width=1040, height=280
    )
    keys = []
    for style, evaluation in zip(_SERIES, shown, strict=False):
        figures = sorted(evaluation.scales.values(), key=lambda f: f["size_um"])
        x = [f["size_um"] for f in figures]
        for key, suffix in (("ceiling@M", " dashed thin"), ("PCC@M", "")):
            y = [f[key] for f in figures]
            titles = [
                f"{evaluation.name}, {f['size_um']:g} µm: {key} {number(f[key])}, n = {f['units']:,}" for f in figures
            ]
            chart.line(x, y, style + suffix)
            chart.dots(x, y, style, titles, radius=2.5 if suffix else 4.5)
        keys.append(f'<span class="key {style}"></span>{escape(evaluation.name)}')
    caption = f'{" ".join(keys)} <span class="key rule dashed"></span>its ceiling of counting noise'
    drawing = chart.svg("PCC@M against the size of the units or squares, with the ceiling of counting noise")
    return f'<figure><div class="scroll">{drawing}</div><figcaption>{caption}</figcaption></figure>'


def landmarks(evaluation: Evaluation) -> dict[str, str]:
    """The best, median and worst gene of the main panel by PCC, as far as there are three."""
    pcc = _main_genes(evaluation, evaluation.column("pcc")).dropna().sort_values(ascending=False, kind="stable")
    if not len(pcc):
        return {}
    places = {"best": 0, "median": len(pcc) // 2, "worst": len(pcc) - 1}
    found: dict[str, str] = {}
    for name, place in places.items():
        gene = str(pcc.index[place])
        if gene not in found.values():
            found[name] = gene
    return found


def genes_section(run: Run) -> str:
    """PCC of each gene with its ceiling, against expression, and as a table."""
    evaluation = run.evaluations[0]
    heading = f"<h2>Gene by gene ({escape(evaluation.name)})</h2>"
    pcc, ceiling = evaluation.column("pcc"), evaluation.column("ceiling")
    if not pcc.notna().any():
        return f'{heading}<p class="note">There is no table of genes beside {escape(evaluation.name)}.json.</p>'
    order = pcc.sort_values(ascending=False, kind="stable").dropna().index
    pcc, ceiling = pcc[order], ceiling[order]
    main = set(_main_genes(evaluation, pcc).index)
    titles = [f"{g}: PCC {number(pcc[g])}, ceiling {number(ceiling[g])}" for g in order]
    style = np.array(["s0" if gene in main else "s1" for gene in order])
    rank = np.arange(1, len(order) + 1)
    chart = Chart(
        rank,
        [*pcc, *ceiling, min(0, pcc.min() - 0.1)],
        "genes, the best predicted first",
        "PCC",
        width=1040,
        height=340,
    )
    chart.bars(rank, ceiling.to_numpy(), "limit")
    for name in ("s0", "s1"):
        own = style == name
        chart.dots(rank[own], pcc.to_numpy()[own], name, [t for t, mine in zip(titles, own, strict=True) if mine])
    anchors = {"best": ("start", -10), "median": ("middle", -10), "worst": ("end", 18)}
    for name, gene in landmarks(evaluation).items():
        chart.words(rank[list(order).index(gene)], pcc[gene], gene, *anchors[name])
    key = f'<span class="key s0"></span>{escape(evaluation.panel)}'
    if "s1" in style:
        key += '<span class="key s1"></span>in another panel alone'
    key += '<span class="key band"></span>bar up to the gene’s ceiling. Hold the mouse over a dot to read its name.'
    drawing = chart.svg("Correlation of each gene, sorted, with its ceiling")
    parts = [heading, f'<figure><div class="scroll">{drawing}</div><figcaption>{key}</figcaption></figure>']
    parts.append(
        f'<div class="charts">{_mean_chart(run, pcc, titles, style)}{_ceiling_chart(pcc, ceiling, titles, style)}</div>'
    )
    return "".join([*parts, _gene_table(run, evaluation, list(order))])


def _mean_chart(run: Run, pcc: pd.Series, titles: list[str], style: np.ndarray) -> str:
    mean = _training_mean(run).reindex(pcc.index)
    if not mean.notna().any():
        return ""
    chart = Chart(mean.to_numpy(), [*pcc, 0], "mean expression in training (log1p CP10k)", "PCC")
    _two_panels(chart, mean.to_numpy(), pcc.to_numpy(), titles, style)
    caption = "Genes with few counts are noisier, which limits their PCC."
    return f"<figure>{chart.svg('PCC against mean expression')}<figcaption>{caption}</figcaption></figure>"


def _ceiling_chart(pcc: pd.Series, ceiling: pd.Series, titles: list[str], style: np.ndarray) -> str:
    if not ceiling.notna().any():
        return ""
    low, high = float(np.nanmin(ceiling)), float(np.nanmax(ceiling))
    chart = Chart(ceiling.to_numpy(), [*pcc, 0, high], "ceiling of counting noise", "PCC")
    chart.line([low, high], [low, high], "limit dashed")
    _two_panels(chart, ceiling.to_numpy(), pcc.to_numpy(), titles, style)
    caption = "On the dashed line a gene would be predicted as well as its counts allow."
    return f"<figure>{chart.svg('PCC against the ceiling')}<figcaption>{caption}</figcaption></figure>"


def _two_panels(chart: Chart, x: np.ndarray, y: np.ndarray, titles: list[str], style: np.ndarray) -> None:
    for name in ("s0", "s1"):
        own = np.flatnonzero(style == name)
        chart.dots(x[own], y[own], f"{name} faint", [titles[i] for i in own])


def _gene_table(run: Run, evaluation: Evaluation, order: list[str]) -> str:
    rows = evaluation.genes.set_index(evaluation.genes["gene"].astype(str)).loc[order]
    panels = [column for column in rows if rows[column].dtype == bool]
    native, *coarser = evaluation.scales
    columns = {f"pcc_residual_{native}": "residual", f"mse_{native}": "MSE"}
    columns |= {f"pcc_{scale}": f"PCC at {scale} µm" for scale in coarser}
    columns = {key: label for key, label in columns.items() if key in rows}
    mean = _training_mean(run).reindex(order)
    body = []
    for gene, row in zip(order, rows.to_dict("records"), strict=True):
        member = ", ".join(escape(str(panel)) for panel in panels if row[panel])
        pcc, ceiling = row[f"pcc_{native}"], row.get(f"ceiling_{native}")
        values = [number(pcc), number(ceiling), share(pcc, ceiling), *(number(row[key]) for key in columns)]
        body.append([escape(gene), member, number(mean[gene], 2), *values])
    head = [
        "gene",
        "panels",
        "mean log1p CP10k<br>in training",
        "PCC",
        "ceiling",
        "share of<br>ceiling",
        *(escape(str(label)) for label in columns.values()),
    ]
    return f"<details><summary>Table of {plural(len(body), 'gene')}</summary>{table(head, body, strong=3)}</details>"


def training_section(run: Run) -> str:
    """Loss, learning rate and the validation's PCC@M over epochs."""
    heading = "<h2>Training</h2>"
    metrics = run.metrics
    if not len(metrics) or "epoch" not in metrics:
        return f'{heading}<p class="note">There is no metrics.csv in the run folder.</p>'
    epoch = metrics["epoch"].to_numpy(float)
    charts = []
    for key, title, style in (
        ("loss", "Loss", "s1"),
        ("val_PCC@M", "PCC@M on the validation slides", "s0"),
        ("learning_rate", "Learning rate", "s2"),
    ):
        if key not in metrics or not metrics[key].notna().any():
            continue
        values = metrics[key].to_numpy(float)
        whole = np.unique(np.linspace(epoch.min(), epoch.max(), 6).round())
        chart = Chart(epoch, values, "epoch", "", x_ticks=list(whole), width=340, height=240)
        chart.line(epoch, values, style)
        titles = [f"epoch {e:.0f}: {v:.4g}" for e, v in zip(epoch, values, strict=True)]
        chart.dots(epoch, values, style, titles, radius=3 if len(epoch) < 60 else 1.5)
        if key == "val_PCC@M":
            best = int(np.nanargmax(values))
            side = "end" if epoch[best] > (epoch.min() + epoch.max()) / 2 else "start"
            chart.words(epoch[best], values[best], f"kept: epoch {epoch[best]:.0f}", side)
        charts.append(f'<figure><p class="title">{title}</p>{chart.svg(f"{title} by epoch")}</figure>')
    said = ""
    if "val_PCC@M" not in metrics:
        said = '<p class="note">Nothing was validated: the weights of the last epoch were kept.</p>'
    return f'{heading}{said}<div class="charts thirds">{"".join(charts)}</div>'


def _main_genes(evaluation: Evaluation, values: pd.Series) -> pd.Series:
    genes = evaluation.genes
    if evaluation.panel not in genes:
        return values
    members = set(genes.loc[genes[evaluation.panel].astype(bool), "gene"].astype(str))
    return values[[gene in members for gene in values.index]]


def _training_mean(run: Run) -> pd.Series:
    return pd.Series(run.panel.get("mean", []), index=run.panel.get("genes", []), dtype=float)


def _other_panels(figures: dict) -> list[str]:
    names = [key.removeprefix("PCC@M_") for key in figures if key.startswith("PCC@M_")]
    return [name for name in names if name not in ("pooled", "residual")]
