"""The training loss over measured units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from .pixnet import UnitExpression

__all__ = ["ExpressionLoss"]

_VARIANCE_FLOOR = 1e-6  # of standardised values


class ExpressionLoss(nn.Module):
    """mse_weight * MSE + pearson_weight * (1 - Pearson) + poisson_weight * Poisson, over the units of a batch.

    MSE and Pearson work on y / std, y = log1p of counts per 10 000. A unit that holds too few counts to be normalised
    by its own total (`normalised`) takes no part in the MSE, and its Pearson is that of log1p counts, expected ones
    against measured ones. Pearson is taken per gene within each slide and
    layer, because across slides it rewards knowing the slide, and averaged over genes and groups; groups of fewer than
    `min_units` units and genes whose truth is constant there are left out, and the term is 0 if nothing remains.

    Poisson is the deviance of the raw counts, all other genes being one more gene, given expected counts
    rate * area * size factor, one factor per slide and unit size. A gene is divided by 1 + its mean count in the batch
    (a quasi-likelihood with variance growing as the squared mean), which leaves the minimum where it is and keeps deep
    genes from drowning the rest. It is averaged over layers, so that the many small units do not drown the few large
    ones, nor large counts the small ones.

    Args:
        pearson_weight: of the Pearson term.
        min_units: the fewest units of a group that a correlation is taken over.
        poisson_weight: of the Poisson term; needs a head that gives a rate.
        mse_weight: of the mean squared error.
        std: (G,), standard deviation of y over the training units; 1 if None.

    Raises:
        ValueError: if `std` holds a value that is not positive.
    """

    needs_batch = True  # not only the measurement: see `forward`
    std: torch.Tensor

    def __init__(
        self,
        pearson_weight: float = 0.5,
        min_units: int = 8,
        poisson_weight: float = 0.0,
        mse_weight: float = 1.0,
        std: Sequence[float] | torch.Tensor | None = None,
    ) -> None:
        super().__init__()
        self.pearson_weight = pearson_weight
        self.min_units = min_units
        self.poisson_weight = poisson_weight
        self.mse_weight = mse_weight
        std = torch.ones(1) if std is None else torch.as_tensor(std, dtype=torch.float32)
        if not bool((std > 0).all()):
            raise ValueError("std must be positive for every gene: leave genes that never vary out of the panel.")
        self.register_buffer("std", std)

    def forward(self, pred: UnitExpression, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The loss, a scalar; a differentiable 0 for a batch without units.

        Args:
            pred: what the model gave for the batch's U units.
            batch: `target` (U, G), log1p of counts per 10 000, NaN for a gene that was not measured and teaches
                nothing; `unit_batch` and `unit_size` (or `unit_layer`) (U,), or `unit_group` (U,) to name the groups of
                the Pearson term outright; for Poisson also `total`, `area_um2` and
                `size_factor` (U,); `normalised` (U,) bool, whether y is meaningful, all by default.

        Raises:
            ValueError: if the Poisson term, or units that are not `normalised`, are asked of a head without a rate.
        """
        log_cp10k = pred.log_cp10k.float()
        if self.poisson_weight and pred.rate is None:
            raise ValueError("This head gives no rate, so poisson_weight must be 0; or choose the head 'programs'.")
        if len(log_cp10k) == 0:
            return log_cp10k.sum()

        std = self.std.to(log_cp10k)
        measured = ~batch["target"].isnan()
        if not bool(measured.all()):
            batch = {**batch, "target": batch["target"].nan_to_num(), "measured": measured}
            log_cp10k = log_cp10k * measured
        predicted, truth = log_cp10k / std, batch["target"] / std
        normalised = batch.get("normalised")
        if normalised is None or bool(normalised.all()):
            loss = self.mse_weight * _mean_of((predicted - truth).square(), measured)
        else:
            if pred.rate is None:
                raise ValueError("This head gives no rate, so every unit must be normalised; or choose 'programs'.")
            error = (predicted - truth)[normalised].square()
            loss = self.mse_weight * _mean_of(error, measured[normalised])
            predicted = torch.where(
                normalised.unsqueeze(1), predicted, _expected(pred.rate.float(), batch)[:, :-1].log1p() * measured
            )
            truth = torch.where(normalised.unsqueeze(1), truth, _counts(batch)[:, :-1].log1p())
        if self.pearson_weight:
            loss = loss + self.pearson_weight * pearson_loss(predicted, truth, _groups(batch), self.min_units)
        if self.poisson_weight and pred.rate is not None:
            loss = loss + self.poisson_weight * poisson_loss(pred.rate.float(), batch)
        return loss


