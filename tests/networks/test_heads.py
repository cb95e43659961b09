from __future__ import annotations

import numpy as np
import pytest
import torch

from networks.heads import LinearHead, ProgramsHead, build_head


def loadings(genes: int = 5, programs: int = 4) -> np.ndarray:
    values = np.random.default_rng(0).gamma(0.5, 1.0, (genes + 1, programs))
    values[:, 0] *= np.geomspace(1e-4, 1, genes + 1)
    values[0, 1:] = 0
    return values


def test_linear_head_starts_near_the_training_mean() -> None:
    torch.manual_seed(0)
    head = LinearHead(8, 3)
    head.initialize(mean=[1.0, 2.0, 3.0], std=[0.1, 1.0, 2.0], loadings=loadings())
    standardised = (head.project(torch.randn(50, 8)) - head.mean) / head.std
    assert 0 < standardised.abs().max() < 0.3
    assert head.rate(torch.randn(2, 8)) is None


def test_linear_head_starts_from_components_where_given() -> None:
    head, components = LinearHead(8, 3), np.random.default_rng(0).normal(size=(3, 2))
    head.initialize(mean=[1.0, 2.0, 3.0], std=[0.1, 1.0, 2.0], components=components)
    y = head.project(torch.eye(8))
    torch.testing.assert_close((y - head.mean) / head.std, head.weight.weight.T, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(head.weight.weight[:, :2], torch.from_numpy(components).float())
    assert head.weight.weight[:, 2:].abs().max() < 0.1
    with pytest.raises(ValueError, match="do not fit"):
        head.initialize(mean=np.zeros(3), std=np.ones(3), components=np.ones((3, 9)))


def test_linear_head_commutes_with_the_mean() -> None:
    head, features = LinearHead(8, 3), torch.randn(10, 8)
    head.initialize(mean=[1.0, 2.0, 3.0], std=[0.1, 1.0, 2.0])
    torch.testing.assert_close(head.project(features.mean(0)), head.project(features).mean(0))


def test_programs_head_starts_at_the_mean_rates() -> None:
    torch.manual_seed(0)
    head = ProgramsHead(8, 5, 4)
    head.initialize(mean=np.zeros(5), std=np.ones(5), loadings=loadings())
    programs = head.activate(torch.randn(1, 8, 6, 6))
    assert (programs - 1).abs().max() < 0.1
    expected = torch.from_numpy(loadings().sum(1)).float()
    rate = head.rate(torch.ones(4))
    torch.testing.assert_close(rate, expected, rtol=5e-3, atol=0)
    torch.testing.assert_close(head.project(torch.ones(4)), torch.log1p(1e4 * rate[:-1] / rate.sum()))


def test_programs_keep_the_given_directions() -> None:
    head = ProgramsHead(8, 5, 4)
    head.initialize(loadings=loadings())
    rate = head.rate(torch.eye(4)).T  # one program alone
    torch.testing.assert_close(rate, torch.from_numpy(loadings()).float(), rtol=0.01, atol=0.01 * loadings().max())


def test_rates_are_positive_and_linear_in_the_programs() -> None:
    torch.manual_seed(0)
    head = ProgramsHead(8, 5, 4)
    torch.nn.init.normal_(head.raw_loadings, std=3)
    parts, area = torch.rand(7, 4) * 10, torch.rand(7, 1)
    rates = head.rate(parts)
    assert (rates > 0).all()
    torch.testing.assert_close((rates * area).sum(0), head.rate((parts * area).sum(0) / area.sum()) * area.sum())


def test_a_panel_of_all_measured_genes_has_no_rest() -> None:
    head, values = ProgramsHead(8, 5, 4), loadings()
    values[-1] = 0
    head.initialize(loadings=values)
    pooled = torch.rand(3, 4)
    assert (head.rate(pooled)[:, -1] == 0).all()
    torch.testing.assert_close(torch.expm1(head.project(pooled)).sum(1), torch.full((3,), 1e4))
    head.project(pooled).sum().backward()
    assert torch.isfinite(head.raw_loadings.grad).all()


def test_bad_statistics_are_refused() -> None:
    with pytest.raises(ValueError, match="not given"):
        LinearHead(8, 3).initialize(loadings=loadings())
    with pytest.raises(ValueError, match="shape"):
        LinearHead(8, 3).initialize(mean=[1.0], std=[1.0])
    with pytest.raises(ValueError, match="negative"):
        ProgramsHead(8, 5, 4).initialize(loadings=-loadings())
    with pytest.raises(ValueError, match="zero rate"):
        ProgramsHead(8, 5, 4).initialize(loadings=np.zeros((6, 4)))
    with pytest.raises(ValueError, match="'linear' or 'programs'"):
        build_head("mlp", 8, 5, 4)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["linear", "programs"])
def test_weight_and_bias_are_what_the_head_does(name: str) -> None:
    head = build_head(name, 8, 5, 4)
    head.initialize(mean=np.arange(5), std=np.arange(1, 6), loadings=loadings())
    pooled = torch.rand(7, head.channels)
    weight, bias = head.affine()
    linear = pooled @ weight.T + bias
    rate = head.rate(pooled)
    torch.testing.assert_close(linear, head.project(pooled) if rate is None else rate)
