from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch import nn

from benchmarks.scale_methods import Recipe, predict_crop, predict_interpolated, predict_pixnet
from benchmarks.scale_report import differences_table, plot, scores_table
from benchmarks.scales import Bench, figures
from benchmarks.stnet import CropNet, Picture, crop_features
from benchmarks.store import Results
from bundle.config.root import bundle_root
from bundle.data.normalisation import bounded
from bundle.data.units import Units
from networks import PixNet, RidgeBranch, SwinEncoder

SMALL = Recipe(mpp=1.0, crop_px=64, unit_crop_px=32, steps=1, crops_per_slide=1)


def planned(folder: Path, recipe: Recipe = SMALL) -> dict[str, dict]:
    """The configuration of every run on the phantom, without doing any."""
    configs = {}

    class Planned(Bench):
        def run(self, name, config, compute):
            configs[name] = config

    Planned(Results(folder), folder, 1.0).of_phantom(folder, recipe, {})
    return configs


def scored(pcc: float, draws: list[float], against: str = "truth") -> dict:
    return {against: {"2": {"units": 9, "PCC@M": pcc, "MSE": 1.0, "draws": draws}}}


class Mean(nn.Module):
    """An encoder whose features are colours."""

    strides, channels, grid_px = (1,), (3,), 1

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        return [image]


def _units(centers_um: np.ndarray, size_um: float, rate: np.ndarray) -> Units:
    n = len(centers_um)
    names = np.array([f"u{i}" for i in range(n)])
    counts = sp.csr_matrix(rate * size_um**2, dtype=np.float32)
    inside = np.ones(n, bool)
    genes = np.array(["A", "B", "C"])
    return Units("u", names, genes, counts, centers_um, inside, "square", size_um, "counts", 1.0)


@pytest.fixture
def slide():
    class Slide:
        mpp = 1.0
        level_dimensions = ((200, 160),)

        def read_region(self, x: int, y: int, width: int, height: int, mpp: float) -> np.ndarray:
            ramp = np.arange(width)[None, :, None] + np.zeros((height, 1, 3))
            return ramp.astype(np.uint8)

    return Slide()


def test_a_crop_is_centred_on_its_unit_and_white_beyond_the_slide(slide):
    picture = Picture(slide, 1.0)
    middle, corner = picture.crops(np.array([[100.0, 80.0], [0.0, 0.0]]), 32)
    assert middle.mean() == pytest.approx(99.5)  # columns 84 to 115
    assert (corner[:, :16, :] == 255).all()
    assert (corner[:, :, :16] == 255).all()
    assert corner[0, 16, 16:].tolist() == list(range(16))
    net = CropNet(3, Mean(), 32).eval()
    features = crop_features(net, picture, np.array([[100.0, 80.0]] * 3), lambda crop: crop, batch_units=2)
    torch.testing.assert_close(features, torch.full((3, 3), 99.5))


def test_fine_units_share_the_crop_models_grid(slide, monkeypatch):
    at = (np.stack(np.meshgrid(np.arange(40, 120, 2), np.arange(40, 120, 2)), -1).reshape(-1, 2) + 1).astype(float)
    units = _units(at, 2.0, np.ones((len(at), 3)))
    monkeypatch.setattr("benchmarks.scale_methods.SlideReader", lambda: type("R", (), {"open": lambda *_: slide})())
    monkeypatch.setattr("benchmarks.scale_methods._training_config", lambda sizes_um: _Plain())
    net = CropNet(3, Mean(), 32).eval()
    predict = predict_crop(net, SMALL, {"image": "s.tif", "mpp": 1.0, "units": units}, trained_um=40.0)
    y, rate = predict(sp.identity(len(at), format="csr"))
    assert rate is None
    expected = bounded(net.project(torch.from_numpy(np.repeat(at[:, :1] - 0.5, 3, axis=1)).float()).detach().numpy())
    np.testing.assert_allclose(y, expected, rtol=1e-4)  # a ramp is interpolated exactly


