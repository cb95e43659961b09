from __future__ import annotations

import numpy as np
import pytest

from bundle.data.build_units import build_units
from bundle.data.fit_panel import extend_panel, fit_panel
from bundle.data.normalisation import log1p_cp10k
from bundle.data.panel import load_panel, n_genes
from bundle.data.slide_units import load_units
from bundle.errors import InputError


def _record(tmp_path, name: str, genes: list[str], seed: int = 0, size_um: float = 100.0, **extra) -> dict:
    rng = np.random.default_rng(seed)
    counts = rng.poisson(np.linspace(1, 60, len(genes)) * rng.gamma(5, 0.2, (60, 1)), (60, len(genes)))
    adata = build_units(
        counts,
        genes,
        [f"{name}{i}" for i in range(60)],
        rng.uniform(0, 1000, (60, 2)),
        shape="circle",
        size_um=size_um,
        mpp=1.0,
        section=name,
    )
    path = tmp_path / f"{name}_{size_um:g}.h5ad"
    adata.write_h5ad(path)
    return {"image": f"{name}.tif", "label": [str(path)], "patient": name[0], **extra}


def test_the_panel_holds_shared_genes_by_mean_and_is_standardised_on_training_units(tmp_path):
    records = [
        _record(tmp_path, "A1", [f"G{i}" for i in range(20)]),
        _record(tmp_path, "B1", [f"G{i}" for i in range(19, 2, -1)], seed=1),
    ]
    panel = fit_panel(records, n_mean=5, n_hvg=3, min_total=10)
    assert set(panel.genes) <= {f"G{i}" for i in range(3, 20)}
    assert len(panel.panels["mean5"]) == 5
    assert panel.genes[:5] == panel.panels["mean5"]
    assert panel.main == "mean5"
    means = np.array(panel.mean)[:5]
    assert (np.diff(means) <= 0).all()


def test_highly_variable_genes_vary_more_than_their_counts_alone_do(tmp_path):
    rng = np.random.default_rng(0)
    rate = np.full((80, 6), 50.0) * [4, 1, 1, 1, 1, 1]
    rate[:, 3] *= np.where(np.arange(80) % 2, 1.8, 0.2)
    rate[:, 5] *= np.where(np.arange(80) % 4 > 1, 1.4, 0.6)
    adata = build_units(
        rng.poisson(rate),
        [f"G{i}" for i in range(6)],
        [f"u{i}" for i in range(80)],
        rng.uniform(0, 1000, (80, 2)),
        shape="circle",
        size_um=100.0,
        mpp=1.0,
        section="A",
    )
    adata.write_h5ad(tmp_path / "a.h5ad")
    panel = fit_panel([{"image": "a.tif", "label": str(tmp_path / "a.h5ad")}], n_mean=1, n_hvg=2, min_total=1)
    assert panel.panels == {"mean1": ["G0"], "hvg2": ["G3", "G5"]}


def test_units_under_the_minimum_do_not_take_part(tmp_path):
    record = _record(tmp_path, "A1", ["G0", "G1"])
    (units,) = load_units(record)
    for panel in (fit_panel([record], min_total=least) for least in (0, 60)):
        kept = units.take(units.total >= panel.min_total)
        y = log1p_cp10k(kept.counts_of(panel.genes), kept.total)
        np.testing.assert_allclose(panel.mean, y.mean(0), rtol=1e-5)
        np.testing.assert_allclose(panel.std, y.std(0), rtol=1e-4)
        assert panel.depth_per_um2 == pytest.approx(kept.total.mean() / kept.area_um2)
    assert 0 < len(kept) < len(units)
    with pytest.raises(InputError, match="Lower min_total"):
        fit_panel([record], min_total=1e6)


def test_no_shared_gene_is_reported_in_a_sentence(tmp_path):
    records = [_record(tmp_path, "A1", ["G0", "G1"]), _record(tmp_path, "B1", ["ENS0", "ENS1"])]
    with pytest.raises(InputError, match="No gene is shared"):
        fit_panel(records)


