"""The section with figures per scale and slide."""

from __future__ import annotations

from html import escape

from .charts import Chart
from .run import Evaluation, Run
from .text import number, share, table

__all__ = ["other_panels", "scales_section"]

_SERIES = ("s0", "s1", "s2", "s3")


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
    panels = other_panels(evaluation.main)
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


def other_panels(figures: dict) -> list[str]:
    """Names of the panels that figures are about besides the main one."""
    names = [key.removeprefix("PCC@M_") for key in figures if key.startswith("PCC@M_")]
    return [name for name in names if name not in ("pooled", "residual")]
