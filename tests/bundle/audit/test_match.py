from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp

from bundle.audit.match import Match, match_units, slide_doubts
from bundle.audit.predicted import Predicted
from bundle.data.section_identity import SectionIdentity
from bundle.data.units import Units
from bundle.errors import InputError


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


def _doubts(shift_um: float, scale: float = 1.0, by: str = "barcode") -> list[str]:
    """What PixNet says of units of 20 µm at 0.5 µm per pixel that lie so far from those of the same name."""
    truth = np.random.default_rng(4).uniform(0, 6000, (50, 2))
    pred = scale * truth + np.array([shift_um / 0.5, 0])
    rows, names = np.arange(50), [f"{i}x1" for i in range(50)]
    apart = np.linalg.norm(pred - truth, axis=1)
    return slide_doubts(make_pred(pred, names), make_units(truth, names), Match(by, rows, rows, apart), 0.5)


def test_units_of_one_barcode_further_apart_than_a_unit_are_of_another_section():
    assert _doubts(0.0) == _doubts(0.9) == []
    assert "9.9 µm apart" in _doubts(9.9)[0]
    assert "10.1 µm apart" in _doubts(10.1)[0]
    for shift in (20.1, 500.0):
        with pytest.raises(InputError, match="another section's barcodes"):
            _doubts(shift)
    assert len(_doubts(0.0, scale=0.1)) == 1  # a smaller picture's pixels say nothing of the section


def test_names_and_pictures_of_two_slides_are_compared():
    truth = np.random.default_rng(4).uniform(0, 6000, (50, 2))
    rows, names = np.arange(50), [f"{i}x1" for i in range(50)]
    match = Match("barcode", rows, rows, None)
    picture = np.random.default_rng(0).integers(0, 255, (80, 60, 3), dtype=np.uint8)
    of = SectionIdentity.of_picture
    units = replace(make_units(truth, names), section=of("t", "C5", picture))

    def doubts(library: SectionIdentity | None) -> list[str]:
        return slide_doubts(replace(make_pred(truth, names), section=library), units, match, 0.5)

    assert doubts(of("p", "C5", None)) == doubts(of("p", "renamed", picture)) == []
    assert "barcodes alone say which slide this is" in doubts(None)[0]  # nor are positions compared
    assert "of the slide C3, t of C5" in doubts(of("p", "C3", None))[0]
    assert "pictures of it differ" in doubts(of("p", "C5", 255 - picture))[0]
    with pytest.raises(InputError, match="barcodes repeat between sections"):
        doubts(of("p", "C3", 255 - picture))