def test_a_panel_survives_its_file(tmp_path):
    panel = fit_panel([_record(tmp_path, "A1", [f"G{i}" for i in range(12)])], min_total=1)
    panel.save(tmp_path / "panel.json", mpp=2.0)
    again = load_panel(tmp_path / "panel.json")
    assert again.genes == panel.genes
    assert again.mean == panel.mean
    assert again.extra["mpp"] == 2.0
    assert n_genes(tmp_path / "panel.json") == len(panel)
    assert n_genes(tmp_path / "none.json") == 250
    with pytest.raises(InputError, match="No trained model"):
        load_panel(tmp_path / "none.json")


def test_patients_shared_with_training_are_known(tmp_path):
    panel = fit_panel([_record(tmp_path, "A1", [f"G{i}" for i in range(12)])], min_total=1)
    assert panel.shares_patients([{"patient": "A"}])
    assert not panel.shares_patients([{"patient": "B"}])
    assert panel.shares_patients([{"patient": "B"}, {"patient": "A"}])
    assert panel.shares_patients([{}])
    assert panel.seen_patients([{"patient": "B"}, {"patient": "A"}]) == ["A"]
    assert panel.seen_patients([{"patient": "B"}, {}]) == ["unknown"]
    panel.training.append({"section": "S", "patient": "unknown"})
    assert panel.seen_patients([{"patient": "B"}]) == ["B"]


def test_the_coarsest_units_are_taken_unless_a_size_is_given(tmp_path):
    record = _record(tmp_path, "A1", ["G0", "G1"])
    record["label"] += _record(tmp_path, "A1", ["G0", "G1"], size_um=16.0)["label"]
    assert [u.size_um for u in load_units(record)] == [100.0]
    assert [u.size_um for u in load_units(record, [16])] == [16.0]
    with pytest.raises(InputError, match="it has 100, 16 µm"):
        load_units(record, [55])
    with pytest.raises(InputError, match='has no "label"'):
        load_units({"image": "x.tif"})


def test_a_block_holds_the_units_of_its_rectangle_alone(tmp_path):
    record = _record(tmp_path, "A1", ["G0", "G1"])
    halves = [load_units({**record, "block": b})[0] for b in ([0, 0, 500, 1000], [500, 0, 1000, 1000])]
    assert len(halves[0]) + len(halves[1]) == 60
    assert (halves[0].centers_px[:, 0] < 500).all()
    (edge,) = load_units(record)[0].centers_px[7:8, 0]  # a unit that lies where two blocks meet is of one of them
    halves = [load_units({**record, "block": b})[0] for b in ([0, 0, edge, 1000], [edge, 0, 1000, 1000])]
    assert len(halves[0]) + len(halves[1]) == 60


def test_a_slide_that_lacks_genes_narrows_the_panel_and_is_reported(tmp_path, caplog):
    genes = [f"G{i}" for i in range(20)]
    records = [_record(tmp_path, "A1", genes), _record(tmp_path, "B1", genes[5:], seed=1)]
    with caplog.at_level("INFO"):
        panel = fit_panel(records, n_mean=250, min_total=10)
    assert set(panel.genes) == set(genes[5:])
    assert "learns from the 15 genes that all training slides measured" in caplog.text
    few = [_record(tmp_path, "C1", genes), _record(tmp_path, "D1", ["G0", *(f"ENS{i}" for i in range(19))], seed=1)]
    with pytest.raises(InputError, match=r"Only 1 of the 20 genes of .* are shared"):
        fit_panel(few, min_total=10)


def test_fine_tuning_learns_the_genes_that_its_slides_measured(tmp_path, caplog):
    genes = [f"G{i}" for i in range(20)]
    fit_panel([_record(tmp_path, "A1", genes)], min_total=10).save(tmp_path / "panel.json")
    panel = extend_panel(tmp_path / "panel.json", [_record(tmp_path, "B1", [*genes[:6], "Z1"], seed=1)])
    assert len(panel) == 20
    assert "lacks 14 of the 20 genes of the model's panel" in caplog.text
    assert "learns the other 6" in caplog.text
    with pytest.raises(InputError, match=r"lacks 20 of the 20 genes .*needs 10% of them"):
        extend_panel(tmp_path / "panel.json", [_record(tmp_path, "C1", ["ENS0", "ENS1"])])
