from __future__ import annotations

import numpy as np
import torch

from bundle.metrics.depth import fit_depth
from bundle.metrics.moments import correlation, moments


def test_it_finds_what_depends_on_depth_and_nothing_else():
    rng = np.random.default_rng(0)
    totals = [rng.uniform(200, 9000, 150) for _ in range(3)]
    ys = [np.column_stack([3 - 0.5 * np.log(t), rng.normal(size=len(t))]) for t in totals]
    predicted = fit_depth(totals[:2], ys[:2])(totals[2])
    np.testing.assert_allclose(predicted[:, 0], ys[2][:, 0], atol=1e-9)
    r = correlation(moments(torch.from_numpy(predicted), torch.from_numpy(ys[2])))
    assert r[0] > 0.999
    assert abs(r[1]) < 0.3


def test_units_of_one_depth_get_the_mean():
    y = np.random.default_rng(1).random((20, 3))
    predicted = fit_depth([np.full(20, 500.0)], [y])(np.full(4, 500.0))
    np.testing.assert_allclose(predicted, np.tile(y.mean(0), (4, 1)))


def test_a_gene_is_fitted_on_the_slides_that_measured_it():
    rng = np.random.default_rng(0)
    totals = [rng.uniform(100, 5000, 50), rng.uniform(100, 5000, 40)]
    ys = [np.log(t)[:, None] * [1.0, 2.0, 3.0] + rng.normal(size=(len(t), 3)) for t in totals]
    ys[1][:, 1] = np.nan
    both, first = fit_depth(totals, ys)(totals[0]), fit_depth(totals[:1], ys[:1])(totals[0])
    np.testing.assert_allclose(both[:, 1], first[:, 1])
    assert np.abs(both[:, [0, 2]] - first[:, [0, 2]]).max() > 1e-3