def test_a_group_wider_than_what_was_trained_on_is_the_mean_of_its_units(slide, monkeypatch):
    at = (np.stack(np.meshgrid(np.arange(40, 120, 2), np.arange(40, 120, 2)), -1).reshape(-1, 2) + 1).astype(float)
    units = _units(at, 2.0, np.ones((len(at), 3)))
    ramp = slide.read_region
    slide.read_region = lambda *where: np.abs(ramp(*where).astype(int) - 80).astype(np.uint8)  # darkest in the middle
    monkeypatch.setattr("benchmarks.scale_methods.SlideReader", lambda: type("R", (), {"open": lambda *_: slide})())
    monkeypatch.setattr("benchmarks.scale_methods._training_config", lambda sizes_um: _Plain())
    net = CropNet(3, Mean(), 32).eval()
    each, whole = sp.identity(len(at), format="csr"), sp.csr_matrix(np.ones((1, len(at))))
    record = {"image": "s.tif", "mpp": 1.0, "units": units}
    narrow, wide = (predict_crop(net, SMALL, record, trained_um) for trained_um in (40.0, 100.0))
    np.testing.assert_allclose(narrow(whole)[0], narrow(each)[0].mean(0, keepdims=True), rtol=1e-4)
    assert not np.allclose(wide(whole)[0], narrow(whole)[0], rtol=0.05)  # one crop about the middle


class _Plain:
    def get_parsed_content(self, _: str):
        return lambda crop: crop


def test_without_the_ridge_the_head_predicts_alone(monkeypatch, tmp_path):
    torch.manual_seed(0)
    branch = RidgeBranch(2, SwinEncoder(6, depths=(1, 1), num_heads=(1, 1), window_size=4), rank=3)
    encoder = SwinEncoder(6, depths=(1, 1), num_heads=(1, 1), window_size=4)
    network = PixNet(2, encoder, (8, 8), ridge=branch).eval()
    torch.nn.init.normal_(branch.loadings)
    pooled = torch.randn(5, network.channels)
    parts = {"network": network, "inferer": lambda slide, _: pooled}
    parser = SimpleNamespace(get_parsed_content=parts.__getitem__)
    monkeypatch.setattr("benchmarks.scale_methods._evaluation", lambda *_: parser)
    itself = sp.identity(5, format="csr", dtype=np.float32)
    both, _ = predict_pixnet(tmp_path, tmp_path, {})(itself)
    alone, _ = predict_pixnet(tmp_path, tmp_path, {}, ridge=False)(itself)
    with torch.no_grad():
        np.testing.assert_allclose(both, bounded(network.project(pooled).numpy()), rtol=1e-5)
        head = network.head.project(pooled[:, : network.head.channels]).numpy()
        np.testing.assert_allclose(alone, bounded(head), rtol=1e-5)
    assert not np.allclose(both, alone)


def test_the_head_alone_is_scored_where_there_is_a_ridge_branch(tmp_path):
    ridged = {f"phantom_head_train_{size}" for size in (100, 56, 55)}
    assert {name for name in planned(tmp_path) if "head" in name} == ridged


def test_a_rival_with_finer_crops_reads_as_many_pixels_in_training(tmp_path):
    recipe = Recipe(mpp=2.0, crop_px=384, unit_crop_px=96, steps=640, crops_per_slide=8)
    configs = planned(tmp_path, recipe)
    assert [name for name in configs if "stnet" in name] == ["phantom_stnet_train_100"]

    def pixels(name: str) -> float:
        recipe = Recipe(**configs[name]["recipe"])
        return recipe.steps * recipe.batch_units * recipe.unit_crop_px**2

    assert pixels("phantom_stnet_train_100") == pytest.approx(pixels("phantom_crop_train_100"), rel=0.01)
    fine = configs["phantom_stnet_train_100"]["recipe"]
    assert (fine["mpp"], fine["unit_crop_px"]) == (1.0, 224)


