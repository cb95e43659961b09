"""Any PyTorch loss trains on units; a loss that needs more gets it."""

from __future__ import annotations

import pytest
import torch

from bundle import UnitLoss
from networks import ExpressionLoss, UnitExpression


def _batch(target: torch.Tensor, **more: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"target": target, **more}


@pytest.mark.parametrize("loss", [torch.nn.L1Loss(), torch.nn.MSELoss(), torch.nn.functional.smooth_l1_loss])
def test_a_plain_loss_sees_predictions_and_measurements(loss):
    predicted, target = torch.randn(5, 3), torch.randn(5, 3)
    assert UnitLoss(loss)(UnitExpression(predicted, None), _batch(target)) == loss(predicted, target)


def test_a_gene_that_was_not_measured_teaches_nothing():
    predicted, target = torch.randn(4, 2, requires_grad=True), torch.randn(4, 2)
    target[:, 1] = torch.nan
    UnitLoss(torch.nn.L1Loss())(UnitExpression(predicted, None), _batch(target)).backward()
    assert (predicted.grad[:, 0] != 0).all()
    assert (predicted.grad[:, 1] == 0).all()


def test_units_too_small_to_normalise_are_left_out():
    predicted, target = torch.randn(4, 2), torch.randn(4, 2)
    large = torch.tensor([True, False, True, False])
    value = UnitLoss(torch.nn.L1Loss())(UnitExpression(predicted, None), _batch(target, normalised=large))
    torch.testing.assert_close(value, (predicted - target)[large].abs().mean())


def test_a_batch_without_units_is_a_zero_with_a_gradient():
    predicted = torch.randn(0, 2, requires_grad=True)
    value = UnitLoss(torch.nn.L1Loss())(UnitExpression(predicted, None), _batch(torch.randn(0, 2)))
    value.backward()
    assert value == 0


def test_a_loss_that_needs_the_batch_gets_it():
    seen = []

    class Loss:
        needs_batch = True

        def __call__(self, *given: object) -> torch.Tensor:
            seen.append(given)
            return torch.zeros(())

    pred, batch = UnitExpression(torch.randn(1, 2), None), _batch(torch.randn(1, 2))
    UnitLoss(Loss())(pred, batch)
    assert seen[0][0] is pred
    assert seen[0][1] is batch
    assert ExpressionLoss.needs_batch
