"""The model as MONAI Label's infer task and train task."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType
from monailabel.interfaces.tasks.train import TrainTask

from ...data.panel import GenePanel, load_panel
from .infer import infer
from .models import current_run, fine_tune
from .request import options, read_request, read_training, training_options
from .studies import studies_with_units

__all__ = ["PixNetInfer", "PixNetTrain"]


class PixNetInfer(InferTask):
    """Units, contours or the map of a slide; every request uses the newest weights.

    Args:
        run: the run that is served.
        settings: further keys of `configs/inference.json`.
        trust: whether the model may run code of its own.
    """

    def __init__(self, run: Path, settings: Mapping[str, Any], trust: bool = False) -> None:
        super().__init__(
            type=InferType.OTHERS,
            labels=None,
            dimension=2,
            description="Predicted gene expression of square units, iso-contours of a gene, or a region's map",
        )
        self.run = run
        self.settings = settings
        self.trust = trust

    @property
    def panel(self) -> GenePanel:
        """The genes, which fine-tuning leaves as they are."""
        return load_panel(current_run(self.run) / "models" / "panel.json")

    def info(self) -> dict[str, Any]:
        """Genes as labels, and the options."""
        panel = self.panel
        return {**super().info(), "labels": list(panel.genes), "config": options(panel)}

    def is_valid(self) -> bool:
        """Whether clients see it."""
        return True

    def get_path(self, validate: bool = True) -> str:
        """The weights."""
        return str(current_run(self.run) / "models" / "model.pt")

    def __call__(self, request: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Carry out a request whose `image` is a slide's path."""
        run = current_run(self.run)
        wanted = read_request(request, load_panel(run / "models" / "panel.json"))
        file, about = infer(Path(request["image"]), run, wanted, self.settings, self.trust)
        return str(file), about


class PixNetTrain(TrainTask):
    """Fine-tuning on the studies that have units.

    Args:
        run: the run that is served.
        studies: the studies folder.
        settings: further keys of `configs/train.json`.
        trust: whether the run's recipe may run code of its own.
    """

    def __init__(self, run: Path, studies: str, settings: Mapping[str, Any], trust: bool = False) -> None:
        super().__init__("Fine-tune on the studies that have measured units")
        self.run = run
        self.studies = studies
        self.settings = settings
        self.trust = trust

    def config(self) -> dict[str, Any]:
        """What a request may set."""
        return training_options()

    def stats(self) -> dict[str, Any]:
        """The served run and the losses of its training, epoch by epoch."""
        run = current_run(self.run)
        path = run / "metrics.csv"
        rows = list(csv.DictReader(path.open())) if path.is_file() else []
        return {"run": run.name, "epoch": len(rows), "loss": [float(row["loss"]) for row in rows]}

    def __call__(self, request: Mapping[str, Any], datastore: Any) -> dict[str, Any]:
        """Train; the next request uses the new weights."""
        asked = read_training(request)
        records = studies_with_units(self.studies)
        fine_tune(self.run, records, {**self.settings, **asked}, self.trust)
        return {**self.stats(), "slides": [Path(record["image"]).name for record in records]}
