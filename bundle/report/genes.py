"""The section with each gene: its PCC, its ceiling and its expression."""

from __future__ import annotations

from html import escape

import numpy as np
import pandas as pd

from ..errors import plural
from .charts import Chart
from .run import Evaluation, Run
from .text import number, share, table

__all__ = ["genes_section", "landmarks"]


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
        return f'{heading}<p class="note">{escape(evaluation.name)}_genes.csv is missing.</p>'
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


def _main_genes(evaluation: Evaluation, values: pd.Series) -> pd.Series:
    genes = evaluation.genes
    if evaluation.panel not in genes:
        return values
    members = set(genes.loc[genes[evaluation.panel].astype(bool), "gene"].astype(str))
    return values[[gene in members for gene in values.index]]


def _training_mean(run: Run) -> pd.Series:
    return pd.Series(run.panel.get("mean", []), index=run.panel.get("genes", []), dtype=float)
