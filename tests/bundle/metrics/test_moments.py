from __future__ import annotations

import numpy as np
import torch

from bundle.metrics.moments import combine, correlation, moments, truth_is_constant


def _pair(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    truth = rng.normal(5, 2, (n, 7))
    return torch.from_numpy(truth * 0.3 + rng.normal(100, 1, (n, 7))), torch.from_numpy(truth)


def test_correlation_is_numpys():
    prediction, truth = _pair(50)
    expected = [np.corrcoef(prediction[:, g], truth[:, g])[0, 1] for g in range(7)]
    np.testing.assert_allclose(correlation(moments(prediction, truth)), expected, atol=1e-12)


def test_parts_combine_to_the_whole_in_any_split():
    prediction, truth = _pair(60, 1)
    whole = moments(prediction, truth)
    for cuts in ([10], [1, 2, 59], [20, 40]):
        parts = [
            moments(p, t)
            for p, t in zip(np.split(prediction.numpy(), cuts), np.split(truth.numpy(), cuts), strict=True)
            for p, t in [(torch.from_numpy(p), torch.from_numpy(t))]
        ]
        total = parts[0]
        for part in parts[1:]:
            total = combine(total, part)
        torch.testing.assert_close(total, whole, rtol=1e-10, atol=1e-8)


def test_constant_truth_is_undefined_and_constant_prediction_scores_zero():
    prediction, truth = _pair(30, 2)
    truth[:, 0] = 3.7
    prediction[:, 1] = 0.1
    m = moments(prediction, truth)
    r = correlation(m)
    assert torch.isnan(r[0])
    assert r[1] == 0
    assert truth_is_constant(m).tolist() == [True] + [False] * 6
