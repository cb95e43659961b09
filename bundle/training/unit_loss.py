"""What the trainer calls as its loss, so that any PyTorch loss will do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

__all__ = ["UnitLoss"]


class UnitLoss:
    """Gives a loss what it takes.

    A loss with the attribute `needs_batch = True` (such as `networks.ExpressionLoss`) gets the network's
    `UnitExpression` and the whole batch. Any other, such as `torch.nn.L1Loss`, gets two tensors (U, G) of log1p CP10k:
    the prediction and the measurement of a batch's U units. Two details keep such a loss meaningful: where a slide did
    not measure a gene, its prediction takes the measurement's place and teaches nothing; units too small to normalise
    (below 55 µm with the head `programs`) are left out.

    Args:
        loss: the loss of the configuration.
    """

    def __init__(self, loss: Callable[..., torch.Tensor]) -> None:
        self.loss = loss

    def __call__(self, pred: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The loss, a scalar; a differentiable 0 for a batch without units.

        Args:
            pred: the network's prediction for the batch's units, with `log_cp10k` (U, G).
            batch: see `collate_units`.
        """
        if getattr(self.loss, "needs_batch", False):
            return self.loss(pred, batch)
        predicted, truth = pred.log_cp10k.float(), batch["target"].float()
        if "normalised" in batch:
            predicted, truth = predicted[batch["normalised"]], truth[batch["normalised"]]
        if len(predicted) == 0:
            return predicted.sum()
        return self.loss(predicted, torch.where(truth.isnan(), predicted.detach(), truth))
