from __future__ import annotations

import numpy as np
from scipy import ndimage

from bundle.metrics.bootstrap import block_bootstrap, block_side, block_sums, interval


def _slide(seed: int, n: int = 200, noise: float = 1.0):
    rng = np.random.default_rng(seed)
    centers = rng.uniform(0, 2000, (n, 2))
    truth = rng.normal(size=(n, 5))
    return truth + noise * rng.normal(size=truth.shape), truth, centers


def _pcc(prediction, truth) -> float:
    return float(np.mean([np.corrcoef(prediction[:, g], truth[:, g])[0, 1] for g in range(truth.shape[1])]))


def test_one_draw_is_the_correlation_of_the_blocks_drawn():
    prediction, truth, centers = _slide(0)
    sums = block_sums(prediction, truth, centers, 500.0)
    weight = np.random.default_rng(7).multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=1)[0]
    _, block = np.unique(np.floor(centers / 500.0).astype(int), axis=0, return_inverse=True)
    drawn = np.concatenate([np.flatnonzero(block.ravel() == b).repeat(w) for b, w in enumerate(weight)])
    expected = _pcc(prediction[drawn], truth[drawn])
    np.testing.assert_allclose(block_bootstrap([sums], draws=1, seed=7)[0], expected, rtol=1e-9)


def test_the_interval_holds_the_figure_and_shrinks_with_more_units():
    widths = []
    for n in (100, 1600):
        prediction, truth, centers = _slide(1, n)
        draws = block_bootstrap([block_sums(prediction, truth, centers, 250.0)])
        low, high = np.percentile(draws, (2.5, 97.5))
        assert low < _pcc(prediction, truth) < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 2


def test_methods_are_resampled_alike():
    good, truth, centers = _slide(2, noise=0.5)
    worse = good + 0.02 * np.random.default_rng(3).normal(size=good.shape)
    a, b = (block_bootstrap([block_sums(p, truth, centers, 250.0)]) for p in (good, worse))
    assert np.std(a - b) < np.std(a) / 5
    np.testing.assert_array_equal(a, block_bootstrap([block_sums(good, truth, centers, 250.0)]))


def test_a_constant_prediction_is_worth_nothing():
    _, truth, centers = _slide(4)
    assert (block_bootstrap([block_sums(np.ones_like(truth), truth, centers, 250.0)]) == 0).all()


def test_slides_of_one_patient_count_as_much_as_the_one_slide_of_another():
    sums = [block_sums(*_slide(seed, noise=noise), 500.0) for seed, noise in ((5, 0.2), (6, 0.2), (7, 9.0))]
    each = [np.mean(block_bootstrap([s])) for s in sums]
    by_patient = np.mean(block_bootstrap(sums, patients=["A", "A", "B"]))
    np.testing.assert_allclose(by_patient, ((each[0] + each[1]) / 2 + each[2]) / 2, atol=0.01)
    assert np.mean(block_bootstrap(sums)) > by_patient + 0.1


def test_many_genes_are_drawn_as_few_are():
    prediction, truth, centers = _slide(8)
    truth[:, 0] = 1.0  # a constant gene is left out, whichever part it is in
    many = [np.tile(values, (1, 120)) for values in (prediction, truth)]
    few = block_bootstrap([block_sums(prediction, truth, centers, 500.0)], draws=50)
    np.testing.assert_allclose(block_bootstrap([block_sums(*many, centers, 500.0)], draws=50), few, rtol=1e-9)


def test_blocks_are_three_units_and_300_um_at_least_and_intervals_hold_95():
    lattice = np.stack(np.meshgrid(np.arange(6), np.arange(6)), -1).reshape(-1, 2)
    assert block_side(lattice * 200.0) == 600.0
    assert block_side(lattice * 8.0) == 300.0
    assert block_side(lattice * 16.0, mpp=0.5) == 600.0  # in pixels
    assert block_side(lattice * 7.0, mpp=None) == 21.0
    assert interval(np.arange(1001.0)) == (25.0, 975.0)


def test_bins_that_are_alike_over_many_widths_have_the_interval_of_another_slide_drawn():
    rng, side = np.random.default_rng(0), 150
    centers_um = 8.0 * np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2)
    pcc, error = [], {block: [] for block in (24.0, block_side(centers_um))}
    for number in range(60):
        truth, noise = (ndimage.gaussian_filter(rng.normal(size=(side, side)), 6, mode="wrap") for _ in "ab")
        truth, prediction = truth.reshape(-1, 1), (truth + noise).reshape(-1, 1)
        pcc.append(np.corrcoef(truth[:, 0], prediction[:, 0])[0, 1])
        for block, found in error.items():
            if number < 20:
                sums = block_sums(prediction, truth, centers_um, block)
                found.append(block_bootstrap([sums], draws=100, patients=["A"]).std())
    narrow, wide = (np.mean(found) / np.std(pcc) for found in error.values())
    assert 0.6 < wide < 1.5
    assert narrow < 0.4
