from __future__ import annotations

import numpy as np
import pytest
import torch

from bundle.data.normalisation import bounded
from bundle.inference.express import Projection, express
from bundle.workflows.load_network import load_network
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
def test_it_gives_what_the_head_gives(head):
    projection = Projection.of(GENES, head)
    features = torch.rand(100, 5) * 4
    with torch.no_grad():
        y, rate = head.project(features).numpy(), head.rate(features)
    found = express(features.numpy(), projection)
    np.testing.assert_allclose(found.y, y, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(found.clipped, bounded(found.y))
    assert projection.has_rate == (rate is not None) == (found.rate is not None)
    if rate is not None:
        np.testing.assert_allclose(found.rate, rate[:, :-1].numpy(), rtol=1e-5)


@pytest.mark.parametrize("head", _heads(), ids=["linear", "programs"])
def test_some_genes_alone_and_a_stored_copy_are_the_same(head):
    projection = Projection.of(GENES, head)
    features = np.random.default_rng(0).random((4, 3, 5), np.float32)
    whole = express(features, projection).y
    np.testing.assert_allclose(express(features, projection.columns(["g5", "g0"])).y, whole[..., [5, 0]], rtol=1e-6)
    copy = Projection.from_dict(projection.to_dict())
    np.testing.assert_array_equal(express(features, copy).y, whole)


def test_a_head_of_another_number_of_genes_is_refused():
    with pytest.raises(ValueError, match="not one of 4 genes"):
        Projection.of(GENES[:4], _heads()[0])


def test_head_and_ridge_are_one_linear_map(tiny_run):
    network = load_network(tiny_run)[0]
    genes = [f"g{i}" for i in range(network.head.n_genes)]
    pooled = torch.randn(20, network.channels, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        y = network.project(pooled).numpy()
    np.testing.assert_allclose(express(pooled.numpy(), Projection.of(genes, network)).y, y, rtol=1e-4, atol=1e-4)
