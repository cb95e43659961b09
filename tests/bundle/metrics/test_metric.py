from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from bundle.data.manifest import patient_of
from bundle.data.normalisation import MAX_LOG_CP10K
from bundle.data.panel import GenePanel
from bundle.data.units import Units
from bundle.files.atomic import write_json
from bundle.metrics.handler import ExpressionMetricHandler
from bundle.metrics.metric import ExpressionMetric, grouped
from tests import forking

GENES = [f"G{i}" for i in range(5)]
PANEL = GenePanel(
    genes=GENES,
    panels={"mean4": GENES[:4], "hvg2": GENES[3:]},
    mean=[0.0] * 5,
    std=[1.0] * 5,
    depth_per_um2=1.0,
    unit_sizes_um=[100.0],
    min_total=0,
    training=[{"section": "A1", "patient": "A"}],
)
RECORDS = [
    {"image": "B1.tif", "patient": "B"},
    {"image": "B2.tif", "patient": "B"},
    {"image": "C1.tif", "patient": "C"},
]


def _slide(index: int, constant: int | None = None) -> tuple[torch.Tensor, dict]:
    rng = np.random.default_rng(index)
    n = 40 + 10 * index
    counts = rng.poisson(rng.gamma(2, 100, (n, 5))).astype(np.float32)
    if constant is not None:
        counts[:, constant] = 0
    units = Units(
        f"s{index}",
        np.array([str(i) for i in range(n)]),
        np.array(GENES),
        sp.csr_matrix(counts),
        rng.uniform(0, 4000, (n, 2)),
        np.ones(n, bool),
        "circle",
        100.0,
        "counts",
        1.0,
    )
    pooled = torch.from_numpy(np.log1p(counts) + rng.normal(0, 0.5, counts.shape)).float()
    return pooled, {"index": index, "units": units, "mpp": 1.0, "filtered_units": index}


def _metric(**kwargs) -> ExpressionMetric:
    return ExpressionMetric(PANEL, RECORDS, project=lambda x: x, rate=lambda x: None, ceilings=False, **kwargs)


def _evaluate(slides: list) -> dict:
    metric = _metric()
    for pooled, slide in slides:
        metric([pooled], [slide])
    return metric.aggregate()


def test_summary_is_the_mean_over_slides_then_patients_then_genes():
    result = _evaluate([_slide(i) for i in range(3)])
    per_slide = [_evaluate([_slide(i)])["per_gene"]["native"]["pcc"] for i in range(3)]
    expected = ((per_slide[0] + per_slide[1]) / 2 + per_slide[2]) / 2
    np.testing.assert_allclose(result["per_gene"]["native"]["pcc"], expected, atol=1e-12)
    summary = result["scales"]["native"]
    assert summary["PCC@M"] == pytest.approx(expected[:4].mean())
    assert summary["PCC@S"] == pytest.approx(np.median(expected[:4]))
    assert summary["PCC@F"] == pytest.approx(np.quantile(expected[:4], 0.25))
    assert summary["PCC@M_hvg2"] == pytest.approx(expected[3:].mean())
    assert summary["units"] == 40 + 50 + 60
    assert summary["filtered_units"] == 0 + 1 + 2
    assert set(result["per_slide"]) == {"B1", "B2", "C1"}


def test_order_and_repeats_of_slides_do_not_matter():
    slides = [_slide(i) for i in range(3)]
    a, b = _evaluate(slides), _evaluate([*slides[::-1], slides[0]])
    assert str(a["scales"]) == str(b["scales"])  # str: NaN is equal to itself there


@pytest.mark.parametrize("shares", [[[0, 2], [1]], [[], [0, 1, 2]], [[0, 1], [2, 0]]])
def test_slides_of_two_ranks_are_those_of_one(tmp_path, shares: list[list[int]]):
    """Also where a rank has none, and where a sampler gave one slide to both."""
    out = tmp_path / "two.json"
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node=2",
        "-m",
        "tests.gathering",
    ]
    done = forking.run([*command, str(out), json.dumps(shares)], cwd=Path(__file__).parents[3])
    assert done.returncode == 0, done.stderr[-2000:]
    one = _evaluate([_slide(i) for i in range(3)])
    del one["per_gene"]
    write_json(tmp_path / "one.json", one)
    assert json.loads(out.read_text()) == json.loads((tmp_path / "one.json").read_text())


def test_pooled_is_another_figure_than_within_slides():
    slides = []
    for i in range(2):  # a model that knows each slide's mean and nothing within
        _, slide = _slide(i)
        units = slide["units"]
        others = sp.csr_matrix(units.counts.toarray() * [1, 1, 1, 1, 1 + 30 * i])  # so that one slide's y are lower
        slides.append((torch.full((len(units), 5), float(1 - i)), {**slide, "units": replace(units, counts=others)}))
    result = _evaluate(slides)["scales"]["native"]
    assert result["PCC@M"] == 0
    assert 0.5 < result["PCC@M_pooled"] < 1


