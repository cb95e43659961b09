from __future__ import annotations

import numpy as np
import pytest
import torch

from bundle.data.normalisation import bounded
from bundle.inference.projection import Projection
from networks.heads import LinearHead, ProgramsHead

GENES = [f"g{i}" for i in range(7)]


def _heads():
    torch.manual_seed(0)
    linear = LinearHead(5, 7)
    torch.nn.init.normal_(linear.weight.weight)
    linear.initialize(mean=torch.rand(7) * 3, std=torch.rand(7) + 0.1)
    programs = ProgramsHead(9, 7, 5)
    programs.initialize(loadings=torch.rand(8, 5) * torch.logspace(-4, 0, 8)[:, None])
    return [linear, programs]


@pytest.mark.parametrize("head", _heads(), ids=["linear", "programs"])
def test_it_says_what_the_head_says(head):
    projection = Projection.of(GENES, head.channels, head.project, head.rate)
    features = torch.rand(100, 5) * 4
    with torch.no_grad():
        y, rate = head.project(features).numpy(), head.rate(features)
    np.testing.assert_allclose(projection.unbounded(features.numpy()), y, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(
        projection.expression(features.numpy()), bounded(projection.unbounded(features.numpy()))
    )
    assert projection.has_rate == (rate is not None)
    if rate is not None:
        np.testing.assert_allclose(projection.rate(features.numpy()), rate[:, :-1].numpy(), rtol=1e-5)


@pytest.mark.parametrize("head", _heads(), ids=["linear", "programs"])
def test_some_genes_alone_and_a_stored_copy_are_the_same(head):
    projection = Projection.of(GENES, head.channels, head.project, head.rate)
    features = np.random.default_rng(0).random((4, 3, 5), np.float32)
    whole = projection.expression(features)
    np.testing.assert_allclose(projection.columns(["g5", "g0"]).expression(features), whole[..., [5, 0]], rtol=1e-6)
    copy = Projection.from_dict(projection.to_dict())
    np.testing.assert_array_equal(copy.expression(features), whole)
