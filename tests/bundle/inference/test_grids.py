from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import cKDTree

from bundle.errors import InputError
from bundle.inference.grids import UnitGrid
from bundle.inference.prediction import unit_grid
from bundle.tissue import TissueMap, tissue_fraction


class _Slide:
    """Tissue is a rectangle from (200, 100) to (600, 500) µm."""

    mpp = 0.5
    level_dimensions = ((2000, 2000),)

    def thumbnail(self, max_px: int) -> tuple[np.ndarray, float]:
        image = np.full((200, 200, 3), 255, np.uint8)
        image[20:100, 40:120] = 100
        return image, 5.0


def _tissue(mask=lambda image, mpp: image[:1] < 200) -> TissueMap:
    return TissueMap(_Slide(), mask)


def test_bins_tile_the_tissue_and_lie_on_the_slides_grid():
    units = UnitGrid("square", 16.0, 16.0).over(_tissue(), 0.5, "s")
    centers_um = units.centers_px * 0.5
    np.testing.assert_allclose(np.mod(centers_um, 16.0), 8.0)
    assert len(np.unique(centers_um, axis=0)) == len(units)
    points = np.random.default_rng(0).uniform((200, 100), (600, 500), (500, 2))
    distance = np.abs(points[:, None] - centers_um[None]).max(-1).min(1)
    assert distance.max() <= 8.0


def test_every_unit_of_a_grid_holds_tissue():
    tissue = _tissue()
    for grid in (UnitGrid("circle", 55, 100, "hex"), UnitGrid("square", 50, 50)):
        units = grid.over(tissue, 0.5, "s")
        fraction = tissue_fraction(tissue, units.centers_px * 0.5, units.shape, units.size_um)
        assert (fraction > 0).all()
        assert (fraction <= 1).all()
        assert fraction.max() == 1


def test_hex_neighbours_are_one_pitch_apart():
    units = UnitGrid("circle", 55, 100, "hex").over(_tissue(), 0.5, "s")
    distance, _ = cKDTree(units.centers_px * 0.5).query(units.centers_px * 0.5, k=3)
    np.testing.assert_allclose(distance[:, 1], 100, rtol=1e-6)


def test_bad_grids_are_told_in_a_sentence():
    with pytest.raises(InputError, match="overlap"):
        UnitGrid("circle", 100, 50)
    with pytest.raises(InputError, match="no lattice"):
        UnitGrid("circle", 50, 100, "triangle")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="above 0"):
        UnitGrid("square", 0, 0)
    with pytest.raises(InputError, match="no tissue"):
        UnitGrid("square", 16, 16).over(_tissue(lambda image, mpp: image[:1] < 0), 0.5, "s")
    with pytest.raises(InputError, match="not both"):
        unit_grid(spot_um=55, bin_um=8)
    with pytest.raises(InputError, match="pitch alone"):
        unit_grid(pitch_um=100)
    assert unit_grid() is None
