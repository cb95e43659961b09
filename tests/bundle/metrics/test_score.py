from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from bundle.data.normalisation import log1p_cp10k
from bundle.data.units import Units
from bundle.errors import InputError
from bundle.metrics.moments import correlation
from bundle.metrics.score import NATIVE, compare_units, score_slide

GENES = [f"G{i}" for i in range(6)]


def make_units(
    n: int = 14, pitch_um: float = 100.0, size_um: float = 100.0, depth: float = 900.0, seed: int = 0
) -> Units:
    rng = np.random.default_rng(seed)
    centers = (np.stack(np.meshgrid(np.arange(n), np.arange(n)), -1).reshape(-1, 2) + 0.5) * pitch_um
    rate = rng.gamma(2.0, depth / 12, (len(centers), 6))
    counts = rng.poisson(rate).astype(np.float32)
    name = np.array([f"u{i}" for i in range(len(centers))])
    inside = np.ones(len(centers), bool)
    return Units("t", name, np.array(GENES), sp.csr_matrix(counts), centers, inside, "square", size_um, "counts", 1.0)


def _oracle(units: Units):
    counts, total = units.counts_of(GENES), units.total

    def predict(groups):
        return log1p_cp10k(np.asarray(groups @ counts), groups @ total), None

    return predict


def test_a_perfect_prediction_scores_one_at_every_scale():
    units = make_units()
    scores = score_slide(_oracle(units), units, GENES, 1.0, [200.0])
    on_y = [s for s in scores if s.target == "log1p_cp10k"]
    assert {s.scale_um for s in on_y} == {NATIVE, 200.0}
    assert len([s for s in on_y if s.scale_um == 200.0]) == 4
    for score in on_y:
        torch.testing.assert_close(correlation(score.moments), torch.ones(6, dtype=torch.float64))


def test_a_cell_is_normalised_after_its_counts_are_summed():
    units = make_units(seed=3)
    summed = {}

    def predict(groups):
        summed[groups.shape[0]] = groups
        return np.random.default_rng(0).normal(size=(groups.shape[0], 6)), None

    scores = score_slide(predict, units, GENES, 1.0, [200.0])
    score = next(s for s in scores if s.scale_um == 200.0 and s.offset == 0 and s.target == "log1p_cp10k")
    counts = units.counts_of(GENES).reshape(7, 2, 7, 2, 6).sum((1, 3)).reshape(-1, 6)
    expected = log1p_cp10k(counts, counts.sum(1))
    np.testing.assert_allclose(score.moments[:, 2], expected.mean(0), rtol=1e-6)
    assert score.units == 49


def test_small_units_are_scored_on_counts_with_one_size_factor():
    units = make_units(30, 8.0, 8.0, depth=3.0, seed=1)
    truth = units.counts_of(GENES)

    def predict(groups):
        return np.log1p(1e4 * np.full((groups.shape[0], 6), 1 / 6)), None

    (score,) = score_slide(predict, units, GENES, 1.0)
    assert score.target == "log1p_counts"
    expected = truth.sum(1).mean() / 6  # nothing of a unit's own depth
    np.testing.assert_allclose(score.moments[:, 1], np.log1p(expected), rtol=1e-5)
    assert np.isfinite(score.deviance).all()
    assert (score.deviance > 0).all()


def test_a_scale_finer_than_the_units_is_refused():
    with pytest.raises(InputError, match="no truth"):
        score_slide(_oracle(make_units()), make_units(), GENES, 1.0, [50.0])


def test_ceiling_rises_with_depth_and_bounds_a_noisy_copy():
    low = score_slide(_oracle(make_units(depth=30)), make_units(depth=30), GENES, 1.0, ceilings={})[0].ceiling.mean()
    high = score_slide(_oracle(make_units(depth=3000)), make_units(depth=3000), GENES, 1.0, ceilings={})[
        0
    ].ceiling.mean()
    assert low < high <= 1


def test_a_constant_gene_has_no_ceiling():
    units = make_units()
    counts = units.counts.tolil()
    counts[:, 2] = 0
    scores = score_slide(_oracle(units), replace(units, counts=counts.tocsr()), GENES, 1.0, ceilings={})
    for score in scores:
        assert np.flatnonzero(np.isnan(score.ceiling)).tolist() == [2]


def test_what_is_compared_at_the_units_scale_is_what_is_scored():
    for units in (make_units(), make_units(30, 8.0, 8.0, depth=3.0)):
        predict = _oracle(units)
        score = score_slide(predict, units, GENES, 1.0)[0]
        compared = compare_units(predict, units, GENES)
        assert compared.target == score.target
        np.testing.assert_allclose(score.moments[:, 1], compared.prediction.mean(0), rtol=1e-5)
        np.testing.assert_allclose(score.moments[:, 6], ((compared.prediction - compared.truth) ** 2).sum(0), atol=1e-5)
