from __future__ import annotations

import numpy as np

from bundle.data.normalisation import log1p_cp10k
from bundle.metrics.ceiling import thinning_ceiling


def test_ceiling_predicts_the_correlation_of_the_true_rate_with_the_counts():
    rng = np.random.default_rng(1)
    share = rng.dirichlet(np.ones(4) * 3, 3000) * 0.01
    counts = rng.poisson(2000 * share)
    total = np.full(3000, 2000.0)
    ceiling = thinning_ceiling(counts, total, "log1p_cp10k")
    reached = [np.corrcoef(np.log1p(1e4 * share[:, g]), log1p_cp10k(counts, total)[:, g])[0, 1] for g in range(4)]
    np.testing.assert_allclose(ceiling, reached, atol=0.05)


def test_a_ceiling_counts_what_is_not_of_the_panel():
    """Genes that rise and fall together vary though their shares of each other do not."""
    rng = np.random.default_rng(2)
    share = 0.01 * rng.gamma(4, 0.25, (3000, 1)) * [0.5, 0.3, 0.2]
    counts, total = rng.poisson(2000 * share), np.full(3000, 2000.0)
    reached = [np.corrcoef(np.log1p(1e4 * share[:, g]), log1p_cp10k(counts, total)[:, g])[0, 1] for g in range(3)]
    np.testing.assert_allclose(thinning_ceiling(counts, total, "log1p_cp10k"), reached, atol=0.05)
    assert min(reached) > 0.5
