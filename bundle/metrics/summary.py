"""From scores of slides to figures: averaged over a grid's offsets, slides and patients, then summarised over genes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from ..errors import InputError
from .moments import combine, correlation, mean_of_defined, not_measured, truth_is_constant
from .scales import MIN_SQUARES, MIN_UNITS_PER_SQUARE
from .score import NATIVE, Score

__all__ = ["ScoredSlide", "gene_table", "summarise"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ScoredSlide:
    """What `score_slide` found on one slide, and whose slide it is.

    Attributes:
        name: the slide's.
        patient: slides of one patient are averaged before patients are.
        size_um: size of its units.
        filtered_units: how many units were left out before scoring.
        scores: one for each scale, offset of the grid and target.
    """

    name: str
    patient: str
    size_um: float
    filtered_units: int
    scores: list[Score]


def summarise(
    slides: Sequence[ScoredSlide], panels: Mapping[str, np.ndarray], scales_um: Sequence[float] = ()
) -> dict[str, Any]:
    """Figures per scale of all slides, of each slide, and of each gene.

    Args:
        slides: scored for the same genes.
        panels: named positions of genes among them; the first panel is the headline's.
        scales_um: the scales to report.

    Returns:
        `panel`, `genes`, `scales` (per scale: PCC@F, PCC@S, PCC@M = first quartile, median and mean over genes, ...),
        `per_slide`, `per_gene` (scale -> column -> (G,) array) and `scales_left_out`.

    Raises:
        InputError: if slides were measured in units of different sizes.
    """
    sizes = sorted({slide.size_um for slide in slides})
    if len(sizes) > 1:
        raise InputError(
            f"The slides were measured in units of {', '.join(f'{s:g}' for s in sizes)} µm, whose figures do not "
            "average. Score one size at a time (`pixnet evaluate --size-um`)."
        )
    scales = sorted({score.scale_um for slide in slides for score in slide.scores})
    main = next(iter(panels))
    result: dict[str, Any] = {
        "panel": main,
        "genes": len(panels[main]),
        "scales": {},
        "per_slide": {slide.name: {} for slide in slides},
        "per_gene": {},
    }
    for scale in scales:
        name = "native" if scale == NATIVE else f"{scale:g}"
        seen = [slide for slide in slides if any(score.scale_um == scale for score in slide.scores)]
        result["scales"][name], result["per_gene"][name] = _summary(seen, scale, panels)
        for slide in seen:
            result["per_slide"][slide.name][name] = _summary([slide], scale, panels)[0]
    result["scales_left_out"] = [s for s in scales_um if s not in scales and [s] != sizes]
    for scale in result["scales_left_out"]:
        logger.warning(
            "Scale %g µm is left out: its median square holds fewer than %d units, or fewer than %d squares remain.",
            scale,
            MIN_UNITS_PER_SQUARE,
            MIN_SQUARES,
        )
    return result


def gene_table(
    genes: Sequence[str], panels: Mapping[str, Sequence[str]], per_gene: Mapping[str, Mapping[str, np.ndarray]]
) -> pd.DataFrame:
    """One row a gene: its panels and its figures at every scale, without columns that hold no figure."""
    table = pd.DataFrame({"gene": list(genes)})
    for name, members in panels.items():
        table[name] = table["gene"].isin(members)
    for scale, columns in per_gene.items():
        for column, values in columns.items():
            if np.isfinite(values).any():
                table[f"{column}_{scale}"] = values
    return table


def _summary(
    slides: Sequence[ScoredSlide], scale: float, panels: Mapping[str, np.ndarray]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    here = [[score for score in slide.scores if score.scale_um == scale] for slide in slides]
    main = "log1p_counts" if any(s.target == "log1p_counts" for scores in here for s in scores) else "log1p_cp10k"
    # Pooling and counting look at one origin of the grid.
    first = [min((s for s in scores if s.target == main), key=lambda s: s.offset) for scores in here]
    pooled = first[0].moments
    for score in first[1:]:
        pooled = combine(pooled, score.moments)

    def per_gene(target: str, value: Callable[[Score], torch.Tensor | np.ndarray]) -> np.ndarray:
        return _per_gene(slides, scale, target, value)

    columns = {
        "pcc": per_gene(main, lambda s: correlation(s.moments)),
        "pcc_pooled": correlation(pooled).numpy(),
        "pcc_residual": per_gene("residual", lambda s: correlation(s.moments)),
        "ceiling": per_gene(main, lambda s: s.ceiling),
        "ceiling_residual": per_gene("residual", lambda s: s.ceiling),
        "mse": per_gene(main, lambda s: s.moments[:, 6] / s.moments[:, 0]),
        "mae": per_gene(main, lambda s: s.moments[:, 7] / s.moments[:, 0]),
        "deviance": per_gene(main, lambda s: s.deviance),
    }
    measured_on = torch.stack([~not_measured(score.moments) for score in first]).sum(0).numpy()
    if (measured_on < len(first)).any():
        columns["slides_measured"] = measured_on
    absent = not_measured(pooled).numpy()
    constant = torch.stack([truth_is_constant(score.moments) for score in first]).all(0).numpy() & ~absent
    index, *others = panels.values()
    pcc = columns["pcc"][index]
    summary: dict[str, Any] = {
        "target": main,
        "size_um": scale or slides[0].size_um,
        "units": sum(score.units for score in first),
        "slides": len(slides),
        "PCC@F": _quantile(pcc, 0.25),
        "PCC@S": _quantile(pcc, 0.5),
        "PCC@M": _mean(pcc),
        "PCC@M_pooled": _mean(columns["pcc_pooled"][index]),
        "PCC@M_residual": _mean(columns["pcc_residual"][index]),
        "ceiling@M": _mean(columns["ceiling"][index]),
        "ceiling@M_residual": _mean(columns["ceiling_residual"][index]),
        "MSE": _mean(columns["mse"][index]),
        "MAE": _mean(columns["mae"][index]),
        "constant_genes": int(constant[index].sum()),
        "unmeasured_genes": int(absent[index].sum()),
        "filtered_units": sum(slide.filtered_units for slide in slides),
    }
    if main == "log1p_counts":
        summary["deviance"] = _mean(columns["deviance"][index])
    for name, other in zip(list(panels)[1:], others, strict=True):
        summary[f"PCC@M_{name}"] = _mean(columns["pcc"][other])
    return summary, columns


def _per_gene(
    slides: Sequence[ScoredSlide], scale: float, target: str, value: Callable[[Score], torch.Tensor | np.ndarray]
) -> np.ndarray:
    """A gene's value: averaged over the grid's offsets, then slides, then patients; (G,)."""
    by_patient: dict[str, list[np.ndarray]] = {}
    for slide in slides:
        values = [np.asarray(value(s)) for s in slide.scores if s.scale_um == scale and s.target == target]
        if values:
            by_patient.setdefault(slide.patient, []).append(mean_of_defined(values))
    if not by_patient:
        return np.full(len(slides[0].scores[0].ceiling), np.nan)
    return mean_of_defined([mean_of_defined(values) for values in by_patient.values()])


def _mean(values: np.ndarray) -> float:
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else float("nan")


def _quantile(values: np.ndarray, q: float) -> float:
    values = values[np.isfinite(values)]
    return float(np.quantile(values, q)) if len(values) else float("nan")