@pytest.mark.parametrize("how", ["nearest", "linear"])
def test_interpolation_carries_rates_and_never_uses_the_unit_itself(how):
    at = np.stack(np.meshgrid(np.arange(5.0), np.arange(5.0)), -1).reshape(-1, 2) * 20
    at = at + np.random.default_rng(0).uniform(-4, 4, at.shape)
    rate = np.column_stack([5 + at[:, 0], np.full(25, 2.0), np.full(25, 3.0)]) * 0.01
    units = _units(at, 10.0, rate)
    slide = {"mpp": 1.0, "units": units}
    itself = sp.identity(25, format="csr")
    y, carried = predict_interpolated(units, ["A", "B"], slide, how, 0, leave_one_out=False)(itself)
    np.testing.assert_allclose(carried, rate, rtol=1e-5)
    np.testing.assert_allclose(y, np.log1p(1e4 * rate[:, :2] / rate.sum(1, keepdims=True)), rtol=1e-5)
    middle = 12
    _, others = predict_interpolated(units, ["A", "B"], slide, how, 0, leave_one_out=True)(itself)
    units.counts[middle, 0] = 1e6
    _, again = predict_interpolated(units, ["A", "B"], slide, how, 0, leave_one_out=True)(itself)
    np.testing.assert_allclose(again[middle], others[middle])
    assert not np.allclose(again, others)


def test_finished_runs_are_kept_and_others_wait_for_time(tmp_path):
    calls, results = [], Results(tmp_path)

    def compute():
        calls.append(1)
        return scored(0.5, [0.5, 0.6])

    for config in ({"a": 1}, {"a": 1}, {"a": 2}):
        Bench(results, tmp_path, 1.0).run("phantom_pixnet_train_100", config, compute)
        results.collect()
    assert len(calls) == 2
    shutil.rmtree(results.cache)  # the CSV alone says what is finished
    late = Bench(results, tmp_path, -1.0)
    for number in (1, 2, 3):
        late.run("phantom_pixnet_train_100", {"a": number}, compute)
    assert len(calls) == 2
    Bench(results, tmp_path, 1.0, redraw=True).run("phantom_pixnet_train_100", {"a": 2}, compute)
    assert len(calls) == 3