def test_genes_are_left_out_only_where_the_truth_is_constant():
    summary = _evaluate([_slide(0, constant=1)])["scales"]["native"]
    assert summary["constant_genes"] == 1
    assert np.isfinite(summary["PCC@M"])


@pytest.mark.parametrize("constant", [True, False])
def test_a_figure_that_is_undefined_is_never_the_best(constant: bool):
    metric = _metric()
    pooled, slide = _slide(0)
    if constant:
        same = sp.csr_matrix(np.full(slide["units"].counts.shape, 7, np.float32))
        slide = {**slide, "units": replace(slide["units"], counts=same)}
    handler = ExpressionMetricHandler(metric)
    metric([pooled], [slide])
    value = handler.compute()
    assert value == -1 if constant else 0.5 < value < 1


def test_a_metric_without_slides_still_has_a_buffer_to_gather():
    metric = _metric()
    assert metric.get_buffer().shape[0] == 1
    assert metric.aggregate()["scales"] == {}


def test_groups_of_units_have_the_mean_of_their_features():
    pooled = torch.tensor([[-1.0, 1, 9], [-3, 2, 9], [1, 2, 3], [4, -5, 6], [1, 1, -1], [0, 0, 0]])
    groups = sp.csr_matrix(np.array([[1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 1, 0]], np.float32))
    y, rate = grouped(pooled, lambda x: x * 2, lambda x: x.abs(), chunk=1)(groups)
    means = torch.stack([pooled[:2].mean(0), pooled[2:5].mean(0)]).numpy()
    clipped = np.clip(2 * means, 0, MAX_LOG_CP10K)  # the mean first; clipped as it is written
    np.testing.assert_allclose(y, clipped, rtol=1e-5)
    np.testing.assert_allclose(rate, np.abs(means) * [[2], [3]], rtol=1e-5)


def test_a_gene_is_scored_on_the_slides_that_measured_it():
    slides = [_slide(i) for i in range(3)]
    whole = _evaluate(slides)["per_gene"]["native"]
    genes = np.array(["G0", "G1", "other", "G3", "G4"])  # the total stays, so that the other genes' y does
    slides[1][1]["units"] = replace(slides[1][1]["units"], genes=genes)
    partly = _evaluate(slides)
    found = partly["per_gene"]["native"]
    others = [0, 1, 3, 4]
    for column in ("pcc", "pcc_pooled", "pcc_residual", "mse", "mae"):
        np.testing.assert_allclose(found[column][others], whole[column][others])
    of_two = _evaluate([slides[0], slides[2]])["per_gene"]["native"]
    for column in ("pcc", "pcc_pooled", "pcc_residual", "mse", "mae"):
        np.testing.assert_allclose(found[column][2], of_two[column][2])
    np.testing.assert_array_equal(found["slides_measured"], [3, 3, 2, 3, 3])
    assert partly["scales"]["native"]["unmeasured_genes"] == 0
    assert partly["per_slide"]["B2"]["native"]["unmeasured_genes"] == 1
    assert partly["per_slide"]["B2"]["native"]["constant_genes"] == 0


def test_a_gene_that_no_slide_measured_is_counted_and_left_out():
    pooled, slide = _slide(0)
    slide["units"] = replace(slide["units"], genes=np.array(["G0", "G1", "other", "G3", "G4"]))
    result = _evaluate([(pooled, slide)])
    pcc = result["per_gene"]["native"]["pcc"]
    assert np.isnan(pcc[2])
    assert result["scales"]["native"]["unmeasured_genes"] == 1
    assert result["scales"]["native"]["PCC@M"] == pytest.approx(pcc[[0, 1, 3]].mean())
    metric = ExpressionMetric(PANEL, RECORDS, project=lambda x: x, rate=lambda x: None)  # with ceilings
    metric([pooled], [slide])
    ceiling = metric.aggregate()["per_gene"]["native"]["ceiling"]
    assert np.isfinite(ceiling[[0, 1, 3, 4]]).all()
    assert np.isnan(ceiling[2])


def test_a_slide_without_a_named_patient_counts_as_a_patient_of_its_own():
    records = [*RECORDS, {"image": "D1.tif"}, {"image": "D2.tif", "patient": None}, {"image": "E1.tif", "patient": "3"}]
    assert len({patient_of(record) for record in records}) == 5
    blocks = [{"image": "D1.tif", "block": [x, 0, x + 1, 9]} for x in (0, 1)]  # of one slide
    assert patient_of(blocks[0]) == patient_of(blocks[1])