def _mean_of(error: torch.Tensor, measured: torch.Tensor) -> torch.Tensor:
    """Mean of an error that is 0 where nothing was measured, over the rest; 0 where that is empty."""
    return error.mean() if len(error) and bool(measured.all()) else error.sum() / measured.sum().clamp_min(1)


def pearson_loss(predicted: torch.Tensor, truth: torch.Tensor, group: torch.Tensor, min_units: int) -> torch.Tensor:
    """1 - mean over groups and genes of the correlation over a group's units; 0 where none can be taken.

    Args:
        predicted: (U, G).
        truth: (U, G).
        group: (U,), integer.
        min_units: smaller groups are left out.
    """
    _, group, n_units = torch.unique(group, return_inverse=True, return_counts=True)
    n = n_units.unsqueeze(1)

    def mean(values: torch.Tensor) -> torch.Tensor:
        return values.new_zeros(len(n_units), values.shape[1]).index_add(0, group, values) / n

    predicted = predicted - mean(predicted)[group]
    truth = truth - mean(truth)[group]
    truth_variance = mean(truth.square())
    scale = (mean(predicted.square()) + _VARIANCE_FLOOR) * truth_variance.clamp_min(_VARIANCE_FLOOR)
    correlation = mean(predicted * truth) / scale.sqrt()
    valid = (n >= min_units) & (truth_variance > _VARIANCE_FLOOR)
    return ((1 - correlation) * valid).sum() / valid.sum().clamp_min(1)


def poisson_loss(rate: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Poisson deviance of the counts behind `target` and `total`, per gene and layer over 1 + its mean count there.

    Averaged over genes and layers.

    Args:
        rate: (U, G + 1), counts per µm².
        batch: see `ExpressionLoss`.
    """
    counts, expected = _counts(batch), _expected(rate, batch)
    deviance = 2 * (torch.xlogy(counts, counts) - torch.xlogy(counts, expected) - (counts - expected))
    _, layer, n_units = torch.unique(_sizes(batch), return_inverse=True, return_counts=True)

    def mean(values: torch.Tensor) -> torch.Tensor:
        return values.new_zeros(len(n_units), values.shape[1]).index_add(0, layer, values) / n_units.unsqueeze(1)

    measured = batch.get("measured")
    if measured is None:
        return (mean(deviance) / (1 + mean(counts))).mean()
    # The remainder column is comparable only for units that measured the whole panel.
    known = torch.cat([measured, measured.all(1, keepdim=True)], dim=1).to(deviance)
    share = mean(known)
    per_gene = mean(deviance * known) / share.clamp_min(1e-12) / (1 + mean(counts * known) / share.clamp_min(1e-12))
    return per_gene.sum() / (share > 0).sum().clamp_min(1)


def _counts(batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The raw counts, all other genes last, (U, G + 1)."""
    total = batch["total"].unsqueeze(1)
    counts = torch.expm1(batch["target"]) * total / 1e4
    return torch.cat([counts, (total - counts.sum(1, keepdim=True)).clamp_min(0)], dim=1)


def _expected(rate: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Expected counts, (U, G + 1), with one size factor for the units of one size on one slide."""
    return (rate * (batch["area_um2"] * batch["size_factor"]).unsqueeze(1)).clamp_min(1e-12)


def _sizes(batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """A number for each unit's size, (U,): units that overlap lie on several mask layers."""
    return batch.get("unit_size", batch["unit_layer"])


def _groups(batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    if "unit_group" in batch:
        return batch["unit_group"]
    layer = _sizes(batch)
    return batch["unit_batch"] * (layer.amax() + 1) + layer
