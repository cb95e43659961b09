"""Seed every epoch, so that a resumed run draws the same random numbers as an uninterrupted one."""

from __future__ import annotations

import random

import numpy as np
import torch
from ignite.engine import Engine, Events

from ..data.crop_dataset import CropDataset

__all__ = ["EpochSeed"]


class EpochSeed:
    """Ignite handler: seed every epoch from (seed, epoch), so that a resumed run equals an uninterrupted one.

    Args:
        dataset: the training crops, which draw from the epoch's number.
        seed: the run's seed.
    """

    def __init__(self, dataset: CropDataset, seed: int) -> None:
        self.dataset = dataset
        self.seed = seed

    def attach(self, engine: Engine) -> None:
        """Seed at the start of each epoch."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Seed Python, NumPy, torch and the data set."""
        self.dataset.set_epoch(engine.state.epoch)
        seed = int(np.random.SeedSequence([self.seed, engine.state.epoch]).generate_state(1)[0])
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
