from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import tifffile

from bundle import workflows
from bundle.data.manifest import read_split
from bundle.data.tissue import STAIN_OWN, TissueMap, stain_distance, stain_of_slides, tissue_fraction
from transforms import SlideReader, TissueMask


@pytest.fixture(scope="module")
def tissue(phantom):
    (record,) = read_split(phantom, "test")
    return TissueMap(SlideReader().open(record["image"]), TissueMask())


def test_a_units_fraction_is_that_of_the_points_inside_it(tissue):
    rng = np.random.default_rng(0)
    centers = rng.uniform(50, 550, (40, 2))
    points = rng.uniform(-50, 50, (4000, 2))
    disk = points[(points**2).sum(1) < 50**2]
    exact = [tissue.at(center + disk).mean() for center in centers]
    np.testing.assert_allclose(tissue_fraction(tissue, centers, "circle", 100.0), exact, atol=0.12)


def test_off_the_slide_is_no_tissue(tissue):
    assert not tissue.at(np.array([[-5.0, 10], [1e6, 10]])).any()


def test_a_slide_is_like_itself_and_unlike_one_restained(phantom, tissue):
    (stain,) = stain_of_slides(read_split(phantom, "test"), SlideReader(), TissueMask())
    np.testing.assert_allclose(stain, tissue.stain)
    assert (tissue.stain > 0.02).all()
    assert stain_distance(tissue.stain, [stain]) == pytest.approx(0, abs=1e-6)
    assert stain_distance(tissue.stain, [[1.0, 1.0, 1.0], stain]) == pytest.approx(0, abs=1e-6)
    assert stain_distance(tissue.stain * 2, [stain]) == pytest.approx(np.log(2))
    assert np.isnan(stain_distance(tissue.stain, []))
    assert np.isnan(stain_distance(np.zeros(3), [stain]))


def test_a_stain_unlike_the_training_slides_is_reported_with_its_distance(phantom, tiny_run, write_slide, tmp_path):
    slide = read_split(phantom, "test")[0]["image"]
    dark = (255 * (tifffile.imread(slide) / 255.0) ** 4).astype(np.uint8)
    paths = {"own": slide, "dark": write_slide(tmp_path / "dark.tif", dark, 1.0, tile_px=256)}
    about = {}
    for name, path in paths.items():
        workflows.predict(path, tmp_path / f"{name}.h5ad", tiny_run, {"bin_um": 100.0})
        about[name] = ad.read_h5ad(tmp_path / f"{name}.h5ad").uns["pixnet"]
    assert about["own"]["stain_distance"] < STAIN_OWN
    assert not [warning for warning in about["own"]["warnings"] if "stained" in warning]
    (said,) = [w for w in about["dark"]["warnings"] if "stained unlike every training slide" in w]
    assert f"{float(about['dark']['stain_distance']):.2g} from the nearest" in said
