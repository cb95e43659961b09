"""Scores of whole slides, cumulated over iterations and ranks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from monai.metrics import CumulativeIterationMetric

from ..data.manifest import patient_of, slide_name
from ..data.normalisation import bounded
from ..data.panel import GenePanel
from .score import TARGETS, Score, score_slide
from .summary import ScoredSlide, summarise

__all__ = ["ExpressionMetric", "grouped"]

_FIELDS = 10  # 8 moments, ceiling, deviance


def grouped(
    pooled: torch.Tensor,
    project: Callable[[torch.Tensor], torch.Tensor],
    rate: Callable[[torch.Tensor], torch.Tensor | None],
    chunk: int = 65536,
) -> Callable[[sp.csr_matrix], tuple[np.ndarray, np.ndarray | None]]:
    """Predictions for groups of equal-sized units from pooled features, clipped as they are when written.

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
            ys.append(bounded(project(mean).cpu().numpy()))
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
        project: pooled features (U, C) to log1p CP10k (U, G): the network's `project`.
        rate: pooled features to rates per µm² (U, G + 1) or None: the network's `rate`.
        scales_um: sides of the grid squares to bin units to, besides the units' own scale.
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

    @staticmethod
    def _score(row: torch.Tensor) -> Score:
        header = row[0].tolist()
        target = TARGETS[int(header[3])]
        moments, ceiling, deviance = row[1:, :8], row[1:, 8].numpy(), row[1:, 9].numpy()
        return Score(header[1], int(header[2]), target, int(header[4]), moments, ceiling, deviance)

    def aggregate(self) -> dict[str, Any]:
        """Summarise all slides of all ranks.

        Returns:
            What `bundle.metrics.summary.summarise` says of them.
        """
        found: dict[int, dict[tuple, Score]] = defaultdict(dict)
        about: dict[int, torch.Tensor] = {}
        for row in self.get_buffer():
            index = int(row[0, 0])
            if index < 0:
                continue
            score = self._score(row)
            # A sampler may pad ranks by repeating a slide: once is enough.
            found[index][score.scale_um, score.offset, score.target] = score
            about[index] = row[0]
        slides = []
        for index in sorted(found):
            record, header = self.records[index], about[index]
            scores = list(found[index].values())
            patient = patient_of(record)
            slides.append(ScoredSlide(slide_name(record), patient, float(header[6]), int(header[5]), scores))
        panels = {name: self.panel.index(name) for name in self.panel.panels}
        return summarise(slides, panels, self.scales_um)
