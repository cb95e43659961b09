"""The section with loss, learning rate and validation over epochs."""

from __future__ import annotations

import numpy as np

from .charts import Chart
from .run import Run

__all__ = ["training_section"]


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
