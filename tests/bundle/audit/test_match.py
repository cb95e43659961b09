from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from bundle.audit.match import match_units
from bundle.audit.predicted import Predicted
from bundle.errors import InputError
from bundle.units import Units


def make_units(centers_px: np.ndarray, names: list[str], size_um: float = 20.0) -> Units:
    n = len(centers_px)
    counts = sp.csr_matrix((n, 1), dtype=np.float32)
    return Units(
        "t", np.array(names), np.array(["G"]), counts, centers_px, np.ones(n, bool), "circle", size_um, "counts", 0.5
    )


def make_pred(centers_px: np.ndarray | None, names: list[str]) -> Predicted:
    y = np.zeros((len(names), 1))
    return Predicted("p", np.array(names), np.array(["G"]), y, None, None, centers_px, None, "log1p_cp10k", "")


def test_by_position_pairs_are_one_to_one_within_half_a_unit_and_nearest():
    rng = np.random.default_rng(0)
    truth = rng.uniform(0, 600, (80, 2))
    pred = np.concatenate([truth[:60] + rng.normal(0, 6, (60, 2)), rng.uniform(0, 600, (30, 2))])
    match = match_units(
        make_pred(pred, [f"p{i}" for i in range(90)]), make_units(truth, [f"t{i}" for i in range(80)]), 0.5
    )
    assert match.by == "position"
    assert len(set(match.pred)) == len(match.pred) == len(set(match.truth))
    distance = np.linalg.norm(pred[None] - truth[:, None], axis=2)
    for p, t in zip(match.pred, match.truth, strict=True):
        assert distance[t, p] <= 20.0  # half of 20 µm at 0.5 µm per pixel
        assert distance[t, p] == distance[t].min() == distance[:, p].min()
    alone = [t for t in range(80) if t not in match.truth]
    for t in alone:  # nothing that belongs together was left
        p = distance[t].argmin()
        assert distance[t, p] > 20.0 or distance[:, p].argmin() != t


def test_names_go_before_positions_and_order_does_not_matter():
    rng = np.random.default_rng(1)
    truth = rng.uniform(0, 600, (30, 2))
    order = rng.permutation(30)
    match = match_units(
        make_pred(truth[::-1], [f"u{i}" for i in order]), make_units(truth, [f"u{i}" for i in range(30)]), 0.5
    )
    assert match.by == "barcode"
    np.testing.assert_array_equal(order[match.pred], match.truth)


def test_row_numbers_are_no_names_where_there_are_positions():
    truth = np.random.default_rng(2).uniform(0, 6000, (30, 2))
    numbers = [str(i) for i in range(30)]
    turned = match_units(make_pred(truth[::-1], numbers), make_units(truth, numbers), 0.5)
    assert turned.by == "position"
    np.testing.assert_array_equal(turned.pred, 29 - turned.truth)
    assert match_units(make_pred(None, numbers), make_units(truth, numbers), 0.5).by == "row number"


@pytest.mark.parametrize(
    ("centers", "mpp", "says"),
    [(None, 0.5, "no positions"), ("far", 0.5, "0 lie within half a unit"), ("near", None, "give --mpp")],
)
def test_too_few_in_common(centers, mpp, says):
    truth = np.random.default_rng(3).uniform(0, 600, (40, 2))
    at = {None: None, "far": truth + 5000, "near": truth}[centers]
    with pytest.raises(InputError, match=says):
        match_units(make_pred(at, [f"p{i}" for i in range(40)]), make_units(truth, [f"t{i}" for i in range(40)]), mpp)
