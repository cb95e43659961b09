"""The audit's picture: how much of what counting noise allows each gene reaches."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..report.style import colour
from ..report.text import number, share

__all__ = ["draw"]


def draw(table: pd.DataFrame, result: Mapping[str, Any], path: Path) -> None:
    """PCC of each gene against its ceiling, and sorted under it.

    Args:
        table: the rows of `audit_genes.csv` that figures are over.
        result: the content of `audit.json`.
        path: the picture to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patheffects import withStroke

    table = table[table["pcc_native"].notna()] if "pcc_native" in table else table.iloc[:0]
    table = table.sort_values("pcc_native", ascending=False, kind="stable") if len(table) else table
    pcc = table.get("pcc_native", pd.Series(dtype=float)).to_numpy(float)
    ceiling = table.get("ceiling_native", pd.Series(np.nan, index=table.index)).to_numpy(float)
    genes = table["gene"].astype(str).to_numpy()
    figure = Figure(figsize=(12, 5), layout="constrained", facecolor=colour("card"))
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.35))
    bottom = min(-0.05, float(pcc.min()) - 0.05) if len(pcc) else -0.05

    left.plot([0, 1], [0, 1], "--", color=colour("limit"), lw=1.2, label="as well as its counts allow")
    left.scatter(ceiling, pcc, s=14, color=colour("blue"), alpha=0.6, lw=0)
    for place in sorted({0, len(pcc) // 2, len(pcc) - 1}) if len(pcc) else ():
        if np.isfinite(ceiling[place]):
            at = (ceiling[place], pcc[place])
            word = left.annotate(genes[place], at, (-5, 5), textcoords="offset points", ha="right")
            word.set_path_effects([withStroke(linewidth=3, foreground=colour("card"))])
    left.set(xlim=(0, 1.02), ylim=(bottom, 1.02), xlabel="ceiling of counting noise", ylabel="PCC within slides")
    left.legend(loc="lower right", bbox_to_anchor=(1, 1), frameon=False)

    rank = np.arange(1, len(pcc) + 1)
    right.bar(rank, np.nan_to_num(ceiling), width=0.8, color=colour("reach"), label="up to the gene’s ceiling")
    right.plot(rank, pcc, "o", ms=3, color=colour("blue"), mew=0, label="prediction")
    if "pcc_depth_oracle_native" in table:
        depth = table["pcc_depth_oracle_native"].to_numpy(float)
        right.plot(rank, depth, "o", ms=2, color=colour("orange"), mew=0, alpha=0.6, label="depth oracle")
    right.axhline(0, color=colour("limit"), lw=0.8)
    right.set(ylim=(bottom, 1.02), xlabel="genes, the best predicted first", ylabel="PCC within slides")
    right.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, frameon=False)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(colors=colour("soft"))

    main = result["scales"]["native"]
    low, high = result["interval_95"]["PCC@M"]
    title = (
        f"{', '.join(list(result['matched'])[:4])}: PCC@M {number(main['PCC@M'])} [{number(low)}, {number(high)}], "
        f"{share(main['PCC@M'], main['ceiling@M'])} of the ceiling {number(main['ceiling@M'])}; "
        f"{result['genes']:,} genes, {main['units']:,} units of {main['size_um']:g} µm"
    )
    figure.suptitle(title, color=colour("ink"), fontsize=12)
    figure.savefig(path, dpi=140, metadata={"Software": None})
