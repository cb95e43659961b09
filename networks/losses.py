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

    MSE and Pearson work on y / std, where y is log1p CP10k. Units with too few counts to be normalised by their own
    total (not `normalised`) take no part in the MSE. Their Pearson compares log1p of expected and measured counts.

    Pearson is taken per gene within each slide and unit size, because across slides it rewards knowing the slide. The
    term is its mean over genes and groups. It leaves out groups of fewer than `min_units` units, and genes whose
    measurement is constant in the group. It is 0 if nothing remains.

    Poisson is the deviance of the raw counts, where all other genes count as one more gene. The expected counts are
    rate * area * size factor, with one factor per slide and unit size. Each gene's deviance is divided by 1 + its mean
    count in the batch (a quasi-likelihood whose variance grows as the squared mean). This keeps the minimum and stops
    genes with many counts from dominating. The term is a mean over unit sizes, so that many small units do not
    dominate few large ones.

    Args:
        pearson_weight: weight of the Pearson term.
        min_units: smallest group of units in which to take a correlation.
        poisson_weight: weight of the Poisson term, which needs a head that gives a rate.
        mse_weight: weight of the mean squared error.
        std: standard deviation of y over the training units, (G,); 1 if None.

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
        """Compute the loss, a scalar; a differentiable 0 for a batch without units.

        Args:
            pred: the model's prediction for the batch's U units.
            batch: the measured units. `target` (U, G) is log1p CP10k, NaN where a gene was not measured. `unit_batch`
                and `unit_size` (or `unit_layer`), both (U,), give the groups of the Pearson term, or `unit_group` (U,)
                names them. Poisson also needs `total`, `area_um2` and `size_factor`, each (U,). `normalised` (U,) says
                where `target` is meaningful; by default everywhere.

        Raises:
            ValueError: if the head gives no rate, and the Poisson term or units that are not `normalised` need one.
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
    """Mean over the measured entries of an error that is 0 elsewhere; 0 if nothing was measured."""
    return error.mean() if len(error) and bool(measured.all()) else error.sum() / measured.sum().clamp_min(1)


def pearson_loss(predicted: torch.Tensor, truth: torch.Tensor, group: torch.Tensor, min_units: int) -> torch.Tensor:
    """1 - the mean over groups and genes of the correlation over a group's units; 0 without any correlation.

    Args:
        predicted: (U, G).
        truth: (U, G).
        group: number of each unit's group, (U,).
        min_units: the function leaves out smaller groups.
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
    """Poisson deviance of the raw counts, divided by 1 + the gene's mean count, averaged over genes and unit sizes.

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
