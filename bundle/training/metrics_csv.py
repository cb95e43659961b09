"""Write one row per epoch to `metrics.csv`."""

from __future__ import annotations

import csv
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events

from ..files.atomic import replacing
from ..files.reading import reading

__all__ = ["MetricsCsv"]

logger = logging.getLogger(__name__)


class MetricsCsv:
    """Ignite handler: write one row per epoch to `metrics.csv`, and one line to the log.

    Both hold the loss, the learning rate and, where a validation ran, its metrics.

    Args:
        path: the file. A resumed run replaces the rows of epochs that it repeats.
        optimizer: the optimiser whose learning rate to write.
        evaluator: the validation's engine. Attach its `ValidationHandler` before this handler.
    """

    def __init__(self, path: str, optimizer: torch.optim.Optimizer, evaluator: Engine | None = None) -> None:
        self.path = Path(path)
        self.optimizer = optimizer
        self.evaluator = evaluator
        self._losses: list[float] = []
        self._done = 0
        self._started = 0.0

    def attach(self, engine: Engine) -> None:
        """Collect the loss of each iteration and write at the end of each epoch."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.COMPLETED, self._finish)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def _start(self, engine: Engine) -> None:
        self._done, self._started = 0, time.monotonic()

    def _finish(self, engine: Engine) -> None:
        if not self._done:
            logger.info("All %d epochs were complete already.", engine.state.epoch)

    def _collect(self, engine: Engine) -> None:
        output: Any = engine.state.output
        self._losses.append((output[0] if isinstance(output, list) else output)["loss"].item())

    def __call__(self, engine: Engine) -> None:
        """Write the epoch's row."""
        epoch = engine.state.epoch
        row: dict[str, Any] = {
            "epoch": epoch,
            "loss": float(np.mean(self._losses)),
            "learning_rate": self.optimizer.param_groups[-1]["lr"],  # a pretrained encoder's own rate comes first
        }
        self._losses = []
        if self.evaluator is not None and self.evaluator.state.metrics and self.evaluator.state.epoch == epoch:
            row |= {f"val_{key}": value for key, value in self.evaluator.state.metrics.items()}
        rows: list[dict] = []
        if self.path.is_file():
            with (
                reading(self.path, "cannot be read as the figures of each epoch", "Move it away to start it anew."),
                self.path.open() as file,
            ):
                rows = [r for r in csv.DictReader(file) if int(r["epoch"]) < epoch]
        rows.append(row)
        self._done += 1
        last = engine.state.max_epochs or epoch
        left = (time.monotonic() - self._started) / self._done * (last - epoch)
        validated = f", validation PCC@M {row['val_PCC@M']:.3f}" if "val_PCC@M" in row else ""
        logger.info("epoch %d of %d: loss %.4f%s, %.1f min left", epoch, last, row["loss"], validated, left / 60)
        fields = list(dict.fromkeys(key for r in rows for key in r))
        with replacing(self.path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, fields)
            writer.writeheader()
            writer.writerows(rows)
