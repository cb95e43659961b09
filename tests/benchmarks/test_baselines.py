from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from benchmarks.baselines import BASELINES, SURROUND, Slide, choose, colour_statistics, main, run
from bundle.data.build_units import build_units
from bundle.data.fit_panel import fit_panel
from bundle.data.manifest import read_split, write_manifest
from bundle.data.normalisation import passes_quality_control
from bundle.data.slide_units import load_units
from bundle.errors import InputError
from bundle.inference import model_sha256
from bundle.writers.tiff_pyramid import write_pyramid

MPP, SIZE_UM, SIDE = 2.0, 60.0, 6
GENES = [f"G{i}" for i in range(12)]


def write_slide(root: Path, name: str, seed: int, shift: int = 0, empty: int = 0) -> dict:
    """A slide of coloured squares, one for each unit, whose redness drives half of the genes up and half down."""
    rng = np.random.default_rng(seed)
    redness = rng.uniform(0, 1, (SIDE, SIDE))
    colour = np.stack([120 + 100 * redness, 140 - 60 * redness, np.full_like(redness, 150)], axis=-1)
    image = np.kron(np.rint(colour - shift).astype(np.uint8), np.ones((50, 50, 1), np.uint8))
    slope = np.array([1, -1] * (len(GENES) // 2)) * 1.5
    rate = np.exp(slope * redness.reshape(-1, 1)) * 60
    counts = rng.poisson(rate)
    counts[:empty] = 0
    centers = np.stack(np.meshgrid(*[np.arange(SIDE) * 50 + 25.0] * 2), axis=-1).reshape(-1, 2)
    names = [f"u{i}" for i in range(len(centers))]
    units = build_units(counts, GENES, names, centers, shape="circle", size_um=SIZE_UM, mpp=MPP, section=name)
    for folder in ("slides", "spots"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    write_pyramid(root / "slides" / f"{name}.tif", image, MPP, compression="deflate")
    units.write_h5ad(root / "spots" / f"{name}.h5ad")
    return {"image": f"slides/{name}.tif", "label": f"spots/{name}.h5ad", "patient": name, "mpp": MPP}


@pytest.fixture(scope="module", autouse=True)
def _small_crops() -> Iterator[None]:
    """The encoder's crops need not be large to be colours."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmarks.baselines.encoder.CROP_PX", 64)
        yield


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("dataset")
    train = [write_slide(root, name, seed) for seed, name in enumerate(("a", "b", "c"))]
    return write_manifest(root, {"training": train, "test": [write_slide(root, "d", 9, empty=5)]}).parent


@pytest.fixture(scope="module")
def result(dataset: Path) -> dict:
    return run(dataset)


def make_slide(rng: np.random.Generator, n: int = 40, genes: int = 5) -> Slide:
    return Slide(
        "s", Path("none"), 1.0, 55.0, rng.uniform(0, 9e3, (n, 2)), rng.uniform(300, 9e3, n), rng.random((n, genes))
    )


# Baselines ------------------------------------------------------------------------------------------------------------


def test_position_does_not_see_where_or_how_large_the_section_lies() -> None:
    rng = np.random.default_rng(0)
    train, test = [make_slide(rng), make_slide(rng)], make_slide(rng)
    predict = BASELINES["position"].fit(train, 0.2)
    moved = replace(test, centers_um=test.centers_um * 1.7 + (300, -5000))
    np.testing.assert_allclose(predict(moved), predict(test))
    far = predict(replace(test, centers_um=np.vstack([test.centers_um[:-1], [1e6, 1e6]])))
    assert np.isfinite(far).all()


def test_position_copies_a_section_when_narrow_and_averages_when_wide() -> None:
    slide = make_slide(np.random.default_rng(0))
    np.testing.assert_allclose(BASELINES["position"].fit([slide], 1e-4)(slide), slide.y)
    wide = BASELINES["position"].fit([slide], 1e4)(slide)
    np.testing.assert_allclose(wide, np.tile(slide.y.mean(0), (len(slide.y), 1)), atol=1e-6)


def test_choice_is_the_best_on_held_out_training_sections() -> None:
    rng = np.random.default_rng(0)
    places = rng.uniform(0, 5e3, (60, 2))
    pattern = np.sin(places / 700)
    train = [
        replace(make_slide(rng, 60, 2), centers_um=places, y=pattern + rng.normal(0, 0.2, (60, 2))) for _ in range(3)
    ]
    baseline = BASELINES["position"]

    def held_out(value: float) -> float:
        pcc = []
        for left in train:
            pred = baseline.fit([s for s in train if s is not left], value)(left)
            pcc += [np.corrcoef(pred[:, g], left.y[:, g])[0, 1] for g in range(2)]
        return float(np.mean(pcc))

    assert held_out(choose(baseline, train)) == max(map(held_out, baseline.grid))
    assert choose(baseline, train[:1]) in baseline.grid


def test_colours_of_one_colour_have_no_spread_or_gradient(tmp_path: Path) -> None:
    image = np.tile(np.array([200, 90, 160], np.uint8), (300, 300, 1))
    write_pyramid(tmp_path / "s.tif", image, 1.0, compression="deflate")
    slide = replace(
        make_slide(np.random.default_rng(0)), image=tmp_path / "s.tif", centers_um=np.array([[150.0, 150.0]])
    )
    disk, surround = colour_statistics(slide).reshape(2, -1)
    np.testing.assert_allclose(disk, surround, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(disk[:3], (200, 90, 160), rtol=1e-5)
    np.testing.assert_allclose(disk[[*range(7, 14), -2, -1]], 0, atol=1e-3)


def test_colours_turn_with_the_slide_and_reach_no_further_than_the_surround(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (400, 400, 3), dtype=np.uint8)
    slide = make_slide(rng)
    center = np.array([[170.0, 220.0]])
    reach = int(np.ceil(SURROUND * slide.size_um / 2))
    cut = np.zeros_like(image)
    rows, cols = slice(220 - reach, 220 + reach), slice(170 - reach, 170 + reach)
    cut[rows, cols] = image[rows, cols]
    got = []
    for name, picture, at in (
        ("as_is", image, center),
        ("turned", image[::-1, ::-1], 400 - center),
        ("mirrored", image[:, ::-1], np.abs(center - (400, 0))),
        ("cut", cut, center),
    ):
        write_pyramid(tmp_path / f"{name}.tif", np.ascontiguousarray(picture), 1.0, compression="deflate")
        got.append(colour_statistics(replace(slide, image=tmp_path / f"{name}.tif", centers_um=at))[0])
    for other in got[1:3]:
        np.testing.assert_allclose(other, got[0], rtol=1e-5, atol=1e-5)
    gradients = [len(got[0]) // 2 - 2, len(got[0]) // 2 - 1, len(got[0]) - 2, len(got[0]) - 1]
    np.testing.assert_array_equal(np.delete(got[3], gradients), np.delete(got[0], gradients))


# Command --------------------------------------------------------------------------------------------------------------


def test_colour_finds_what_is_in_the_image_and_nothing_else_does(result: dict) -> None:
    native = {name: row["scales"]["native"] for name, row in result["baselines"].items()}
    pcc = {name: figures["PCC@M"] for name, figures in native.items()}
    assert pcc["colour ridge"] > 0.9
    assert pcc["colour ridge, per slide (transductive)"] > 0.9
    assert pcc["mean"] == 0
    assert max(abs(pcc[name]) for name in ("position", "shuffled image")) < 0.6
    assert native["mean"]["MSE"] > 3 * native["colour ridge"]["MSE"]
    assert native["mean"]["filtered_units"] == 5
    assert result["tested_on"] == [
        {"section": "d", "units": SIDE**2 - 5}
    ]  # units without counts are no one's to predict
    assert result["same_patient"] is False


def test_the_test_slides_choose_nothing(result: dict, tmp_path: Path) -> None:
    root = tmp_path / "other"
    train = [write_slide(root, name, seed) for seed, name in enumerate(("a", "b", "c"))]
    write_manifest(root, {"training": train, "test": [write_slide(root, "d", 77, shift=30)]})
    other = run(root)
    assert result["genes"] == other["genes"]
    for name, row in result["baselines"].items():
        assert row.get("chosen") == other["baselines"][name].get("chosen")


def test_figures_are_printed_and_written(
    result: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("benchmarks.baselines.command.run", lambda *_, **__: result)
    assert main(["somewhere", "--json", str(tmp_path / "b.json")]) == 0
    assert json.loads((tmp_path / "b.json").read_text())["genes"] == result["genes"]
    printed = capsys.readouterr().out
    assert "fitted on a, b, c; tested on d" in printed
    for name, row in result["baselines"].items():
        line = next(line for line in printed.splitlines() if line.startswith(f"| {name} |"))
        assert f" {row['scales']['native']['PCC@M']:.3f} |" in line


def test_a_run_stands_beside_the_baselines_only_with_predictions_of_tissue_it_has_not_seen(
    dataset: Path, tmp_path: Path
) -> None:
    panel, (slide,) = fit_panel(read_split(dataset, "training")), read_split(dataset, "test")
    units = load_units(slide)[0]
    units = units.take(passes_quality_control(units, 200.0, training=False))
    (tmp_path / "models").mkdir()
    weights = tmp_path / "models" / "model.pt"
    weights.write_bytes(b"weights")

    def predicted(**about: object) -> None:
        y = np.tile(np.arange(len(units))[:, None], (1, len(panel))).astype(np.float32)
        said = {"training_sections": np.array(["a", "b", "c"]), "checkpoint_sha256": model_sha256(weights), **about}
        adata = ad.AnnData(y, obs=pd.DataFrame(index=units.barcodes), var=pd.DataFrame(index=panel.genes))
        adata.uns["pixnet"] = said
        (tmp_path / "predictions" / "test").mkdir(parents=True, exist_ok=True)
        adata.write_h5ad(tmp_path / "predictions" / "test" / "d.h5ad")

    predicted()
    assert f"PixNet, {tmp_path.name}" in run(dataset, runs=[tmp_path])["baselines"]
    weights.write_bytes(b"later weights")
    with pytest.raises(InputError, match="is not by the weights in"):
        run(dataset, runs=[tmp_path])
    predicted(training_sections=np.array(["a", "d"]))
    with pytest.raises(InputError, match="was trained on d, which is tested here"):
        run(dataset, runs=[tmp_path])


def test_a_set_without_test_slides_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_manifest(tmp_path, {"training": [write_slide(tmp_path, "a", 0)]})
    with pytest.raises(InputError, match="--test"):
        run(tmp_path)
    with pytest.raises(SystemExit):
        main([str(tmp_path / "absent")])
    assert "No data set" in capsys.readouterr().err
