"""Training for a time, not for a number of epochs, so that networks of different speed compare."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import torch
from ignite.engine import Engine, Events

from bundle.files.atomic import write_json

__all__ = ["TimedSchedule"]


class TimedSchedule:
    """A linear warm-up and a cosine down to 0 over a budget of time, at whose end training ends.

    The learning rate follows the time spent, not the step, so that the schedule fits the budget of a fast and of a slow
    network. The time is the training thread's own CPU time, so other jobs on the machine do not count. Reading,
    augmenting and saving count; scoring does not. The state is saved after each whole epoch: a run that was killed
    continues with the time that it had spent by then.

    With `steps`, the budget is that many steps instead (see `benchmarks.accuracy.timing`).

    Args:
        optimizer: its learning rates are the peak.
        minutes: the budget.
        report: a JSON file for the steps and the time spent.
        warmup: share of the budget that the rise takes.
        steps: of the optimiser, instead of the time.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        minutes: float,
        report: str,
        warmup: float = 0.05,
        steps: int | None = None,
    ) -> None:
        self.optimizer = optimizer
        self.budget_s = 60 * float(minutes)
        self.steps = steps
        self.report = report
        self.warmup = warmup
        self.peak = [group["lr"] for group in optimizer.param_groups]
        self.spent = {"steps": 0, "cpu_s": 0.0, "wall_s": 0.0}
        self._at = (0.0, 0.0)

    def attach(self, engine: Engine) -> None:
        """Set the rate before each step and end the training when the time is spent."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_STARTED, self._set_rate)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._count)
        engine.add_event_handler(Events.COMPLETED, self._finish)

    def share(self) -> float:
        """Spent part of the budget, 0 to 1."""
        share = self.spent["cpu_s"] / self.budget_s if self.steps is None else self.spent["steps"] / self.steps
        return min(share, 1.0)

    def rate(self, share: float) -> float:
        """Learning rate over its peak."""
        if share < self.warmup:
            return 0.1 + 0.9 * share / self.warmup
        return 0.5 * (1 + math.cos(math.pi * (share - self.warmup) / (1 - self.warmup)))

    def step(self) -> None:
        """Do nothing: this schedule does not depend on epochs."""

    def state_dict(self) -> dict[str, Any]:
        """Steps and time so far."""
        return dict(self.spent)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.spent = dict(state)  # type: ignore[assignment]

    def _start(self, engine: Engine) -> None:
        self._at = (time.thread_time(), time.monotonic())

    def _set_rate(self, engine: Engine) -> None:
        for group, peak in zip(self.optimizer.param_groups, self.peak, strict=True):
            group["lr"] = peak * self.rate(self.share())

    def _count(self, engine: Engine) -> None:
        now = (time.thread_time(), time.monotonic())
        self.spent["steps"] += 1
        self.spent["cpu_s"] += now[0] - self._at[0]
        self.spent["wall_s"] += now[1] - self._at[1]
        self._at = now
        if self.share() >= 1:
            engine.terminate()

    def _finish(self, engine: Engine) -> None:
        write_json(self.report, self.spent)
