"""Keep the weights of the best validation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from ignite.engine import Engine, Events

from ..files.atomic import replacing

__all__ = ["BestModel"]


class BestModel:
    """Keep the weights of the best validation as a flat state dict; without validation, the last ones.

    Its state (the best figure so far) belongs into the checkpoint, so that a resumed run goes on comparing.

    Args:
        network: whose weights.
        path: `models/model.pt`.
        trainer: at whose end the weights are written where no validation has run.
        evaluator: the validation's engine, whose key metric is compared at the end of each of its runs.
        writers: called with the evaluator when it improves (`EvaluationWriter`).
        write: whether this process writes files (rank 0); every rank keeps the best figure.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        path: str,
        trainer: Engine,
        evaluator: Engine,
        writers: Sequence[Callable[[Engine], None]] = (),
        write: bool = True,
    ) -> None:
        self.network = network
        self.path = Path(path)
        self.writers = list(writers)
        self.write = write
        self.best: dict[str, float] = {}
        trainer.add_event_handler(Events.COMPLETED, self._finish)
        evaluator.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Compare, and save if better."""
        name = engine.state.key_metric_name  # type: ignore[attr-defined]
        value = float(engine.state.metrics[name])
        if value > self.best.get(name, -np.inf):
            self.best[name] = value
            self._save()
            for writer in self.writers if self.write else ():
                writer(engine)

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
        """The best figure so far."""
        return dict(self.best)

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Go on from a checkpoint."""
        self.best = dict(state)
