from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import cKDTree

from bundle.data.tissue import TissueMap, tissue_fraction
from bundle.errors import InputError
from bundle.inference.lattices import UnitGrid, unit_grids


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


def _centers_um(units, max_units: int = 1000) -> np.ndarray:
    return np.concatenate([band.centers_um for band in units.bands(max_units)])


def test_bins_tile_the_tissue_and_lie_on_the_slides_grid():
    centers_um = _centers_um(UnitGrid("square", 16.0, 16.0).over(_tissue(), "s"))
    np.testing.assert_allclose(np.mod(centers_um, 16.0), 8.0)
    assert len(np.unique(centers_um, axis=0)) == len(centers_um)
    points = np.random.default_rng(0).uniform((200, 100), (600, 500), (500, 2))
    distance = np.abs(points[:, None] - centers_um[None]).max(-1).min(1)
    assert distance.max() <= 8.0


GRIDS = [
    UnitGrid("circle", 55, 100, "hex"),
    UnitGrid("square", 50, 50),
    UnitGrid("square", 2, 2),
    UnitGrid("circle", 3, 7),
]


@pytest.mark.parametrize("grid", GRIDS)
def test_a_lattice_keeps_just_the_units_that_hold_tissue(grid):
    tissue = _tissue()
    units = grid.over(tissue, "s")
    for band in units.bands(5000):
        row, column = np.indices(band.fraction.shape).reshape(2, -1)
        everywhere = np.column_stack([band.x_um[row, column], band.y_um[row]])
        expected = tissue_fraction(tissue, everywhere, units.shape, units.size_um)
        np.testing.assert_allclose(band.fraction.ravel(), expected, atol=1e-6)
    outside = grid.over(tissue, "s", (0, 0, 1000, 1000))
    assert len(outside) == len(units)


@pytest.mark.parametrize("grid", GRIDS)
def test_bands_of_any_height_give_the_same_units_in_the_same_order(grid):
    units = grid.over(_tissue(), "s")
    whole = _centers_um(units, 10**9)
    assert len(whole) == len(units)
    np.testing.assert_array_equal(_centers_um(units, 1), whole)
    names = np.concatenate([units.names(band) for band in units.bands(999)])
    assert len(set(names)) == len(names) == len(whole)
    assert names.dtype.kind == "S"


def test_a_region_keeps_its_units_alone():
    units = UnitGrid("square", 10, 10).over(_tissue(), "s", (300, 200, 100, 50))
    centers = _centers_um(units)
    assert ((centers >= (300, 200)) & (centers < (400, 250))).all()
    assert len(centers) == 50
    neighbour = UnitGrid("square", 10, 10).over(_tissue(), "s", (400, 200, 100, 50))
    assert not {tuple(c) for c in centers} & {tuple(c) for c in _centers_um(neighbour)}
    with pytest.raises(InputError, match="no tissue"):
        UnitGrid("square", 10, 10).over(_tissue(), "s", (700, 700, 50, 50))


def test_hex_neighbours_are_one_pitch_apart():
    centers = _centers_um(UnitGrid("circle", 55, 100, "hex").over(_tissue(), "s"))
    distance, _ = cKDTree(centers).query(centers, k=3)
    np.testing.assert_allclose(distance[:, 1], 100, rtol=1e-6)


def test_bad_grids_are_reported_in_a_sentence():
    with pytest.raises(InputError, match="no lattice"):
        UnitGrid("circle", 50, 100, "triangle")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="above 0"):
        UnitGrid("square", 0, 0)
    with pytest.raises(InputError, match="no tissue"):
        UnitGrid("square", 16, 16).over(_tissue(lambda image, mpp: image[:1] < 0), "s")
    with pytest.raises(InputError, match="not both"):
        unit_grids(spot_um=55, bin_um=8)
    with pytest.raises(InputError, match="pitch alone"):
        unit_grids(pitch_um=100)
    assert unit_grids() == []
    assert [grid.size_um for grid in unit_grids(bin_um=[8, 16, 8])] == [8, 16]


def test_a_band_of_large_units_is_no_higher_than_allowed():
    units = UnitGrid("square", 50, 50).over(_tissue(), "s")
    heights = [len(band.rows) * 50 for band in units.bands(10**9, 120.0)]
    assert max(heights) == 100
    assert sum(heights) == len(units.rows) * 50


def test_each_request_has_a_digest_of_its_own():
    grid = UnitGrid("square", 50, 50)
    others = [
        grid.over(_tissue(), "s"),
        grid.over(_tissue(), "s", (200, 100, 200, 200)),
        grid.over(_tissue(), "s", (250, 100, 200, 200)),
        UnitGrid("square", 50, 60).over(_tissue(), "s"),
        grid.over(_tissue(lambda image, mpp: image[:1] < 101), "s"),
    ]
    names = [units.digest for units in others]
    assert names[0] == names[4]  # the same tissue
    assert len(set(names[:4])) == 4


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"bin_um": 1e-6}, r"would be 1\.6e\+17"),
        ({"bin_um": 1e-300}, "would be inf"),
        ({"spot_um": 1e-9, "pitch_um": 1e-9, "lattice": "hex"}, r"would be 1\.8"),
        ({"bin_um": 1e9}, "too small for units of 1e"),
        ({"spot_um": 1001.0}, "too small for units of 1001 µm"),
    ],
)
@pytest.mark.parametrize("region_um", [None, (300, 200, 100, 1e-7)])
def test_lattices_that_could_not_be_written_are_refused_at_once(asked, message, region_um):
    (grid,) = unit_grids(**asked)
    with pytest.raises(InputError, match=message if region_um is None else "would be|too small|no unit"):
        grid.over(_tissue(), "s", region_um)
