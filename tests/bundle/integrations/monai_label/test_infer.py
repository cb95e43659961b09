from __future__ import annotations

import json

import anndata as ad
import nibabel as nib
import numpy as np
import pytest

from bundle import InputError, workflows
from bundle.data.polygons import Polygons
from bundle.data.read_geojson import read_polygons
from bundle.integrations.monai_label.infer import infer
from bundle.integrations.monai_label.request import SlideRequest


@pytest.fixture(scope="module")
def ask(studies, tiny_run):
    """Ask for something of P3; the file is read and removed."""

    def ask(request: SlideRequest):
        file, about = infer(studies / "P3.tif", tiny_run, request)
        try:
            if file.suffix == ".geojson":
                return json.loads(file.read_text()), read_polygons(file), about
            return nib.load(file).get_fdata(), nib.load(file).affine, about
        finally:
            file.unlink()

    return ask


@pytest.fixture(scope="module")
def genes(tiny_run) -> list[str]:
    return json.loads((tiny_run / "models" / "panel.json").read_text())["genes"]


@pytest.fixture(scope="module")
def predicted(studies, tiny_run, genes, tmp_path_factory) -> ad.AnnData:
    """What `pixnet predict` says of the same units."""
    out = tmp_path_factory.mktemp("predicted") / "bins.h5ad"
    workflows.predict(studies / "P3.tif", out, tiny_run, {"bin_um": 30.0, "genes": genes[:2]})
    return ad.read_h5ad(out)


def test_units_are_those_of_predict_as_squares_in_pixels_of_the_slide(ask, predicted, genes):
    content, polygons, about = ask(SlideRequest("units", (genes[0], genes[1]), 30.0))
    assert list(polygons.names) == list(predicted.obs_names)
    assert set(polygons.types) == {"detection"}
    measured = np.array([[f["properties"]["measurements"][g] for g in genes[:2]] for f in content["features"]])
    np.testing.assert_allclose(measured, predicted.X, atol=1e-4)
    inside = (predicted.obsm["spatial"] > 15).all(1) & (predicted.obsm["spatial"] < 585).all(1)
    np.testing.assert_allclose(
        Polygons.of_shapes(polygons.shapes).centroids_px[inside], predicted.obsm["spatial"][inside], atol=0.01
    )
    np.testing.assert_allclose(Polygons.of_shapes(polygons.shapes).areas_px2[inside], 900, rtol=1e-3)  # 1 µm per pixel
    assert Polygons.of_shapes(polygons.shapes).vertices_px.min() >= 0
    assert Polygons.of_shapes(polygons.shapes).vertices_px.max() <= 600
    assert about["units"] == about["units_found"] == predicted.n_obs
    assert about["pcc_val"] == pytest.approx(predicted.var["pcc_val"].to_dict(), abs=1e-3)
    assert content["pixnet"] == json.loads(json.dumps(about))


def test_a_region_gives_what_the_whole_slide_gives_there(ask, predicted, genes):
    content, polygons, _ = ask(SlideRequest("units", (genes[0],), 30.0, region_px=(150, 210, 240, 180)))
    x, y = predicted.obsm["spatial"].T
    inside = (x >= 150) & (x < 390) & (y >= 210) & (y < 390)
    assert list(polygons.names) == list(predicted.obs_names[inside])
    measured = [f["properties"]["measurements"][genes[0]] for f in content["features"]]
    np.testing.assert_allclose(measured, np.asarray(predicted.X)[inside, 0], atol=2e-4)


def test_the_cap_keeps_the_highest_and_says_so(ask, predicted, genes):
    content, _, about = ask(SlideRequest("units", (genes[0],), 30.0, max_units=10))
    kept = [f["properties"]["measurements"][genes[0]] for f in content["features"]]
    highest = np.sort(np.asarray(predicted.X)[:, 0])[-10:]
    np.testing.assert_allclose(np.sort(kept), highest, atol=1e-4)
    assert (about["units"], about["left_out_by_max_units"]) == (10, predicted.n_obs - 10)


def test_the_threshold_keeps_units_and_draws_contours(ask, predicted, genes):
    values = np.asarray(predicted.X)[:, 0]
    level = float(np.median(values))
    _, polygons, _ = ask(SlideRequest("units", (genes[0],), 30.0, threshold=level))
    assert len(polygons.names) == (values >= level).sum()

    _, contours, about = ask(SlideRequest("contours", (genes[0],), 30.0, threshold=level))
    assert about["contours"] == len(contours.names) > 0
    assert set(contours.types) == {"annotation"}
    outlines = Polygons.of_shapes(contours.shapes)
    assert outlines.vertices_px.min() >= 15 - 0.01  # they run through the units' centres
    share = outlines.areas_px2.sum() / (predicted.n_obs * 900)
    assert 0.2 < share < 0.6
    _, none, about = ask(SlideRequest("contours", (genes[0],), 30.0, threshold=20.0))
    assert about["contours"] == len(none.names) == 0
    assert ask(SlideRequest("contours", (genes[0],), 30.0))[2]["threshold"] == pytest.approx(np.quantile(values, 0.75))


def test_the_map_is_a_volume_of_the_region(ask, genes):
    values, affine, about = ask(SlideRequest("map", (genes[0], genes[1]), 30.0, region_px=(160, 80, 240, 160)))
    cell_um = affine[0, 0] * 1000
    assert values.shape == (round(240 / cell_um), round(160 / cell_um), 1, 2)
    assert np.isfinite(values).all()
    np.testing.assert_allclose(affine[:2, 3] * 1000, [160 + cell_um / 2, 80 + cell_um / 2], rtol=1e-4)
    assert about["region_px"] == (160, 80, 240, 160)


def test_the_device_can_be_named(studies, tiny_run, genes):
    file, about = infer(studies / "P3.tif", tiny_run, SlideRequest("units", (genes[0],), 60.0), {"device": "cpu"})
    file.unlink()
    assert about["units"] > 0


def test_what_is_refused_leaves_no_file(studies, tiny_run, genes, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(InputError, match="lies outside"):
        infer(studies / "P3.tif", tiny_run, SlideRequest("units", (genes[0],), 30.0, region_px=(5000, 0, 100, 100)))
    assert not list(tmp_path.iterdir())
