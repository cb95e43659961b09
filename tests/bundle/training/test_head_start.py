"""Heads start from factors of the training units' expression."""

from __future__ import annotations

import numpy as np
import pytest

from bundle.data.fit_panel import fit_panel
from bundle.data.manifest import read_split
from bundle.data.normalisation import log1p_cp10k
from bundle.data.slide_units import load_units
from bundle.errors import InputError
from bundle.training.head_start import components, head_statistics, loadings, training_rates
from tests.bundle.data.test_panel import _record


def test_loadings_say_the_mean_rate_and_are_positive(tmp_path):
    panel = fit_panel([_record(tmp_path, "A1", [f"G{i}" for i in range(12)])], n_mean=8, n_hvg=2, min_total=1)
    found = loadings(panel, 4)
    assert found.shape == (len(panel) + 1, 4)
    assert (found > 0).all()
    np.testing.assert_allclose(found.sum(), panel.depth_per_um2, rtol=1e-6)
    with pytest.raises(InputError, match="lower n_programs"):
        loadings(panel, 1000)


def test_small_units_start_programs_by_their_sums(phantom):
    (record,) = read_split(phantom, "training")
    small, large = (fit_panel([record], unit_sizes_um=[size], min_total=20) for size in (16, 55))
    rates = training_rates(small)
    assert 50 < len(rates) < 150  # squares of 55 µm on 600 x 600 µm
    np.testing.assert_allclose(rates.sum(1).mean(), small.depth_per_um2, rtol=0.1)
    order = [large.genes.index(g) for g in small.genes]
    assert np.corrcoef(np.log(loadings(small, 4).sum(1)[:-1]), np.log(loadings(large, 4).sum(1)[order]))[0, 1] > 0.99


def test_components_are_those_of_the_standardised_expression_within_slides(tmp_path):
    genes = [f"G{i}" for i in range(12)]
    records = [_record(tmp_path, name, genes, seed) for seed, name in enumerate(("A1", "B1"))]
    panel = fit_panel(records, n_mean=8, n_hvg=2, min_total=1)
    ys = []
    for record in records:
        (units,) = load_units(record)
        y = log1p_cp10k(units.counts_of(panel.genes), units.total) / np.array(panel.std)
        ys.append(y - y.mean(0))
    covariance = np.cov(np.concatenate(ys).T)
    found = components(panel, len(panel))
    np.testing.assert_allclose(found @ found.T, covariance, atol=1e-4)  # all of them hold all of it
    np.testing.assert_allclose(np.abs(components(panel, 2)), np.abs(found[:, :2]), atol=1e-3)
    assert head_statistics(panel, n_components=3)["components"].shape == (len(panel), 3)
    with pytest.raises(InputError, match="lower head_components"):
        components(panel, 1000)
