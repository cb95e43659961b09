from __future__ import annotations

import numpy as np

from bundle.data.normalisation import log1p_cp10k, pearson_residuals


def test_target_does_not_depend_on_depth_and_empty_units_give_zero():
    counts = np.array([[1.0, 2, 3], [10, 20, 30], [0, 0, 0]])
    y = log1p_cp10k(counts, np.array([100.0, 1000, 0]))
    np.testing.assert_allclose(y[0], y[1], rtol=1e-6)
    np.testing.assert_allclose(y[0], np.log1p([100, 200, 300]), rtol=1e-6)
    assert (y[2] == 0).all()


def test_residuals_take_depth_out():
    rng = np.random.default_rng(0)
    depth = rng.lognormal(8, 1, 400)
    share = np.array([0.5, 0.3, 0.2])
    counts = rng.poisson(depth[:, None] * share)
    residual = pearson_residuals(counts, counts.sum(1))
    for gene in range(3):
        assert abs(np.corrcoef(depth, residual[:, gene])[0, 1]) < 0.2
        assert np.corrcoef(depth, counts[:, gene])[0, 1] > 0.9
