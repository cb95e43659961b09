from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from bundle.integrations.monai_label.contours import contour_polygons, grid_of


def _area(ring: np.ndarray) -> float:
    x, y = ring.T
    return abs(np.dot(x[:-1], y[1:]) - np.dot(x[1:], y[:-1])) / 2


def _areas(polygons: list[list[np.ndarray]]) -> float:
    return sum(_area(rings[0]) - sum(_area(hole) for hole in rings[1:]) for rings in polygons)


@pytest.fixture
def hills() -> np.ndarray:
    y, x = np.mgrid[:40, :50]
    return np.exp(-((x - 12) ** 2 + (y - 15) ** 2) / 40) + 0.8 * np.exp(-((x - 37) ** 2 + (y - 28) ** 2) / 60)


def test_a_ramp_is_cut_where_it_has_the_level():
    ramp = np.tile(np.arange(11.0), (6, 1))
    ((ring,),) = contour_polygons(ramp, 3.25)
    assert ring[:, 0].min() == pytest.approx(3.25)
    assert _area(ring) == pytest.approx((10 - 3.25) * 5)


def test_rings_are_closed_and_lie_on_the_level(hills):
    polygons = contour_polygons(hills, 0.5)
    assert len(polygons) == 2
    for ring in (r for rings in polygons for r in rings):
        np.testing.assert_array_equal(ring[0], ring[-1])
        # A ring's corners lie between neighbouring values, where bilinear is linear.
        np.testing.assert_allclose(map_coordinates(hills, ring.T[::-1], order=1), 0.5, atol=1e-6)


def test_a_higher_level_encloses_less(hills):
    areas = [_areas(contour_polygons(hills, level)) for level in (0.1, 0.3, 0.5, 0.7, 0.9)]
    assert areas == sorted(areas, reverse=True)
    assert areas[-1] > 0


def test_a_pit_is_a_hole():
    y, x = np.mgrid[:21, :21]
    ((outer, hole),) = contour_polygons(np.minimum(np.hypot(x - 10.0, y - 10.0), 5.0), 3.0)
    assert _area(hole) == pytest.approx(np.pi * 9, rel=0.05)
    assert _area(outer) == 400


def test_nothing_is_said_where_there_are_no_units(hills):
    some = hills.copy()
    some[:, 25:] = np.nan
    polygons = contour_polygons(some, 0.1)
    assert max(ring[:, 0].max() for rings in polygons for ring in rings) <= 24
    assert contour_polygons(np.full((4, 4), np.nan), 0.1) == []


def test_a_level_above_everything_encloses_nothing(hills):
    assert contour_polygons(hills, 2.0) == []


def test_units_become_a_picture_wherever_they_start():
    picture, first = grid_of(np.array([7, 7, 9]), np.array([-2, 0, -1]), np.array([1.0, 2.0, 3.0]))
    assert first == (-2, 7)
    np.testing.assert_array_equal(picture, [[1, np.nan, 2], [np.nan] * 3, [np.nan, 3, np.nan]])
