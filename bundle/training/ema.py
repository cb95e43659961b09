"""EMA: the exponential moving average of a network's weights, which validation and prediction use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..errors import InputError

__all__ = ["EMA"]


class EMA:
    """Ignite handler: an exponential moving average of the weights, updated after each step.

    It averages parameters and copies buffers. Its state belongs in the checkpoint, so that a resumed run continues the
    same average.

    Args:
        network: the network that is trained, on its device, within a distributed wrapper or not.
        decay: share of the average that each step keeps; 0.99 looks back over about 100 steps. 0 means no average.

    Attributes:
        network: the network to validate and keep: the average, or without one the trained network itself.

    Raises:
        InputError: if `decay` is not from 0 to below 1.
    """

    def __init__(self, network: torch.nn.Module, decay: float) -> None:
        if not 0 <= decay < 1:
            raise InputError(f"ema_decay is {decay}; it must be at least 0 (no average) and below 1, such as 0.99.")
        self._trained = getattr(network, "module", network)
        self._average = AveragedModel(self._trained, multi_avg_fn=get_ema_multi_avg_fn(decay)) if decay else None
        self.network: Any = self._trained if self._average is None else self._average.module

    def attach(self, engine: Engine) -> None:
        """Update at the end of each iteration."""
        if self._average is not None:
            engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Add the current weights to the average."""
        if self._average is not None:
            self._average.update_parameters(self._trained)

    def state_dict(self) -> dict[str, Any]:
        """The average and its number of steps; empty without an average."""
        return {} if self._average is None else dict(self._average.state_dict())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a checkpoint."""
        if self._average is not None:
            self._average.load_state_dict(state)
