"""Scores of whole slides, cumulated over iterations and ranks, summarised over genes."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from monai.metrics import CumulativeIterationMetric

from ..errors import InputError
from ..manifest import slide_name
from ..panel import GenePanel
from .moments import combine, correlation, truth_is_constant
from .scales import MIN_CELLS, MIN_UNITS_PER_CELL
from .score import NATIVE, TARGETS, Score, score_slide

__all__ = ["ExpressionMetric", "grouped"]

logger = logging.getLogger(__name__)

_FIELDS = 10  # 8 moments, ceiling, deviance


def grouped(
    pooled: torch.Tensor,
    project: Callable[[torch.Tensor], torch.Tensor],
    rate: Callable[[torch.Tensor], torch.Tensor | None],
    chunk: int = 65536,
) -> Callable[[sp.csr_matrix], tuple[np.ndarray, np.ndarray | None]]:
    """Predictions for groups of equal-sized units from pooled features.

    Both heads are linear in the features before the log, so a group's features are the mean of its units'.
    """
    features = pooled.detach().cpu().numpy()

    @torch.no_grad()
    def predict(groups: sp.csr_matrix) -> tuple[np.ndarray, np.ndarray | None]:
        size = np.asarray(groups.sum(1)).ravel()
        ys, rates = [], []
        for start in range(0, groups.shape[0], chunk):
            part = slice(start, start + chunk)
            mean = torch.from_numpy((groups[part] @ features) / size[part, None]).to(pooled)
            ys.append(project(mean).cpu().numpy())
            density = rate(mean)
            if density is not None:
                rates.append(density.cpu().numpy() * size[part, None])
        return np.concatenate(ys), np.concatenate(rates) if rates else None

    return predict


class ExpressionMetric(CumulativeIterationMetric):
    """PCC, MSE and MAE per scale: per gene within a slide, then over slides, patients and genes.

    One iteration is one whole slide on one rank. Its moments are buffered as rows of one tensor and gathered;
    correlations are never averaged across ranks.

    Args:
        panel: genes and their named panels; the first is the headline's.
        records: the records of the evaluated data set, whose order numbers the slides on every rank.
        project: pooled features (U, C) to y (U, G): the network's `project`.
        rate: pooled features to rates per µm² (U, G + 1) or None: the network's `rate`.
        scales_um: sides of the cells to sum units to, beside the units' own scale.
        ceilings: also compute counting-noise ceilings, once a slide.

    Raises:
        InputError: from `aggregate`, if slides were measured in units of different sizes.
    """

    def __init__(
        self,
        panel: GenePanel,
        records: Sequence[Mapping[str, Any]],
        project: Callable[[torch.Tensor], torch.Tensor],
        rate: Callable[[torch.Tensor], torch.Tensor | None],
        scales_um: Sequence[float] = (),
        ceilings: bool = True,
    ) -> None:
        self.panel = panel
        self.records = list(records)
        self.project = project
        self.rate = rate
        self.scales_um = tuple(float(s) for s in scales_um)
        self.ceilings = ceilings
        self._ceilings: dict[int, dict] = defaultdict(dict)
        super().__init__()

    def reset(self) -> None:
        """Empty the buffer but for a blank row, so that a rank without any slide still takes part in the gather."""
        super().reset()
        blank = torch.zeros((1, len(self.panel) + 1, _FIELDS), dtype=torch.float64)
        blank[0, 0, 0] = -1
        self.extend(blank)

    def _compute_list(self, y_pred: Any, y: Any = None, **kwargs: Any) -> torch.Tensor:
        rows = []
        for pooled, slide in zip(y_pred, y, strict=True):
            predict = grouped(pooled, self.project, self.rate)
            units = slide["units"]
            known = self._ceilings[slide["index"]] if self.ceilings else None
            scores = score_slide(
                predict, units, self.panel.genes, slide["mpp"], self.scales_um, self.panel.min_total, known
            )
            rows += [self._row(score, slide["index"], slide["filtered_units"], units.size_um) for score in scores]
        return torch.stack(rows)

    def _compute_tensor(self, y_pred: torch.Tensor, y: torch.Tensor | None = None, **kwargs: Any) -> torch.Tensor:
        raise TypeError("ExpressionMetric takes lists: pooled features per slide, and the slides.")

    @staticmethod
    def _row(score: Score, slide: int, filtered: int, size_um: float) -> torch.Tensor:
        header = [slide, score.scale_um, score.offset, TARGETS.index(score.target), score.units, filtered, size_um]
        row = torch.zeros((len(score.ceiling) + 1, _FIELDS), dtype=torch.float64)
        row[0, : len(header)] = torch.tensor(header, dtype=torch.float64)
        row[1:, :8] = score.moments
        row[1:, 8] = torch.as_tensor(score.ceiling)
        row[1:, 9] = torch.as_tensor(score.deviance)
        return row

    def aggregate(self) -> dict[str, Any]:
        """Summarise all slides of all ranks.

        Returns:
            `scales` (per scale: PCC@F, PCC@S, PCC@M = first quartile, median and mean over genes, ...),
            `per_slide`, `per_gene` (scale -> column -> (G,) array) and `scales_left_out`.
        """
        rows = self.get_buffer()
        seen: dict[tuple, torch.Tensor] = {}
        for row in rows:
            slide, scale, offset, target = (float(v) for v in row[0, :4])
            if slide >= 0:  # a sampler may pad ranks by repeating a slide: once is enough
                seen[(int(slide), scale, int(offset), TARGETS[int(target)])] = row
        sizes = sorted({float(row[0, 6]) for row in seen.values()})
        if len(sizes) > 1:
            raise InputError(
                f"The slides were measured in units of {', '.join(f'{s:g}' for s in sizes)} µm, whose figures do not "
                "average. Evaluate one size at a time (--size-um)."
            )
        scales = sorted({key[1] for key in seen})
        result: dict[str, Any] = {
            "panel": self.panel.main,
            "genes": len(self.panel.panels[self.panel.main]),
            "scales": {},
            "per_slide": defaultdict(dict),
            "per_gene": {},
        }
        for scale in scales:
            name = "native" if scale == NATIVE else f"{scale:g}"
            at_scale = {key: row for key, row in seen.items() if key[1] == scale}
            slides = sorted({key[0] for key in at_scale})
            summary, columns = self._summary(at_scale, slides)
            result["scales"][name], result["per_gene"][name] = summary, columns
            for slide in slides:
                own = {key: row for key, row in at_scale.items() if key[0] == slide}
                result["per_slide"][slide_name(self.records[slide])][name] = self._summary(own, [slide])[0]
        result["per_slide"] = dict(result["per_slide"])
        result["scales_left_out"] = [s for s in self.scales_um if s not in scales and [s] != sizes]
        for scale in result["scales_left_out"]:
            logger.warning(
                "Scale %g µm is left out: its median cell holds fewer than %d units, or fewer than %d cells remain.",
                scale,
                MIN_UNITS_PER_CELL,
                MIN_CELLS,
            )
        return result

    def _summary(
        self, rows: dict[tuple, torch.Tensor], slides: list[int]
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        main = "counts" if any(key[3] == "counts" for key in rows) else "y"
        # Pooling and counting look at one origin of the grid; its keys sort first.
        first = [rows[min(key for key in rows if key[0] == slide and key[3] == main)] for slide in slides]
        pooled = first[0][1:, :8]
        for row in first[1:]:
            pooled = combine(pooled, row[1:, :8])
        columns = {
            "pcc": self._per_gene(rows, slides, main, lambda row: correlation(row[1:, :8])),
            "pcc_pooled": correlation(pooled).numpy(),
            "pcc_residual": self._per_gene(rows, slides, "residual", lambda row: correlation(row[1:, :8])),
            "ceiling": self._per_gene(rows, slides, main, lambda row: row[1:, 8]),
            "ceiling_residual": self._per_gene(rows, slides, "residual", lambda row: row[1:, 8]),
            "mse": self._per_gene(rows, slides, main, lambda row: row[1:, 6] / row[1:, 0]),
            "mae": self._per_gene(rows, slides, main, lambda row: row[1:, 7] / row[1:, 0]),
            "deviance": self._per_gene(rows, slides, main, lambda row: row[1:, 9]),
        }
        constant = torch.stack([truth_is_constant(row[1:, :8]) for row in first]).all(0).numpy()
        index = self.panel.index(self.panel.main)
        pcc = columns["pcc"][index]
        header = torch.stack([row[0] for row in first])
        summary: dict[str, Any] = {
            "target": {"y": "log1p_cp10k", "counts": "log1p_counts"}[main],
            "size_um": float(header[0, 1]) or float(header[0, 6]),
            "units": int(header[:, 4].sum()),
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
            "filtered_units": int(header[:, 5].sum()),
        }
        if main == "counts":
            summary["deviance"] = _mean(columns["deviance"][index])
        for name in list(self.panel.panels)[1:]:
            summary[f"PCC@M_{name}"] = _mean(columns["pcc"][self.panel.index(name)])
        return summary, columns

    def _per_gene(
        self,
        rows: dict[tuple, torch.Tensor],
        slides: list[int],
        target: str,
        value: Callable[[torch.Tensor], torch.Tensor],
    ) -> np.ndarray:
        """A gene's value: averaged over the grid's offsets, then slides, then patients; (G,)."""
        by_patient: dict[str, list[np.ndarray]] = defaultdict(list)
        for slide in slides:
            values = [value(row).numpy() for key, row in rows.items() if key[0] == slide and key[3] == target]
            if values:
                by_patient[str(self.records[slide].get("patient", slide))].append(_nanmean(values))
        if not by_patient:
            return np.full(len(self.panel), np.nan)
        return _nanmean([_nanmean(values) for values in by_patient.values()])


def _nanmean(values: Sequence[np.ndarray]) -> np.ndarray:
    stacked = np.stack(values)
    defined = np.isfinite(stacked)
    total = np.where(defined, stacked, 0).sum(0)
    return np.divide(total, defined.sum(0), out=np.full(stacked.shape[1], np.nan), where=defined.any(0))


def _mean(values: np.ndarray) -> float:
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else float("nan")


def _quantile(values: np.ndarray, q: float) -> float:
    values = values[np.isfinite(values)]
    return float(np.quantile(values, q)) if len(values) else float("nan")
