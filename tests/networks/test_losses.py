from __future__ import annotations

import pytest
import torch

from networks.losses import ExpressionLoss, pearson_loss, poisson_loss
from networks.pixnet import UnitExpression

UNITS, GENES = 40, 4


def batch(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    total = torch.randint(500, 5000, (UNITS,), generator=generator).float()
    counts = (total[:, None] * 0.2 * torch.rand(UNITS, GENES, generator=generator)).round()
    return {
        "target": torch.log1p(1e4 * counts / total[:, None]),
        "total": total,
        "area_um2": torch.rand(UNITS, generator=generator) * 1000 + 100,
        "size_factor": torch.full((UNITS,), 1.7),
        "unit_batch": torch.arange(UNITS) // 20,
        "unit_layer": torch.zeros(UNITS, dtype=torch.int64),
    }


def true_rate(b: dict[str, torch.Tensor]) -> torch.Tensor:
    counts = torch.expm1(b["target"]) * b["total"][:, None] / 1e4
    counts = torch.cat([counts, b["total"][:, None] - counts.sum(1, keepdim=True)], 1)
    return counts / (b["area_um2"] * b["size_factor"])[:, None]


def test_perfect_prediction_costs_nothing() -> None:
    b = batch()
    loss = ExpressionLoss(poisson_weight=1.0)(UnitExpression(b["target"], true_rate(b)), b)
    assert abs(float(loss)) < 1e-3


def test_mse_is_in_training_deviations() -> None:
    b, std = batch(), torch.tensor([0.5, 1.0, 2.0, 4.0])
    shifted = UnitExpression(b["target"] + 3 * std, None)
    assert float(ExpressionLoss(pearson_weight=0, std=std)(shifted, b)) == pytest.approx(9, rel=1e-4)
    assert float(ExpressionLoss(pearson_weight=0, mse_weight=0.5, std=std.tolist())(shifted, b)) == pytest.approx(4.5)


def test_pearson_ignores_affine_maps_per_gene_and_slide() -> None:
    b = batch()
    slope = torch.rand(2, GENES) + 0.5
    prediction = b["target"] * slope[b["unit_batch"]] + 5 * torch.randn(2, GENES)[b["unit_batch"]]
    assert float(pearson_loss(prediction, b["target"], b["unit_batch"], 8)) == pytest.approx(0, abs=1e-4)
    assert float(pearson_loss(-prediction, b["target"], b["unit_batch"], 8)) == pytest.approx(2, abs=1e-4)
    assert float(pearson_loss(prediction, b["target"], torch.zeros(UNITS, dtype=torch.int64), 8)) > 0.05


def test_pearson_equals_corrcoef_within_groups() -> None:
    b, prediction = batch(), torch.randn(UNITS, GENES)
    expected = [
        1 - torch.corrcoef(torch.stack([prediction[s, g], b["target"][s, g]]))[0, 1]
        for s in (slice(0, 20), slice(20, 40))
        for g in range(GENES)
    ]
    got = ExpressionLoss(pearson_weight=1, mse_weight=0)(UnitExpression(prediction, None), b)
    torch.testing.assert_close(got, torch.stack(expected).mean(), rtol=1e-4, atol=1e-4)


def test_layers_and_named_groups_separate_units() -> None:
    b = batch()
    b["target"] = b["target"] + 9 * b["unit_batch"][:, None]
    # Tells the two groups apart, and is noise within them: nearly right pooled, worth nothing within.
    prediction = UnitExpression(9 * b["unit_batch"][:, None] + torch.randn(UNITS, GENES), None)
    loss = ExpressionLoss(pearson_weight=1, mse_weight=0)
    layered = {**b, "unit_batch": torch.zeros(UNITS, dtype=torch.int64), "unit_layer": b["unit_batch"]}
    pooled = {**b, "unit_group": torch.zeros(UNITS, dtype=torch.int64)}
    torch.testing.assert_close(loss(prediction, layered), loss(prediction, b))
    assert float(loss(prediction, pooled)) < 0.2 < 0.5 < float(loss(prediction, b))


def test_small_groups_and_constant_truths_are_left_out() -> None:
    b = batch()
    prediction = torch.randn(UNITS, GENES, requires_grad=True)
    group = torch.zeros(UNITS, dtype=torch.int64)
    group[:7] = 1
    without = pearson_loss(prediction[7:], b["target"][7:], group[7:], 8)
    torch.testing.assert_close(pearson_loss(prediction, b["target"], group, 8), without)
    assert float(pearson_loss(prediction, b["target"], group, 100).detach()) == 0

    truth = b["target"].clone()
    truth[:, 0] = 1.5
    torch.testing.assert_close(
        pearson_loss(prediction, truth, group, 8), pearson_loss(prediction[:, 1:], truth[:, 1:], group, 8)
    )


def test_constant_prediction_has_a_finite_gradient() -> None:
    b = batch()
    prediction = torch.zeros(UNITS, GENES, requires_grad=True)
    loss = pearson_loss(prediction, b["target"], b["unit_batch"], 8)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(1)
    assert torch.isfinite(prediction.grad).all()
    assert (prediction.grad != 0).any()


def test_poisson_is_smallest_at_the_truth() -> None:
    b = batch()
    loss = ExpressionLoss(pearson_weight=0, mse_weight=0, poisson_weight=1)
    log_rate = true_rate(b).log().requires_grad_()
    at_truth = loss(UnitExpression(b["target"], log_rate.exp()), b)
    at_truth.backward()
    assert log_rate.grad.abs().max() < 1e-4
    for factor in (0.5, 0.9, 1.1, 2.0):
        elsewhere = loss(UnitExpression(b["target"], log_rate.exp() * factor), b)
        assert at_truth < elsewhere < 10


def test_poisson_of_a_gene_without_counts_is_finite() -> None:
    b = batch()
    b["target"][:, 0] = 0
    rate = torch.zeros(UNITS, GENES + 1, requires_grad=True)
    loss = ExpressionLoss(poisson_weight=1)(UnitExpression(b["target"], rate), b)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(rate.grad).all()


@pytest.mark.parametrize("has_rate", [False, True])
def test_no_units_give_a_differentiable_zero(has_rate: bool) -> None:
    prediction = torch.zeros(0, GENES, requires_grad=True)
    empty = {name: values[:0] for name, values in batch().items()}
    rate = torch.zeros(0, GENES + 1) if has_rate else None
    loss = ExpressionLoss(poisson_weight=float(has_rate))(UnitExpression(prediction, rate), empty)
    loss.backward()
    assert float(loss.detach()) == 0
    assert prediction.grad is not None


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="positive"):
        ExpressionLoss(std=[1.0, 0.0])
    with pytest.raises(ValueError, match="no rate"):
        ExpressionLoss(poisson_weight=1)(UnitExpression(batch()["target"], None), batch())


