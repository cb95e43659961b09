from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp

from bundle.audit.predicted import read_predicted

N, G = 12, 5


@pytest.fixture
def counts() -> np.ndarray:
    return np.random.default_rng(0).gamma(2.0, 30.0, (N, G)) + 1


def write(tmp_path, x, layers=None, **uns) -> str:
    adata = ad.AnnData(x, layers=layers)
    adata.obs_names, adata.var_names = [f"u{i}" for i in range(N)], [f"G{i}" for i in range(G)]
    adata.uns.update(uns)
    path = tmp_path / "p.h5ad"
    adata.write_h5ad(path)
    return str(path)


def cp10k_of(counts: np.ndarray) -> np.ndarray:
    return 1e4 * counts / counts.sum(1, keepdims=True)


GROUPS = sp.csr_matrix(np.kron(np.eye(4), np.ones((1, 3))))
ALL = (np.arange(N), np.arange(G))


@pytest.mark.parametrize("kind", [np.asarray, sp.csr_matrix, sp.csc_matrix])
def test_one_prediction_in_three_units_is_the_same_y(tmp_path, counts, kind):
    y = np.log1p(cp10k_of(counts))
    for unit, x in (("log1p_cp10k", y), ("cp10k", np.expm1(y)), ("counts", counts)):
        predicted = read_predicted(write(tmp_path, kind(x)), unit)
        np.testing.assert_allclose(predicted.y, y, rtol=1e-5)
        native, _ = predicted.for_groups(*ALL)(sp.identity(N, format="csr"))
        np.testing.assert_allclose(native, y, rtol=1e-5)


def test_cells_hold_the_mean_of_cp10k_where_no_depth_is_known(tmp_path, counts):
    predicted = read_predicted(write(tmp_path, np.log1p(cp10k_of(counts))))
    y, rate = predicted.for_groups(*ALL)(GROUPS)
    assert rate is None
    np.testing.assert_allclose(np.expm1(y), cp10k_of(counts).reshape(4, 3, G).mean(1))


def test_cells_hold_the_sum_of_predicted_counts(tmp_path, counts):
    predicted = read_predicted(write(tmp_path, counts), "counts")
    y, amounts = predicted.for_groups(np.arange(N), np.array([3, 1]))(GROUPS)
    summed = counts.reshape(4, 3, G).sum(1)
    np.testing.assert_allclose(np.expm1(y), cp10k_of(summed)[:, [3, 1]], rtol=1e-5)
    np.testing.assert_allclose(amounts.sum(1), summed.sum(1))  # the genes left out are in the last column


def test_rates_add_up_though_genes_outside_the_file_were_not_written(tmp_path, counts):
    outside = np.random.default_rng(1).gamma(2.0, 90.0, N)
    total = counts.sum(1) + outside
    y = np.log1p(1e4 * counts / total[:, None])
    predicted = read_predicted(write(tmp_path, y, layers={"rate_per_um2": counts / 700.0}))
    cells, amounts = predicted.for_groups(*ALL)(GROUPS)
    expected = 1e4 * counts.reshape(4, 3, G).sum(1) / total.reshape(4, 3).sum(1)[:, None]
    np.testing.assert_allclose(np.expm1(cells), expected, rtol=1e-5)
    np.testing.assert_allclose(amounts[:, -1] * 700, outside.reshape(4, 3).sum(1), rtol=1e-6)


def test_what_a_file_says_of_itself_is_believed(tmp_path, counts):
    said = {"unit_of_X": "log1p of counts per 10,000 (whole transcriptome), predicted"}
    assert read_predicted(write(tmp_path, np.log1p(cp10k_of(counts)), pixnet=said), "counts").unit_of_x == "log1p_cp10k"
    assert read_predicted(write(tmp_path, counts, pixnet={"unit_of_X": "counts"})).unit_of_x == "counts"
    assert read_predicted(write(tmp_path, counts, pixnet={"unit_of_X": "UMIs"}), "counts").unit_of_x == "counts"
