"""Keep the weights of the best validation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.engines import Trainer

from ..files.atomic import replacing

__all__ = ["BestModel"]


class BestModel:
    """Ignite handler: keep the weights of the best validation as a flat state dict; without validation, the last ones.

    Attach it to both engines. After each run of the evaluator it compares the key metric and writes the weights if the
    metric is higher. At the end of training it writes the last weights if nothing was validated. Its state, the highest
    metric so far, belongs in the checkpoint, so that a resumed run compares with it.

    Args:
        network: the network whose weights to keep.
        path: the file to write, `models/model.pt`.
        writer: called with the evaluator after each improvement (`EvaluationWriter`).
        write: whether this process writes files (rank 0). Every rank keeps the highest metric.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        path: str,
        writer: Callable[[Engine], None] | None = None,
        write: bool = True,
    ) -> None:
        self.network = network
        self.path = Path(path)
        self.writer = writer
        self.write = write
        self.best: dict[str, float] = {}

    def attach(self, engine: Engine) -> None:
        """Compare at the end of each run of an evaluator; check at the end of a trainer's."""
        engine.add_event_handler(Events.COMPLETED, self._finish if isinstance(engine, Trainer) else self)

    def __call__(self, engine: Engine) -> None:
        """Compare, and save if better."""
        name = engine.state.key_metric_name  # type: ignore[attr-defined]
        value = float(engine.state.metrics[name])
        if value > self.best.get(name, -np.inf):
            self.best[name] = value
            self._save()
            if self.write and self.writer is not None:
                self.writer(engine)

    def _finish(self, engine: Engine) -> None:
        if not self.best:
            self._save()

    def _save(self) -> None:
        if not self.write:
            return
        network = getattr(self.network, "module", self.network)
        with replacing(self.path) as temporary:
            torch.save(network.state_dict(), temporary)

    def state_dict(self) -> dict[str, float]:
        """The highest metric so far, by its name."""
        return dict(self.best)

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Continue from a checkpoint."""
        self.best = dict(state)
