"""Pixels, masks, units, genes and counts belong together, from a slide's file to every figure and prediction.

Slides are painted so that colour is expression, and a network answers by colour alone (see `tests.painted`). The
configurations are the bundle's own but for that network, so whatever they do in another order or place shows as an
error of the answer.
"""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import anndata as ad
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from matplotlib.path import Path as Outline
from monai.bundle import ConfigParser
from scipy import ndimage

from bundle import config, open_map, workflows
from bundle.audit import audit
from bundle.data.panel import load_panel
from bundle.data.polygons import Polygons
from bundle.data.read_geojson import read_polygons
from bundle.data.read_units import read_units
from bundle.integrations.monai_label.infer import infer
from bundle.integrations.monai_label.request import SlideRequest
from tests.painted import BIN_UM, MPP, PANEL, SETTINGS, SPOT_UM, Painted, colours_of, make_painted, y_of

ROOT = Path(__file__).parents[1]
#: Error of y that resampling, rounding to whole levels and map pixels of 8 µm leave; half a pixel of 2 µm adds .005.
Y = 0.003


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("painted")


@pytest.fixture(scope="module")
def slides(root: Path) -> dict[str, Painted]:
    return make_painted(root)


@pytest.fixture(scope="module")
def run(root: Path, slides: dict[str, Painted], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the network that reads colours, "trained" by `train.json` and validated by it."""
    folder = tmp_path_factory.mktemp("run")
    workflows.train(root, folder, settings=deepcopy(SETTINGS))
    return folder


def predict(run: Path, slide: Path, out: Path | None, **settings: Any) -> ad.AnnData | None:
    workflows.predict(slide, out, run, settings, trust=True)
    return None if out is None else ad.read_h5ad(out)


def rms(error: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(error))))


# Training -------------------------------------------------------------------------------------------------------------


def _training(root: Path, **keys: Any) -> ConfigParser:
    """`train.json` itself; its own preprocessing, data set, loader and network, of painted slides."""
    settings = {**deepcopy(SETTINGS), "crops_per_slide": 3, "batch_size": 3, **keys}
    merged = config.merge_config([ROOT / "configs" / "train.json"], {"dataset_dir": str(root), **settings})
    return ConfigParser(merged)


def _pooled(parser: ConfigParser, batch: dict[str, torch.Tensor]) -> np.ndarray:
    """Mean colours by the network's own pooling, of what the loader gave, (U, 3)."""
    network = parser.get_parsed_content("network_def").eval()
    with torch.no_grad():
        return network.pool(network.features(batch["image"]), batch["label"]).double().numpy()


def _restained(colours: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """What is seen of colours under the change of stain that explains it best: affine in optical density."""
    given = np.column_stack([-np.log(colours / 255), np.ones(len(colours))])
    change, *_ = np.linalg.lstsq(given, -np.log(seen / 255), rcond=None)
    return 255 * np.exp(-given @ change)


def _check_units(batch: dict[str, torch.Tensor], expected: np.ndarray, mpp: float) -> None:
    """Areas, layers and owners are those of the units in the mask, in the order in which they are pooled."""
    label = batch["label"].numpy()
    units = [
        (b, layer, number)
        for b in range(label.shape[0])
        for layer in range(label.shape[1])
        for number in range(1, label[b, layer].max() + 1)
    ]
    assert units == list(zip(*(batch[key].tolist() for key in ("unit_batch", "unit_layer", "unit_index")), strict=True))
    assert len(units) == len(expected)
    pixels = np.array([(label[b, layer] == number).sum() for b, layer, number in units])
    np.testing.assert_allclose(pixels * mpp**2, batch["area_um2"], rtol=0.05)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("stain", "stride"), [(True, 4), (False, 1)])
def test_a_training_crop_shows_the_units_whose_targets_it_brings(root, slides, seed: int, stain: bool, stride: int):
    parser = _training(root, seed=seed, **{"network_def#stride": stride})
    (restain,) = (t for t in parser["train#preprocessing#transforms"] if t["_target_"] == "transforms.RandHEStaind")
    if not stain:
        restain["prob"] = 0.0  # without it nothing has to be fitted, and half a pixel shows
    dataset, mpp = parser.get_parsed_content("train#dataset"), parser.get_parsed_content("mpp")
    dataset.set_epoch(seed)
    for batch in parser.get_parsed_content("train#dataloader"):
        expected, seen = colours_of(batch["target"].numpy(), batch["total"].numpy()), _pooled(parser, batch)
        _check_units(batch, expected, mpp)
        assert batch["normalised"].tolist() == (batch["unit_layer"] == 0).tolist()
        for crop in range(len(batch["image"])):
            own = (batch["unit_batch"] == crop).numpy()
            spots = (batch["unit_layer"] == 0).numpy()[own]
            assert spots.sum() > 10
            assert expected[own].std(0).min() > 3  # else nothing can be distinguished
            wanted = _restained(expected[own], seen[own]) if stain else expected[own]
            error = wanted - seen[own]
            assert rms(error[spots]) < (0.5 if stain else 0.25)
            assert rms(error[~spots]) < 0.8


def test_crops_of_an_epoch_are_moved_in_every_way(root, slides):
    """What is tested above is not the same place, the same way round, again and again."""
    dataset = _training(root, crops_per_slide=20, crop_px=64).get_parsed_content("train#dataset")
    moves, places = set(), set()
    for item in range(len(dataset)):
        image = dataset[item]["image"]
        moves.add(tuple(np.sign(image.affine[:2, :2].round(decimals=6)).flatten().tolist()))
        places.add(tuple(image.meta["origin_um"]))
    assert len(moves) == 8  # all flips and turns of a square
    assert len(places) == len(dataset)


# Validation and evaluation --------------------------------------------------------------------------------------------


def _is_right(figures: dict[str, Any]) -> bool:
    return figures["PCC@M"] > 0.999 and figures["MSE"] < (2 * Y) ** 2


def test_validation_scores_what_the_slide_shows(run, root):
    panel = load_panel(run / "models" / "panel.json")
    assert panel.genes == PANEL
    assert [slide["section"] for slide in panel.training] == ["T1", "T2"]
    (figures,) = json.loads((run / "evaluation" / "validation.json").read_text())["scales"].values()
    assert figures["size_um"] == SPOT_UM
    assert _is_right(figures)
    assert pd.read_csv(run / "metrics.csv")["val_PCC@M"].item() == pytest.approx(figures["PCC@M"])
    assert figures["filtered_units"] == ad.read_h5ad(root / "spots" / "V.h5ad").n_obs // 10


@pytest.mark.parametrize(("size_um", "scale_um"), [(SPOT_UM, 125.0), (BIN_UM, 64.0)])
def test_evaluation_scores_every_scale_right(run, root, slides, size_um: float, scale_um: float):
    path = workflows.evaluate(run, scales_um=[scale_um], size_um=size_um, settings={"tile_px": 256}, trust=True)
    scales = json.loads(path.read_text())["scales"]
    assert list(scales) == ["native", f"{scale_um:g}"]
    assert all(_is_right(figures) for figures in scales.values()), scales
    scored = ad.read_h5ad(run / "predictions" / "test" / "W.h5ad")
    _, n_units = np.unique(scored.obsm["spatial"] * slides["W"].mpp // scale_um, axis=0, return_counts=True)
    assert scales[f"{scale_um:g}"]["units"] == (n_units >= np.median(n_units) / 2).sum()
    (measured,) = [u for u in map(read_units, (root / k / "W.h5ad" for k in ("spots", "bins"))) if u.size_um == size_um]
    assert len(scored) == scales["native"]["units"] == len(measured) - len(measured) // 10
    rows = pd.Index(measured.barcodes).get_indexer(scored.obs_names)
    np.testing.assert_allclose(scored.obsm["spatial"], measured.centers_px[rows])
    expected = y_of(slides["W"].colours(measured.centers_px[rows], measured.shape, size_um))
    assert rms(scored.X - expected) < 2 * Y


# Prediction -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("numbers", [[0], [0, 1, 2, 3, 4, 5, 6, 7]])
def test_given_spots_are_predicted_in_their_order(run, root, slides, tmp_path, numbers: list[int]):
    spots = read_units(root / "spots" / "W.h5ad")
    found = predict(
        run,
        root / "slides" / "W.tif",
        tmp_path / "o.h5ad",
        units=str(root / "spots" / "W.h5ad"),
        test_time_augmentation=numbers,
        all_genes=True,
    )
    assert list(found.obs_names) == list(spots.barcodes)
    np.testing.assert_allclose(found.obsm["spatial"], spots.centers_px)
    assert list(found.obs["in_tissue"]) == list(spots.in_tissue)
    assert (found.obs["tissue_fraction"] == 1).all()
    about = found.uns["pixnet"]
    assert (about["working_mpp"], about["slide_mpp"], about["effective_resolution_um"]) == (
        MPP,
        slides["W"].mpp,
        4 * MPP,
    )
    assert rms(found[:, PANEL].X - y_of(slides["W"].colours(spots.centers_px, "circle", SPOT_UM))) < Y


def test_a_prediction_is_drawn_over_its_slide_as_scanpy_draws_it(run, root, slides, tmp_path, monkeypatch):
    """Below each spot the small picture has the colour that is predicted there."""
    monkeypatch.setattr("bundle.data.tissue._TISSUE_MAX_PX", 600)
    found = predict(run, root / "slides" / "W.tif", tmp_path / "o.h5ad", units=str(root / "spots" / "W.h5ad"))
    (library,) = found.uns["spatial"].values()
    scales, picture = library["scalefactors"], library["images"]["hires"]
    assert max(picture.shape) == 600
    assert scales["spot_diameter_fullres"] == pytest.approx(SPOT_UM / slides["W"].mpp)
    small = Painted(picture, slides["W"].mpp / scales["tissue_hires_scalef"])
    colours = small.colours(found.obsm["spatial"] * scales["tissue_hires_scalef"], "circle", SPOT_UM)
    assert rms(found[:, PANEL].X - y_of(colours)) < 2 * Y


def test_genes_are_written_as_they_are_named(run, root, slides, tmp_path):
    settings = {"units": str(root / "spots" / "W.h5ad"), "genes": PANEL[::-1]}
    found = predict(run, root / "slides" / "W.tif", tmp_path / "o.h5ad", **settings)
    assert list(found.var_names) == PANEL[::-1]
    colours = slides["W"].colours(found.obsm["spatial"], "circle", SPOT_UM)
    assert rms(found.X - y_of(colours)[:, ::-1]) < Y
    np.testing.assert_allclose(found.layers["rate_per_um2"], colours[:, 1::-1], atol=1.5)


@pytest.mark.parametrize(
    ("settings", "shape", "size_um", "error"),
    [
        ({"spot_um": 40.0, "pitch_um": 70.0, "lattice": "hex"}, "circle", 40.0, Y),
        ({"spot_um": 55.0, "pitch_um": 61.3}, "circle", 55.0, Y),
        ({"bin_um": 30.0}, "square", 30.0, 1.5 * Y),
        ({"bin_um": 16.0}, "square", 16.0, 1.5 * Y),
        ({"bin_um": 4.0, "region_px": [402, 301, 210, 160]}, "square", 4.0, 3 * Y),  # finer than a map pixel
    ],
)
def test_lattices_are_predicted_where_they_lie(run, root, slides, tmp_path, settings, shape, size_um, error: float):
    found = predict(run, root / "slides" / "W.tif", tmp_path / "o.h5ad", **settings)
    slide = slides["W"]
    expected = y_of(slide.colours(found.obsm["spatial"], shape, size_um))
    height, width = slide.pixels.shape[:2]
    far = np.minimum(found.obsm["spatial"], np.array([width, height]) - found.obsm["spatial"]).min(1)
    inside = np.isfinite(expected).all(1) & (far > (size_um / 2 + 10) / slide.mpp)
    assert inside.sum() > 60
    assert rms(found.X[inside] - expected[inside]) < error
    if shape == "square":  # as 10x name bins
        places = zip(found.obs["array_row"], found.obs["array_col"], strict=True)
        assert list(found.obs_names) == [f"s_{size_um:03g}um_{row:05d}_{column:05d}" for row, column in places]
        places = found.obs[["array_col", "array_row"]].to_numpy()
        np.testing.assert_allclose(found.obsm["spatial"] * slide.mpp, (places + 0.5) * size_um)
    if "region_px" in settings:
        x, y, w, h = settings["region_px"]
        assert ((found.obsm["spatial"] >= (x, y)) & (found.obsm["spatial"] < (x + w, y + h))).all()
        assert len(found) == pytest.approx(w * h * slide.mpp**2 / size_um**2, rel=0.05)


def _cells(slide: Painted, seed: int = 0) -> list[np.ndarray]:
    """Outlines of cells, in level-0 pixels, in an order that is not that of their places."""
    rng, pitch = np.random.default_rng(seed), 60.0
    height, width = slide.pixels.shape[:2]
    x, y = np.meshgrid(np.arange(pitch, width - pitch, pitch), np.arange(pitch, height - pitch, pitch))
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    found = []
    for center in rng.permutation(np.column_stack([x.ravel(), y.ravel()])):
        radius = rng.uniform(12, 26, 2)[:, None] * (1 + 0.15 * np.cos(3 * angle + rng.uniform(0, 6)))
        found.append(center + rng.uniform(-3, 3, 2) + (radius * (np.cos(angle), np.sin(angle))).T)
    return found


def _cell_colours(slide: Painted, outlines: list[np.ndarray]) -> np.ndarray:
    found = []
    for ring in outlines:
        low, high = np.floor(ring.min(0)).astype(int), np.ceil(ring.max(0)).astype(int)
        x, y = np.meshgrid(np.arange(low[0], high[0]), np.arange(low[1], high[1]))
        inside = Outline(ring).contains_points(np.column_stack([x.ravel(), y.ravel()]) + 0.5)
        found.append(slide.pixels[y.ravel()[inside], x.ravel()[inside]].mean(0))
    return np.array(found)


def test_polygon_cells_average_the_map_inside(run, root, slides, tmp_path):
    outlines = _cells(slides["W"])
    names = [f"cell {number}" for number in np.random.default_rng(1).permutation(len(outlines))]
    features = [
        {
            "type": "Feature",
            "id": name,
            "geometry": {"type": "Polygon", "coordinates": [[*ring.tolist(), ring[0].tolist()]]},
        }
        for name, ring in zip(names, outlines, strict=True)
    ]
    (tmp_path / "c.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    slide = root / "slides" / "W.tif"
    found = predict(run, slide, tmp_path / "o.h5ad", units=str(tmp_path / "c.geojson"))
    assert list(found.obs_names) == names
    assert rms(found.X - y_of(_cell_colours(slides["W"], outlines))) < 2 * Y


@pytest.mark.parametrize("scale", [1, 2])
def test_cells_of_a_label_image_average_the_map_at_their_pixels(run, root, slides, tmp_path, scale: int):
    pixels = slides["W"].pixels
    height, width = pixels.shape[:2]
    labels = np.zeros((-(-height // scale), -(-width // scale)), np.uint32)
    for ring in _cells(slides["W"]):
        low, high = (np.floor(end(ring / scale, axis=0)).astype(int) for end in (np.min, np.max))
        x, y = (v.ravel() for v in np.meshgrid(np.arange(low[0], high[0] + 1), np.arange(low[1], high[1] + 1)))
        inside = Outline(ring / scale).contains_points(np.column_stack([x, y]) + 0.5)
        labels[y[inside], x[inside]] = 1 + 7 * int(ring[0].sum()) % 7919
    tifffile.imwrite(tmp_path / "l.tif", labels, tile=(128, 128))
    found = predict(run, root / "slides" / "W.tif", tmp_path / "o.h5ad", units=str(tmp_path / "l.tif"))
    owner = labels.repeat(scale, 0).repeat(scale, 1)[:height, :width]
    ids = found.obs_names.astype(int)
    expected = np.stack([ndimage.mean(pixels[..., channel], owner, ids) for channel in range(3)], axis=1)
    assert len(found) == len(np.unique(labels)) - 1 > 100
    assert rms(found.X - y_of(expected)) < 2 * Y


def test_maps_show_each_place_where_it_is(run, root, slides, tmp_path):
    region = [310, 205, 400, 300]
    files = {"map": str(tmp_path / "m.zarr"), "nifti": str(tmp_path / "m.nii.gz"), "genes": ["GREEN"]}
    predict(run, root / "slides" / "W.tif", None, region_px=region, **files)
    dense, volume = open_map(tmp_path / "m.zarr"), nib.load(tmp_path / "m.nii.gz")
    cell_um, mpp = dense.resolution_um, slides["W"].mpp

    def expected(centers_um: np.ndarray) -> np.ndarray:
        return y_of(slides["W"].colours(centers_um / mpp, "square", cell_um))[:, 1]

    values = np.asarray(volume.dataobj)[:, :, 0, 0]
    column, row = np.indices(values.shape)
    centers_um = 1000 * (np.column_stack([column.ravel(), row.ravel()]) * volume.affine[0, 0] + volume.affine[:2, 3])
    assert np.abs(centers_um.min(0) - np.array(region[:2]) * mpp).max() <= cell_um
    assert np.abs(centers_um.max(0) - np.add(region[:2], region[2:]) * mpp).max() <= cell_um
    assert rms(values.ravel() - expected(centers_um)) < 2 * Y
    array = dense.array[0]
    row, column = np.nonzero(np.isfinite(array))
    some = np.random.default_rng(0).permutation(len(row))[:500]
    centers_um = (np.column_stack([column, row])[some] + 0.5) * cell_um + np.array(dense.origin_px) * dense.mpp
    wanted = expected(centers_um)
    known = np.isfinite(wanted) & (centers_um > 10).all(1) & (centers_um < np.array([890, 690])).all(1)
    assert known.sum() > 200
    assert rms(array[row[some], column[some]][known] - wanted[known]) < 2 * Y


def test_a_slide_without_tags_and_with_its_mpp_given_is_the_same_slide(run, root, slides, tmp_path):
    slide = tmp_path / "W.tif"
    tifffile.imwrite(slide, slides["W"].pixels, tile=(256, 256), photometric="rgb", metadata=None)
    settings = {"spot_um": SPOT_UM, "pitch_um": 70.0}
    given = predict(run, slide, tmp_path / "given.h5ad", slide_mpp=slides["W"].mpp, **settings)
    tagged = predict(run, root / "slides" / "W.tif", tmp_path / "tagged.h5ad", **settings)
    assert list(given.obs_names) == list(tagged.obs_names)
    np.testing.assert_allclose(given.obsm["spatial"], tagged.obsm["spatial"])
    assert rms(given.X - tagged.X) < Y
    half = predict(run, slide, tmp_path / "half.h5ad", slide_mpp=2 * slides["W"].mpp, **settings)
    inside = np.isfinite(expected := y_of(slides["W"].colours(half.obsm["spatial"], "circle", SPOT_UM / 2))).all(1)
    assert rms(half.X[inside] - expected[inside]) < 3 * Y  # the same pixels, of half as many µm each spot


# Label server ---------------------------------------------------------------------------------------------------------


def test_results_of_the_label_server_lie_where_they_are(run, root, slides):
    slide, unit_um = slides["W"], 38.0
    file, about = infer(root / "slides" / "W.tif", run, SlideRequest("units", ("GREEN",), unit_um), trust=True)
    content, polygons = json.loads(file.read_text()), read_polygons(file)
    file.unlink()
    assert about["slide_mpp"] == slide.mpp
    expected = y_of(slide.colours(Polygons.of_shapes(polygons.shapes).centroids_px, "square", unit_um))[:, 1]
    seen = np.array([feature["properties"]["measurements"]["GREEN"] for feature in content["features"]])
    inside = np.isfinite(expected)
    assert inside.sum() > 200
    drawn = Polygons.of_shapes(polygons.shapes)
    np.testing.assert_allclose(drawn.areas_px2[inside], (unit_um / slide.mpp) ** 2, rtol=0.01)
    assert rms(seen[inside] - expected[inside]) < 2 * Y

    level = float(np.median(seen))
    file, _ = infer(
        root / "slides" / "W.tif", run, SlideRequest("contours", ("GREEN",), unit_um, threshold=level), trust=True
    )
    rings = Polygons.of_shapes(read_polygons(file).shapes)
    file.unlink()
    within = sum(Outline(part).contains_points(drawn.centroids_px).astype(int) for part in _rings(rings))
    assert ((within % 2 == 1) == (seen >= level)).mean() > 0.95


def _rings(outlines: Polygons) -> list[np.ndarray]:
    return np.split(outlines.vertices_px, outlines.ring_offsets[1:-1])


# Audit ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prediction(run, root, tmp_path_factory) -> ad.AnnData:
    out = tmp_path_factory.mktemp("prediction") / "W.h5ad"
    return predict(run, root / "slides" / "W.tif", out, units=str(root / "spots" / "W.h5ad"))


def _audited(prediction: ad.AnnData, root: Path, folder: Path) -> dict[str, Any]:
    folder.mkdir()
    prediction.write_h5ad(folder / "p.h5ad")
    audit(folder / "p.h5ad", root / "spots" / "W.h5ad", folder, scales_um=[125.0], genes=PANEL)
    return json.loads((folder / "audit.json").read_text())


def test_audit_finds_each_units_own_prediction(prediction, root, tmp_path):
    rng = np.random.default_rng(0)
    moved = prediction[rng.permutation(prediction.n_obs)][:, PANEL[::-1]].copy()
    by_name = _audited(moved, root, tmp_path / "name")
    assert by_name["matched"]["W"]["by"] == "barcode"
    unnamed = moved.copy()
    unnamed.obs_names = [f"spot{i}" for i in range(moved.n_obs)]
    by_place = _audited(unnamed, root, tmp_path / "place")
    assert by_place["matched"]["W"]["by"] == "position"
    for result in (by_name, by_place):
        assert list(result["scales"]) == ["native", "125"]
        assert all(_is_right(figures) for figures in result["scales"].values()), result["scales"]


def test_audit_does_not_find_what_is_not_there(prediction, root, tmp_path):
    rng = np.random.default_rng(0)
    mixed = prediction.copy()
    mixed.X = prediction.X[rng.permutation(prediction.n_obs)]
    assert abs(_audited(mixed, root, tmp_path / "units")["scales"]["native"]["PCC@M"]) < 0.3
    swapped = prediction.copy()
    swapped.X = prediction.X[:, ::-1]
    assert abs(_audited(swapped, root, tmp_path / "genes")["scales"]["native"]["PCC@M"]) < 0.3
