"""The Ignite handler that puts every scale's figures into `engine.state.metrics`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Engine, Events
from monai.handlers import IgniteMetricHandler
from monai.utils import CommonKeys

from ..data.manifest import patient_of
from ..data.panel import GenePanel
from ..files.atomic import replacing, write_json
from ..files.naming import check_name
from .metric import ExpressionMetric
from .summary import gene_table

__all__ = ["EvaluationWriter", "ExpressionMetricHandler"]

logger = logging.getLogger(__name__)


def _slides(output: dict[str, Any]) -> tuple[list, list]:
    return [output[CommonKeys.PRED]], [output[CommonKeys.LABEL]]


class ExpressionMetricHandler(IgniteMetricHandler):
    """Scores predictions at every spatial scale at the end of an evaluation.

    `engine.state.metrics` gets PCC@M at the units' own scale under the attached name, and every other figure of
    every scale under its own (`PCC@S`, `PCC@M_400`, ...). The whole result is in `engine.state.evaluation`.
    A figure that is undefined (NaN) counts as -1 for the attached name, so that it never becomes "best".

    Args:
        metric: cumulates whole slides over ranks.
        output_transform: the engine's output to (list of pooled features, list of slides).
    """

    def __init__(
        self, metric: ExpressionMetric, output_transform: Callable[[Any], tuple[list, list]] = _slides
    ) -> None:
        super().__init__(metric_fn=metric, output_transform=output_transform, save_details=False)
        self._result: dict[str, Any] = {}

    def compute(self) -> float:
        """PCC@M at the units' own scale."""
        self._result = self.metric_fn.aggregate()
        value = self._result["scales"].get("native", {}).get("PCC@M", float("nan"))
        return float(value) if np.isfinite(value) else -1.0

    def completed(self, engine: Engine, name: str) -> None:
        """Put all figures into the engine's state."""
        super().completed(engine, name)
        for scale, figures in self._result["scales"].items():
            suffix = "" if scale == "native" else f"_{scale}"
            for key, value in figures.items():
                if isinstance(value, (int, float)) and f"{key}{suffix}" != name:
                    engine.state.metrics[f"{key}{suffix}"] = value
        engine.state.evaluation = self._result  # type: ignore[attr-defined]


class EvaluationWriter:
    """Write `evaluation/<name>.json` and its per-gene table, on rank 0.

    Args:
        output_dir: the run folder.
        split: the evaluated split.
        panel: says what was predicted and whose tissue it was trained on.
        records: the evaluated records.
        name: of the files, the split's by default.
        about: further keys of the JSON.
    """

    def __init__(
        self,
        output_dir: str,
        split: str,
        panel: GenePanel,
        records: Sequence[Mapping[str, Any]],
        name: str | None = None,
        about: dict[str, Any] | None = None,
    ) -> None:
        self.folder = Path(output_dir) / "evaluation"
        self.split = split
        self.name = check_name(split if name is None else name, "name")
        self.panel = panel
        self.records = list(records)
        self.about = about or {}

    def attach(self, engine: Engine) -> None:
        """Write when the evaluation has completed."""
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write JSON and table."""
        result: dict[str, Any] = dict(engine.state.evaluation)  # type: ignore[attr-defined]
        per_gene = result.pop("per_gene")
        head = {
            "split": self.split,
            "split_by": str(self.records[0].get("split_by", "patient")),
            "same_patient": self.panel.shares_patients(self.records),
            "seen_patients": self.panel.seen_patients(self.records),
            "patients": len({patient_of(r) for r in self.records}),
            "min_total": self.panel.min_total,
            "transcriptome": self.panel.transcriptome,
        }
        write_json(self.folder / f"{self.name}.json", {**head, **self.about, **result})
        table = gene_table(self.panel.genes, self.panel.panels, per_gene)
        with replacing(self.folder / f"{self.name}_genes.csv") as temporary:
            table.to_csv(temporary, index=False)
        for figures in result["scales"].values():
            logger.info(
                "%s, %g µm: PCC@M %.3f (ceiling %.3f), MSE %.3f, %d units or squares",
                self.name,
                figures["size_um"],
                figures["PCC@M"],
                figures["ceiling@M"],
                figures["MSE"],
                figures["units"],
            )