def mixed() -> dict[str, torch.Tensor]:
    """The first half of each slide's units large, the second half of few counts."""
    b = batch()
    b["unit_layer"] = torch.arange(UNITS) // 10 % 2
    b["normalised"] = b["unit_layer"] == 0
    small = ~b["normalised"]
    counts = torch.expm1(b["target"]) * b["total"][:, None] / 1e4
    counts[small] = (counts[small] / 100).round()
    b["total"][small] = (b["total"][small] / 100).round()
    b["target"] = torch.log1p(1e4 * counts / b["total"][:, None])
    return b


def test_small_units_are_compared_by_counts() -> None:
    b = mixed()
    small = ~b["normalised"]
    rate, y = true_rate(b), b["target"].clone()
    y[small] = torch.nan_to_num(y[small]) * 0 + 50  # what y says of them does not matter
    loss = ExpressionLoss(poisson_weight=1.0)
    assert abs(float(loss(UnitExpression(y, rate), b))) < 1e-3
    rate[small] = rate[small].flip(1)
    assert float(loss(UnitExpression(y, rate), b)) > 0.1
    with pytest.raises(ValueError, match="no rate"):
        ExpressionLoss()(UnitExpression(y, None), b)


def test_one_size_alone_costs_what_it_did_before_sizes_were_mixed() -> None:
    b = batch()
    prediction = UnitExpression(torch.rand(UNITS, GENES), torch.rand(UNITS, GENES + 1))
    loss = ExpressionLoss(poisson_weight=1.0)
    plain = loss(prediction, b)
    torch.testing.assert_close(loss(prediction, {**b, "normalised": torch.ones(UNITS, dtype=torch.bool)}), plain)


def test_many_small_units_weigh_as_much_as_few_large_ones() -> None:
    b = mixed()
    rate = true_rate(b) * (1 + 0.5 * torch.rand(UNITS, GENES + 1))
    b["unit_batch"] = torch.zeros(UNITS, dtype=torch.int64)
    small = torch.nonzero(~b["normalised"]).flatten()
    index = torch.cat([torch.nonzero(b["normalised"]).flatten(), small.repeat(7)])
    more = {key: value[index] for key, value in b.items()}
    torch.testing.assert_close(poisson_loss(rate[index], more), poisson_loss(rate, b))


def test_a_batch_of_small_units_alone_trains() -> None:
    b = mixed()
    b["normalised"] = torch.zeros(UNITS, dtype=torch.bool)
    rate = torch.rand(UNITS, GENES + 1, requires_grad=True)
    ExpressionLoss(poisson_weight=0.5)(UnitExpression(rate[:, :-1].log1p(), rate), b).backward()
    assert torch.isfinite(rate.grad).all()
    assert rate.grad.any()


def _lacking(b: dict[str, torch.Tensor], units: slice) -> dict[str, torch.Tensor]:
    """The same batch where gene 2 of some units was not measured."""
    target = b["target"].clone()
    target[units, 2] = torch.nan
    return {**b, "target": target}


@pytest.mark.parametrize("weights", [{"poisson_weight": 0.0}, {"poisson_weight": 0.7, "pearson_weight": 0.0}])
def test_a_gene_that_was_not_measured_teaches_nothing_and_takes_nothing_from_the_others(weights: dict) -> None:
    b, generator = batch(), torch.Generator().manual_seed(5)
    predicted = torch.randn(UNITS, GENES, generator=generator, requires_grad=True)
    rate = torch.rand(UNITS, GENES + 1, generator=generator).requires_grad_()
    ExpressionLoss(**weights)(UnitExpression(predicted, rate), _lacking(b, slice(0, 20))).backward()
    for gradient in (predicted.grad, rate.grad):
        if gradient is not None:
            assert torch.isfinite(gradient).all()
            assert (gradient[:20, 2] == 0).all()
    used = predicted.grad if predicted.grad is not None and weights["poisson_weight"] == 0 else rate.grad
    assert (used[20:, 2] != 0).any()
    assert (used[:20, :2] != 0).all()


def test_a_gene_that_no_unit_measured_is_as_if_it_were_not_there() -> None:
    b, generator = batch(), torch.Generator().manual_seed(5)
    predicted, kept = torch.randn(UNITS, GENES, generator=generator), [0, 1, 3]
    without = {**b, "target": b["target"][:, kept]}
    for weights in ({"pearson_weight": 0.0}, {"mse_weight": 0.0, "pearson_weight": 1.0}):
        loss = ExpressionLoss(**weights)
        here = loss(UnitExpression(predicted, None), _lacking(b, slice(None)))
        torch.testing.assert_close(here, loss(UnitExpression(predicted[:, kept], None), without))