@pytest.mark.parametrize("scale_um", [16.0, 100.0])
def test_intervals_belong_to_their_figure(scale_um: float):
    rng = np.random.default_rng(0)
    at = np.stack(np.meshgrid(np.arange(60), np.arange(60)), -1).reshape(-1, 2) * 16.0 + 8
    rate = rng.gamma(4, 1, (len(at) // 36 + 1, 3)).repeat(36, axis=0)[: len(at)] / 16**2
    squares = (at // 100).sum(1) % 2  # an error that the first grid's squares see whole, the others' hardly
    predicted = rate * np.where(squares[:, None] == 1, [3.0, 1.0, 1.0], [1.0, 1.0, 3.0])
    predicted[at[:, 0] < 320] = predicted[::-1][at[:, 0] < 320]
    rate[at[:, 0] < 320] *= 0.1  # squares too empty to be scored, where the prediction is wrong
    units = _units(at, 16.0, rng.poisson(rate * 16**2) / 16**2)
    panel = SimpleNamespace(genes=list(units.genes), main="all", index=lambda _: np.arange(3), min_total=200.0)

    def predict(groups: sp.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
        summed = groups @ predicted
        y = np.log1p(1e4 * summed / summed.sum(1, keepdims=True))
        return y, np.column_stack([summed, np.zeros(len(y))])

    slide = {"units": units, "mpp": 1.0, "section": "s", "patient": "p", "filtered_units": 0}
    found = figures(predict, slide, panel, [100.0])[f"{scale_um:g}"]
    assert np.mean(found["draws"]) == pytest.approx(found["PCC@M"], abs=0.02)
    assert np.std(found["draws"]) > 0.005


def test_a_finished_run_of_a_model_does_not_outlive_its_configuration(tmp_path, monkeypatch):
    before = planned(tmp_path)
    configs = shutil.copytree(bundle_root() / "configs", tmp_path / "configs")
    content = json.loads((configs / "train.json").read_text())
    (configs / "train.json").write_text(json.dumps({**content, "learning_rate": 1.0}))
    monkeypatch.setattr("benchmarks.scale_methods.config.bundle_root", lambda: tmp_path)
    after = planned(tmp_path)
    assert {name for name in before if before[name] == after[name]} == {n for n in before if "interpolation" in n}


def test_only_the_chosen_runs_are_done(tmp_path):
    done, results = [], Results(tmp_path)
    bench = Bench(results, tmp_path, 1.0, ["train_100"])
    for name in ("phantom_crop_train_100", "phantom_crop_train_55", "phantom_pixnet_train_55"):
        bench.run(name, {"a": 1}, lambda name=name: done.append(name) or {})
    assert done == ["phantom_crop_train_100"]
    Bench(results, tmp_path, 1.0, ["train_55"]).run("her2st_head_train_100", {}, lambda: pytest.fail("trained"))
    Bench(results, tmp_path, 1.0, methods=["stnet"]).run("phantom_pixnet_train_100", {}, lambda: pytest.fail("trained"))


def test_the_tables_mark_the_best_and_what_is_beyond_noise(tmp_path):
    results = Results(tmp_path)
    runs = {
        "phantom_pixnet_train_100": scored(0.5, [0.5, 0.55, 0.45]),
        "phantom_head_train_100": scored(0.2, [0.2, 0.2, 0.2]),
        "phantom_crop_train_100": scored(0.3, [0.3, 0.3, 0.3]),
        "phantom_interpolation_nearest_100": scored(0.5, [0.4, 0.6, 0.5]),
    }
    for name, figure in runs.items():
        Bench(results, tmp_path, 1.0).run(name, {}, lambda figure=figure: figure)
    results.collect()
    scores = scores_table(results, "phantom", ["truth"]).splitlines()
    assert scores[0] == "| PCC@M | truth, 2 µm |"
    assert "| pixnet train_100 | **0.500** |" in scores
    assert "| crop train_100 | 0.300 |" in scores
    head, crop, nearest, of_head = differences_table(results, "phantom", "truth").splitlines()[2:]
    assert head.startswith("| pixnet train_100 − head train_100 | **+0.300 [")
    assert "**+0.200 [" in crop
    assert "| +0.000 [" in nearest
    assert of_head.startswith("| head train_100 − crop train_100 | **-0.100 [")
    plot(results, tmp_path / "scales.png")
    assert (tmp_path / "scales.png").stat().st_size > 1000


def test_the_newest_run_of_a_method_is_shown(tmp_path, monkeypatch):
    results = Results(tmp_path)
    for number, (pcc, finished) in enumerate([(0.4, "2"), (0.3, "1")]):
        monkeypatch.setattr("benchmarks.scales.provenance", lambda finished=finished: {"finished": finished})
        Bench(results, tmp_path, 1.0).run(
            "phantom_pixnet_train_100", {"a": number}, lambda pcc=pcc: scored(pcc, [0.0, 1.0])
        )
        if finished == "1":  # the earlier one has another size too
            earlier = json.loads(
                max(results.cache.glob("*.json"), key=lambda path: path.stat().st_mtime_ns).read_text()
            )
            more = {**earlier["rows"][0], "size_um": "8"}
            results.save("scales", earlier["key"], [*earlier["rows"], more], earlier["made"])
    results.collect()
    assert scores_table(results, "phantom", ["truth"]).splitlines()[2:] == ["| pixnet train_100 | **0.400** |"]
